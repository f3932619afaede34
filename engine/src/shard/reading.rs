//! Records read again through the ring: for connections of any shard, for bounces, for cleaning.
//!
//! A delivery knows the place that it was queued with. Its message may have been copied since, and
//! again while it is being read; so a place is looked up by the message's name, and what was read is
//! believed only if it is what the spool says lies there, else it is read where it lies now.

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

/// Reads under way. Bounded by what asks: two deliveries a lease, the settlements of failures, and
/// what cleaning allows itself.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Map<ReadId, Read>,
    next: u32,
}

enum Read {
    Mail(MailRead),
    Cleaning(FetchId),
}

struct MailRead {
    message: MessageId,
    /// As whoever asks knows it.
    asked: Place,
    /// Where it lay when the read was ordered.
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
        if let Err(purpose) = self.start_read(message, asked, purpose, out) {
            self.answer(now, asked, purpose, None, out);
        }
    }

    /// Reads the record of a settlement that fails recipients; without it there is no notice.
    pub(super) fn fetch_for_bounce(&mut self, now: Now, settlement: Settlement, out: &mut Effects) {
        let (message, asked) = (settlement.message, settlement.place);
        let purpose = Purpose::Bounce(Box::new(settlement));
        if let Err(purpose) = self.start_read(message, asked, purpose, out) {
            self.answer(now, asked, purpose, None, out);
        }
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

    /// Gives the purpose back if there is nothing to read: the message is over.
    fn start_read(
        &mut self,
        message: MessageId,
        asked: Place,
        purpose: Purpose,
        out: &mut Effects,
    ) -> Result<(), Purpose> {
        let present = self.spool.present(message, asked);
        let Some((place, file)) =
            present.and_then(|place| Some((place, self.spool.locate(place)?)))
        else {
            return Err(purpose);
        };
        let read = self.reads.start(Read::Mail(MailRead { message, asked, place, purpose }));
        out.push(Effect::Fetch { read, file, offset: u64::from(place.offset), bytes: place.bytes });
        Ok(())
    }

    pub(super) fn fetched(
        &mut self,
        now: Now,
        read: ReadId,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        match self.reads.under_way.remove(&read) {
            Some(Read::Mail(read)) => self.mail_fetched(now, read, result, out),
            Some(Read::Cleaning(fetch)) => self.spool.handle_fetched(now, fetch, result),
            None => {}
        }
    }

    fn mail_fetched(
        &mut self,
        now: Now,
        read: MailRead,
        result: Result<Arc<Block>, DiskError>,
        out: &mut Effects,
    ) {
        let MailRead { message, asked, place, purpose } = read;
        let record = match result {
            Ok(block) if self.spool.holds(place, block.bytes()) => {
                Ok(RecordInMemory { block, at: 0 })
            }
            Ok(_) => Err("its checksum does not hold".into()),
            Err(error) => Err(format!("it cannot be read: {error:?}").into()),
        };
        let cause = match record {
            Ok(record) => return self.answer(now, asked, purpose, Some(record), out),
            Err(cause) => cause,
        };
        let present = self.spool.present(message, asked);
        let purpose = match present {
            // It was copied away, and its segment recycled, under the read. Each round takes another
            // move, so this ends.
            Some(present) if present != place => {
                match self.start_read(message, asked, purpose, out) {
                    Ok(()) => return,
                    Err(purpose) => purpose,
                }
            }
            _ => purpose,
        };
        if present.is_some() {
            self.tell_set_aside(message, cause, out);
        }
        self.answer(now, asked, purpose, None, out);
    }

    fn answer(
        &mut self,
        now: Now,
        place: Place,
        purpose: Purpose,
        record: Option<RecordInMemory>,
        out: &mut Effects,
    ) {
        match purpose {
            Purpose::Lease { shard, lease } => {
                self.tell(shard, Note::Fetched { lease, place, record }, out);
            }
            Purpose::Bounce(settlement) => self.settle_with(now, *settlement, record, out),
        }
    }
}
