//! What all sessions of a thread write with and into: schedule, composer, records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::feed::{Next, Shared};
use super::report::ThreadReport;
use super::schedule::Timetable;
use super::{Phase, Recipients, SourcePlan};
use crate::ledger::Outcome;
use crate::message::{Composer, push_local_part};
use crate::run::board::Board;
use crate::run::recorder::Recorder;

pub(super) struct Desk {
    pub(super) plan: Arc<SourcePlan>,
    pub(super) shared: Arc<Shared>,
    pub(super) records: ThreadReport,
    thread: usize,
    supplies: Arc<Supplies>,
    timetable: Option<Timetable>,
    /// Seconds handed over so far.
    seconds: u32,
}

/// What all threads of a source need, and none changes.
pub(super) struct Supplies {
    pub(super) composer: Composer,
    pub(super) recipients: Recipients,
    /// Where acknowledgements are told to a sink in this process.
    pub(super) board: Option<Arc<Board>>,
}

/// A message in the hands of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) sequence: u64,
    pub(super) recipients: usize,
    intended_ns: u64,
    /// Recipients without an outcome yet, one bit each.
    open: u128,
    /// Recipients with 250 to their RCPT.
    pub(super) accepted: u128,
}

impl Desk {
    pub(super) fn new(
        plan: &Arc<SourcePlan>,
        shared: &Arc<Shared>,
        supplies: &Arc<Supplies>,
        thread: usize,
        recorder: Recorder,
    ) -> Self {
        Self {
            plan: Arc::clone(plan),
            shared: Arc::clone(shared),
            records: ThreadReport::new(recorder),
            thread,
            supplies: Arc::clone(supplies),
            timetable: shared.timetable(plan.seed),
            seconds: 0,
        }
    }

    /// Takes the next message, if there is one now, for a session that is free since `free_ns`.
    pub(super) fn take(&mut self, free_ns: u64, now: u64) -> Result<Offer, Next> {
        match self.shared.take(&mut self.timetable, now) {
            Next::Message { sequence, intended_ns } => {
                if self.timetable.is_some() {
                    self.record_delay(intended_ns, free_ns, now);
                }
                let recipients = self.supplies.recipients.count(self.plan.seed, sequence);
                let open = u128::MAX >> (128 - recipients);
                Ok(Offer { sequence, recipients, intended_ns, open, accepted: 0 })
            }
            other => Err(other),
        }
    }

    /// Divides the delay of a message: while no session was free it waited for the target, and
    /// from then on for us.
    fn record_delay(&mut self, intended_ns: u64, free_ns: u64, now: u64) {
        let mut free_ns = free_ns.clamp(intended_ns, now);
        if free_ns > intended_ns && self.shared.is_session_free() {
            free_ns = intended_ns;
        }
        self.records.record(Phase::Slip, now - free_ns);
        self.records.record(Phase::Wait, free_ns - intended_ns);
    }

    /// Notes how many sessions wait for the schedule, and hands over what was recorded if a second
    /// is over.
    pub(super) fn end_turn(&mut self, free_sessions: usize) {
        if self.timetable.is_some() {
            self.shared.note_free(self.thread, free_sessions);
        }
        let seconds = self.shared.seconds();
        if seconds != self.seconds {
            self.seconds = seconds;
            self.records.recorder.hand_over();
        }
    }

    pub(super) fn write_mail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MAIL FROM:<");
        out.extend_from_slice(self.plan.sender.as_bytes());
        out.extend_from_slice(b">\r\n");
    }

    pub(super) fn write_rcpt(&self, out: &mut Vec<u8>, sequence: u64, index: usize) {
        out.extend_from_slice(b"RCPT TO:<");
        push_local_part(out, sequence, index);
        out.push(b'@');
        let domain = self.plan.domains.choose(self.plan.seed, sequence, index);
        out.extend_from_slice(domain.as_bytes());
        out.extend_from_slice(b">\r\n");
    }

    pub(super) fn write_text(&self, out: &mut Vec<u8>, offer: &Offer) {
        let composer = &self.supplies.composer;
        composer.write(out, offer.sequence, offer.recipients, offer.intended_ns);
    }

    pub(super) fn write_chunk(&self, out: &mut Vec<u8>, offer: &Offer) {
        let composer = &self.supplies.composer;
        composer.write_chunk(out, offer.sequence, offer.recipients, offer.intended_ns);
    }

    /// Notes that one recipient was turned away.
    pub(super) fn turn_away(&mut self, offer: &mut Offer, index: usize, code: u16) {
        offer.open &= !(1 << index);
        self.records.ledger.record(offer.sequence, index, outcome_of(code));
        if offer.open == 0 {
            self.count(outcome_of(code));
        }
    }

    /// Notes the reply to a message as a whole, for every recipient still open.
    pub(super) fn settle(&mut self, offer: &Offer, code: u16, now: u64) {
        let outcome = outcome_of(code);
        if outcome == Outcome::Acknowledged {
            self.records.recorder.record_message(offer.intended_ns, now);
            self.records.last_reply_ns = now;
            if let Some(board) = &self.supplies.board {
                board.acknowledge(offer.sequence, now);
            }
        }
        self.conclude(offer, outcome);
    }

    /// Notes that the connection went before the reply; `text_sent` decides whether it is in doubt.
    pub(super) fn give_up(&mut self, offer: &Offer, text_sent: bool) {
        let outcome = if text_sent { Outcome::Unacknowledged } else { Outcome::Tempfailed };
        self.conclude(offer, outcome);
        if self.plan.reconnect {
            self.shared.offer_another();
        }
    }

    fn conclude(&mut self, offer: &Offer, outcome: Outcome) {
        let mut open = offer.open;
        if open == 0 {
            return;
        }
        while open != 0 {
            self.records.ledger.record(offer.sequence, open.trailing_zeros() as usize, outcome);
            open &= open - 1;
        }
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        let counters = &self.shared.counters;
        add(match outcome {
            Outcome::Acknowledged => &counters.acknowledged,
            Outcome::Tempfailed => &counters.tempfailed,
            Outcome::Refused => &counters.refused,
            Outcome::Unacknowledged => &counters.unacknowledged,
        });
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn outcome_of(code: u16) -> Outcome {
    match code {
        200..300 => Outcome::Acknowledged,
        500..600 => Outcome::Refused,
        _ => Outcome::Tempfailed,
    }
}
