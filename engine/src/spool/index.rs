//! The live index: which recipients still are pending, in two bytes per message.

use std::collections::BTreeMap;

use super::message::ChunkRef;
use crate::base::map::Map;
use crate::model::message::{MessageId, SegmentSeq};

/// A run of recipients, as indices into the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u16,
    pub(super) count: u16,
}

impl Run {
    fn end(self) -> u32 {
        u32::from(self.first) + u32::from(self.count)
    }

    fn common(self, other: Self) -> Option<Self> {
        Self::between(self.first.max(other.first).into(), self.end().min(other.end()))
    }

    fn between(start: u32, end: u32) -> Option<Self> {
        let first = u16::try_from(start).ok()?;
        let count = u16::try_from(end.checked_sub(start)?).ok()?;
        (count > 0).then_some(Self { first, count })
    }
}

/// Pending recipients of all live messages of a shard.
#[derive(Debug, Default)]
pub(super) struct LiveIndex {
    /// How many are pending, by segment and ordinal; 0: none, or no such message.
    pending: BTreeMap<SegmentSeq, Vec<u16>>,
    /// Which ones, for messages of which some are final; all others pend from 0 on.
    partial: Map<MessageId, Vec<Run>>,
    /// Pieces of bodies, for the few messages that have any.
    chunks: Map<MessageId, Box<[ChunkRef]>>,
    /// Where the record lies, for messages that were copied out of the segment they are named after.
    moved: Map<MessageId, SegmentSeq>,
}

impl LiveIndex {
    pub(super) fn insert(&mut self, id: MessageId, recipients: u16, chunks: &[ChunkRef]) {
        let ordinals = self.pending.entry(id.segment()).or_default();
        let ordinal = id.ordinal() as usize;
        if ordinals.len() <= ordinal {
            ordinals.resize(ordinal + 1, 0);
        }
        ordinals[ordinal] = recipients;
        if !chunks.is_empty() {
            self.chunks.insert(id, chunks.into());
        }
    }

    /// Inserts a message of which only these runs, in order, are pending, and whose record lies in
    /// `segment`.
    pub(super) fn insert_recovered(
        &mut self,
        id: MessageId,
        segment: SegmentSeq,
        runs: Vec<Run>,
        chunks: &[ChunkRef],
    ) {
        let count = runs.iter().fold(0u16, |sum, run| sum.saturating_add(run.count));
        self.insert(id, count, chunks);
        if runs != [Run { first: 0, count }] {
            self.partial.insert(id, runs);
        }
        if segment != id.segment() {
            self.moved.insert(id, segment);
        }
    }

    pub(super) fn pending(&self, id: MessageId) -> u16 {
        let ordinals = self.pending.get(&id.segment());
        ordinals.and_then(|ordinals| ordinals.get(id.ordinal() as usize)).copied().unwrap_or(0)
    }

    /// The pieces of the message's body.
    pub(super) fn chunks(&self, id: MessageId) -> &[ChunkRef] {
        if self.chunks.is_empty() {
            return &[];
        }
        self.chunks.get(&id).map_or(&[], |chunks| chunks)
    }

    /// The segment that holds the message's record.
    pub(super) fn segment_of(&self, id: MessageId) -> SegmentSeq {
        if self.moved.is_empty() {
            return id.segment();
        }
        self.moved.get(&id).copied().unwrap_or_else(|| id.segment())
    }

    /// Puts into `found` what of `run` still is pending.
    pub(super) fn pending_within(&self, id: MessageId, run: Run, found: &mut Vec<Run>) {
        found.clear();
        let pending = self.pending(id);
        if pending == 0 {
            return;
        }
        match self.partial.get(&id) {
            None => found.extend(run.common(Run { first: 0, count: pending })),
            Some(runs) => found.extend(runs.iter().filter_map(|one| one.common(run))),
        }
    }

