//! Last replies stay on disk: of each, it is kept where the Outcomes record lies that holds it.

use std::num::NonZeroU32;

use super::Spool;
use super::files::FileId;
use super::index::Run;
use super::message::PendingRun;
use super::outcomes::{EntryResult, OutcomeEntry, entries};
use super::record::{RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use super::segment::data_end;
use crate::base::planted::{Bug, planted};
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::Reply;

/// The low six bits of an offset, which are zero in every record's, count the record's length in these:
/// so a reader need not take more than that from the disk.
const UNIT_BYTES: u32 = 512;
const UNITS_MASK: u32 = 63;
const _: () = assert!(RECORD_ALIGN == 64, "offsets leave six bits");
/// What is read of a record that is too long to be counted so; none is longer.
const LONG_RECORD_BYTES: u32 = 1 << 20;

/// Where an Outcomes record begins in its segment, and about how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spot(NonZeroU32);

impl Spot {
    /// `None`: no record begins there.
    pub(super) fn new(offset: u32, bytes: u32) -> Option<Self> {
        let units = bytes.div_ceil(UNIT_BYTES).min(UNITS_MASK);
        let offset = NonZeroU32::new(offset & !UNITS_MASK)?;
        Some(Self(offset | units))
    }

    pub(super) fn offset(self) -> u32 {
        self.0.get() & !UNITS_MASK
    }

    /// The record's length or somewhat more.
    fn bytes(self) -> u32 {
        match self.0.get() & UNITS_MASK {
            UNITS_MASK => LONG_RECORD_BYTES,
            units => units * UNIT_BYTES,
        }
    }
}

/// The Outcomes record that holds the last reply to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyPlace {
    pub(super) segment: SegmentSeq,
    pub(super) spot: Spot,
}

impl ReplyPlace {
    /// What is to be read, in a segment that ends at `end`: the record, and maybe some bytes behind.
    pub(super) fn place(self, end: u32) -> Place {
        let offset = self.spot.offset();
        let bytes = self.spot.bytes().min(end.saturating_sub(offset));
        Place { segment: self.segment, offset, bytes }
    }
}

impl Spool {
    /// Of the last replies to these recipients of a message homed here, as far as they are pending and
    /// were put off: where the records lie that hold them, and whom each is about. A message that was
    /// tried once has one.
    #[must_use]
    pub fn last_replies(&self, id: MessageId, first: u16, count: u16) -> Vec<(Run, ReplyPlace)> {
        let asked = Run { first, count };
        let hit = |run: &PendingRun| Some((run.run().common(asked)?, run.reply?));
        self.index.states(id).iter().filter_map(hit).collect()
    }

    /// What is to be read of such a record, and the file it lies in; `None`: it is gone, and the
    /// reply with it.
    #[must_use]
    pub fn reply_record(&self, at: ReplyPlace) -> Option<(Place, FileId)> {
        let segment = self.segments.get(&at.segment)?;
        Some((at.place(data_end(segment.file_bytes)), segment.file))
    }

    /// The replies to these recipients in the bytes read from there, and to whom each was.
    #[must_use]
    pub fn replies_in(
        &self,
        bytes: &[u8],
        place: Place,
        id: MessageId,
        run: Run,
    ) -> Vec<(Run, Reply)> {
        let payload = payload(bytes).filter(|_| self.holds(place, bytes));
        payload.map_or_else(Vec::new, |payload| last_replies(payload, id, run))
    }
}

/// The payload of the record that `bytes` begin with, once its checksum has been looked at.
pub(super) fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let header = RecordHeader::read_unchecked(bytes)?;
    bytes.get(RECORD_HEADER_BYTES..)?.get(..header.payload_bytes as usize)
}

/// The last replies in a record's payload to those of these recipients whom it put off.
pub(super) fn last_replies(payload: &[u8], id: MessageId, run: Run) -> Vec<(Run, Reply)> {
    let is_of_it = |entry: &OutcomeEntry<'_>| {
        (entry.message == id || planted(Bug::ReplyOfAnother))
            && matches!(entry.result, EntryResult::Deferred { .. })
    };
    let told: Vec<OutcomeEntry<'_>> = entries(payload).filter(is_of_it).collect();
    let newest = |recipient| {
        let one = Run { first: recipient, count: 1 };
        told.iter().rposition(|entry| entry.run().covers(one))
    };
    let mut found: Vec<(Run, usize)> = Vec::new();
    for recipient in run.first..run.first.saturating_add(run.count) {
        let Some(entry) = newest(recipient) else { continue };
        match found.last_mut() {
            Some((last, same)) if *same == entry && last.first + last.count == recipient => {
                last.count += 1;
            }
            _ => found.push((Run { first: recipient, count: 1 }, entry)),
        }
    }
    found.into_iter().map(|(run, entry)| (run, told[entry].reply())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;
    use crate::model::outcome::{Outcome, RangeOutcome};
    use crate::spool::outcomes::append_entry;

    #[test]
    fn a_spot_reaches_to_the_end_of_its_record_and_less_than_a_unit_behind() {
        for bytes in [64, 511, 512, 513, 16 << 10, 62 * 512] {
            let spot = Spot::new(4160, bytes).unwrap();
            assert_eq!(spot.offset(), 4160);
            assert!((bytes..bytes + UNIT_BYTES).contains(&spot.bytes()), "{bytes}");
        }
        assert_eq!(Spot::new(0, 64), None);
    }

    #[test]
    fn a_long_record_is_read_in_full_or_to_the_end_of_its_segment() {
        let spot = Spot::new(8192, 100_000).unwrap();
        let place = ReplyPlace { segment: SegmentSeq(3), spot };
        assert_eq!((place.place(u32::MAX).bytes, place.place(16_384).bytes), (1 << 20, 8192));
    }

    #[test]
    fn the_reply_is_the_newest_deferral_of_that_message_and_recipient() {
        let mut payload = Vec::new();
        let mut add = |ordinal, first, text: &str, is_final| {
            let reply = Reply::remote(451, None, text);
            let outcome = match is_final {
                true => Outcome::Delivered { reply },
                false => Outcome::Deferred { reply, next: Wall(7) },
            };
            let range = RangeOutcome { first, count: 2, attempts: 1, outcome };
            append_entry(&mut payload, MessageId::new(SegmentSeq(1), ordinal), first, 2, &range);
        };
        add(0, 0, "old", false);
        add(0, 0, "new", false);
        add(0, 2, "others", false);
        add(1, 0, "of another message", false);
        add(0, 0, "delivered", true);
        let said = |first, count| -> Vec<_> {
            let run = Run { first, count };
            let found = last_replies(&payload, MessageId::new(SegmentSeq(1), 0), run);
            found.into_iter().map(|(run, reply)| (run.first, run.count, reply.text)).collect()
        };
        assert_eq!(said(1, 1), [(1, 1, "new".into())]);
        assert_eq!(said(0, 9), [(0, 2, "new".into()), (2, 2, "others".into())]);
        assert_eq!(said(4, 9), []);
    }
}
