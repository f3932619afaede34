//! The spool of a shard: commits ordered, durable messages scheduled, outcomes and notices written.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dispatch::Waiting;
use super::{Effect, Effects, Fact, Shard};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId, RecordInMemory};
use crate::model::message::{MessageId, Place};
use crate::model::note::{Note, Settlement, Words};
use crate::model::outcome::{Outcome, RangeOutcome};
use crate::spool::files::{DiskError, SpareSegment};
use crate::spool::{About, Durable, Gather, MessageView, Request, SpoolFull};
use crate::wire::envelope::EnvelopeView;

/// Tokens from here on are of messages that no client waits for: notices of our own. A client's
/// begins with the number of its slot, which never is this large.
const NOTICE_TOKENS: u64 = (u32::MAX as u64) << 32;

/// A report to a sender, as long as it is not known to be on disk.
#[derive(Clone)]
pub(super) struct Notice {
    pub(super) to: Box<str>,
    /// Of the message it reports on.
    pub(super) tenant: Box<str>,
    pub(super) text: Vec<u8>,
}

/// What waits for the spool, beside the clients.
#[derive(Default)]
pub(super) struct Pending {
    /// Who is told when a settlement is on disk, by its token.
    strict: Map<u64, (ShardId, LeaseId)>,
    next_token: u64,
    /// Failures whose notice found the spool full. They stay pending, so they are not lost; their
    /// number is bounded by the live messages.
    held: VecDeque<Settlement>,
    /// Notices on their way to the disk, by token: as many as commits in flight hold.
    pub(super) notices: Map<u64, Notice>,
    next_notice: u64,
    /// Notices whose write failed and that found no room since, by token; the spool keeps what they
    /// tell of. Bounded by what was in flight when a segment failed.
    refused: VecDeque<(u64, Notice)>,
    full: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.strict.is_empty() && self.notices.is_empty() && self.refused.is_empty()
    }

    pub(super) fn next_notice(&mut self) -> u64 {
        self.next_notice = self.next_notice.wrapping_add(1) & u64::from(u32::MAX);
        NOTICE_TOKENS | self.next_notice
    }

    /// Whether the last segment asked for could not be made.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

impl Shard {
    pub(super) fn segment_ready(
        &mut self,
        spare: Result<SpareSegment, DiskError>,
        out: &mut Effects,
    ) {
        let full = spare.is_err();
        if full != self.pending.full {
            self.pending.full = full;
            out.push(Effect::Report(Box::new(if full {
                Fact::SpoolFull
            } else {
                Fact::SpoolFree
            })));
        }
        self.spool.handle_spare(spare);
    }

    /// Closes the commit group if its time has come, and hands out what is to be written.
    pub(super) fn order_commits(&mut self, now: Now, out: &mut Effects) {
        if self.phase.is_stopping() {
            self.spool.stop_cleaning();
        }
        let gather = Gather { transactions: self.reception.receiving() };
        while let Some(request) = self.spool.poll_request(now, gather) {
            match request {
                Request::Commit { commit, file, offset, block } => {
                    out.push(Effect::Commit { commit, file, offset, block });
                }
                Request::PrepareSegment => out.push(Effect::PrepareSegment),
                Request::Fetch { fetch, file, offset, bytes } => {
                    self.fetch_for_cleaning(fetch, file, offset, bytes, out);
                }
            }
        }
    }

    /// Tells those who waited for the disk; whether there were any.
    pub(super) fn announce_durable(&mut self, now: Now, out: &mut Effects) -> bool {
        let mut moved = false;
        while let Some(durable) = self.spool.poll_durable() {
            moved = true;
            match durable {
                Durable::Message { token, id, place, record } => {
                    self.message_durable(now, token, id, place, &record, out);
                }
                Durable::Refused { token } => self.message_refused(now, token, out),
                Durable::Settled { token } => self.settlement_durable(token, out),
                Durable::Fenced { file, cause } => {
                    let cause = format!("{cause:?}").into();
                    out.push(Effect::Report(Box::new(Fact::SegmentFenced { file, cause })));
                }
                Durable::Kept { token } => self.order_kept(token, true, out),
                Durable::NotKept { token } => self.order_kept(token, false, out),
                Durable::SetAside { id, .. } => self.tell_set_aside(id, UNREADABLE.into(), out),
            }
        }
        moved
    }

