//! A segment made in one go, sealed from its birth: how messages leave a spool, and come into one.
//!
//! It has the format of any other segment, so the same scan reads it. Messages are written as
//! copies, which carry what is pending of them.

use super::bytes::len32;
use super::files::CommitId;
use super::footer::FooterBuilder;
use super::group::{Batch, Group};
use super::message::{ChunkRef, MessageParts, states_bytes};
use super::record::{Kind, RECORD_HEADER_BYTES, Tag, padded_record_bytes};
use super::segment::{
    DATA_START, FooterPlace, SegmentHeader, SegmentState, data_end, read_slots, to_pages,
};
use super::transfer::WholeMessage;
use super::{COMMIT_BYTES_MAX, OUTCOMES_RECORD_BYTES_MAX};
use crate::base::block::PAGE_BYTES;
use crate::base::time::{Mono, Wall};
use crate::model::connection::ShardId;
use crate::model::message::{MessageId, ORDINAL_MAX, SegmentSeq};
use crate::model::outcome::{Outcome, RangeOutcome};

/// What a mark adds to the footer.
const MARK_BYTES: usize = 16;

/// Files that are made at once have the generation and header writes of one fresh from its maker.
const FIRST_GENERATION: u32 = 1;

/// What the images of a series have in common.
#[derive(Clone, Copy, Debug)]
pub struct ImagePlan {
    /// Of the first image; each further one has the next.
    pub sequence: SegmentSeq,
    pub now: Wall,
    /// No image is longer.
    pub file_bytes: u32,
    pub length: Length,
}

/// How long an image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As long as planned: a segment that is used again must have room for anything.
    Full,
    /// The last one as short as it can be.
    LastShort,
}

/// Which name a message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The one it has.
    Keep,
    /// The next of the segment: names of another spool may be taken here.
    New,
}

/// A message, or an entry, that fits no image of the planned length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message {0} does not fit a segment of this length")]
pub struct TooLong(pub MessageId);

/// A whole segment file.
#[derive(Debug)]
pub struct Image {
    pub sequence: SegmentSeq,
    pub bytes: Vec<u8>,
}

/// Images, one after the other; each is taken by `poll_image` once it is full.
#[derive(Debug)]
pub struct Series {
    plan: ImagePlan,
    open: Option<Open>,
    full: Vec<Image>,
}

impl Series {
    #[must_use]
    pub fn new(plan: ImagePlan) -> Self {
        Self { plan, open: None, full: Vec::new() }
    }

    /// Appends a message with its pieces; returns the name it has here.
    ///
    /// # Errors
    /// If no segment is long enough for it.
    pub fn append_message(
        &mut self,
        message: &WholeMessage,
        naming: Naming,
    ) -> Result<MessageId, TooLong> {
        let mut chunks = Vec::with_capacity(message.pieces.len());
        for piece in &message.pieces {
            let add = |open: &mut Open| open.append_chunk(piece);
            chunks.push(self.append(message.id, add)?);
        }
        let parts = message.parts(&chunks);
        let add = |open: &mut Open| {
            open.append_message(message.id, naming, message.accepted, &parts, message)
        };
        self.append(message.id, add)
    }

    /// Appends what became of recipients of a message that lies elsewhere.
    ///
    /// # Errors
    /// If no segment is long enough for it.
    pub fn append_outcome(&mut self, id: MessageId, outcome: &RangeOutcome) -> Result<(), TooLong> {
        self.append(id, |open| open.append_outcome(id, outcome))
    }

    /// A full image, in the order of their sequences.
    pub fn poll_image(&mut self) -> Option<Image> {
        if self.full.is_empty() { None } else { Some(self.full.remove(0)) }
    }

    /// Ends the last image; `poll_image` gives it.
    pub fn finish(&mut self) {
        if let Some(open) = self.open.take() {
            self.full.push(open.finish(self.plan.length));
        }
    }

