//! What all sessions of a thread write with and into: schedule, composer, records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::SourcePlan;
use super::feed::{Next, Shared};
use super::report::{Phase, ThreadReport};
use crate::ledger::Outcome;
use crate::message::{Composer, push_local_part};

pub(super) struct Desk {
    pub(super) plan: Arc<SourcePlan>,
    pub(super) shared: Arc<Shared>,
    pub(super) records: ThreadReport,
    composer: Composer,
}

/// A message in the hands of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) sequence: u64,
    intended_ns: u64,
    /// Recipients without an outcome yet, one bit each.
    open: u128,
    /// Recipients with 250 to their RCPT.
    pub(super) accepted: u128,
}

impl Desk {
    pub(super) fn new(plan: &Arc<SourcePlan>, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let composer = Composer::new(plan.run, plan.seed, &plan.sender, plan.size)?;
        let records = ThreadReport::new();
        Ok(Self { plan: Arc::clone(plan), shared: Arc::clone(shared), records, composer })
    }

    /// Takes the next message, if there is one now.
    pub(super) fn take(&mut self, now: u64) -> Result<Offer, Next> {
        match self.shared.take(now) {
            Next::Message { sequence, intended_ns } => {
                self.records.record(Phase::Slip, now.saturating_sub(intended_ns));
                let open = u128::MAX >> (128 - self.plan.recipients_per_message);
                Ok(Offer { sequence, intended_ns, open, accepted: 0 })
            }
            other => Err(other),
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
        let recipients = self.plan.recipients_per_message;
        self.composer.write(out, offer.sequence, recipients, offer.intended_ns);
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
            self.records.record(Phase::Message, now.saturating_sub(offer.intended_ns));
            self.records.last_reply_ns = now;
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
