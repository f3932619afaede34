//! Records read again through the ring: for connections of any shard, for bounces, for cleaning.
//!
//! A delivery knows the place that it was queued with. Its message may have been copied since, and
//! again while it is being read; so a place is looked up by the message's name, and what was read is
//! believed only if it is what the spool says lies there, else it is read where it lies now.

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
use crate::spool::FetchId;
use crate::spool::files::FileId;

/// Reads with the driver at once: enough to keep a disk busy, far below what a driver takes.
/// Cleaning bounds its own.
const READS_MAX: usize = 256;

/// Reads under way, and those in line. Bounded by what asks: two deliveries a lease, the failures of
/// live messages, and what cleaning allows itself.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, UnderWay>,
    waiting: VecDeque<Read>,
    next: u32,
}

enum UnderWay {
    /// With the place where it lay when the read was ordered.
    Mail(Read, Place),
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

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty()
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
            && let Some(read) = self.reads.waiting.pop_front()
        {
            let place = self.spool.present(read.message, read.asked);
            match place.and_then(|place| Some((place, self.spool.locate(place)?))) {
                Some((place, file)) => self.start_read(read, place, file, out),
                None => self.go_on_without(read, out),
            }
        }
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
