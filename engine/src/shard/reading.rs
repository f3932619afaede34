//! Records read again through the ring: for connections of any shard, for bounces, for cleaning.
//!
//! A delivery knows the place that it was queued with. Its message may have been copied since, and
//! again while it is being read; so a place is looked up by the message's name, and what was read is
//! believed only if it is what the spool says lies there, else it is read where it lies now.
//!
//! What fails because its time is over is told with the last reply to it. That is read here too, by the
//! place that the spool knows, and what cannot be read is told without it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::asking::answered;
use super::{AskedId, DiskError, Effect, Effects, ReadId, Shard};
use crate::base::block::Block;
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::admin::Answer;
use crate::model::connection::ShardId;
use crate::model::delivery::{LeaseId, RecordInMemory};
use crate::model::message::{MessageId, Place};
use crate::model::note::{Note, Settlement};
use crate::model::outcome::{Outcome, RangeOutcome, Reply};
use crate::schedule::expired;
use crate::spool::files::FileId;
use crate::spool::{FetchId, ReplyPlace, Run};

/// Reads with the driver at once: enough to keep a disk busy, far below what a driver takes.
/// Cleaning bounds its own.
const READS_MAX: usize = 256;

/// Records with last replies that are read for one delivery. It was tried as one, so as a rule all its
/// recipients are in one record; those of further ones are told what their site last said.
const REPLY_RECORDS_MAX: usize = 8;

/// Reads under way, and those in line. Bounded by what asks: two deliveries a lease, the failures of
/// live messages, and what cleaning allows itself.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, UnderWay>,
    waiting: VecDeque<Read>,
    /// Failures whose last replies are to be read before their record is.
    quoting: VecDeque<Box<Quoting>>,
    next: u32,
}

enum UnderWay {
    /// With the place where it lay when the read was ordered.
    Mail(Read, Place),
    Replies(Box<Quoting>, Place),
    Cleaning(FetchId),
}

struct Read {
    message: MessageId,
    /// As whoever asks knows it.
    asked: Place,
    purpose: Purpose,
}

enum Purpose {
    /// A connection waits for it.
    Lease { shard: ShardId, lease: LeaseId },
    /// The notice to the sender quotes it.
    Bounce(Box<Settlement>),
    /// An operator asks about it.
    Question(AskedId),
}

/// A settlement that fails recipients, and where the last replies to them lie.
struct Quoting {
    settlement: Settlement,
    /// What is not read yet.
    left: Vec<(Run, ReplyPlace)>,
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty() && self.quoting.is_empty()
    }

    fn start(&mut self, read: UnderWay) -> ReadId {
        let id = ReadId(self.next);
        self.next = self.next.wrapping_add(1);
        self.under_way.insert(id, read);
        id
    }
}

impl Shard {
    pub(super) fn fetch_for(
        &mut self,
        (shard, lease): (ShardId, LeaseId),
        message: MessageId,
        asked: Place,
        out: &mut Effects,
    ) {
        let purpose = Purpose::Lease { shard, lease };
        self.reads.waiting.push_back(Read { message, asked, purpose });
        self.start_reads(out);
    }

    /// Reads the record of a settlement that fails recipients.
    pub(super) fn fetch_for_bounce(&mut self, settlement: Settlement, out: &mut Effects) {
        let (message, asked) = (settlement.message, settlement.place);
        let purpose = Purpose::Bounce(Box::new(settlement));
        self.reads.waiting.push_back(Read { message, asked, purpose });
        self.start_reads(out);
    }

    /// Reads what was last said to recipients whose time is over, then as for any failure.
    pub(super) fn quote_last_replies(&mut self, settlement: Settlement, out: &mut Effects) {
        let message = settlement.message;
        let ranges = settlement.outcomes.iter();
        let places = ranges.flat_map(|one| self.spool.last_replies(message, one.first, one.count));
        let mut left: Vec<(Run, ReplyPlace)> = places.collect();
        let mut records: Vec<ReplyPlace> = Vec::new();
        left.retain(|(_, at)| {
            let is_new = !records.contains(at);
            let is_wanted = !is_new || records.len() < REPLY_RECORDS_MAX;
            records.extend((is_new && is_wanted).then_some(*at));
            is_wanted
        });
        self.reads.quoting.push_back(Box::new(Quoting { settlement, left }));
        self.start_reads(out);
    }

