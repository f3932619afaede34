//! Records read again through the ring: for connections of any shard, and for bounces.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{DiskError, Effect, Effects, Fact, ReadId, Shard};
use crate::base::block::Block;
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::delivery::{LeaseId, RecordInMemory};
use crate::model::message::Place;
use crate::model::note::{Note, Settlement};
use crate::spool::files::FileId;

/// Reads with the driver at once: enough to keep a disk busy, far below what a driver takes.
const READS_MAX: usize = 256;

/// Reads under way, and those in line. Bounded by what asks: two deliveries a lease, and the
/// failures of live messages.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, Read>,
    waiting: VecDeque<Read>,
    next: u32,
}

struct Read {
    place: Place,
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
}

impl Shard {
    pub(super) fn fetch_for(
        &mut self,
        shard: ShardId,
        lease: LeaseId,
        place: Place,
        out: &mut Effects,
    ) {
        self.reads.waiting.push_back(Read { place, purpose: Purpose::Lease { shard, lease } });
        self.start_reads(out);
    }

    /// Reads the record of a settlement that fails recipients.
    pub(super) fn fetch_for_bounce(&mut self, settlement: Settlement, out: &mut Effects) {
        let place = settlement.place;
        let purpose = Purpose::Bounce(Box::new(settlement));
        self.reads.waiting.push_back(Read { place, purpose });
        self.start_reads(out);
    }

    /// Hands reads to the driver while there is room.
    fn start_reads(&mut self, out: &mut Effects) {
        while self.reads.under_way.len() < READS_MAX
            && let Some(read) = self.reads.waiting.pop_front()
        {
            match self.spool.locate(read.place) {
                Some(file) => self.start_read(read, file, out),
                None => self.unreadable(read, "its segment is gone", out),
            }
        }
    }

    fn start_read(&mut self, read: Read, file: FileId, out: &mut Effects) {
        let Place { offset, bytes, .. } = read.place;
        let id = ReadId(self.reads.next);
        self.reads.next = self.reads.next.wrapping_add(1);
        self.reads.under_way.insert(id, read);
        out.push(Effect::Fetch { read: id, file, offset: u64::from(offset), bytes });
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        id: ReadId,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        let Some(read) = self.reads.under_way.remove(&id) else { return };
        self.counters.records_read += 1;
        match result {
            Ok(block) if self.spool.holds(read.place, block.bytes()) => {
                self.read_well(now, read, RecordInMemory { block, at: 0 }, out);
            }
            Ok(_) => self.unreadable(read, "its checksum does not hold", out),
            Err(error) => self.unreadable(read, &format!("it cannot be read: {error:?}"), out),
        }
        self.start_reads(out);
    }

    fn read_well(&mut self, now: Now, read: Read, record: RecordInMemory, out: &mut Effects) {
        match read.purpose {
            Purpose::Lease { shard, lease } => {
                let place = read.place;
                self.tell(shard, Note::Fetched { lease, place, record: Some(record) }, out);
            }
            Purpose::Bounce(settlement) => self.settle_failures(now, *settlement, &record, out),
        }
    }

    /// The message is set aside: its recipients stay pending in the spool, and the operator is
    /// told. To fail them without a report to the sender would be to lose it.
    fn unreadable(&mut self, read: Read, cause: &str, out: &mut Effects) {
        self.counters.records_set_aside += 1;
        let Place { segment, offset, .. } = read.place;
        let message = format!("segment {} offset {offset}", segment.0).into();
        let fact = Fact::MessageSetAside { message, cause: cause.into() };
        out.push(Effect::Report(Box::new(fact)));
        if let Purpose::Lease { shard, lease } = read.purpose {
            let place = read.place;
            self.tell(shard, Note::Fetched { lease, place, record: None }, out);
        }
    }
}