    /// Makes final a run of which every recipient was pending.
    pub(super) fn finish(&mut self, id: MessageId, run: Run) {
        let Some(pending) = self
            .pending
            .get_mut(&id.segment())
            .and_then(|ordinals| ordinals.get_mut(id.ordinal() as usize))
        else {
            return;
        };
        let before = *pending;
        assert!(run.count <= before, "only what is pending becomes final");
        *pending -= run.count;
        if *pending == 0 {
            self.partial.remove(&id);
            return;
        }
        let runs = self.partial.entry(id).or_insert_with(|| vec![Run { first: 0, count: before }]);
        *runs = runs.iter().flat_map(|one| without(*one, run)).flatten().collect();
    }

    /// Drops a message that is over, durably or by refusal; its pieces are returned.
    pub(super) fn remove(&mut self, id: MessageId) -> Box<[ChunkRef]> {
        let run = Run { first: 0, count: u16::MAX };
        let mut rest = Vec::new();
        self.pending_within(id, run, &mut rest);
        for run in rest {
            self.finish(id, run);
        }
        self.moved.remove(&id);
        self.chunks.remove(&id).unwrap_or_default()
    }

    /// Drops the table of a segment that was recycled, unless copied messages still use it.
    pub(super) fn forget(&mut self, segment: SegmentSeq) {
        let used = |ordinals: &Vec<u16>| ordinals.iter().any(|pending| *pending > 0);
        if self.moved.is_empty() || !self.pending.get(&segment).is_some_and(used) {
            self.pending.remove(&segment);
        }
    }
}

/// `one` without `run`: what is left before and behind.
fn without(one: Run, run: Run) -> [Option<Run>; 2] {
    let before = Run::between(one.first.into(), one.end().min(run.first.into()));
    let behind = Run::between(run.end().max(one.first.into()), one.end());
    [before, behind]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending_runs(index: &LiveIndex, id: MessageId) -> Vec<(u16, u16)> {
        let mut found = Vec::new();
        index.pending_within(id, Run { first: 0, count: u16::MAX }, &mut found);
        found.iter().map(|run| (run.first, run.count)).collect()
    }

    #[test]
    fn final_recipients_leave_and_never_come_back() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 3);
        index.insert(id, 10, &[]);
        index.finish(id, Run { first: 4, count: 2 });
        assert_eq!(pending_runs(&index, id), [(0, 4), (6, 4)]);
        let mut found = Vec::new();
        index.pending_within(id, Run { first: 3, count: 4 }, &mut found);
        assert_eq!(found, [Run { first: 3, count: 1 }, Run { first: 6, count: 1 }]);
        index.finish(id, Run { first: 0, count: 4 });
        assert_eq!(pending_runs(&index, id), [(6, 4)]);
        index.finish(id, Run { first: 6, count: 4 });
        assert_eq!((index.pending(id), pending_runs(&index, id)), (0, vec![]));
        assert!(index.partial.is_empty());
    }

    #[test]
    fn every_run_of_six_recipients_is_taken_out_exactly() {
        for first in 0..6 {
            for count in 1..=6 - first {
                let mut index = LiveIndex::default();
                let id = MessageId::new(SegmentSeq(1), 0);
                index.insert(id, 6, &[]);
                index.finish(id, Run { first, count });
                let left: Vec<u16> = pending_runs(&index, id)
                    .into_iter()
                    .flat_map(|(first, count)| first..first + count)
                    .collect();
                let taken = first..first + count;
                let expected: Vec<u16> = (0..6).filter(|one| !taken.contains(one)).collect();
                assert_eq!(left, expected);
            }
        }
    }

    #[test]
    fn a_copied_message_keeps_its_name_and_tells_its_place() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 0);
        index.insert_recovered(id, SegmentSeq(9), vec![Run { first: 2, count: 1 }], &[]);
        index.forget(SegmentSeq(1));
        assert_eq!((index.segment_of(id), index.pending(id)), (SegmentSeq(9), 1));
        assert_eq!(pending_runs(&index, id), [(2, 1)]);
        index.remove(id);
        assert_eq!(index.pending(id), 0);
    }
}
