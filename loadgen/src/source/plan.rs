//! What a source shall do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Credentials, Domains, Recipients, Schedule, Sizes};
use crate::loopback;

#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Where to submit; the loopback only.
    pub to: SocketAddr,
    /// Written into every token, so that a sink knows the mail of this run.
    pub run: u64,
    /// The first sequence; each message takes the next one.
    pub first_sequence: u64,
    /// How many messages to offer; `None` leaves the end to `duration` or [`super::Source::stop`].
    pub messages: Option<u64>,
    /// For how long to offer messages.
    pub duration: Option<Duration>,
    /// Messages per second on a fixed schedule (open loop: latency counts from the intended
    /// start); `None` offers the next when a session is free (closed loop: saturation).
    pub rate: Option<f64>,
    /// An open loop of another shape; takes the place of `rate`.
    pub schedule: Option<Schedule>,
    /// Connections, over all threads.
    pub sessions: usize,
    pub threads: usize,
    /// Bytes of a message, header block and body, before dot stuffing.
    pub size: usize,
    /// Sizes of another kind; takes the place of `size`.
    pub sizes: Option<Sizes>,
    pub domains: Domains,
    pub recipients_per_message: usize,
    /// A choice of numbers; takes the place of `recipients_per_message`.
    pub recipients: Option<Recipients>,
    pub sender: String,
    /// Sends envelopes in one flight, and the next with the text, where the server offers it.
    pub pipelining: bool,
    /// Sends texts by BDAT where the server offers it: with pipelining, a message in one flight.
    pub chunking: bool,
    /// Begins every session with STARTTLS; one that is not offered it is given up.
    pub tls: bool,
    /// Logs in with AUTH PLAIN; a session that is not offered it is given up.
    pub auth: Option<Credentials>,
    /// Connects from so many addresses of the loopback in turn; zero leaves it to the system.
    pub source_addresses: usize,
    /// Ends a session with QUIT after so many messages, and opens another.
    pub messages_per_session: Option<u64>,
    /// Connects again after a loss, and offers what was in doubt under a new sequence.
    pub reconnect: bool,
    pub helo: String,
    /// Decides domains and bodies.
    pub seed: u64,
}

impl SourcePlan {
    /// A plan with usual values: 50 sessions on one thread, 4 KiB, saturation.
    pub fn new(to: SocketAddr, domains: Domains) -> Self {
        Self {
            to,
            run: 1,
            first_sequence: 0,
            messages: None,
            duration: None,
            rate: None,
            schedule: None,
            sessions: 50,
            threads: 1,
            size: 4096,
            sizes: None,
            domains,
            recipients_per_message: 1,
            recipients: None,
            sender: "sender@source.test".to_owned(),
            pipelining: false,
            chunking: false,
            tls: false,
            auth: None,
            source_addresses: 0,
            messages_per_session: None,
            reconnect: false,
            helo: "source.test".to_owned(),
            seed: 1,
        }
    }

    /// The schedule of an open loop; `None` is saturation.
    pub fn open_loop(&self) -> Option<Schedule> {
        self.schedule.or_else(|| self.rate.map(Schedule::constant))
    }

    pub fn message_sizes(&self) -> Sizes {
        self.sizes.clone().unwrap_or(Sizes::Fixed(self.size))
    }

    /// How many recipients each message has; says what is wrong with the number.
    pub fn message_recipients(&self) -> Result<Recipients, String> {
        match &self.recipients {
            Some(recipients) => Ok(recipients.clone()),
            None => Recipients::fixed(self.recipients_per_message),
        }
    }

    /// Threads that have a session.
    pub fn thread_count(&self) -> usize {
        self.threads.clamp(1, self.sessions.max(1))
    }

    pub(super) fn check(&self) -> io::Result<()> {
        loopback::require_loopback(self.to)?;
        let wrong = if self.sessions == 0 {
            "a source needs a session".to_owned()
        } else if let Err(wrong) = self.message_recipients() {
            wrong
        } else if let Some(Err(wrong)) = self.open_loop().map(|schedule| schedule.check()) {
            wrong
        } else if self.messages_per_session == Some(0) {
            "a session needs a message".to_owned()
        } else if self.source_addresses > loopback::SOURCE_ADDRESSES_MAX {
            format!("at most {} source addresses are possible", loopback::SOURCE_ADDRESSES_MAX)
        } else if self.source_addresses > 0 && self.to.is_ipv6() {
            "IPv6 has only one loopback address: no source addresses there".to_owned()
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}
