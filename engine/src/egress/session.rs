//! One permit's conversation with a site: connect, greet, secure, pass letters, part.
//!
//! ```text
//! Connecting -> Opening -> [Securing -> Opening] -> Open -> Quitting -> Closing -> Over
//!     ^            |            |                    |                     |
//!     +- Resting <-+------------+--- Closing <-------+                     +-> Resting -> Over
//! ```
//! The permit is held until the peer's end of every connection is known, or one second after we
//! stopped waiting for it: a host must never count more connections than we have permits.

mod opening;
mod parting;
mod talking;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::{Awaited, Exchange};
use super::itinerary::{Hop, Itinerary};
use super::letter::Letter;
use super::order::{Memory, Order, Outbox};
use crate::base::time::{Mono, Now};
use crate::model::connection::{Close, ConnectError, End, TlsError, TlsFacts};
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::message::{Place, Slice};
use crate::model::note::{Attempt, Cause, Done, LeaseEnd, Opening, Phases, Took, Trouble};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::settings::{OutcomeDurability, StageTimeouts, TlsMode};
use crate::wire::smtp::reply::ReplyReader;

pub use super::exchange::WORK_AHEAD_MAX;

/// How long a connection whose other end we do not know still counts.
const PERMIT_QUARANTINE: Duration = Duration::from_secs(1);

/// What all sessions share.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// Our name in EHLO.
    pub hostname: Box<str>,
    pub tls: TlsMode,
    pub outcomes: OutcomeDurability,
}

#[derive(Debug)]
pub struct Session {
    opening: Opening,
    options: Arc<EgressOptions>,
    itinerary: Itinerary,
    phase: Phase,
    /// Whether one connection more was given leave to.
    has_leave: bool,
    owner: Owner,
    security: Security,
    reader: ReplyReader,
    exchange: Exchange,
    awaited: Awaited,
    deadline: Mono,
    /// How long the connection has taken to open so far, and when what it does now began.
    phases: Phases,
    since: Mono,
    /// The worst that hosts tried so far have done; a word of theirs beats silence.
    trouble: Option<LeaseEnd>,
    out: Outbox,
}

#[derive(Debug)]
enum Phase {
    /// For leave to connect again, where connections are paced.
    Asking(Hop),
    Connecting,
    /// A reply is awaited before mail can go.
    Opening(Opener),
    Securing,
    Open,
    /// QUIT was sent.
    Quitting,
    /// We closed; the peer's end is awaited.
    Closing(Next),
    /// The peer may still count the connection; we wait until it cannot.
    Resting(Next),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opener {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
}

/// What follows when a connection is truly gone.
#[derive(Debug)]
enum Next {
    /// The next host or address.
    Another,
    /// The same address, in clear.
    InClear,
    Finish(LeaseEnd),
}

/// Whether the owner may send more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    MaySend,
    IsDone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Clear,
    Encrypted,
    /// A handshake with this address failed: not tried again.
    Failed,
}

