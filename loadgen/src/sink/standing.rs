//! What a host, a group of hosts or a recipient domain remembers of its clients.

#![expect(
    clippy::disallowed_types,
    reason = "no shard: several threads count for one group of hosts"
)]

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::behaviour::Stage;
use super::bucket::Bucket;
use super::chance::{draw, hash};
use super::personality::{Greylist, GreylistKey, Limit, LimitKey, Personality, Reply, Tarpit};
use super::rulings::Case;
use super::watch::Watch;
use crate::clock::SECOND_NS;

/// Keys that greylisting remembers; beyond them it lets everyone in.
const GREYLIST_MAX: usize = 1 << 20;
/// Recipients whose tries are counted; beyond them a try is told apart by its connection.
const TRIES_MAX: usize = 1 << 20;
/// Clients with a bucket of their own; beyond them all others share one.
const CLIENTS_MAX: usize = 1 << 16;
/// What counts as of the last minute, in seconds.
const MINUTE: usize = 60;

/// One memory, perhaps of hosts on several threads.
#[derive(Debug, Clone)]
pub(super) struct Standing(Arc<Mutex<Memory>>);

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) watch: Watch,
    /// Connections at once.
    connections: u64,
    /// By the place of the limit in the personality, and the client if it is of one.
    buckets: HashMap<(usize, Option<IpAddr>), Bucket>,
    /// When a key was first seen, or that it was let in.
    greylisted: HashMap<u64, Greylisted>,
    tries: HashMap<u64, u64>,
    minute: LastMinute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greylisted {
    Since(u64),
    LetIn,
}

impl Standing {
    pub(super) fn new(name: &str, started_ns: u64) -> Self {
        Self(Arc::new(Mutex::new(Memory {
            watch: Watch::new(name, started_ns),
            connections: 0,
            buckets: HashMap::new(),
            greylisted: HashMap::new(),
            tries: HashMap::new(),
            minute: LastMinute::default(),
        })))
    }

    /// A thread that panicked here left counts behind, and nothing half done.
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Takes over connections that were opened under another personality.
    pub(super) fn adopt(&mut self, connections: u64) {
        self.connections += connections;
    }

    pub(super) fn abandon(&mut self, connections: u64) {
        self.connections -= connections;
    }

    /// Counts a connection; returns how many there are now.
    pub(super) fn open(&mut self, personality: &Personality, now: u64) -> u64 {
        self.connections += 1;
        self.watch.handle_connect(&personality.cap, self.connections, now);
        self.connections
    }

    pub(super) fn close(&mut self) {
        self.connections -= 1;
    }

    /// Counts a message begun, the `nth` of its connection.
    pub(super) fn begin_message(&mut self, personality: &Personality, nth: u64, now: u64) {
        if personality.tarpit.is_some() {
            self.minute.count(now);
        }
        self.watch.handle_message(&personality.cap, nth, now);
    }

    /// What the first bucket that is empty replies.
    pub(super) fn limited(
        &mut self,
        limits: &[Limit],
        at: Stage,
        client: IpAddr,
        now: u64,
    ) -> Option<Reply> {
        for (place, limit) in limits.iter().enumerate().filter(|(_, limit)| limit.at == at) {
            let is_full = self.buckets.len() >= CLIENTS_MAX;
            let known = |client: &IpAddr| self.buckets.contains_key(&(place, Some(*client)));
            let client = (limit.per == LimitKey::Client)
                .then_some(client)
                .filter(|client| !is_full || known(client));
            let bucket = self.buckets.entry((place, client));
            if !bucket.or_insert_with(|| Bucket::new(limit.rate.burst, now)).take(
                limit.rate.per_second,
                limit.rate.burst,
                now,
            ) {
                return Some(limit.reply.clone());
            }
        }
        None
    }

    /// Refuses a key that is new, too early, or too late.
    pub(super) fn greylisted(&mut self, rule: &Greylist, case: &Case, now: u64) -> Option<Reply> {
        let key = match rule.by {
            GreylistKey::Recipient => case.recipient,
            GreylistKey::Triple => draw(network(case.client), &[case.sender, case.recipient]),
        };
        let is_full = self.greylisted.len() >= GREYLIST_MAX;
        let Some(seen) = self.greylisted.get_mut(&key) else {
            if is_full {
                return None;
            }
            self.greylisted.insert(key, Greylisted::Since(now));
            return Some(rule.reply.clone());
        };
        let Greylisted::Since(first) = *seen else { return None };
        let waited = now.saturating_sub(first);
        let is_late = rule.window.ns() > 0 && waited > rule.window.ns();
        if is_late {
            *seen = Greylisted::Since(now);
        } else if waited >= rule.after.ns() {
            *seen = Greylisted::LetIn;
        }
        (*seen != Greylisted::LetIn).then(|| rule.reply.clone())
    }

    /// The number of this try for a recipient, from 1.
    pub(super) fn count_try(&mut self, recipient: u64, connection: u64) -> u64 {
        if self.tries.len() >= TRIES_MAX && !self.tries.contains_key(&recipient) {
            return connection;
        }
        let tries = self.tries.entry(recipient).or_insert(0);
        *tries += 1;
        *tries
    }

    /// How much longer every reply waits at the moment.
    pub(super) fn tar(&mut self, tarpit: &Tarpit, now: u64) -> u64 {
        let connections = self.connections.saturating_sub(tarpit.free_connections);
        let messages = self.minute.sum(now).saturating_sub(tarpit.free_messages);
        let by_connections = tarpit.per_connection.ns().saturating_mul(connections);
        let by_messages = tarpit.per_message.ns().saturating_mul(messages);
        by_connections.saturating_add(by_messages).min(tarpit.max.ns())
    }
}

