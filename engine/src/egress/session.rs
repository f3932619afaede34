//! One permit's conversation with a site: connect, greet, secure, pass letters, part.
//!
//! ```text
//! Connecting -> Opening -> [Securing -> Opening] -> Open -> Quitting -> Closing -> Over
//!     ^            |            |                    |                     |
//!     +- Resting <-+------------+--- Closing <-------+                     +-> Resting -> Over
//! ```
//! The permit is held until the peer's end of every connection is known, or one second after we
//! stopped waiting for it: a host must never count more connections than we have permits.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::{Await, Awaited, Break, Exchange};
use super::itinerary::Itinerary;
use super::letter::Letter;
use super::order::{Order, Outbox};
use super::verdict::{Stage, is_go};
use crate::base::time::{Mono, Now};
use crate::model::connection::{Close, ConnectError, End, TlsError, TlsFacts};
use crate::model::delivery::LeaseId;
use crate::model::message::{MessageId, Place, Slice};
use crate::model::note::{Attempt, Done, LeaseEnd, Opening};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::route::Way;
use crate::model::settings::{OutcomeDurability, StageTimeouts, TlsMode};
use crate::wire::smtp::reply::{Capabilities, ReplyReader, write_hello};

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
    owner: Owner,
    security: Security,
    reader: ReplyReader,
    exchange: Exchange,
    awaited: Awaited,
    deadline: Mono,
    /// The worst that hosts tried so far have done; a word of theirs beats silence.
    trouble: Option<LeaseEnd>,
    out: Outbox,
}

#[derive(Debug)]
enum Phase {
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
            itinerary: Itinerary::new(Arc::clone(&opening.target)),
            opening,
            options,
            phase: Phase::Connecting,
            owner: Owner::MaySend,
            security: Security::Clear,
            reader: ReplyReader::default(),
            awaited: exchange.awaited(),
            exchange,
            deadline: Mono::NEVER,
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

    /// Takes a delivery whose record is at hand. More than [`WORK_AHEAD_MAX`], or work after the
    /// end, comes back untried.
    pub fn handle_work(&mut self, now: Now, letter: Letter) {
        let message = letter.delivery.message;
        let is_ending = matches!(
            self.phase,
            Phase::Quitting
                | Phase::Closing(Next::Finish(_))
                | Phase::Resting(Next::Finish(_))
                | Phase::Over
        );
        if is_ending || self.exchange.add(letter).is_err() {
            self.out.push(Order::Done(Done { message, result: Attempt::NotTried }));
        }
        self.carry_on(now);
    }

