//! One segment in use: where it stands in its life, what is live in it, what holds it.

use std::collections::VecDeque;

use super::files::FileId;
use super::group::Issued;
use super::record::Tag;
use super::segment::{DATA_START, FooterPlace, SegmentHeader, SegmentState};
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::message::SegmentSeq;

/// Where a segment stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its headers are being written, to this slot of two; commits wait for both.
    Activating { slot: u8 },
    /// Commits are appended to it.
    Active,
    /// Full; its last commits are in flight.
    Sealing { footer: Option<FooterPlace> },
    /// Full and on disk; its last header, which is only a hint, is being written.
    SealingHeader { footer: Option<FooterPlace> },
    /// Waits until nothing needs it any more.
    Sealed,
    /// Is being made a spare: free headers are written, to this slot of two.
    Recycling { slot: u8 },
    /// A write to it failed: never written again in this run.
    Fenced,
}

/// One segment of the shard that is not a spare.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: FileId,
    pub(super) file_bytes: u32,
    pub(super) tag: Tag,
    pub(super) header_writes: u64,
    pub(super) phase: Phase,
    /// The offset below which everything is known to be on disk, in order and without error.
    pub(super) durable_through: u32,
    /// Its commits in flight, in order of issue.
    pub(super) issued: VecDeque<Issued>,
    /// Groups closed but not issued.
    pub(super) waiting: u32,
    /// Messages in it that are not durably over.
    pub(super) live: u32,
    /// Pieces of bodies in it that a message, or one still coming in, needs.
    pub(super) chunks_live: u32,
    /// Bytes of both.
    pub(super) live_bytes: u64,
    /// Older segments that its outcomes and fences speak of; sorted.
    pub(super) refers: Vec<SegmentSeq>,
}

impl Segment {
    pub(super) fn new(
        file: FileId,
        file_bytes: u32,
        tag: Tag,
        header_writes: u64,
        phase: Phase,
    ) -> Self {
        Self {
            file,
            file_bytes,
            tag,
            header_writes,
            phase,
            durable_through: DATA_START,
            issued: VecDeque::new(),
            waiting: 0,
            live: 0,
            chunks_live: 0,
            live_bytes: 0,
            refers: Vec::new(),
        }
    }

    /// The next header its phase asks for.
    pub(super) fn next_header(&mut self, shard: ShardId, now: Wall) -> Option<SegmentHeader> {
        let (state, tag) = match self.phase {
            Phase::Activating { .. } => (SegmentState::Active, self.tag),
            Phase::SealingHeader { footer } => (SegmentState::Sealed { footer }, self.tag),
            Phase::Recycling { .. } => (SegmentState::Free, self.freed_tag(now)),
            Phase::Active | Phase::Sealing { .. } | Phase::Sealed | Phase::Fenced => return None,
        };
        self.header_writes += 1;
        let counter = self.header_writes;
        Some(SegmentHeader { tag, counter, state, shard, file_bytes: self.file_bytes })
    }

    pub(super) fn is_recycling(&self) -> bool {
        matches!(self.phase, Phase::Recycling { .. })
    }

    pub(super) fn next_generation(&self) -> u32 {
        self.tag.generation.wrapping_add(1)
    }

    fn freed_tag(&self, now: Wall) -> Tag {
        Tag { sequence: self.tag.sequence, generation: self.next_generation(), created: now }
    }

    pub(super) fn refer(&mut self, segments: &[SegmentSeq]) {
        for segment in segments {
            if let Err(at) = self.refers.binary_search(segment) {
                self.refers.insert(at, *segment);
            }
        }
    }

    /// Whether nothing in it is needed; what it refers to is for others to look up.
    pub(super) fn is_empty(&self) -> bool {
        self.phase == Phase::Sealed && self.live == 0 && self.chunks_live == 0
    }
}
