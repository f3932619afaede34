//! Records read again through the ring: for connections of any shard, and for bounces.

use std::sync::Arc;

use super::{DiskError, Effect, Effects, Fact, ReadId, Shard};
use crate::base::block::Block;
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::delivery::{LeaseId, RecordInMemory};
use crate::model::message::Place;
use crate::model::note::{Note, Settlement};

/// Reads under way. Bounded by what asks: two deliveries a lease, and the settlements of failures.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, Read>,
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
        self.under_way.is_empty()
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
        if !self.start_read(place, Purpose::Lease { shard, lease }, out) {
            self.tell(shard, Note::Fetched { lease, place, record: None }, out);
        }
    }

    /// Reads the record of a settlement that fails recipients; without it there is no notice.
    pub(super) fn fetch_for_bounce(&mut self, now: Now, settlement: Settlement, out: &mut Effects) {
        if self.spool.locate(settlement.place).is_none() {
            return self.settle_with(now, settlement, None, out);
        }
        self.start_read(settlement.place, Purpose::Bounce(Box::new(settlement)), out);
    }

    fn start_read(&mut self, place: Place, purpose: Purpose, out: &mut Effects) -> bool {
        let Some(file) = self.spool.locate(place) else { return false };
        let read = ReadId(self.reads.next);
        self.reads.next = self.reads.next.wrapping_add(1);
        self.reads.under_way.insert(read, Read { place, purpose });
        out.push(Effect::Fetch { read, file, offset: u64::from(place.offset), bytes: place.bytes });
        true
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        read: ReadId,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        let Some(Read { place, purpose }) = self.reads.under_way.remove(&read) else { return };
        let record = self.checked(place, result, out);
        match purpose {
            Purpose::Lease { shard, lease } => {
                self.tell(shard, Note::Fetched { lease, place, record }, out);
            }
            Purpose::Bounce(settlement) => self.settle_with(now, *settlement, record, out),
        }
    }

    /// The record, if it was read and its checksum holds; else the operator is told.
    fn checked(
        &self,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) -> Option<RecordInMemory> {
        let cause = match result {
            Ok(block) if self.spool.holds(place, block.bytes()) => {
                return Some(RecordInMemory { block, at: 0 });
            }
            Ok(_) => "its checksum does not hold".into(),
            Err(error) => format!("it cannot be read: {error:?}").into(),
        };
        let message = format!("segment {} offset {}", place.segment.0, place.offset).into();
        out.push(Effect::Report(Box::new(Fact::MessageSetAside { message, cause })));
        None
    }
}