    fn message_durable(
        &mut self,
        now: Now,
        token: u64,
        id: MessageId,
        place: Place,
        record: &RecordInMemory,
        out: &mut Effects,
    ) {
        if token < NOTICE_TOKENS {
            self.counters.messages_accepted += 1;
            self.message_stored(now, token, id, out);
        } else {
            self.pending.notices.remove(&token);
        }
        self.newest = id;
        self.schedule_message(now, id, place, record, out);
    }

    fn message_refused(&mut self, now: Now, token: u64, out: &mut Effects) {
        if token < NOTICE_TOKENS {
            self.counters.refused_spool += 1;
            return self.message_not_stored(now, token, out);
        }
        let notice = self.pending.notices.remove(&token);
        if let Some(notice) = notice.filter(|_| !planted(Bug::RefusedReportForgotten)) {
            self.pending.refused.push_back((token, notice));
            self.store_refused(now);
        }
    }

    fn store_refused(&mut self, now: Now) {
        while let Some((token, notice)) = self.pending.refused.pop_front() {
            if self.store_notice(now, token, notice.clone(), About::AsBefore).is_err() {
                return self.pending.refused.push_front((token, notice));
            }
        }
    }

    /// One delivery for each domain among the recipients.
    fn schedule_message(
        &mut self,
        now: Now,
        id: MessageId,
        place: Place,
        record: &RecordInMemory,
        out: &mut Effects,
    ) {
        let bytes = &record.block.bytes()[record.at as usize..];
        let Some((view, envelope)) = opened(bytes) else {
            unreachable!("the spool hands out what it was given");
        };
        self.counters.recipients_accepted += u64::from(view.recipients);
        let own = record.on_its_own(view.record_bytes);
        let pieces = view.chunks(bytes).map(|chunk| chunk.bytes);
        let in_pieces = pieces.fold(0, u32::saturating_add);
        let flow = self.flows.of_labels(envelope.labels());
        for group in envelope.groups() {
            let delivery = Delivery {
                message: id,
                home: self.id,
                place,
                in_pieces,
                first: group.first,
                count: group.count,
                attempts: 0,
                accepted: self.clock.now(now).wall,
                record: Some(own.clone()),
            };
            let waiting = Waiting { flow: Arc::clone(&flow), delivery, due: None, left: None };
            self.locate(now, group.domain, waiting, out);
        }
    }

    /// Outcomes of a message homed here have come from the owner of its site. Failures are written
    /// behind their report, which may take a read and room in the spool; the others at once.
    pub(super) fn settlement(&mut self, now: Now, mut settlement: Settlement, out: &mut Effects) {
        for range in &mut settlement.outcomes {
            if let Outcome::Deferred { next, .. } = &mut range.outcome {
                *next = self.clock.to_wall(now, *next);
            }
        }
        let failed: Vec<_> = settlement.outcomes.extract_if(.., |range| is_failed(range)).collect();
        let record = settlement.record.take().map(|(block, at)| RecordInMemory { block, at });
        if failed.is_empty() {
            return self.write_outcomes(now, &settlement);
        }
        if !settlement.outcomes.is_empty() {
            // The lease that waits is told once, when its failures are on disk.
            self.write_outcomes(now, &take_outcomes(&mut settlement));
        }
        settlement.outcomes = failed;
        match (settlement.words, record) {
            (Words::OnRecord, _) => self.quote_last_replies(settlement, out),
            (Words::Given, Some(record)) => self.settle_failures(now, settlement, &record, out),
            (Words::Given, None) => self.fetch_for_bounce(settlement, out),
        }
    }

