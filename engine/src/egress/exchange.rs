//! The transactions of one connection, one behind the other, with as few round trips as the host
//! allows (RFC 2920).
//!
//! ```text
//! us    MAIL RCPT DATA |     | body . MAIL RCPT DATA |            | body . MAIL RCPT DATA
//! host                 | 354 |                       | 250 .. 354 |
//! ```
//! Commands are written in order and replies come in order, so one queue of expected replies is
//! the whole mechanism: a host without PIPELINING is one where that queue holds at most one. All
//! expected replies up to and including the first [`Expect::Dot`] are the front transaction's.

use std::collections::VecDeque;

use super::body::BodyCursor;
use super::letter::Letter;
use super::order::{Order, Outbox};
use super::transaction::{Step, Transaction};
use super::verdict::{Stage, Verdict, classify, is_go};
use crate::model::message::{MessageId, Place, Slice};
use crate::model::note::{Attempt, Done};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::settings::OutcomeDurability;
use crate::wire::smtp::reply::{
    Capabilities, MailParameters, ReplyReader, SizeLimit, write_mail, write_rcpt,
};

/// Deliveries a session holds at once: the one under way, and one to share its last flight.
pub const WORK_AHEAD_MAX: usize = 2;
/// Replies outstanding at once: bounds what one flight of commands may take in memory.
const EXPECTED_MAX: usize = 128;

/// A reply that is owed to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Rset,
    Mail,
    Rcpt(u16),
    Data,
    Dot,
}

/// What the host's side holds between our transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Clear,
    /// A transaction was opened and never ended: RSET goes before the next.
    Littered,
}

/// What the exchange waits for, which decides the deadline. Two equal values in a row are one
/// wait: `heard` counts replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) what: Await,
    heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Await {
    Nothing,
    Command,
    Data,
    /// The kernel, or a chunk, or a settlement: until the final dot is out.
    Body,
    Dot,
}

/// Why the connection cannot go on.
#[derive(Debug)]
pub(super) enum Break {
    /// 421: the host closes.
    TurnedDown(Reply),
    /// A reply that answers nothing we asked.
    OutOfStep(Reply),
    /// A chunk of the front message cannot be read, and its transaction not be taken back.
    Unreadable,
}

#[derive(Debug)]
pub(super) struct Exchange {
    outcomes: OutcomeDurability,
    messages_max: u32,
    capabilities: Capabilities,
    expected: VecDeque<Expect>,
    work: VecDeque<Transaction>,
    ground: Ground,
    /// Transactions begun on this connection.
    opened: u32,
    /// Transactions the host has answered to the end.
    completed: u32,
    /// Outcomes reported and not yet on disk.
    unsettled: u32,
    heard: u64,
}

impl Exchange {
    pub(super) fn new(outcomes: OutcomeDurability, messages_max: u32) -> Self {
        Self {
            outcomes,
            messages_max: messages_max.max(1),
            capabilities: Capabilities::default(),
            expected: VecDeque::new(),
            work: VecDeque::new(),
            ground: Ground::Clear,
            opened: 0,
            completed: 0,
            unsettled: 0,
            heard: 0,
        }
    }