    /// Reads the record of a message that somebody asks about.
    pub(super) fn fetch_for_question(
        &mut self,
        asked: AskedId,
        message: MessageId,
        place: Place,
        out: &mut Effects,
    ) {
        let purpose = Purpose::Question(asked);
        self.reads.waiting.push_back(Read { message, asked: place, purpose });
        self.start_reads(out);
    }

    pub(super) fn fetch_for_cleaning(
        &mut self,
        fetch: FetchId,
        file: FileId,
        offset: u64,
        bytes: u32,
        out: &mut Effects,
    ) {
        let read = self.reads.start(UnderWay::Cleaning(fetch));
        out.push(Effect::Fetch { read, file, offset, bytes });
    }

    /// Hands reads to the driver while there is room.
    fn start_reads(&mut self, out: &mut Effects) {
        while self.reads.under_way.len() < READS_MAX
            && let Some(quoting) = self.reads.quoting.pop_front()
        {
            self.start_quoting(quoting, out);
        }
        while self.reads.under_way.len() < READS_MAX
            && let Some(read) = self.reads.waiting.pop_front()
        {
            let place = self.spool.present(read.message, read.asked);
            match place.and_then(|place| Some((place, self.spool.locate(place)?))) {
                Some((place, file)) => self.start_read(read, place, file, out),
                None => self.go_on_without(read, out),
            }
        }
    }

    /// The next record with last replies; behind the last, the message's own.
    fn start_quoting(&mut self, mut quoting: Box<Quoting>, out: &mut Effects) {
        while let Some((_, at)) = quoting.left.first().copied() {
            if let Some((place, file)) = self.spool.reply_record(at) {
                let Place { offset, bytes, .. } = place;
                let read = self.reads.start(UnderWay::Replies(quoting, place));
                return out.push(Effect::Fetch { read, file, offset: offset.into(), bytes });
            }
            quoting.left.retain(|(_, other)| *other != at);
        }
        let settlement = quoting.settlement;
        let (message, asked) = (settlement.message, settlement.place);
        let purpose = Purpose::Bounce(Box::new(settlement));
        self.reads.waiting.push_back(Read { message, asked, purpose });
    }

    fn start_read(&mut self, read: Read, place: Place, file: FileId, out: &mut Effects) {
        let Place { offset, bytes, .. } = place;
        let id = self.reads.start(UnderWay::Mail(read, place));
        out.push(Effect::Fetch { read: id, file, offset: u64::from(offset), bytes });
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        id: ReadId,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        match self.reads.under_way.remove(&id) {
            Some(UnderWay::Mail(read, place)) => self.mail_fetched(now, read, place, result, out),
            Some(UnderWay::Replies(quoting, place)) => self.replies_fetched(quoting, place, result),
            Some(UnderWay::Cleaning(fetch)) => self.spool.handle_fetched(now, fetch, result),
            None => return,
        }
        self.start_reads(out);
    }

    fn mail_fetched(
        &mut self,
        now: Now,
        read: Read,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        self.counters.records_read += 1;
        let cause = match result {
            Ok(block) if self.spool.holds(place, block.bytes()) => {
                return self.read_well(now, read, RecordInMemory { block, at: 0 }, out);
            }
            Ok(_) => "its checksum does not hold".to_owned(),
            Err(error) => format!("it cannot be read: {error:?}"),
        };
        // Copied away, and its segment recycled, under the read: each such round takes another move.
        let present = self.spool.present(read.message, read.asked);
        if present.is_some_and(|present| present != place) {
            return self.reads.waiting.push_front(read);
        }
        self.unreadable(read, &cause, out);
    }