    fn append<T>(
        &mut self,
        id: MessageId,
        add: impl Fn(&mut Open) -> Option<T>,
    ) -> Result<T, TooLong> {
        if let Some(done) = self.open.as_mut().and_then(&add) {
            return Ok(done);
        }
        if let Some(full) = self.open.take() {
            self.full.push(full.finish(Length::Full));
        }
        let mut fresh = Open::new(&self.plan);
        self.plan.sequence.0 += 1;
        let done = add(&mut fresh).ok_or(TooLong(id))?;
        self.open = Some(fresh);
        Ok(done)
    }
}

/// The image that is being filled.
#[derive(Debug)]
struct Open {
    tag: Tag,
    file_bytes: u32,
    /// The file up to the open group.
    bytes: Vec<u8>,
    group: Group,
    commits: u32,
    footer: FooterBuilder,
    next_ordinal: u32,
    outcomes: Batch,
}

impl Open {
    fn new(plan: &ImagePlan) -> Self {
        let tag = Tag { sequence: plan.sequence, generation: FIRST_GENERATION, created: plan.now };
        Self {
            tag,
            file_bytes: plan.file_bytes,
            bytes: vec![0; DATA_START as usize],
            group: Group::new(tag, DATA_START, 0, PAGE_BYTES),
            commits: 0,
            footer: FooterBuilder::default(),
            next_ordinal: 0,
            outcomes: Batch::new(Mono::default()),
        }
    }

    fn append_chunk(&mut self, piece: &[u8]) -> Option<ChunkRef> {
        self.make_room(padded_record_bytes(piece.len()))?;
        let place = self.group.append(Kind::Chunk, &[], piece);
        Some(ChunkRef {
            segment: self.tag.sequence,
            offset: place.offset,
            bytes: len32(piece.len()),
        })
    }

    fn append_message(
        &mut self,
        id: MessageId,
        naming: Naming,
        accepted: Wall,
        parts: &MessageParts<'_>,
        message: &WholeMessage,
    ) -> Option<MessageId> {
        let payload_bytes = parts.payload_bytes() + states_bytes(message.runs.len());
        let outcome_bytes: usize = message.deferrals.iter().map(entry_bytes).sum();
        self.make_room(padded_record_bytes(payload_bytes) + outcome_bytes)?;
        let id = match naming {
            Naming::Keep => id,
            Naming::New if self.next_ordinal > ORDINAL_MAX => return None,
            Naming::New => MessageId::new(self.tag.sequence, self.next_ordinal),
        };
        self.next_ordinal += 1;
        let place = self.group.append_copy(id, accepted, parts, &message.runs);
        self.footer.add_mark(place.offset, place.bytes, Kind::Copy);
        for outcome in &message.deferrals {
            self.outcomes.add(id, outcome.first, outcome.count, outcome);
        }
        Some(id)
    }

    fn append_outcome(&mut self, id: MessageId, outcome: &RangeOutcome) -> Option<()> {
        self.make_room(entry_bytes(outcome))?;
        self.outcomes.add(id, outcome.first, outcome.count, outcome);
        Some(())
    }

    /// Ends the group if it is long enough; `None`: so much more does not fit the image.
    fn make_room(&mut self, record_bytes: usize) -> Option<()> {
        let outcome_bytes = self.outcomes.payload.len();
        let open_bytes = self.group.block.len() + padded_record_bytes(outcome_bytes);
        let footer = 2 * RECORD_HEADER_BYTES + self.footer.payload_bytes() + 4 * MARK_BYTES;
        let end = self.bytes.len() as u64
            + u64::from(to_pages(open_bytes + record_bytes))
            + u64::from(to_pages(PAGE_BYTES + footer));
        if end > u64::from(data_end(self.file_bytes)) {
            return None;
        }
        if open_bytes + record_bytes > COMMIT_BYTES_MAX
            || outcome_bytes >= OUTCOMES_RECORD_BYTES_MAX
        {
            self.close_group();
        }
        Some(())
    }