/// What counts as one network to a greylist: /24, or /64.
fn network(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash(&address.octets()[..3]),
        IpAddr::V6(address) => hash(&address.octets()[..8]),
    }
}

/// Counts by the second of the last minute.
#[derive(Debug)]
struct LastMinute {
    seconds: [u64; MINUTE],
    /// The second that was counted last.
    last: u64,
}

impl Default for LastMinute {
    fn default() -> Self {
        Self { seconds: [0; MINUTE], last: 0 }
    }
}

impl LastMinute {
    fn count(&mut self, now: u64) {
        self.forget(now);
        let place = self.place(self.last);
        self.seconds[place] += 1;
    }

    fn sum(&mut self, now: u64) -> u64 {
        self.forget(now);
        self.seconds.iter().sum()
    }

    /// Clears the seconds that have gone by since the last.
    fn forget(&mut self, now: u64) {
        let second = (now / SECOND_NS).max(self.last);
        for gone in (self.last + 1..=second).take(MINUTE) {
            let place = self.place(gone);
            self.seconds[place] = 0;
        }
        self.last = second;
    }

    fn place(&self, second: u64) -> usize {
        usize::try_from(second % self.seconds.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::sink::personality::Span;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn personality(text: &str) -> Personality {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_greylist_lets_in_between_its_delay_and_its_window() {
        let traits = personality("greylist = { after = \"10s\", window = \"60s\" }");
        let rule = traits.greylist.unwrap();
        let standing = Standing::new("mx0", 0);
        let at = |second: u64, sender: u64, client: IpAddr| {
            let case = Case { sender, client, ..Case::new(0, 1, client) };
            standing.lock().greylisted(&rule, &case, second * SECOND_NS).is_none()
        };
        let tries = [(0, false), (9, false), (10, true), (11, true), (500, true)];
        for (second, is_in) in tries {
            assert_eq!(at(second, 1, CLIENT), is_in, "at {second} s");
        }
        // Too late is a first try again, of another sender.
        for (second, is_in) in [(0, false), (61, false), (62, false), (71, true)] {
            assert_eq!(at(second, 2, CLIENT), is_in, "at {second} s");
        }
        assert!(!at(600, 3, CLIENT));
        assert!(at(620, 3, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200))), "the same /24");
        assert!(!at(620, 3, IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))), "another network");
        assert!(!at(620, 3, IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn a_limit_is_of_the_host_or_of_each_client() {
        let traits = personality(
            "limits = [{ at = \"mail\", rate = \"1/s burst 2\", per = \"client\" },\
             { at = \"mail\", rate = \"0/s burst 3\", reply = \"busy\" }]",
        );
        let standing = Standing::new("mx0", 0);
        let code = |client: IpAddr, now: u64| {
            let reply = standing.lock().limited(&traits.limits, Stage::Mail, client, now);
            reply.map(|reply| reply.wire()[4..9].to_vec())
        };
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
        assert_eq!(code(CLIENT, 0), None);
        assert_eq!(code(CLIENT, 0), None);
        assert_eq!(code(CLIENT, 0).unwrap(), b"4.7.0");
        assert_eq!(code(other, 0), None);
        assert_eq!(code(other, 0).unwrap(), b"4.3.2", "the host is out of tokens");
        assert_eq!(standing.lock().limited(&traits.limits, Stage::Banner, CLIENT, 0), None);
    }

    #[test]
    fn a_tarpit_grows_with_connections_and_messages_up_to_its_bound() {
        let traits = personality(
            "tarpit = { per_connection = \"10ms\", free_connections = 1, per_message = \"1ms\", \
             max = \"50ms\" }",
        );
        let tarpit = traits.tarpit.unwrap();
        let standing = Standing::new("mx0", 0);
        let mut memory = standing.lock();
        let ms =
            |memory: &mut Memory, second: u64| memory.tar(&tarpit, second * SECOND_NS) / 1_000_000;
        memory.open(&traits, 0);
        assert_eq!(ms(&mut memory, 0), 0);
        memory.open(&traits, 0);
        memory.open(&traits, 0);
        assert_eq!(ms(&mut memory, 0), 20);
        (0..7).for_each(|nth| memory.begin_message(&traits, nth, SECOND_NS));
        memory.begin_message(&traits, 8, 30 * SECOND_NS);
        assert_eq!(ms(&mut memory, 30), 28);
        assert_eq!(ms(&mut memory, 60), 28);
        assert_eq!(ms(&mut memory, 61), 21, "seven are a minute old");
        assert_eq!(ms(&mut memory, 90), 20);
        (0..90).for_each(|nth| memory.begin_message(&traits, nth, 91 * SECOND_NS));
        assert_eq!(ms(&mut memory, 91), 50);
        memory.close();
        memory.close();
        assert_eq!(ms(&mut memory, 1000), 0);
        assert_eq!(tarpit.max, "50ms".parse::<Span>().unwrap());
    }

    #[test]
    fn tries_are_counted_by_recipient() {
        let standing = Standing::new("mx0", 0);
        let mut memory = standing.lock();
        assert_eq!([1, 1, 2, 1].map(|recipient| memory.count_try(recipient, 9)), [1, 2, 1, 3]);
    }
}