/// Events.
impl Session {
    /// Begins to connect; the first orders are ready to be polled.
    #[must_use]
    pub fn new(opening: Opening, options: Arc<EgressOptions>, now: Now) -> Self {
        let exchange = Exchange::new(options.outcomes, opening.settings.messages_per_connection);
        let mut session = Self {
            itinerary: Itinerary::new(
                Arc::clone(&opening.target),
                opening.source.clone(),
                opening.skip,
            ),
            opening,
            options,
            phase: Phase::Connecting,
            has_leave: true,
            owner: Owner::MaySend,
            security: Security::Clear,
            reader: ReplyReader::default(),
            awaited: exchange.awaited(),
            exchange,
            deadline: Mono::NEVER,
            phases: Phases::default(),
            since: now.mono,
            trouble: None,
            out: Outbox::default(),
        };
        session.try_another(now);
        session
    }

    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.opening.lease
    }

    /// Connections that each address of the site may have.
    #[must_use]
    pub fn connections_per_ip(&self) -> Option<u32> {
        self.opening.settings.connections_per_ip
    }

    /// Takes a delivery whose record is at hand. More than [`WORK_AHEAD_MAX`], or work after the
    /// end, comes back untried.
    pub fn handle_work(&mut self, now: Now, letter: Letter) {
        let is_ending = matches!(
            self.phase,
            Phase::Quitting
                | Phase::Closing(Next::Finish(_))
                | Phase::Resting(Next::Finish(_))
                | Phase::Over
        );
        let refused = if is_ending { Some(letter) } else { self.exchange.add(letter).err() };
        if let Some(letter) = refused {
            self.out.push(Order::Done(Done::new(&letter.delivery, Attempt::NotTried)));
        }
        self.carry_on(now);
    }

    /// A delivery whose record could not be read.
    pub fn handle_unreadable(&mut self, _now: Now, delivery: &Delivery) {
        self.out.push(Order::Done(Done::new(delivery, Attempt::Unreadable)));
    }

    /// The owner has no more work: the session ends when what it holds is done.
    pub fn handle_close(&mut self, now: Now) {
        self.owner = Owner::IsDone;
        self.carry_on(now);
    }

    /// The answer to [`Order::Connect`].
    pub fn handle_connected(&mut self, now: Now, result: Result<(), ConnectError>) {
        if !matches!(self.phase, Phase::Connecting) {
            return;
        }
        self.has_leave = false;
        self.itinerary.handle_tried();
        match result {
            Ok(()) => {
                self.reader = ReplyReader::default();
                self.phases.connect = self.lap(now);
                self.await_opener(Opener::Greeting, now);
            }
            Err(ConnectError::Refused) => {
                let trouble = self.site_trouble(self.unanswered("connection refused"));
                self.remember(LeaseEnd::Unreachable(trouble));
                self.go_on(Next::Another, now);
            }
            Err(ConnectError::TimedOut) => {
                let trouble = self.site_trouble(self.unanswered("connection timed out"));
                self.remember(LeaseEnd::Unreachable(trouble));
                self.rest(Next::Another, now);
            }
            Err(ConnectError::Local) => {
                let text = "no port, descriptor or memory left to connect with";
                self.finish_locally(text, now);
            }
            Err(ConnectError::Source) => {
                let text = self.source_missing();
                self.finish_locally(&text, now);
            }
        }
    }

    /// The answer to [`Order::Another`]: whether to connect, or the rate allows none for long.
    pub fn handle_leave(&mut self, now: Now, may_connect: bool) {
        let Phase::Asking(hop) = self.phase else { return };
        if !may_connect || self.is_unneeded() {
            return self.give_up(now);
        }
        self.has_leave = true;
        self.connect(hop, now);
    }

    /// The other answer to [`Order::Connect`], at once: the remote address has as many
    /// connections as it may.
    pub fn handle_busy(&mut self, now: Now) {
        if matches!(self.phase, Phase::Connecting) {
            self.itinerary.handle_busy();
            self.go_on(Next::Another, now);
        }
    }

    /// Bytes of the peer. A reply counts as an answer only to a command that was queued before
    /// this call: what came along with an earlier reply was sent blindly.
    pub fn handle_bytes(&mut self, now: Now, bytes: &[u8]) {
        let mut rest = bytes;
        let mut answerable = self.replies_owed();
        while !rest.is_empty() && self.is_talking() {
            match self.reader.feed(&mut rest) {
                Err(error) => return self.break_off(self.out_of_step(&error.to_string()), now),
                Ok(true) if answerable > 0 => {
                    answerable -= 1;
                    self.handle_reply(rest.is_empty(), now);
                }
                Ok(true) => return self.handle_unasked(now),
                Ok(false) if answerable == 0 && self.replies_owed() > 0 => {
                    return self.break_off(self.out_of_step("input before a command"), now);
                }
                Ok(false) => return,
            }
        }
        if !rest.is_empty() && matches!(self.phase, Phase::Securing) {
            self.break_off(self.out_of_step("input in clear during a handshake"), now);
        }
    }

    /// All that was ordered to be sent has been taken by the kernel.
    pub fn handle_drained(&mut self, now: Now) {
        self.exchange.handle_drained(now);
        self.carry_on(now);
    }

    /// The answer to [`Order::Secure`]. What was learnt in clear is forgotten (RFC 3207 §4.2).
    pub fn handle_secured(&mut self, now: Now, result: Result<TlsFacts, TlsError>) {
        if !matches!(self.phase, Phase::Securing) {
            return;
        }
        match result {
            Ok(_) => {
                self.security = Security::Encrypted;
                self.phases.tls = self.lap(now);
                self.say_hello("EHLO", Opener::Ehlo, now);
            }
            Err(_) => self.close(Close::Abort, Next::InClear, now),
        }
    }

    /// The connection is gone.
    pub fn handle_ended(&mut self, now: Now, how: End) {
        let lost = self.unanswered("connection lost");
        let next = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Opening(_) => {
                let trouble = self.site_trouble(lost);
                self.remember(LeaseEnd::Unreachable(trouble));
                Next::Another
            }
            Phase::Securing => Next::InClear,
            Phase::Open => Next::Finish(self.fail_work(lost)),
            Phase::Quitting => Next::Finish(LeaseEnd::Finished),
            Phase::Closing(next) => next,
            phase @ (Phase::Asking(_) | Phase::Connecting | Phase::Resting(_) | Phase::Over) => {
                self.phase = phase;
                return;
            }
        };
        match how {
            End::ByPeer => self.go_on(next, now),
            End::Unknown => self.rest(next, now),
        }
    }

    /// The answer to [`Order::FetchChunk`]: its content, or `None` if it cannot be read.
    pub fn handle_chunk(&mut self, now: Now, place: Place, chunk: Option<&Slice>) {
        match self.exchange.handle_chunk(place, chunk, &mut self.out) {
            Ok(()) => self.carry_on(now),
            Err(why) => self.handle_break(why, now),
        }
    }

    /// Strict outcomes: an outcome reported by [`Order::Done`] as delivered or mixed is on disk.
    pub fn handle_settled(&mut self, now: Now) {
        self.exchange.handle_settled();
        self.carry_on(now);
    }

    /// To be called at [`Session::next_wakeup`]; early calls do nothing.
    pub fn handle_time(&mut self, now: Now) {
        if now.mono < self.deadline {
            return;
        }
        self.deadline = Mono::NEVER;
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Resting(next) => return self.go_on(next, now),
            phase => self.phase = phase,
        }
        match &self.phase {
            Phase::Opening(_) => self.break_off(self.unanswered("no reply in time"), now),
            Phase::Securing => self.close(Close::Abort, Next::InClear, now),
            Phase::Open => self.handle_late(now),
            Phase::Quitting => self.close(Close::Abort, Next::Finish(LeaseEnd::Finished), now),
            Phase::Closing(_) => self.out.push(Order::Close(Close::Abort)),
            Phase::Asking(_) | Phase::Connecting | Phase::Resting(_) | Phase::Over => {}
        }
    }

    /// Lends the session memory for the orders of its next event; without, it gets its own.
    pub fn lend(&mut self, memory: Memory) {
        self.out.lend(memory);
    }

    /// The memory back, once the orders are polled.
    pub fn take_back(&mut self) -> Memory {
        self.out.take_back()
    }

    /// The next thing to be done; to be polled until `None` after every event.
    pub fn poll(&mut self) -> Option<Order> {
        self.out.poll()
    }

    /// The bytes of an [`Order::Send`], readable until the next event or a poll that gives `None`.
    #[must_use]
    pub fn text(&self, range: Range<usize>) -> &[u8] {
        self.out.text(range)
    }

    /// When [`Session::handle_time`] is wanted.
    #[must_use]
    pub fn next_wakeup(&self) -> Mono {
        self.deadline
    }
}