    /// The host is ready, and can do this.
    pub(super) fn open(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// Takes a letter, or hands it back if it holds enough.
    pub(super) fn add(&mut self, letter: Letter) -> Result<(), Letter> {
        if self.work.len() >= WORK_AHEAD_MAX {
            return Err(letter);
        }
        self.work.push_back(Transaction::new(letter));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// How many replies are owed to us.
    pub(super) fn expected_count(&self) -> usize {
        self.expected.len()
    }

    /// Whether nothing is under way: work may wait, but none was begun.
    pub(super) fn is_at_rest(&self) -> bool {
        self.expected.is_empty() && !self.work.iter().any(Transaction::is_started)
    }

    /// Whether this connection has carried as many messages as it may.
    pub(super) fn is_spent(&self) -> bool {
        self.opened >= self.messages_max
    }

    /// Whether the host ever answered a whole transaction.
    pub(super) fn has_completed(&self) -> bool {
        self.completed > 0
    }

    /// Whether we ourselves keep back the final dot, until an earlier outcome is on disk.
    pub(super) fn is_held_by_us(&self) -> bool {
        self.unsettled > 0 && matches!(self.front_step(), Some(Step::Dot(_)))
    }

    pub(super) fn awaited(&self) -> Awaited {
        let what = match (self.expected.front(), self.front_step()) {
            (Some(Expect::Dot), Some(Step::Flushing)) => Await::Body,
            (Some(Expect::Dot), _) => Await::Dot,
            (Some(Expect::Data), _) => Await::Data,
            (Some(_), _) => Await::Command,
            (None, Some(Step::Body(_) | Step::Dot(_))) => Await::Body,
            (None, _) => Await::Nothing,
        };
        Awaited { what, heard: self.heard }
    }

    fn front_step(&self) -> Option<&Step> {
        self.work.front().map(|transaction| &transaction.step)
    }
}

/// Writing.
impl Exchange {
    /// Writes whatever may be written now.
    pub(super) fn pump(&mut self, out: &mut Outbox) {
        while let Some(at) = self.work.iter().position(|transaction| !transaction.is_sent()) {
            let goes_on = match self.work[at].step {
                Step::Mail => self.write_mail(at, out),
                Step::Rcpt(next) => self.write_recipients(at, next, out),
                Step::Data => self.write_data(at, out),
                Step::Body(_) => self.send_body(at, out),
                Step::Dot(end) => self.send_dot(at, end, out),
                Step::Go | Step::Flushing | Step::Dotted => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn may_write(&self) -> bool {
        self.expected.len() < self.expected_most()
    }

    fn expected_most(&self) -> usize {
        if self.capabilities.pipelining { EXPECTED_MAX } else { 1 }
    }

    fn write_mail(&mut self, at: usize, out: &mut Outbox) -> bool {
        if self.is_spent() {
            return false;
        }
        if let Some(reply) = self.work[at].objection(&self.capabilities) {
            self.finish(at, Verdict::Failed, reply, out);
            return true;
        }
        if !self.may_write() {
            return false;
        }
        if self.ground == Ground::Littered {
            self.ground = Ground::Clear;
            self.expected.push_back(Expect::Rset);
            out.send(b"RSET\r\n");
            return true;
        }
        self.write_sender(at, out);
        true
    }

    fn write_sender(&mut self, at: usize, out: &mut Outbox) {
        let transaction = &mut self.work[at];
        let letter = &transaction.letter;
        let Some(addresses) = letter.addresses() else {
            return self.set_aside(at, out);
        };
        let parameters = MailParameters {
            size: (self.capabilities.size != SizeLimit::Unknown).then_some(letter.bytes),
            eight_bit: letter.eight_bit,
        };
        if out.write(|text| write_mail(text, addresses.sender(), parameters)).is_err() {
            let reply = Reply::local(553, Enhanced(5, 1, 7), "the sender holds a control byte");
            return self.finish(at, Verdict::Failed, reply, out);
        }
        transaction.step = Step::Rcpt(letter.delivery.first);
        self.expected.push_back(Expect::Mail);
        self.opened += 1;
    }

    fn write_recipients(&mut self, at: usize, next: u16, out: &mut Outbox) -> bool {
        let most = self.expected_most();
        let transaction = &mut self.work[at];
        let end = transaction.letter.delivery.recipients().end;
        let mut next = if transaction.is_sender_refused() { end } else { next };
        let Some(addresses) = transaction.letter.addresses() else { return false };
        while next < end && self.expected.len() < most {
            if out.write(|text| write_rcpt(text, addresses.recipient(next))).is_ok() {
                self.expected.push_back(Expect::Rcpt(next));
            } else {
                let reply = Reply::local(553, Enhanced(5, 1, 3), "it holds a control byte");
                transaction.refused.push((next, Verdict::Failed, reply));
            }
            next += 1;
        }
        transaction.step = if next < end { Step::Rcpt(next) } else { Step::Data };
        next == end
    }

    /// DATA, unless it is already known that nobody is left to send it to.
    fn write_data(&mut self, at: usize, out: &mut Outbox) -> bool {
        if self.work[at].is_refused() {
            if !self.expected.is_empty() {
                return false;
            }
            if !self.work[at].is_sender_refused() {
                self.ground = Ground::Littered;
            }
            self.finish_refused(at, out);
            return true;
        }
        if !self.may_write() {
            return false;
        }
        out.send(b"DATA\r\n");
        self.expected.push_back(Expect::Data);
        self.work[at].step = Step::Go;
        false
    }

    fn send_body(&mut self, at: usize, out: &mut Outbox) -> bool {
        let transaction = &mut self.work[at];
        let Step::Body(cursor) = &mut transaction.step else { return false };
        let is_all = cursor.advance(&transaction.letter, out);
        if is_all {
            transaction.step = Step::Dot(cursor.end());
        }
        is_all
    }

    /// The final dot asks the host to take the message: with strict outcomes, not before the
    /// outcome of the one before is on disk.
    fn send_dot(&mut self, at: usize, end: &'static [u8], out: &mut Outbox) -> bool {
        if self.unsettled > 0 {
            return false;
        }
        out.send(end);
        self.expected.push_back(Expect::Dot);
        self.work[at].step = Step::Flushing;
        true
    }
}

/// Reading.
impl Exchange {
    /// Takes the reply that `reader` holds as the answer to the oldest command.
    pub(super) fn handle_reply(
        &mut self,
        reader: &ReplyReader,
        out: &mut Outbox,
    ) -> Result<(), Break> {
        let (Some(expect), Some(front)) = (self.expected.pop_front(), self.work.front_mut()) else {
            return Err(Break::OutOfStep(reader.to_reply()));
        };
        self.heard += 1;
        if expect != Expect::Rset {
            front.heard += 1;
        }
        match expect {
            Expect::Rset => match read(Stage::Mail, reader)? {
                None => Ok(()),
                Some((_, reply)) => Err(Break::OutOfStep(reply)),
            },
            Expect::Mail => {
                if let Some((verdict, reply)) = read(Stage::Mail, reader)? {
                    front.refuse_sender(verdict, reply);
                }
                Ok(())
            }
            Expect::Rcpt(recipient) => {
                match read(Stage::Rcpt, reader)? {
                    None => front.accepted += 1,
                    Some((verdict, reply)) => front.refused.push((recipient, verdict, reply)),
                }
                Ok(())
            }
            Expect::Data => self.handle_go(reader, out),
            Expect::Dot => self.handle_verdict(reader, out),
        }
    }

    /// After 354 the host waits for content, even where it has refused every recipient: then the
    /// final dot alone (RFC 2920 §3.1).
    fn handle_go(&mut self, reader: &ReplyReader, out: &mut Outbox) -> Result<(), Break> {
        let refusal = read(Stage::Data, reader)?;
        let Some(front) = self.work.front_mut() else { return Ok(()) };
        match refusal {
            None if front.is_refused() => front.step = Step::Dot(b".\r\n"),
            None => front.step = Step::Body(BodyCursor::new()),
            Some((verdict, reply)) => {
                self.ground = Ground::Littered;
                self.finish_front(verdict, reply, out);
            }
        }
        Ok(())
    }

    fn handle_verdict(&mut self, reader: &ReplyReader, out: &mut Outbox) -> Result<(), Break> {
        let refusal = read(Stage::Dot, reader)?;
        if self.work.front().is_some_and(Transaction::is_refused) {
            // A lone dot: whatever it was answered, the refusals stand.
            self.ground = Ground::Littered;
        }
        let (verdict, reply) = refusal.unwrap_or_else(|| (Verdict::Accepted, reader.to_reply()));
        self.finish_front(verdict, reply, out);
        Ok(())
    }

    /// Takes the chunk that was asked for.
    pub(super) fn handle_chunk(
        &mut self,
        place: Place,
        chunk: Option<&Slice>,
        out: &mut Outbox,
    ) -> Result<(), Break> {
        let Some(front) = self.work.front_mut() else { return Ok(()) };
        let Step::Body(cursor) = &mut front.step else { return Ok(()) };
        cursor.handle_chunk(place, chunk, &front.letter, out).map_err(|_| Break::Unreadable)
    }

    /// The kernel has taken all that was queued.
    pub(super) fn handle_drained(&mut self) {
        let Some(front) = self.work.front_mut() else { return };
        match &mut front.step {
            Step::Body(cursor) => cursor.handle_drained(),
            step @ Step::Flushing => *step = Step::Dotted,
            _ => {}
        }
    }

    /// One outcome reported before is on disk.
    pub(super) fn handle_settled(&mut self) {
        self.unsettled = self.unsettled.saturating_sub(1);
    }
}

/// Finishing.
impl Exchange {
    /// The host asked to slow down: no attempt of any message.
    pub(super) fn turn_down(&mut self, reply: Reply, out: &mut Outbox) {
        self.expected.clear();
        if self.work.front().is_some_and(Transaction::is_started)
            && let Some(front) = self.work.pop_front()
        {
            done(&front.letter, Attempt::Throttled(reply), out);
        }
        self.give_back(out);
    }

    /// The connection is lost. The front transaction had its attempt, since the host may even
    /// have taken it; except where a connection that served before ended without a word about
    /// this one: hosts close idle connections while we begin to write.
    pub(super) fn fail(&mut self, reply: Reply, out: &mut Outbox) {
        self.expected.clear();
        let had_its_turn =
            |front: &Transaction| front.is_started() && (front.heard > 0 || self.completed == 0);
        if self.work.front().is_some_and(had_its_turn) {
            self.finish_front(Verdict::SiteTrouble, reply, out);
        }
        self.give_back(out);
    }

    /// The front message cannot be read to its end.
    pub(super) fn set_front_aside(&mut self, out: &mut Outbox) {
        self.expected.clear();
        self.set_aside(0, out);
        self.give_back(out);
    }

    /// Hands everything back untried.
    pub(super) fn give_back(&mut self, out: &mut Outbox) {
        for transaction in self.work.drain(..) {
            done(&transaction.letter, Attempt::NotTried, out);
        }
    }

    fn set_aside(&mut self, at: usize, out: &mut Outbox) {
        if let Some(transaction) = self.work.remove(at) {
            done(&transaction.letter, Attempt::Unreadable, out);
        }
    }

    fn finish_front(&mut self, verdict: Verdict, reply: Reply, out: &mut Outbox) {
        if verdict != Verdict::SiteTrouble {
            self.completed += 1;
        }
        self.finish(0, verdict, reply, out);
    }

    /// Every recipient has its own refusal already; the reply given here is never used.
    fn finish_refused(&mut self, at: usize, out: &mut Outbox) {
        self.completed += 1;
        let reply = Reply::local(554, Enhanced(5, 5, 1), "no recipient was accepted");
        self.finish(at, Verdict::Failed, reply, out);
    }

    fn finish(&mut self, at: usize, verdict: Verdict, reply: Reply, out: &mut Outbox) {
        let Some(transaction) = self.work.remove(at) else { return };
        let message = transaction.letter.delivery.message;
        let result = transaction.conclude(verdict, reply);
        let is_outcome = matches!(result, Attempt::Delivered(_) | Attempt::Mixed(_));
        if is_outcome && self.outcomes == OutcomeDurability::Strict {
            self.unsettled += 1;
        }
        out.push(Order::Done(Done { message, result }));
    }
}

fn done(letter: &Letter, result: Attempt, out: &mut Outbox) {
    let message: MessageId = letter.delivery.message;
    out.push(Order::Done(Done { message, result }));
}

/// `None`: go on. Otherwise what the reply says about the message or the recipient.
fn read(stage: Stage, reader: &ReplyReader) -> Result<Option<(Verdict, Reply)>, Break> {
    if is_go(stage, reader.code()) {
        return Ok(None);
    }
    let reply = reader.to_reply();
    match classify(stage, &reply) {
        Verdict::Accepted => Ok(None),
        Verdict::SiteTrouble => Err(Break::OutOfStep(reply)),
        Verdict::Throttled if reply.code == 421 => Err(Break::TurnedDown(reply)),
        verdict => Ok(Some((verdict, reply))),
    }
}
