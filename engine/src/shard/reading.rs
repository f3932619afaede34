//! Records read again through the ring: for connections of any shard, for bounces, for cleaning.
//!
//! A delivery knows the place that it was queued with. Its message may have been copied since, and
//! again while it is being read; so a place is looked up by the message's name, and what was read is
//! believed only if it is what the spool says lies there, else it is read where it lies now.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{DiskError, Effect, Effects, ReadId, Shard};
use crate::base::block::Block;
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::delivery::{LeaseId, RecordInMemory};
use crate::model::message::{MessageId, Place};
use crate::model::note::{Note, Settlement};
use crate::spool::FetchId;
use crate::spool::files::FileId;

/// Reads with the driver at once: enough to keep a disk busy, far below what a driver takes. What
/// cleaning allows itself comes on top.
const READS_MAX: usize = 256;

/// Reads under way, and those in line. Bounded by what asks: a few deliveries a lease, and the
/// failures of live messages.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, Read>,
    waiting: VecDeque<Wanted>,
    next: u32,
}

enum Read {
    /// With the place where it lay when the read was ordered.
    Mail {
        wanted: Wanted,
        place: Place,
    },
    Cleaning(FetchId),
}

struct Wanted {
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
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty()
    }

    fn start(&mut self, what: Read) -> ReadId {
        let read = ReadId(self.next);
        self.next = self.next.wrapping_add(1);
        self.under_way.insert(read, what);
        read
    }
}

impl Shard {
    pub(super) fn fetch_for(
        &mut self,
        now: Now,
        (shard, lease): (ShardId, LeaseId),
        message: MessageId,
        asked: Place,
        out: &mut Effects,
    ) {
        let purpose = Purpose::Lease { shard, lease };
        self.reads.waiting.push_back(Wanted { message, asked, purpose });
        self.start_reads(now, out);
    }

    /// Reads the record of a settlement that fails recipients.
    pub(super) fn fetch_for_bounce(&mut self, now: Now, settlement: Settlement, out: &mut Effects) {
        let (message, asked) = (settlement.message, settlement.place);
        let purpose = Purpose::Bounce(Box::new(settlement));
        self.reads.waiting.push_back(Wanted { message, asked, purpose });
        self.start_reads(now, out);
    }

    pub(super) fn fetch_for_cleaning(
        &mut self,
        fetch: FetchId,
        file: FileId,
        offset: u64,
        bytes: u32,
        out: &mut Effects,
    ) {
        let read = self.reads.start(Read::Cleaning(fetch));
        out.push(Effect::Fetch { read, file, offset, bytes });
    }

    /// Hands reads to the driver while there is room.
    fn start_reads(&mut self, now: Now, out: &mut Effects) {
        while self.reads.under_way.len() < READS_MAX
            && let Some(wanted) = self.reads.waiting.pop_front()
        {
            self.start_read(now, wanted, out);
        }
    }

    fn start_read(&mut self, now: Now, wanted: Wanted, out: &mut Effects) {
        let present = self.spool.present(wanted.message, wanted.asked);
        let found = present.and_then(|place| Some((place, self.spool.locate(place)?)));
        let Some((place, file)) = found else {
            // The message is over: nobody needs it any more.
            return self.answer(now, wanted, None, out);
        };
        let read = self.reads.start(Read::Mail { wanted, place });
        out.push(Effect::Fetch { read, file, offset: u64::from(place.offset), bytes: place.bytes });
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        read: ReadId,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        match self.reads.under_way.remove(&read) {
            Some(Read::Mail { wanted, place }) => {
                self.mail_fetched(now, wanted, place, result, out)
            }
            Some(Read::Cleaning(fetch)) => self.spool.handle_fetched(now, fetch, result),
            None => {}
        }
        self.start_reads(now, out);
    }

    fn mail_fetched(
        &mut self,
        now: Now,
        wanted: Wanted,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        self.counters.records_read += 1;
        let cause: Box<str> = match result {
            Ok(block) if self.spool.holds(place, block.bytes()) => {
                return self.answer(now, wanted, Some(RecordInMemory { block, at: 0 }), out);
            }
            Ok(_) => "its checksum does not hold".into(),
            Err(error) => format!("it cannot be read: {error:?}").into(),
        };
        match self.spool.present(wanted.message, wanted.asked) {
            // It was copied away, and its segment recycled, under the read. Each round takes
            // another move, so this ends.
            Some(present) if present != place => self.reads.waiting.push_front(wanted),
            Some(_) => {
                self.counters.records_set_aside += 1;
                self.tell_set_aside(wanted.message, cause, out);
                self.answer(now, wanted, None, out);
            }
            None => self.answer(now, wanted, None, out),
        }
    }

    /// Without a record a failure is not settled: the recipients stay pending in the spool, for to
    /// fail them without a report to the sender would be to lose them.
    fn answer(
        &mut self,
        now: Now,
        wanted: Wanted,
        record: Option<RecordInMemory>,
        out: &mut Effects,
    ) {
        match (wanted.purpose, record) {
            (Purpose::Lease { shard, lease }, record) => {
                self.tell(shard, Note::Fetched { lease, place: wanted.asked, record }, out);
            }
            (Purpose::Bounce(settlement), Some(record)) => {
                self.settle_failures(now, *settlement, &record, out);
            }
            (Purpose::Bounce(_), None) => {}
        }
    }
}