    fn replies_fetched(
        &mut self,
        mut quoting: Box<Quoting>,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
    ) {
        let Quoting { settlement, left } = &mut *quoting;
        let is_here =
            |at: &ReplyPlace| self.spool.reply_record(*at).is_none_or(|(other, _)| other == place);
        for (run, _) in left.extract_if(.., |(_, at)| is_here(at)) {
            let Ok(block) = &result else { continue };
            let said = self.spool.replies_in(block.bytes(), place, settlement.message, run);
            said.iter().for_each(|(run, reply)| quote(&mut settlement.outcomes, *run, reply));
        }
        self.reads.quoting.push_front(quoting);
    }

    fn read_well(&mut self, now: Now, read: Read, record: RecordInMemory, out: &mut Effects) {
        match read.purpose {
            Purpose::Lease { shard, lease } => {
                let place = read.asked;
                self.tell(shard, Note::Fetched { lease, place, record: Some(record) }, out);
            }
            Purpose::Bounce(settlement) => self.settle_failures(now, *settlement, &record, out),
            Purpose::Question(asked) => {
                self.tell_of_message(now, asked, read.message, &record, out);
            }
        }
    }

    /// The message is set aside: its recipients stay pending in the spool, and the operator is
    /// told. To fail them without a report to the sender would be to lose it.
    fn unreadable(&mut self, read: Read, cause: &str, out: &mut Effects) {
        if !matches!(read.purpose, Purpose::Question(_)) {
            self.counters.records_set_aside += 1;
            self.tell_set_aside(read.message, cause.into(), out);
        }
        self.go_on_without(read, out);
    }

    /// Nothing can be read: whoever waits for it is told to go on.
    fn go_on_without(&mut self, read: Read, out: &mut Effects) {
        match read.purpose {
            Purpose::Lease { shard, lease } => {
                let place = read.asked;
                self.tell(shard, Note::Fetched { lease, place, record: None }, out);
            }
            Purpose::Bounce(settlement) => {
                if let Some((shard, lease)) = settlement.strict {
                    self.tell(shard, Note::Settled { lease }, out);
                }
            }
            Purpose::Question(asked) => answered(asked, Answer::Message(None), out),
        }
    }
}

/// Failures of these recipients for want of time say what the last reply was.
fn quote(outcomes: &mut Vec<RangeOutcome>, run: Run, reply: &Reply) {
    let failed = Outcome::Failed { reply: expired(Some(reply)) };
    let mut quoted = Vec::with_capacity(outcomes.len());
    for one in outcomes.drain(..) {
        let [before, hit, behind] = Run::of(&one).split(run);
        let part = |run: Run| RangeOutcome { first: run.first, count: run.count, ..one.clone() };
        quoted.extend(before.map(part));
        quoted.extend(hit.map(|hit| RangeOutcome { outcome: failed.clone(), ..part(hit) }));
        quoted.extend(behind.map(part));
    }
    *outcomes = quoted;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Enhanced;

    #[test]
    fn each_recipient_is_told_its_own_last_reply_and_the_others_what_was_given() {
        let given = Reply::local(550, Enhanced(5, 4, 7), "delivery time expired");
        let failed = |first, count, reply: &Reply| {
            let outcome = Outcome::Failed { reply: reply.clone() };
            RangeOutcome { first, count, attempts: 3, outcome }
        };
        let mut outcomes = vec![failed(0, 4, &given), failed(6, 2, &given)];
        let full = Reply::remote(452, Some(Enhanced(4, 2, 2)), "mailbox full");
        quote(&mut outcomes, Run { first: 1, count: 2 }, &full);
        let greylisted = Reply::remote(451, None, "greylisted");
        quote(&mut outcomes, Run { first: 3, count: 4 }, &greylisted);
        let (full, greylisted) = (expired(Some(&full)), expired(Some(&greylisted)));
        assert_eq!(&*full.text, "delivery time expired; last reply: 452 4.2.2 mailbox full");
        let expected = [
            failed(0, 1, &given),
            failed(1, 2, &full),
            failed(3, 1, &greylisted),
            failed(6, 1, &greylisted),
            failed(7, 1, &given),
        ];
        assert_eq!(outcomes, expected);
    }
}
