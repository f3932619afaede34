//! A commit group: what one commit makes durable, while it is filled and while it is in flight.

use std::sync::Arc;

use super::bytes::len32;
use super::cleaning::Copied;
use super::files::CommitId;
use super::message::{MessageParts, PendingRun, append_message};
use super::outcomes::append_entry;
use super::record::{
    CommitFields, Fence, Kind, RECORD_HEADER_BYTES, Tag, begin_record, end_record, fields,
    patch_header,
};
use super::replies::Spot;
use super::segment::to_pages;
use super::state::Written;
use crate::base::block::{Block, BlockBuilder, PAGE_BYTES};
use crate::base::time::{Mono, Wall};
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::{Outcome, RangeOutcome};

/// Outcomes gathered for one record.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) payload: Vec<u8>,
    pub(super) entries: u32,
    /// Messages that are over once this is durable.
    pub(super) finished: Vec<MessageId>,
    /// Segments whose messages it speaks of.
    pub(super) refers: Vec<SegmentSeq>,
    /// Who is told when this is durable.
    pub(super) tokens: Vec<u64>,
    /// The report about it in the same commit, by its token.
    pub(super) notice: Option<u64>,
    /// Where it lies, once it is written.
    pub(super) spot: Option<Spot>,
    pub(super) first_at: Mono,
}

impl Batch {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            payload: Vec::new(),
            entries: 0,
            finished: Vec::new(),
            refers: Vec::new(),
            tokens: Vec::new(),
            notice: None,
            spot: None,
            first_at: now,
        }
    }

    pub(super) fn add(&mut self, id: MessageId, first: u16, count: u16, outcome: &RangeOutcome) {
        append_entry(&mut self.payload, id, first, count, outcome);
        self.entries += 1;
    }

    /// The reply loses its text: code and status stay.
    pub(super) fn add_without_text(
        &mut self,
        id: MessageId,
        first: u16,
        count: u16,
        outcome: &RangeOutcome,
    ) {
        self.add(id, first, count, &without_text(outcome));
    }

    pub(super) fn refer(&mut self, segment: SegmentSeq) {
        // Outcomes come in runs of one segment; a repeated entry costs eight bytes and is harmless.
        if self.refers.last() != Some(&segment) {
            self.refers.push(segment);
        }
    }
}

fn without_text(outcome: &RangeOutcome) -> RangeOutcome {
    let mut bare = outcome.clone();
    let (Outcome::Delivered { reply }
    | Outcome::Deferred { reply, .. }
    | Outcome::Failed { reply }
    | Outcome::Cancelled { reply }) = &mut bare.outcome;
    reply.text = Box::default();
    bare
}

/// A message that waits for its commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) token: u64,
    pub(super) id: MessageId,
    pub(super) place: Place,
    /// Where its record begins in the block.
    pub(super) at: u32,
}

/// What a commit carries.
#[derive(Debug, Default)]
pub(super) struct Cargo {
    pub(super) messages: Vec<Waiting>,
    pub(super) copies: Vec<Copied>,
    /// The last replies to what the copies are about: with those they come, or go.
    pub(super) carried: Vec<Batch>,
    pub(super) batches: Vec<Batch>,
    pub(super) states: Vec<Written>,
    pub(super) fences: Vec<Fence>,
}

/// A group that is being filled, or waits to be issued.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tag: Tag,
    /// Where the commit begins in the file.
    pub(super) offset: u32,
    ordinal: u32,
    pub(super) block: BlockBuilder,
    used_bytes: u32,
    pub(super) first_message: Option<Mono>,
    pub(super) first_copy: Option<Mono>,
    pub(super) chunks: u32,
    pub(super) cargo: Cargo,
}

impl Group {
    pub(super) fn new(tag: Tag, offset: u32, ordinal: u32, capacity: usize) -> Self {
        let mut block = BlockBuilder::with_capacity(capacity);
        begin_record(&mut block);
        Self {
            tag,
            offset,
            ordinal,
            block,
            used_bytes: 0,
            first_message: None,
            first_copy: None,
            chunks: 0,
            cargo: Cargo::default(),
        }
    }