    /// Writes the report to the sender and the failures in one; those that nobody is told of alone.
    pub(super) fn settle_failures(
        &mut self,
        now: Now,
        settlement: Settlement,
        record: &RecordInMemory,
        out: &mut Effects,
    ) {
        let Some(notice) = self.notice_due(now, &settlement, record, out) else {
            return self.write_outcomes(now, &settlement);
        };
        if planted(Bug::ReportedTwice) {
            let token = self.pending.next_notice();
            let none = About::Failures { message: settlement.message, failed: &[], settled: None };
            if self.store_notice(now, token, notice.clone(), none).is_err() {
                return self.pending.held.push_back(settlement);
            }
        }
        match self.store_new_notice(now, notice, &settlement) {
            Ok(()) => self.count_outcomes(&settlement.outcomes),
            Err(_) if planted(Bug::FailureWithoutReport) => self.write_outcomes(now, &settlement),
            Err(SpoolFull::TooLarge) => match halves(settlement) {
                // Waiting would not help: the failures are reported in parts.
                Ok([front, back]) => {
                    self.settle_failures(now, front, record, out);
                    self.settle_failures(now, back, record, out);
                }
                Err(settlement) => self.pending.held.push_back(settlement),
            },
            Err(_) => self.pending.held.push_back(settlement),
        }
    }

    fn store_new_notice(
        &mut self,
        now: Now,
        notice: Notice,
        settlement: &Settlement,
    ) -> Result<(), SpoolFull> {
        let (message, failed) = (settlement.message, &settlement.outcomes[..]);
        let settled = settlement.strict.map(|waiter| self.strict_token(waiter));
        let token = self.pending.next_notice();
        let about = About::Failures { message, failed, settled };
        let stored = self.store_notice(now, token, notice, about);
        if let (Err(_), Some(settled)) = (&stored, settled) {
            self.pending.strict.remove(&settled);
        }
        stored
    }

    /// Tries again what found the spool full; its record is read again.
    pub(super) fn settle_held(&mut self, now: Now, out: &mut Effects) {
        self.store_refused(now);
        if self.pending.held.is_empty() || self.spool.room().notices.is_err() {
            return;
        }
        for _ in 0..HELD_PER_TURN {
            let Some(settlement) = self.pending.held.pop_front() else { return };
            self.fetch_for_bounce(settlement, out);
        }
    }

    fn write_outcomes(&mut self, now: Now, settlement: &Settlement) {
        let token = settlement.strict.map(|waiter| self.strict_token(waiter));
        self.count_outcomes(&settlement.outcomes);
        self.spool.settle(now, settlement.message, &settlement.outcomes, token);
    }

    fn strict_token(&mut self, waiter: (ShardId, LeaseId)) -> u64 {
        let token = self.pending.next_token;
        self.pending.next_token += 1;
        self.pending.strict.insert(token, waiter);
        token
    }

    fn settlement_durable(&mut self, token: u64, out: &mut Effects) {
        if let Some((shard, lease)) = self.pending.strict.remove(&token) {
            self.tell(shard, Note::Settled { lease }, out);
        }
    }

    pub(super) fn tell_set_aside(&self, id: MessageId, cause: Box<str>, out: &mut Effects) {
        let message = id.to_string().into();
        out.push(Effect::Report(Box::new(Fact::MessageSetAside { message, cause })));
    }

    fn count_outcomes(&mut self, outcomes: &[RangeOutcome]) {
        for RangeOutcome { count, outcome, .. } in outcomes {
            let count = u64::from(*count);
            match outcome {
                Outcome::Delivered { .. } => self.counters.recipients_delivered += count,
                Outcome::Deferred { .. } => self.counters.recipients_deferred += count,
                Outcome::Failed { .. } => self.counters.recipients_failed += count,
                Outcome::Cancelled { .. } => self.counters.recipients_cancelled += count,
            }
        }
    }

    /// When the spool must be looked at again though nothing comes in.
    pub(super) fn storage_wakeup(&self, now: Mono) -> Option<Mono> {
        let waits = !self.pending.held.is_empty() || !self.pending.refused.is_empty();
        let held = waits.then(|| now.plus(HELD_AGAIN));
        [self.spool.next_wakeup(), held].into_iter().flatten().min()
    }
}

