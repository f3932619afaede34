//! The live index: of every live message, where it lies, who is pending, how often, when next, and
//! where the last reply lies.
//!
//! A message is looked up under the segment that it is named after, by ordinal: 24 bytes each. One
//! that was copied out of that segment is looked up by its name, so the table of a segment goes
//! with the segment and memory follows what is live.

use std::collections::BTreeMap;

use super::bytes::len32;
use super::message::{ChunkRef, PendingRun, Runs};
use super::replies::{ReplyPlace, Spot};
use crate::base::map::Map;
use crate::base::time::Wall;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::RangeOutcome;

/// Earlier places of a message's pieces that still are understood. A delivery under way asks by
/// the places it once read; one that outlives so many moves fails its read and is set aside.
const PIECE_PLACES_KEPT: usize = 64;

/// A run of recipients, as indices into the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: u16,
    pub count: u16,
}

impl Run {
    /// Whom an outcome is about.
    #[must_use]
    pub fn of(outcome: &RangeOutcome) -> Self {
        Self { first: outcome.first, count: outcome.count }
    }

    pub(super) fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.end() <= self.end()
    }

    fn end(self) -> u32 {
        u32::from(self.first) + u32::from(self.count)
    }

    pub(super) fn common(self, other: Self) -> Option<Self> {
        Self::between(self.first.max(other.first).into(), self.end().min(other.end()))
    }

    /// What of it lies before `other`, what in it, and what behind.
    #[must_use]
    pub fn split(self, other: Self) -> [Option<Self>; 3] {
        let before = Self::between(self.first.into(), self.end().min(other.first.into()));
        let behind = Self::between(other.end().max(self.first.into()), self.end());
        [before, self.common(other), behind]
    }

    fn between(start: u32, end: u32) -> Option<Self> {
        let first = u16::try_from(start).ok()?;
        let count = u16::try_from(end.checked_sub(start)?).ok()?;
        (count > 0).then_some(Self { first, count })
    }
}

impl PendingRun {
    pub(super) fn run(&self) -> Run {
        Run { first: self.first, count: self.count }
    }

    fn with(&self, run: Run) -> Self {
        Self { first: run.first, count: run.count, ..*self }
    }

    /// Whether both can be told as one.
    pub(super) fn is_followed_by(&self, next: &Self) -> bool {
        self.run().end() == u32::from(next.first)
            && (self.attempts, self.due, self.reply) == (next.attempts, next.due, next.reply)
    }
}

/// One message. All zero: no such message, or it is over.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Recipients that still are pending.
    pending: u16,
    /// Attempts made for them, and when the next is due in seconds since 1970 (0: at once), unless
    /// `partial` says more.
    attempts: u16,
    due: u32,
    offset: u32,
    bytes: u32,
    /// Where their last reply lies: so many segments behind the one the message is named after.
    reply_ahead: u32,
    reply: Option<Spot>,
}

const _: () = assert!(size_of::<Entry>() == 24, "memory is promised by the delivery");

impl Entry {
    fn is_live(&self) -> bool {
        self.bytes != 0
    }

    fn whole(&self, id: MessageId) -> PendingRun {
        let due = (self.due != 0).then(|| Wall(u64::from(self.due) * NANOS_PER_SECOND));
        let segment = SegmentSeq(id.segment().0 + u64::from(self.reply_ahead));
        let reply = self.reply.map(|spot| ReplyPlace { segment, spot });
        PendingRun { first: 0, count: self.pending, attempts: self.attempts, due, reply }
    }

    fn set(&mut self, id: MessageId, run: &PendingRun) {
        (self.attempts, self.due) = (run.attempts, to_seconds(run.due));
        self.set_reply(id, run.reply);
    }