    /// A delivery whose record could not be read.
    pub fn handle_unreadable(&mut self, _now: Now, message: MessageId) {
        self.out.push(Order::Done(Done { message, result: Attempt::Unreadable }));
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
        match result {
            Ok(()) => {
                self.reader = ReplyReader::default();
                self.await_opener(Opener::Greeting, now);
            }
            Err(ConnectError::Refused) => {
                self.remember(LeaseEnd::Unreachable(self.unanswered("connection refused")));
                self.go_on(Next::Another, now);
            }
            Err(ConnectError::TimedOut) => {
                self.remember(LeaseEnd::Unreachable(self.unanswered("connection timed out")));
                self.rest(Next::Another, now);
            }
            Err(ConnectError::Local) => {
                let text = "no port, descriptor or memory left to connect with";
                let end = LeaseEnd::Local(Reply::local(451, Enhanced(4, 3, 0), text));
                self.go_on(Next::Finish(end), now);
            }
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
        self.exchange.handle_drained();
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
                self.remember(LeaseEnd::Unreachable(lost));
                Next::Another
            }
            Phase::Securing => Next::InClear,
            Phase::Open => Next::Finish(self.fail_work(lost)),
            Phase::Quitting => Next::Finish(LeaseEnd::Finished),
            Phase::Closing(next) => next,
            phase @ (Phase::Connecting | Phase::Resting(_) | Phase::Over) => {
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
            Phase::Connecting | Phase::Resting(_) | Phase::Over => {}
        }
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

/// Opening.
impl Session {
    fn try_another(&mut self, now: Now) {
        if self.owner == Owner::IsDone && self.exchange.is_empty() {
            return self.finish_untried(now);
        }
        match self.itinerary.advance() {
            Some(to) => {
                self.security = Security::Clear;
                self.connect(to, now);
            }
            None => self.finish_untried(now),
        }
    }

    fn connect(&mut self, to: std::net::SocketAddr, now: Now) {
        self.phase = Phase::Connecting;
        self.deadline = Mono::NEVER;
        let by = now.mono.plus(self.timeouts().connect);
        self.out.push(Order::Connect { to, by });
    }

    fn finish_untried(&mut self, now: Now) {
        let end = self.trouble.take().unwrap_or_else(|| match &self.opening.target.way {
            Way::Hosts(_) => LeaseEnd::Finished,
            Way::Deferred(reply) | Way::Failed(reply) => LeaseEnd::Unreachable(reply.clone()),
        });
        self.go_on(Next::Finish(end), now);
    }

    fn await_opener(&mut self, opener: Opener, now: Now) {
        let timeouts = self.timeouts();
        let wait = match opener {
            Opener::Greeting => timeouts.greeting,
            Opener::Ehlo | Opener::Helo | Opener::StartTls => timeouts.command,
        };
        self.deadline = now.mono.plus(wait);
        self.phase = Phase::Opening(opener);
    }

    fn say_hello(&mut self, verb: &str, opener: Opener, now: Now) {
        let hostname = &self.options.hostname;
        let written = self.out.write(|text| write_hello(text, verb, hostname));
        assert!(written.is_ok(), "a host name was checked when the settings were read");
        self.await_opener(opener, now);
    }

    /// `is_last`: nothing came behind the reply.
    fn handle_opener(&mut self, opener: Opener, is_last: bool, now: Now) {
        let code = self.reader.code();
        match opener {
            Opener::Greeting if is_go(Stage::Greeting, code) => {
                self.say_hello("EHLO", Opener::Ehlo, now);
            }
            Opener::Ehlo if is_go(Stage::Hello, code) => {
                self.handle_capabilities(Capabilities::parse(&self.reader), now);
            }
            Opener::Helo if is_go(Stage::Hello, code) => self.open(now),
            Opener::Ehlo if matches!(code, 500 | 502) => self.say_hello("HELO", Opener::Helo, now),
            Opener::StartTls if code / 100 == 2 => self.secure(is_last, now),
            Opener::StartTls if matches!(code / 100, 4 | 5) && code != 421 => self.open(now),
            _ => self.handle_turned_away(now),
        }
    }

    fn handle_capabilities(&mut self, capabilities: Capabilities, now: Now) {
        self.exchange.open(capabilities);
        let is_wanted = self.options.tls == TlsMode::Opportunistic;
        if is_wanted && capabilities.starttls && self.security == Security::Clear {
            self.out.send(b"STARTTLS\r\n");
            self.await_opener(Opener::StartTls, now);
        } else {
            self.open(now);
        }
    }

    /// Whatever stands behind the 220 in clear was put there by somebody else, to be taken for
    /// the host's words after the handshake.
    fn secure(&mut self, is_last: bool, now: Now) {
        if !is_last {
            return self.break_off(self.out_of_step("input behind the reply to STARTTLS"), now);
        }
        self.phase = Phase::Securing;
        self.deadline = now.mono.plus(self.timeouts().tls);
        self.out.push(Order::Secure { name: self.itinerary.host_name().into() });
    }

    fn handle_turned_away(&mut self, now: Now) {
        let reply = self.reader.to_reply();
        if matches!(reply.code / 100, 4 | 5) {
            self.remember(LeaseEnd::TurnedAway(reply));
            self.itinerary.skip_host();
            self.close(Close::Graceful, Next::Another, now);
        } else {
            self.break_off(self.out_of_step(&reply.to_string()), now);
        }
    }

    fn open(&mut self, now: Now) {
        self.phase = Phase::Open;
        self.deadline = Mono::NEVER;
        self.awaited = self.exchange.awaited();
        self.carry_on(now);
    }

    fn remember(&mut self, end: LeaseEnd) {
        let spoke = matches!(self.trouble, Some(LeaseEnd::TurnedAway(_)));
        if !spoke || matches!(end, LeaseEnd::TurnedAway(_)) {
            self.trouble = Some(end);
        }
    }
}

/// Talking.
impl Session {
    fn is_talking(&self) -> bool {
        matches!(self.phase, Phase::Opening(_) | Phase::Open | Phase::Quitting)
    }

    fn replies_owed(&self) -> usize {
        match self.phase {
            Phase::Opening(_) | Phase::Quitting => 1,
            Phase::Open => self.exchange.expected_count(),
            _ => 0,
        }
    }

    fn handle_reply(&mut self, is_last: bool, now: Now) {
        match self.phase {
            Phase::Opening(opener) => self.handle_opener(opener, is_last, now),
            Phase::Open => match self.exchange.handle_reply(&self.reader, &mut self.out) {
                Ok(()) => self.carry_on(now),
                Err(why) => self.handle_break(why, now),
            },
            Phase::Quitting => {
                self.close(Close::Graceful, Next::Finish(LeaseEnd::Finished), now);
            }
            _ => {}
        }
    }

    /// A reply to nothing we said: a parting 421 is in order, anything else is not.
    fn handle_unasked(&mut self, now: Now) {
        if self.reader.code() != 421 {
            return self.break_off(self.out_of_step("a reply to nothing we said"), now);
        }
        match self.phase {
            Phase::Opening(_) => self.handle_turned_away(now),
            Phase::Open => self.handle_break(Break::TurnedDown(self.reader.to_reply()), now),
            _ => self.close(Close::Graceful, Next::Finish(LeaseEnd::Finished), now),
        }
    }

    /// Writes what can be written, and parts when there is nothing left to do.
    fn carry_on(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if self.exchange.is_at_rest() && self.reader.is_mid_reply() && !self.exchange.is_empty() {
            return self.break_off(self.out_of_step("input before a command"), now);
        }
        self.exchange.pump(&mut self.out);
        let is_done = self.owner == Owner::IsDone && self.exchange.is_empty();
        if self.exchange.is_at_rest() && (is_done || self.exchange.is_spent()) {
            return self.quit(now);
        }
        self.set_deadline(now);
    }

    /// A total deadline for each thing awaited: bytes that trickle in do not move it.
    fn set_deadline(&mut self, now: Now) {
        let awaited = self.exchange.awaited();
        if awaited == self.awaited {
            return;
        }
        self.awaited = awaited;
        let timeouts = self.timeouts();
        self.deadline = match awaited.what {
            Await::Nothing => Mono::NEVER,
            Await::Command => now.mono.plus(timeouts.command),
            Await::Data => now.mono.plus(timeouts.data),
            Await::Body => now.mono.plus(timeouts.body),
            Await::Dot => now.mono.plus(timeouts.dot),
        };
    }

    /// A deadline passed while mail was under way.
    fn handle_late(&mut self, now: Now) {
        if self.exchange.is_held_by_us() {
            self.exchange.give_back(&mut self.out);
            return self.close(Close::Abort, Next::Finish(LeaseEnd::Finished), now);
        }
        let what = match self.awaited.what {
            Await::Nothing | Await::Command => "no reply to a command in time",
            Await::Data => "no reply to DATA in time",
            Await::Body => "the message was not taken in time",
            Await::Dot => "no reply to the message in time",
        };
        self.break_off(self.unanswered(what), now);
    }
}

/// Parting.
impl Session {
    fn quit(&mut self, now: Now) {
        self.exchange.give_back(&mut self.out);
        self.out.send(b"QUIT\r\n");
        self.phase = Phase::Quitting;
        self.deadline = now.mono.plus(self.timeouts().quit);
    }

    fn handle_break(&mut self, why: Break, now: Now) {
        match why {
            Break::OutOfStep(reply) => {
                self.break_off(self.out_of_step(&format!("unexpected reply: {reply}")), now);
            }
            Break::TurnedDown(reply) => {
                let is_first_word = self.exchange.is_at_rest() && !self.exchange.has_completed();
                let end = if is_first_word {
                    LeaseEnd::TurnedAway(reply.clone())
                } else {
                    LeaseEnd::Finished
                };
                self.exchange.turn_down(reply, &mut self.out);
                self.close(Close::Graceful, Next::Finish(end), now);
            }
            Break::Unreadable => {
                self.exchange.set_front_aside(&mut self.out);
                self.close(Close::Abort, Next::Finish(LeaseEnd::Finished), now);
            }
        }
    }

    /// The conversation cannot go on: closes at once.
    fn break_off(&mut self, reply: Reply, now: Now) {
        let next = match self.phase {
            Phase::Opening(_) | Phase::Securing => {
                self.remember(LeaseEnd::Unreachable(reply));
                self.itinerary.skip_host();
                Next::Another
            }
            Phase::Open => Next::Finish(self.fail_work(reply)),
            Phase::Quitting => Next::Finish(LeaseEnd::Finished),
            _ => return,
        };
        self.close(Close::Abort, next, now);
    }

    /// What became of the work, and what to tell of the site: a host that never answered a whole
    /// transaction is as good as unreachable.
    fn fail_work(&mut self, reply: Reply) -> LeaseEnd {
        let end = if self.exchange.is_at_rest() || self.exchange.has_completed() {
            LeaseEnd::Finished
        } else {
            LeaseEnd::Unreachable(reply.clone())
        };
        self.exchange.fail(reply, &mut self.out);
        end
    }

    fn close(&mut self, how: Close, next: Next, now: Now) {
        self.out.push(Order::Close(how));
        self.phase = Phase::Closing(next);
        self.deadline = match how {
            Close::Graceful => now.mono.plus(self.timeouts().quit),
            Close::Abort => Mono::NEVER,
        };
    }

    fn rest(&mut self, next: Next, now: Now) {
        self.phase = Phase::Resting(next);
        self.deadline = now.mono.plus(PERMIT_QUARANTINE);
    }

    /// The peer no longer counts a connection of ours.
    fn go_on(&mut self, next: Next, now: Now) {
        self.deadline = Mono::NEVER;
        match (next, self.itinerary.address()) {
            (Next::InClear, Some(to)) => {
                self.security = Security::Failed;
                self.connect(to, now);
            }
            (Next::Another | Next::InClear, _) => self.try_another(now),
            (Next::Finish(end), _) => {
                self.phase = Phase::Over;
                self.exchange.give_back(&mut self.out);
                self.out.push(Order::Ended(end));
            }
        }
    }

    fn timeouts(&self) -> &StageTimeouts {
        &self.opening.settings.timeouts
    }

    fn unanswered(&self, what: &str) -> Reply {
        let text = format!("{}: {what}", self.itinerary.label());
        Reply::local(451, Enhanced(4, 4, 2), &text)
    }

    fn out_of_step(&self, what: &str) -> Reply {
        let text = format!("{}: {what}", self.itinerary.label());
        Reply::local(451, Enhanced(4, 5, 0), &text)
    }
}