/// Held failures taken up in one turn.
const HELD_PER_TURN: usize = 64;

/// What the operator is told of a message that cleaning could not copy.
const UNREADABLE: &str = "its bytes on disk are damaged or cannot be read";

/// How soon a notice that found the spool full is tried again.
const HELD_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// A settlement in two, about half of the recipients each; as it was, if it is about one. Who waits
/// for it is told with the last.
fn halves(mut settlement: Settlement) -> Result<[Settlement; 2], Settlement> {
    let count: u32 = settlement.outcomes.iter().map(|range| u32::from(range.count)).sum();
    if count < 2 {
        return Err(settlement);
    }
    let mut left = count / 2;
    let mut back = Vec::new();
    for mut range in std::mem::take(&mut settlement.outcomes) {
        let front = u16::try_from(left).unwrap_or(u16::MAX).min(range.count);
        left -= u32::from(front);
        if front > 0 {
            settlement.outcomes.push(RangeOutcome { count: front, ..range.clone() });
        }
        if front < range.count {
            (range.first, range.count) = (range.first + front, range.count - front);
            back.push(range);
        }
    }
    let strict = settlement.strict.take();
    let (message, place) = (settlement.message, settlement.place);
    let (outcomes, words) = (back, settlement.words);
    Ok([settlement, Settlement { message, place, outcomes, strict, record: None, words }])
}

/// The settlement with its outcomes; what is left behind has none.
fn take_outcomes(settlement: &mut Settlement) -> Settlement {
    Settlement {
        message: settlement.message,
        place: settlement.place,
        outcomes: std::mem::take(&mut settlement.outcomes),
        strict: None,
        record: None,
        words: settlement.words,
    }
}

pub(super) fn is_failed(outcome: &RangeOutcome) -> bool {
    matches!(outcome.outcome, Outcome::Failed { .. })
}

/// The parts of a record and its envelope; `None` if the bytes make no sense.
pub(super) fn opened(record: &[u8]) -> Option<(MessageView, EnvelopeView<'_>)> {
    let view = MessageView::parse(record).ok()?;
    let (envelope, _) = EnvelopeView::parse(view.envelope.of(record)?).ok()?;
    Some((view, envelope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::SegmentSeq;
    use crate::model::outcome::Reply;

    fn settlement(ranges: &[(u16, u16)]) -> Settlement {
        let failed = |(first, count): &(u16, u16)| RangeOutcome {
            first: *first,
            count: *count,
            attempts: 1,
            outcome: Outcome::Failed { reply: Reply::remote(550, None, "no") },
        };
        Settlement {
            message: MessageId::new(SegmentSeq(1), 0),
            place: Place { segment: SegmentSeq(1), offset: 64, bytes: 64 },
            outcomes: ranges.iter().map(failed).collect(),
            strict: Some((ShardId(1), LeaseId { owner: ShardId(1), slot: 0, generation: 0 })),
            record: None,
            words: Words::Given,
        }
    }

    fn ranges(settlement: &Settlement) -> Vec<(u16, u16)> {
        settlement.outcomes.iter().map(|range| (range.first, range.count)).collect()
    }

    #[test]
    fn a_settlement_in_halves_is_about_the_same_recipients() {
        let [front, back] = halves(settlement(&[(0, 3), (5, 4), (20, 1)])).unwrap();
        assert_eq!((ranges(&front), ranges(&back)), (vec![(0, 3), (5, 1)], vec![(6, 3), (20, 1)]));
        assert!(front.strict.is_none() && back.strict.is_some(), "told once, with the last");
        let [front, back] = halves(settlement(&[(4, 2)])).unwrap();
        assert_eq!((ranges(&front), ranges(&back)), (vec![(4, 1)], vec![(5, 1)]));
        assert!(halves(settlement(&[(7, 1)])).is_err());
    }
}
