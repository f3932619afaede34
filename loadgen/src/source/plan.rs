//! What a source shall do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Domains;
use crate::loopback;
use crate::message::RECIPIENTS_MAX;

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
    /// Connections, over all threads.
    pub sessions: usize,
    pub threads: usize,
    /// Bytes of a message, header block and body, before dot stuffing.
    pub size: usize,
    pub domains: Domains,
    pub recipients_per_message: usize,
    pub sender: String,
    /// Sends envelopes in one flight, and the next with the text, where the server offers it.
    pub pipelining: bool,
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
            sessions: 50,
            threads: 1,
            size: 4096,
            domains,
            recipients_per_message: 1,
            sender: "sender@source.test".to_owned(),
            pipelining: false,
            messages_per_session: None,
            reconnect: false,
            helo: "source.test".to_owned(),
            seed: 1,
        }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        loopback::require_loopback(self.to)?;
        let recipients = self.recipients_per_message;
        let wrong = if self.sessions == 0 {
            "a source needs a session".to_owned()
        } else if recipients == 0 || recipients > RECIPIENTS_MAX {
            format!("{recipients} recipients per message: 1 to {RECIPIENTS_MAX} are possible")
        } else if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            "a rate is a number above zero".to_owned()
        } else if self.messages_per_session == Some(0) {
            "a session needs a message".to_owned()
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}