    /// Appends a record with this payload; returns its place.
    pub(super) fn append(
        &mut self,
        kind: Kind,
        record_fields: &[(usize, &[u8])],
        payload: &[u8],
    ) -> Place {
        let at = begin_record(&mut self.block);
        self.block.append(payload);
        let position = self.offset + len32(at);
        let record_fields = fields(record_fields);
        let bytes = end_record(&mut self.block, at, kind, &record_fields, &self.tag, position);
        Place { segment: self.tag.sequence, offset: position, bytes }
    }

    /// Appends a Copy of a message with what is pending of it.
    pub(super) fn append_copy(
        &mut self,
        id: MessageId,
        accepted: Wall,
        parts: &MessageParts<'_>,
        states: &[PendingRun],
    ) -> Place {
        let (tag, offset) = (self.tag, self.offset);
        let (at, bytes) =
            append_message(&mut self.block, id, accepted, parts, states, &tag, offset);
        Place { segment: tag.sequence, offset: offset + at, bytes }
    }

    /// Whether nothing in it is in a hurry.
    pub(super) fn holds_copies_only(&self) -> bool {
        self.first_copy.is_some() && self.first_message.is_none() && self.chunks == 0
    }

    pub(super) fn append_fence(&mut self, fence: Fence) -> Place {
        let at = begin_record(&mut self.block);
        let position = self.offset + len32(at);
        let bytes =
            end_record(&mut self.block, at, Kind::Fence, &fence.to_fields(), &self.tag, position);
        self.cargo.fences.push(fence);
        Place { segment: self.tag.sequence, offset: position, bytes }
    }

    pub(super) fn append_batch(&mut self, mut batch: Batch) -> (Place, &[u8]) {
        let place = self.append_outcomes(&mut batch);
        self.cargo.batches.push(batch);
        (place, self.cargo.batches.last().map_or(&[], |batch| &batch.payload))
    }

    /// Appends last replies of the copy before it.
    pub(super) fn append_carried(&mut self, mut batch: Batch) -> (Place, &[u8]) {
        let place = self.append_outcomes(&mut batch);
        self.cargo.carried.push(batch);
        (place, self.cargo.carried.last().map_or(&[], |batch| &batch.payload))
    }

    fn append_outcomes(&mut self, batch: &mut Batch) -> Place {
        let entries = batch.entries.to_le_bytes();
        let place = self.append(Kind::Outcomes, &[(20, &entries)], &batch.payload);
        batch.spot = Spot::new(place.offset, place.bytes);
        place
    }

    /// Ends the filling: pads the block to pages.
    pub(super) fn close(&mut self) {
        self.used_bytes = len32(self.block.len());
        self.block.pad_to(PAGE_BYTES);
    }

    /// Where the next commit of the segment may begin.
    pub(super) fn end(&self) -> u32 {
        self.offset + to_pages(self.block.len())
    }

    /// Writes the commit's own header and freezes the block.
    pub(super) fn issue(mut self, commit: CommitId, durable_through: u32, wall: Wall) -> Issued {
        let end = self.end();
        let header = CommitFields {
            tag: self.tag,
            ordinal: self.ordinal,
            used_bytes: self.used_bytes,
            bytes: end - self.offset,
            durable_through,
            wall,
        };
        let record = &mut self.block.bytes_mut()[..RECORD_HEADER_BYTES];
        patch_header(record, Kind::Commit, &header.to_fields(), &self.tag, self.offset);
        let block = self.block.freeze();
        Issued { commit, end, block, cargo: self.cargo, flight: Flight::Flying }
    }
}

/// Whether the device has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    Flying,
    Landed,
}

/// A group in flight, or landed behind one that still is.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) commit: CommitId,
    /// Where it ends in the file.
    pub(super) end: u32,
    pub(super) block: Arc<Block>,
    pub(super) cargo: Cargo,
    pub(super) flight: Flight,
}
