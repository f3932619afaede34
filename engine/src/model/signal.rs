//! What an attempt tells of a site: the cause of what went wrong, how long each phase took, and
//! which of its hosts it was.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Mono;
use crate::model::outcome::Reply;
use crate::model::route::HOSTS_MAX;

/// What a reply, or its absence, is about. What is to be done follows from it: only some causes
/// are a reason to send less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing went wrong.
    #[default]
    None,
    /// The site wants less, or slower: 421, 4.7.x, words about rates and load.
    Throttle,
    /// The site is out of order: no connection, no reply in time, a reply out of place, its own
    /// local error.
    Site,
    /// This mailbox: unknown, full, disabled, or one more than the host takes in a message.
    Recipient,
    /// This message: its size, its sender address, what it says.
    Content,
    /// Who we are: block lists, reputation, authentication.
    Policy,
    /// To be tried again by the message's own clock, as all that come for the first time.
    Greylist,
    /// This machine: nothing of the kind was said by anybody.
    Local,
}

/// What was said against us, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub cause: Cause,
    pub reply: Reply,
}

/// Which host of a target: its place there, and the address that was connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    pub host: u8,
    pub ip: IpAddr,
}

/// Why a conversation came to nothing, where, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    pub reply: Reply,
    /// `None`: no host was tried.
    pub remote: Option<Remote>,
    /// Of its connection, as far as no delivery was reported with them.
    pub phases: Phases,
}

impl Trouble {
    /// Trouble that no host in particular has made.
    #[must_use]
    pub fn nowhere(cause: Cause, reply: Reply) -> Box<Self> {
        Box::new(Self { cause, reply, remote: None, phases: Phases::default() })
    }
}

/// How long something took: whole microseconds, at least one, or that it did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took(u32);

impl Took {
    /// It did not happen.
    pub const NOT: Self = Self(0);

    /// From `begin` to `end`; all above 71 minutes is the same.
    #[must_use]
    pub fn between(begin: Mono, end: Mono) -> Self {
        let micros = end.since(begin).as_micros().max(1);
        Self(u32::try_from(micros).unwrap_or(u32::MAX))
    }

    /// The time, if it happened.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_micros(u64::from(self.0)))
    }

    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

/// How long the phases of a conversation took. A reply is measured from its command, or from the
/// reply before it where that came later: what a host needs for the command before is not counted
/// against the one behind it in the same flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Up to the connection. This, greeting and TLS are told once for each connection.
    pub connect: Took,
    /// From the connection to the greeting.
    pub greeting: Took,
    /// The handshake.
    pub tls: Took,
    pub mail: Took,
    /// All recipients of the delivery.
    pub rcpt: Took,
    pub data: Took,
    /// From when the kernel had taken the final dot, if that was known before the reply.
    pub dot: Took,
}

/// Some hosts of one target, by their places in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSet(u32);

const _: () = assert!(HOSTS_MAX <= 32, "a host set has a bit for each host of a target");

impl HostSet {
    pub const EMPTY: Self = Self(0);

    /// Adds the host at `place`; beyond the hosts of any target, nothing.
    pub fn insert(&mut self, place: u8) {
        if usize::from(place) < HOSTS_MAX {
            self.0 |= 1 << place;
        }
    }

    #[must_use]
    pub fn holds(self, place: u8) -> bool {
        usize::from(place) < HOSTS_MAX && self.0 & (1 << place) != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_no_time_is_told_from_what_did_not_happen() {
        assert_eq!(Took::NOT.duration(), None);
        assert_eq!(Took::between(Mono(5), Mono(5)).duration(), Some(Duration::from_micros(1)));
        let second = Took::between(Mono(0), Mono(1_000_000_000));
        assert_eq!(second.duration(), Some(Duration::from_secs(1)));
        assert_eq!(second.and(second).duration(), Some(Duration::from_secs(2)));
        let long = Took::between(Mono(0), Mono::NEVER);
        assert_eq!(long.and(second), long, "no time wraps around");
    }

    #[test]
    fn a_host_set_holds_what_was_put_in() {
        let mut hosts = HostSet::EMPTY;
        assert!(hosts.is_empty() && !hosts.holds(0));
        for place in [0, 19, 20, 255] {
            hosts.insert(place);
        }
        let held: Vec<u8> = (0..=255).filter(|place| hosts.holds(*place)).collect();
        assert_eq!(held, [0, 19]);
    }
}