impl Session {
    fn timeouts(&self) -> &StageTimeouts {
        &self.opening.settings.timeouts
    }

    /// How long what the connection did until now took; what it does next begins.
    fn lap(&mut self, now: Now) -> Took {
        Took::between(std::mem::replace(&mut self.since, now.mono), now.mono)
    }

    /// A host that is out of order.
    fn site_trouble(&mut self, reply: Reply) -> Box<Trouble> {
        self.trouble(Cause::Site, reply)
    }

    /// What the host of this connection has done.
    fn trouble(&mut self, cause: Cause, reply: Reply) -> Box<Trouble> {
        let remote = self.itinerary.remote();
        Box::new(Trouble { cause, reply, remote, phases: std::mem::take(&mut self.phases) })
    }

    fn unanswered(&self, what: &str) -> Reply {
        let text = format!("{}: {what}", self.itinerary.label());
        Reply::local(451, Enhanced(4, 4, 2), &text)
    }

    fn source_missing(&self) -> String {
        let from = self.itinerary.current().and_then(|hop| hop.from);
        match (&self.opening.source, from) {
            (Some(source), Some(from)) => {
                format!("source {}: {from} is not an address of this machine", source.name)
            }
            _ => "the source address is not one of this machine".to_owned(),
        }
    }

    fn out_of_step(&self, what: &str) -> Reply {
        let text = format!("{}: {what}", self.itinerary.label());
        Reply::local(451, Enhanced(4, 5, 0), &text)
    }
}
