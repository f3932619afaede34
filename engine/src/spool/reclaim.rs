//! The life of segments: taken into use, sealed, recycled when nothing needs them any more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::{DiskError, SpareSegment};
use super::ledger::{Phase, Segment};
use super::plan::{RecoveredMessage, RecoveredShard, RecoveredState};
use super::record::{Kind, RECORD_HEADER_BYTES, Tag};
use super::segment::FooterPlace;
use super::{Active, Need, SPARES_MIN, Spool, SpoolFull};
use super::{OUTCOMES_WAITING_BYTES_MAX, OUTCOMES_WAITING_PART};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::message::{MessageId, Place, SegmentSeq};

/// How long to wait before asking again for a segment that could not be made.
const PREPARE_RETRY: Duration = Duration::from_secs(1);

/// Where the making of a new segment file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preparing {
    Idle,
    Asked,
    /// It failed; the wait begins with the next turn.
    Failed,
    RetryAt(Mono),
}

impl Preparing {
    pub(super) fn wakeup(self) -> Option<Mono> {
        match self {
            Self::RetryAt(at) => Some(at),
            Self::Idle | Self::Asked | Self::Failed => None,
        }
    }
}

impl Spool {
    /// The answer to `Request::PrepareSegment`.
    pub fn handle_spare(&mut self, spare: Result<SpareSegment, DiskError>) {
        self.preparing = Preparing::Failed;
        if let Ok(spare) = spare {
            self.preparing = Preparing::Idle;
            self.spares.push_back(spare);
        }
    }

    /// Whether a segment file is to be made now.
    pub(super) fn ask_for_segment(&mut self, now: Mono) -> bool {
        if self.preparing == Preparing::Failed {
            self.preparing = Preparing::RetryAt(now.plus(PREPARE_RETRY));
        }
        let ready = match self.preparing {
            Preparing::Idle => true,
            Preparing::RetryAt(at) => now >= at,
            Preparing::Asked | Preparing::Failed => false,
        };
        let ask = ready && self.spares.len() < SPARES_MIN;
        if ask {
            self.preparing = Preparing::Asked;
        } else if ready {
            self.preparing = Preparing::Idle;
        }
        ask
    }

    /// Takes a spare into use if more than `keep` are there.
    pub(super) fn activate_spare(&mut self, now: Now, keep: usize) -> bool {
        if self.active.is_some() || self.spares.len() <= keep {
            return false;
        }
        let Some(spare) = self.spares.pop_front() else { return false };
        let sequence = SegmentSeq(self.next_sequence);
        self.next_sequence += u64::from(self.options.shards.max(1));
        let tag = Tag { sequence, generation: spare.generation, created: now.wall };
        let phase = Phase::Activating { slot: 0 };
        let segment = Segment::new(spare.file, spare.bytes, tag, spare.header_writes, phase);
        self.segments.insert(sequence, segment);
        self.used_bytes += u64::from(spare.bytes);
        let part = spare.bytes as usize / OUTCOMES_WAITING_PART;
        self.outcomes_waiting_max = part.min(OUTCOMES_WAITING_BYTES_MAX);
        self.active = Some(Active::new(tag, spare.bytes));
        self.header_work.push_back(sequence);
        true
    }

    /// Ends the active segment: its last commits, then its footer if there is room. `false`: there
    /// is none, or it is not yet in use, so it stays.
    pub(super) fn seal_active(&mut self) -> bool {
        if self.is_activating() {
            return false;
        }
        self.close_group();
        let Some(active) = self.active.take() else { return false };
        let tag = active.tag;
        self.index.seal(tag.sequence);
        let footer = self.close_footer(active);
        let segment = self.segment_mut(tag.sequence);
        if segment.issued.is_empty() && segment.waiting == 0 {
            segment.phase = Phase::SealingHeader { footer: None };
            self.header_work.push_back(tag.sequence);
        } else {
            segment.phase = Phase::Sealing { footer };
        }
        true
    }

    /// Seals an active segment that has no room for mail while there is no other: only so can it be
    /// cleaned and recycled, though nobody asks any more because mail is refused.
    pub(super) fn seal_full(&mut self) {
        let is_full = self.active.is_some() && self.open.is_none() && !self.fits_active(0);
        if is_full && self.admits(0, Need::Mail) == Err(SpoolFull::NoSegment) {
            self.seal_active();
        }
    }

    /// The footer's own commit, the last of the segment; `None`: no room, or nothing to say.
    fn close_footer(&mut self, mut active: Active) -> Option<FooterPlace> {
        if !active.holds(0, 0) {
            // The last outcomes of a segment may take the room of their own list.
            active.footer.drop_lists();
        }
        if active.commits == 0 || !active.holds(0, 0) {
            return None;
        }
        let footer_bytes = 2 * RECORD_HEADER_BYTES + active.footer.payload_bytes();
        let mut group = active.group(footer_bytes);
        let place = group.append(Kind::Footer, &[], &active.footer.to_payload());
        group.close();
        self.segment_mut(active.tag.sequence).waiting += 1;
        self.closed.push_back(group);
        Some(FooterPlace { offset: place.offset, bytes: place.bytes })
    }

    pub(super) fn header_written(&mut self, sequence: SegmentSeq) {
        let segment = self.segment_mut(sequence);
        let (next, again) = match segment.phase {
            Phase::Activating { slot: 0 } => (Phase::Activating { slot: 1 }, true),
            Phase::Activating { .. } => (Phase::Active, false),
            Phase::SealingHeader { .. } => (Phase::Sealed, false),
            Phase::Recycling { slot: 0 } => (Phase::Recycling { slot: 1 }, true),
            Phase::Recycling { .. } => return self.recycled(sequence),
            Phase::Active | Phase::Sealing { .. } | Phase::Sealed | Phase::Fenced => return,
        };
        segment.phase = next;
        self.reclaim_due |= next == Phase::Sealed;
        if again {
            self.header_work.push_back(sequence);
        }
    }