    /// Everything appended so far becomes a commit; outcomes stand behind what they speak of.
    fn close_group(&mut self) {
        let outcomes = std::mem::replace(&mut self.outcomes, Batch::new(Mono::default()));
        if outcomes.entries > 0 {
            let (place, payload) = self.group.append_batch(outcomes);
            self.footer.add_outcomes(place.offset, place.bytes, payload);
        }
        if self.group.block.len() > RECORD_HEADER_BYTES {
            self.write_group();
        }
    }

    fn write_group(&mut self) {
        self.commits += 1;
        let next_offset = self.group.offset + to_pages(self.group.block.len());
        let next = Group::new(self.tag, next_offset, self.commits, PAGE_BYTES);
        let mut group = std::mem::replace(&mut self.group, next);
        group.close();
        let durable_through = group.offset;
        let issued = group.issue(CommitId(0), durable_through, self.tag.created);
        self.bytes.extend_from_slice(issued.block.bytes());
    }

    fn finish(mut self, length: Length) -> Image {
        self.close_group();
        let footer = 2 * RECORD_HEADER_BYTES + self.footer.payload_bytes();
        let end = self.bytes.len() as u64 + u64::from(to_pages(footer));
        if end > u64::from(data_end(self.file_bytes)) {
            // Room was kept for the marks; the lists are only for speed.
            self.footer.drop_lists();
        }
        let payload = self.footer.to_payload();
        let place = self.group.append(Kind::Footer, &[], &payload);
        self.write_group();
        let footer = Some(FooterPlace { offset: place.offset, bytes: place.bytes });
        if length == Length::LastShort {
            self.file_bytes = len32(self.bytes.len() + PAGE_BYTES);
        }
        self.bytes.resize(self.file_bytes as usize, 0);
        for counter in [1, 2] {
            let header = SegmentHeader {
                tag: self.tag,
                counter,
                state: SegmentState::Sealed { footer },
                shard: ShardId(0),
                file_bytes: self.file_bytes,
            };
            let at = header.slot_offset() as usize;
            self.bytes[at..at + PAGE_BYTES].copy_from_slice(header.to_page().bytes());
        }
        debug_assert!(read_slots(&self.bytes).is_ok(), "an image is a segment");
        Image { sequence: self.tag.sequence, bytes: self.bytes }
    }
}

/// What an entry adds to a commit at most, counted generously.
fn entry_bytes(outcome: &RangeOutcome) -> usize {
    let (Outcome::Delivered { reply }
    | Outcome::Deferred { reply, .. }
    | Outcome::Failed { reply }
    | Outcome::Cancelled { reply }) = &outcome.outcome;
    RECORD_HEADER_BYTES + reply.text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Reply;
    use crate::spool::files::FileId;
    use crate::spool::recovery::scan;

    /// Entries without text are the shortest, so a list of them is longest beside its record.
    #[test]
    fn an_image_full_of_outcomes_has_an_index_that_holds() {
        let plan = ImagePlan {
            sequence: SegmentSeq(7),
            now: Wall(1),
            file_bytes: 1 << 17,
            length: Length::Full,
        };
        let mut series = Series::new(plan);
        let outcome = RangeOutcome {
            first: 0,
            count: 1,
            attempts: 1,
            outcome: Outcome::Delivered { reply: Reply::remote(250, None, "") },
        };
        for ordinal in 0..20_000 {
            series.append_outcome(MessageId::new(SegmentSeq(1), ordinal), &outcome).unwrap();
        }
        series.finish();
        let mut found = 0;
        while let Some(image) = series.poll_image() {
            let scan = scan(FileId(0), &image.bytes, |_| None).unwrap();
            assert_eq!(scan.findings, [], "segment {}", image.sequence.0);
            found += scan.outcomes.len();
        }
        assert_eq!(found, 20_000);
    }
}