    /// An outcome never lies before its message, nor four billion segments behind.
    fn set_reply(&mut self, id: MessageId, reply: Option<ReplyPlace>) {
        let ahead = reply.and_then(|reply| reply.segment.0.checked_sub(id.segment().0));
        let ahead = ahead.and_then(|ahead| u32::try_from(ahead).ok());
        self.reply_ahead = ahead.unwrap_or(0);
        self.reply = reply.filter(|_| ahead.is_some()).map(|reply| reply.spot);
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Rounded up, so that nothing becomes due early.
fn to_seconds(due: Option<Wall>) -> u32 {
    let seconds = due.unwrap_or_default().0.div_ceil(NANOS_PER_SECOND);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// A message that was copied out of the segment it is named after.
#[derive(Clone, Copy, Debug)]
struct Moved {
    segment: SegmentSeq,
    entry: Entry,
}

/// Pieces of a body, where they lie now and where they lay before.
#[derive(Debug)]
struct Pieces {
    now: Box<[ChunkRef]>,
    /// Whole lists, one behind the other.
    before: Vec<ChunkRef>,
}

/// All live messages of a shard.
#[derive(Debug, Default)]
pub(super) struct LiveIndex {
    /// By segment and ordinal.
    named: BTreeMap<SegmentSeq, Vec<Entry>>,
    moved: Map<MessageId, Moved>,
    /// Who is pending, for messages whose pending recipients are not 0.. on with equal fortune.
    partial: Map<MessageId, Vec<PendingRun>>,
    /// For the few messages that have pieces.
    pieces: Map<MessageId, Pieces>,
    /// By segment: messages copied into it, or with pieces in it, dead ones included.
    guests: BTreeMap<SegmentSeq, Vec<MessageId>>,
    /// Segments with a later record of the message that does not count: outcomes must outlive them.
    shadows: Map<MessageId, Vec<SegmentSeq>>,
}

impl LiveIndex {
    pub(super) fn insert(
        &mut self,
        id: MessageId,
        place: Place,
        recipients: u16,
        chunks: &[ChunkRef],
    ) {
        let (offset, bytes) = (place.offset, place.bytes);
        let entry = Entry { pending: recipients, offset, bytes, ..Entry::default() };
        if place.segment == id.segment() {
            let entries = self.named.entry(id.segment()).or_default();
            let ordinal = id.ordinal() as usize;
            if entries.len() <= ordinal {
                entries.resize(ordinal + 1, Entry::default());
            }
            entries[ordinal] = entry;
        } else {
            self.moved.insert(id, Moved { segment: place.segment, entry });
            self.guests.entry(place.segment).or_default().push(id);
        }
        if !chunks.is_empty() {
            self.note_guests(id, chunks);
            self.pieces.insert(id, Pieces { now: chunks.into(), before: Vec::new() });
        }
    }

    /// Makes room for exactly so many messages that are named after a segment.
    pub(super) fn reserve(&mut self, segment: SegmentSeq, ordinals: usize) {
        let entries = self.named.entry(segment).or_default();
        entries.reserve_exact(ordinals.saturating_sub(entries.len()));
    }

    /// No more messages will be named after the segment.
    pub(super) fn seal(&mut self, segment: SegmentSeq) {
        if let Some(entries) = self.named.get_mut(&segment) {
            entries.shrink_to_fit();
        }
    }

    /// Inserts a message of which only these runs, in order, are pending.
    pub(super) fn insert_recovered(
        &mut self,
        id: MessageId,
        place: Place,
        runs: &Runs,
        chunks: &[ChunkRef],
        shadows: Vec<SegmentSeq>,
    ) {
        let count = runs.iter().fold(0u16, |sum, run| sum.saturating_add(run.count));
        self.insert(id, place, count, chunks);
        self.set_runs(id, runs.iter().copied());
        if !shadows.is_empty() {
            self.shadows.insert(id, shadows);
        }
    }

    pub(super) fn pending(&self, id: MessageId) -> u16 {
        self.entry(id).map_or(0, |entry| entry.pending)
    }

    /// Where the message's record lies; `None`: it is over, or unknown.
    pub(super) fn place(&self, id: MessageId) -> Option<Place> {
        let entry = self.entry(id)?;
        let (offset, bytes) = (entry.offset, entry.bytes);
        Some(Place { segment: self.segment_of(id), offset, bytes })
    }

    /// Where the piece lies now that lies, or lay, at `place`.
    pub(super) fn piece_place(&self, id: MessageId, place: Place) -> Option<Place> {
        let pieces = self.pieces.get(&id)?;
        let is_it =
            |piece: &ChunkRef| (piece.segment, piece.offset) == (place.segment, place.offset);
        let at = pieces.now.iter().chain(&pieces.before).position(is_it)?;
        pieces.now.get(at % pieces.now.len()).map(ChunkRef::place)
    }

    /// The pieces of the message's body.
    pub(super) fn chunks(&self, id: MessageId) -> &[ChunkRef] {
        if self.pieces.is_empty() {
            return &[];
        }
        self.pieces.get(&id).map_or(&[], |pieces| &pieces.now)
    }

    /// The segment that holds the message's record.
    pub(super) fn segment_of(&self, id: MessageId) -> SegmentSeq {
        if self.moved.is_empty() {
            return id.segment();
        }
        self.moved.get(&id).map_or_else(|| id.segment(), |moved| moved.segment)
    }

    /// See `shadows`.
    pub(super) fn shadows(&self, id: MessageId) -> &[SegmentSeq] {
        if self.shadows.is_empty() {
            return &[];
        }
        self.shadows.get(&id).map_or(&[], |shadows| shadows)
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
            Some(runs) => found.extend(runs.iter().filter_map(|one| one.run().common(run))),
        }
    }

    /// What is pending, with attempts and due times: the state that a copy carries.
    pub(super) fn states(&self, id: MessageId) -> Runs {
        let Some(entry) = self.entry(id).filter(|entry| entry.pending > 0) else {
            return Runs::new();
        };
        match self.partial.get(&id) {
            Some(runs) => Runs::from_slice(runs),
            None => Runs::from_elem(entry.whole(id), 1),
        }
    }

    /// Makes final a run of which every recipient was pending.
    pub(super) fn finish(&mut self, id: MessageId, run: Run) {
        let pending = self.pending(id);
        assert!(run.count <= pending, "only what is pending becomes final");
        if run.count == pending {
            return self.set_runs(id, []);
        }
        let runs = self.states(id);
        let without = |one: &PendingRun| {
            let [before, _, behind] = one.run().split(run);
            [before, behind].map(|left| left.map(|left| one.with(left)))
        };
        self.set_runs(id, runs.iter().flat_map(without).flatten());
    }

    /// Notes that a run, of which every recipient is pending, is to be tried again.
    pub(super) fn defer(&mut self, id: MessageId, run: Run, attempts: u16, due: Wall) {
        let due = Some(due);
        if run.count == self.pending(id) && !self.partial.contains_key(&id) {
            if let Some(entry) = self.entry_mut(id) {
                (entry.attempts, entry.due) = (attempts, to_seconds(due));
            }
            return;
        }
        self.change(id, run, |one| PendingRun { attempts, due, ..one });
    }

    /// Notes where the last reply to a run lies; who of it is over by now does not matter.
    pub(super) fn replied(&mut self, id: MessageId, run: Run, at: ReplyPlace) {
        let pending = self.pending(id);
        if pending == 0 {
            return;
        }
        let all = Run { first: 0, count: pending };
        if run.covers(all) && !self.partial.contains_key(&id) {
            if let Some(entry) = self.entry_mut(id) {
                entry.set_reply(id, Some(at));
            }
            return;
        }
        self.change(id, run, |one| PendingRun { reply: Some(at), ..one });
    }

    /// Changes what is pending of a run.
    fn change(&mut self, id: MessageId, run: Run, change: impl Fn(PendingRun) -> PendingRun) {
        let mut runs = Runs::new();
        for one in self.states(id) {
            let [before, hit, behind] = one.run().split(run).map(|part| Some(one.with(part?)));
            runs.extend([before, hit.map(&change), behind].into_iter().flatten());
        }
        self.set_runs(id, runs);
    }

    /// Drops a message that is over, durably or by refusal: where it lay, and its pieces.
    pub(super) fn remove(&mut self, id: MessageId) -> Option<(Place, Box<[ChunkRef]>)> {
        let place = self.place(id)?;
        if self.moved.remove(&id).is_none()
            && let Some(entry) = self.entry_mut(id)
        {
            *entry = Entry::default();
        }
        self.partial.remove(&id);
        self.shadows.remove(&id);
        let pieces = self.pieces.remove(&id);
        Some((place, pieces.map(|pieces| pieces.now).unwrap_or_default()))
    }

    /// Takes note that the message was copied; returns where it lay, and its pieces there.
    pub(super) fn move_to(
        &mut self,
        id: MessageId,
        place: Place,
        chunks: &[ChunkRef],
    ) -> Option<(Place, Box<[ChunkRef]>)> {
        let old = self.place(id)?;
        let entry = Entry { offset: place.offset, bytes: place.bytes, ..*self.entry(id)? };
        if self.moved.insert(id, Moved { segment: place.segment, entry }).is_none()
            && let Some(ordinals) = self.named.get_mut(&id.segment())
            && let Some(entry) = ordinals.get_mut(id.ordinal() as usize)
        {
            *entry = Entry::default();
        }
        self.guests.entry(place.segment).or_default().push(id);
        self.note_guests(id, chunks);
        let Some(pieces) = self.pieces.get_mut(&id) else { return Some((old, Box::default())) };
        let before = std::mem::replace(&mut pieces.now, chunks.into());
        pieces.before.truncate(before.len() * (PIECE_PLACES_KEPT - 1));
        pieces.before.splice(0..0, before.iter().copied());
        Some((old, before))
    }

    /// Drops what is kept by segment of one that was recycled: nothing in it is live.
    pub(super) fn forget(&mut self, segment: SegmentSeq) {
        self.named.remove(&segment);
        self.guests.remove(&segment);
    }

    /// The first message from `at` on of which the segment holds something and somebody is pending,
    /// and where to go on. A message may come more than once.
    pub(super) fn next_in(&self, segment: SegmentSeq, at: usize) -> Option<(MessageId, usize)> {
        let named = self.named.get(&segment).map_or(&[][..], |entries| entries);
        for (ordinal, entry) in named.iter().enumerate().skip(at) {
            if entry.pending > 0 {
                return Some((MessageId::new(segment, len32(ordinal)), ordinal + 1));
            }
        }
        let guests = self.guests.get(&segment).map_or(&[][..], |guests| guests);
        let is_here = |id: MessageId| {
            self.segment_of(id) == segment
                || self.chunks(id).iter().any(|chunk| chunk.segment == segment)
        };
        let skipped = at.saturating_sub(named.len());
        for (number, id) in guests.iter().enumerate().skip(skipped) {
            if self.pending(*id) > 0 && is_here(*id) {
                return Some((*id, named.len() + number + 1));
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn tables(&self) -> usize {
        self.named.len().max(self.guests.len())
    }

    fn entry(&self, id: MessageId) -> Option<&Entry> {
        if !self.moved.is_empty()
            && let Some(moved) = self.moved.get(&id)
        {
            return Some(&moved.entry);
        }
        let entries = self.named.get(&id.segment())?;
        entries.get(id.ordinal() as usize).filter(|entry| entry.is_live())
    }

    fn entry_mut(&mut self, id: MessageId) -> Option<&mut Entry> {
        if !self.moved.is_empty()
            && let Some(moved) = self.moved.get_mut(&id)
        {
            return Some(&mut moved.entry);
        }
        let entries = self.named.get_mut(&id.segment())?;
        entries.get_mut(id.ordinal() as usize).filter(|entry| entry.is_live())
    }

    /// Sets who is pending: in the entry alone, if that can say it.
    fn set_runs(&mut self, id: MessageId, runs: impl IntoIterator<Item = PendingRun>) {
        let mut merged = Runs::new();
        for run in runs {
            match merged.last_mut() {
                Some(last) if last.is_followed_by(&run) => last.count += run.count,
                _ => merged.push(run),
            }
        }
        let pending = merged.iter().fold(0u16, |sum, run| sum.saturating_add(run.count));
        let Some(entry) = self.entry_mut(id) else { return };
        entry.pending = pending;
        match &merged[..] {
            [] => {}
            [whole] if whole.first == 0 => {
                entry.set(id, whole);
            }
            _ => {
                self.partial.insert(id, merged.to_vec());
                return;
            }
        }
        self.partial.remove(&id);
    }

    fn note_guests(&mut self, id: MessageId, chunks: &[ChunkRef]) {
        let mut last = None;
        for chunk in chunks {
            if last.replace(chunk.segment) != Some(chunk.segment) {
                self.guests.entry(chunk.segment).or_default().push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u64, offset: u32) -> Place {
        Place { segment: SegmentSeq(segment), offset, bytes: 100 }
    }

    fn pending_runs(index: &LiveIndex, id: MessageId) -> Vec<(u16, u16)> {
        let mut found = Vec::new();
        index.pending_within(id, Run { first: 0, count: u16::MAX }, &mut found);
        found.iter().map(|run| (run.first, run.count)).collect()
    }

    #[test]
    fn final_recipients_leave_and_never_come_back() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 3);
        index.insert(id, place(1, 64), 10, &[]);
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
                index.insert(id, place(1, 64), 6, &[]);
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
        let run = PendingRun { first: 2, count: 1, attempts: 3, due: Some(Wall(5)), reply: None };
        index.insert_recovered(id, place(9, 64), &Runs::from_elem(run, 1), &[], vec![]);
        index.forget(SegmentSeq(1));
        assert_eq!((index.place(id), index.pending(id)), (Some(place(9, 64)), 1));
        assert_eq!(index.states(id)[..], [run]);
        assert_eq!(index.move_to(id, place(12, 128), &[]), Some((place(9, 64), Box::default())));
        assert_eq!(
            (index.next_in(SegmentSeq(9), 0), index.states(id)),
            (None, Runs::from_elem(run, 1))
        );
        assert_eq!(index.next_in(SegmentSeq(12), 0), Some((id, 1)));
        assert_eq!(index.remove(id), Some((place(12, 128), Box::default())));
        assert_eq!((index.pending(id), index.place(id)), (0, None));
        assert!(index.moved.is_empty() && index.partial.is_empty());
    }

    #[test]
    fn deferrals_are_kept_by_run_and_merge_again() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 3);
        index.insert(id, place(1, 64), 6, &[]);
        let at = |seconds| Wall(seconds * NANOS_PER_SECOND);
        index.defer(id, Run { first: 2, count: 2 }, 1, at(50));
        let told: Vec<_> = index.states(id).iter().map(|run| (run.first, run.attempts)).collect();
        assert_eq!(told, [(0, 0), (2, 1), (4, 0)]);
        index.finish(id, Run { first: 1, count: 2 });
        let told: Vec<_> = index.states(id).iter().map(|run| (run.first, run.count)).collect();
        assert_eq!(told, [(0, 1), (3, 1), (4, 2)]);
        index.finish(id, Run { first: 0, count: 1 });
        index.defer(id, Run { first: 3, count: 3 }, 2, at(60));
        let whole = PendingRun { first: 3, count: 3, attempts: 2, due: Some(at(60)), reply: None };
        assert_eq!(index.states(id)[..], [whole]);
    }

    #[test]
    fn a_due_time_is_never_rounded_to_earlier() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 0);
        index.insert(id, place(1, 64), 2, &[]);
        index.defer(id, Run { first: 0, count: 2 }, 1, Wall(1));
        assert_eq!(index.states(id)[0].due, Some(Wall(NANOS_PER_SECOND)));
        assert!(index.partial.is_empty(), "the entry says it");
    }

    #[test]
    fn last_replies_are_kept_by_run_and_merge_again() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 3);
        index.insert(id, place(1, 64), 6, &[]);
        let at = |segment, offset| ReplyPlace {
            segment: SegmentSeq(segment),
            spot: Spot::new(offset, 100).unwrap(),
        };
        index.replied(id, Run { first: 0, count: 6 }, at(1, 640));
        assert!(index.partial.is_empty() && index.states(id)[0].reply == Some(at(1, 640)));
        index.replied(id, Run { first: 2, count: 2 }, at(9, 128));
        let replies = |index: &LiveIndex| -> Vec<_> {
            index.states(id).iter().map(|run| (run.first, run.reply.unwrap())).collect()
        };
        assert_eq!(replies(&index), [(0, at(1, 640)), (2, at(9, 128)), (4, at(1, 640))]);
        index.finish(id, Run { first: 2, count: 4 });
        assert!(index.partial.is_empty() && replies(&index) == [(0, at(1, 640))]);
        index.move_to(id, place(12, 128), &[]);
        index.replied(id, Run { first: 0, count: 6 }, at(12, 704));
        assert_eq!(replies(&index), [(0, at(12, 704))], "those that are over change nothing");
        index.replied(id, Run { first: 0, count: 2 }, at(0, 64));
        assert_eq!(index.states(id)[0].reply, None, "no outcome lies before its message");
    }

    #[test]
    fn a_piece_is_found_by_any_place_it_ever_had() {
        let mut index = LiveIndex::default();
        let id = MessageId::new(SegmentSeq(1), 0);
        let pieces = |segment: u64| {
            [64, 256].map(|offset| ChunkRef { segment: SegmentSeq(segment), offset, bytes: 9 })
        };
        index.insert(id, place(1, 640), 1, &pieces(1));
        assert_eq!(index.next_in(SegmentSeq(1), 1), Some((id, 2)), "by its pieces too");
        for segment in 2..=4 {
            let (_, old) = index.move_to(id, place(segment, 640), &pieces(segment)).unwrap();
            assert_eq!(*old, pieces(segment - 1));
        }
        for segment in 1..=4 {
            for (was, is) in pieces(segment).iter().zip(pieces(4)) {
                assert_eq!(index.piece_place(id, was.place()), Some(is.place()));
            }
        }
        assert_eq!(index.piece_place(id, place(4, 640)), None);
        assert_eq!((index.next_in(SegmentSeq(3), 0), index.chunks(id)), (None, &pieces(4)[..]));
    }
}