    /// Starts to recycle, oldest first, segments that nothing needs. One whose outcomes speak of a
    /// segment that is still there must stay: without them, what is in that one would be sent again.
    pub(super) fn reclaim(&mut self) {
        if self.is_adopting() || !std::mem::take(&mut self.reclaim_due) {
            return;
        }
        let free: Vec<SegmentSeq> = self
            .segments
            .iter()
            .filter(|(sequence, segment)| segment.is_empty() && !self.is_held(**sequence, segment))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in free {
            self.segment_mut(sequence).phase = Phase::Recycling { slot: 0 };
            self.header_work.push_back(sequence);
        }
    }

    fn is_held(&self, sequence: SegmentSeq, segment: &Segment) -> bool {
        let holds = |other: &SegmentSeq| *other != sequence && self.segments.contains_key(other);
        segment.refers.iter().any(holds) && !planted(Bug::RecycledWhileReferred)
    }

    fn recycled(&mut self, sequence: SegmentSeq) {
        let Some(segment) = self.segments.remove(&sequence) else { return };
        self.index.forget(sequence);
        self.used_bytes -= u64::from(segment.file_bytes);
        self.spares.push_back(SpareSegment {
            file: segment.file,
            bytes: segment.file_bytes,
            generation: segment.next_generation(),
            header_writes: segment.header_writes,
        });
        self.counters.segments_recycled += 1;
        self.reclaim_due = true;
    }

    /// A message is over, durably or by refusal: nothing of it holds a segment any more.
    pub(super) fn drop_message(&mut self, id: MessageId) {
        self.cleaning.forget(id);
        let Some((place, chunks)) = self.index.remove(id) else { return };
        let pieces: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        self.pay_for_dead(u64::from(place.bytes) + pieces);
        self.drop_chunks(&chunks);
        self.remove_live(place);
    }

    pub(super) fn add_live(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live += 1;
            segment.live_bytes += u64::from(place.bytes);
            self.live_bytes += u64::from(place.bytes);
        }
    }

    pub(super) fn remove_live(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            let bytes = u64::from(place.bytes);
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(bytes);
            self.live_bytes = self.live_bytes.saturating_sub(bytes);
            self.reclaim_due |= segment.live == 0;
        }
    }

    /// Takes over what recovery found; it may come while mail is taken already, for all it speaks
    /// of is older. The messages follow with `adopt_messages`: a million in one turn would keep all
    /// clients waiting.
    pub fn adopt(&mut self, recovered: RecoveredShard) {
        self.reclaim_due = true;
        self.spares.extend(recovered.spares);
        for found in recovered.segments {
            let sequence = found.tag.sequence;
            let (file, bytes, writes) = (found.file, found.file_bytes, found.header_writes);
            let phase = match found.state {
                RecoveredState::InUse => Phase::Sealed,
                RecoveredState::HalfFreed => Phase::Recycling { slot: 0 },
            };
            let mut segment = Segment::new(file, bytes, found.tag, writes, phase);
            segment.durable_through = bytes;
            segment.refer(&found.refers);
            self.segments.insert(sequence, segment);
            self.used_bytes += u64::from(bytes);
            if found.state == RecoveredState::HalfFreed {
                self.header_work.push_back(sequence);
            }
        }
        if let Some(states) = recovered.states {
            self.adopt_states(states);
        }
        self.pay_for_live(self.used_bytes);
        self.reserve_index(&recovered.messages);
        self.adopting = recovered.messages.into_iter();
    }

    /// Takes over so many more of the messages; `true` once it has all. Until then no segment is
    /// recycled or cleaned: what it holds is not all known.
    pub fn adopt_messages(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(message) = self.adopting.next() else { break };
            self.adopt_message(message);
        }
        let is_done = self.adopting.len() == 0;
        if is_done {
            // Its memory was as long as all of them.
            self.adopting = Vec::new().into_iter();
        }
        is_done
    }

    /// Whether some of what recovery found is still to be taken over.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.adopting.len() > 0
    }

    fn adopt_message(&mut self, message: RecoveredMessage) {
        for chunk in &message.chunks {
            if let Some(segment) = self.segments.get_mut(&chunk.segment) {
                let bytes = u64::from(chunk.place().bytes);
                segment.chunks_live += 1;
                segment.live_bytes += bytes;
                self.live_bytes += bytes;
            }
        }
        self.add_live(message.place);
        let RecoveredMessage { id, place, runs, chunks, shadows } = message;
        self.index.insert_recovered(id, place, &runs, &chunks, shadows);
    }

    /// Tables that grew step by step would be up to twice as long as they need to be.
    fn reserve_index(&mut self, messages: &[RecoveredMessage]) {
        let mut named: BTreeMap<SegmentSeq, usize> = BTreeMap::new();
        let is_home = |message: &&RecoveredMessage| message.place.segment == message.id.segment();
        for id in messages.iter().filter(is_home).map(|message| message.id) {
            let ordinals = named.entry(id.segment()).or_default();
            *ordinals = (id.ordinal() as usize + 1).max(*ordinals);
        }
        for (segment, ordinals) in named {
            self.index.reserve(segment, ordinals);
        }
    }
}
