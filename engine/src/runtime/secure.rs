//! Joins the ring driver to the handshake threads: connections become keys, steps become words.

use std::collections::VecDeque;

use super::crypto::{self, StepOutcome};
use super::ring::{self, Step};
use super::tls;
use crate::model::connection::{Conn, TlsError};

/// The handshakes of one shard.
pub(super) struct ShardHandshakes {
    threads: crypto::Handshakes,
    /// What one step had to say, in order. Bounded by two words a step.
    said: VecDeque<(Conn, Step)>,
}

impl ShardHandshakes {
    pub(super) fn new(threads: crypto::Handshakes) -> Self {
        Self { threads, said: VecDeque::new() }
    }

    fn say(&mut self, conn: Conn, step: crypto::Step) {
        if !step.outgoing.is_empty() {
            self.said.push_back((conn, Step::Send(step.outgoing)));
        }
        match step.outcome {
            StepOutcome::NeedsInput => {}
            StepOutcome::Done { stream, facts, unopened } => {
                let stream = Box::new(Stream { tls: stream, unopened, plain: Vec::new() });
                self.said.push_back((conn, Step::Done(stream, facts)));
            }
            StepOutcome::Failed(error) => self.said.push_back((conn, Step::Failed(error))),
        }
    }
}

impl ring::Handshakes for ShardHandshakes {
    fn start(&mut self, conn: Conn, name: &str) {
        if let Err(error) = self.threads.start(key(conn), name) {
            self.said.push_back((conn, Step::Failed(error)));
        }
    }

    fn feed(&mut self, conn: Conn, wire: &[u8]) -> Result<(), TlsError> {
        self.threads.feed(key(conn), wire)
    }

    fn cancel(&mut self, conn: Conn) {
        self.threads.cancel(key(conn));
        self.said.retain(|(other, _)| *other != conn);
    }

    fn poll(&mut self) -> Option<(Conn, Step)> {
        while self.said.is_empty() {
            let (key, step) = self.threads.poll_finished()?;
            self.say(conn(key), step);
        }
        self.said.pop_front()
    }
}

/// A session as the driver wants it: plaintext lent, not appended.
struct Stream {
    tls: tls::TlsStream,
    /// What came behind the handshake, for the first `open`.
    unopened: Vec<u8>,
    plain: Vec<u8>,
}

impl ring::TlsStream for Stream {
    fn open(
        &mut self,
        wire: &[u8],
        plain: &mut dyn FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let early = std::mem::take(&mut self.unopened);
        let opened = self
            .tls
            .open(&early, &mut self.plain)
            .and_then(|_| self.tls.open(wire, &mut self.plain));
        if !self.plain.is_empty() {
            plain(&self.plain);
            self.plain.clear();
        }
        // A peer that closed says so with its EOF too, which the driver waits for.
        opened.map(drop).inspect_err(|_| self.tls.close_notify(answer))
    }

    fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError> {
        self.tls.seal(plain, wire)
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        self.tls.close_notify(wire);
    }
}

/// Slot and generation: never the same twice while anyone remembers it.
fn key(conn: Conn) -> u64 {
    u64::from(conn.slot) << 32 | u64::from(conn.generation)
}

fn conn(key: u64) -> Conn {
    let part = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX);
    Conn { slot: part(key >> 32), generation: part(key & u64::from(u32::MAX)) }
}
