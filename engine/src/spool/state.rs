//! What outlives the process beside the mail: of each key the newest value, and where it lies.
//!
//! ```text
//! remember ─▶ waiting ─close_group─▶ State record in a commit ─landed─▶ place (live in its segment)
//!                ▲                        └─ refused: waits again
//!                └─ keep_state_of: the segment it lies in is being emptied
//! ```
//! - Values are small and few, so they are all in memory: cleaning writes them again without a read.
//! - A value is live where its newest durable record lies. Each record makes its segment wait for that of
//!   the record before it, so no older value of a key outlives a newer one, nor the word that it is
//!   forgotten.
//! - A value that waits is replaced by a newer one: what changes quickly is written once a commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::active::Active;
use super::bytes::len16;
use super::commit::MARK_GROWTH;
use super::group::Group;
use super::ledger::Segment;
use super::record::{
    Kind, RECORD_HEADER_BYTES, RecordHeader, StateFields, end_record, padded_record_bytes,
};
use super::room::SPARES_RESERVED;
use super::{COMMIT_BYTES_MAX, Durable, Spool};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::message::{Place, SegmentSeq};
use crate::model::state::{ITEMS_MAX, StateItem, Topic};

/// Spares that values leave alone: the last is for outcomes and reports.
const SPARES_KEPT: usize = SPARES_RESERVED - 1;
/// Of the oldest values, how many are looked at for one that may be dropped. Where there is none, the
/// newcomer is not kept.
const DROP_LOOKED_AT: usize = 64;
/// Who waits for the disk at once: more than operators order in a moment.
const WAITERS_MAX: usize = 1024;

/// What names a value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    topic: Topic,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
struct Kept {
    value: Box<[u8]>,
    /// Of the newest value, and of the newest that is on disk.
    revision: u64,
    landed: u64,
    stage: Stage,
    /// The newest record that is known to be on disk, unless it says that the key is forgotten.
    place: Option<Place>,
    /// The newest segment with any record of it.
    last: Option<SegmentSeq>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// In a commit, or on disk.
    Written,
}

/// A record that waits for its commit.
#[derive(Debug)]
pub(super) struct Written {
    key: Arc<Key>,
    revision: u64,
    place: Place,
    /// Whether it says that the key is forgotten.
    is_end: bool,
}

/// Who is told when a value, or one that took its place, is on disk.
#[derive(Debug)]
struct Waiter {
    key: Arc<Key>,
    revision: u64,
    token: u64,
}

/// All values.
#[derive(Debug, Default)]
pub(super) struct States {
    kept: Map<Arc<Key>, Kept>,
    by_place: BTreeMap<(SegmentSeq, u32), Arc<Key>>,
    waiting: VecDeque<Arc<Key>>,
    /// When the first of those came.
    first_at: Option<Mono>,
    /// Records in commits that have not ended.
    in_flight: usize,
    waiters: Vec<Waiter>,
    /// What an earlier run wrote is known, so a key that is not is on no disk.
    is_complete: bool,
}

/// A value as recovery found it.
#[derive(Debug)]
pub(super) struct PlacedState {
    pub(super) item: StateItem,
    pub(super) place: Place,
}

impl States {
    pub(super) fn first_at(&self) -> Option<Mono> {
        self.first_at
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn next_bytes(&self) -> Option<usize> {
        let key = self.waiting.front()?;
        let value = self.kept.get(key).map_or(0, |kept| kept.value.len());
        Some(padded_record_bytes(key.bytes.len() + value))
    }

    /// Takes a value.
    fn set(&mut self, now: Mono, key: &Arc<Key>, value: Box<[u8]>) {
        let kept = self.kept.entry(Arc::clone(key)).or_insert_with(|| Kept {
            value: Box::default(),
            revision: 0,
            landed: 0,
            stage: Stage::Written,
            place: None,
            last: None,
        });
        kept.value = value;
        kept.revision += 1;
        if std::mem::replace(&mut kept.stage, Stage::Waiting) == Stage::Written {
            self.first_at.get_or_insert(now);
            self.waiting.push_back(Arc::clone(key));
        }
    }

    /// Makes room for one more: what was learned longest ago is forgotten. Orders are few, and always
    /// find some.
    fn make_room(&mut self, now: Mono, topic: Topic) -> bool {
        if self.kept.len() < ITEMS_MAX {
            return true;
        }
        let mut oldest = self.by_place.values().take(DROP_LOOKED_AT);
        let oldest = oldest.find(|key| key.topic == Topic::Learned).cloned();
        if let Some(oldest) = &oldest {
            self.set(now, oldest, Box::default());
        }
        oldest.is_some() || topic.is_order()
    }

    /// Writes as many values as fit behind what is in the group.
    pub(super) fn append(&mut self, active: &mut Active, segment: &mut Segment, group: &mut Group) {
        while let Some(bytes) = self.next_bytes() {
            let end = group.block.len() + bytes;
            let is_long = end > COMMIT_BYTES_MAX && !group.cargo.states.is_empty();
            if is_long || !active.holds(end, MARK_GROWTH) {
                return;
            }
            let Some(key) = self.waiting.pop_front() else { break };
            let Some(kept) = self.kept.get_mut(&key) else { continue };
            kept.stage = Stage::Written;
            let place = append_state(group, &key, &kept.value);
            active.footer.add_mark(place.offset, place.bytes, Kind::State);
            let before = kept.last.replace(place.segment);
            let before = before.filter(|before| *before != place.segment);
            segment.refer(before.as_slice());
            let (revision, is_end) = (kept.revision, kept.value.is_empty());
            group.cargo.states.push(Written { key, revision, place, is_end });
            self.in_flight += 1;
        }
        self.first_at = None;
    }

    /// What waits for a commit that was refused waits again, unless there is something newer.
    pub(super) fn lost(&mut self, written: Written) {
        self.in_flight -= 1;
        if let Some(kept) = self.kept.get_mut(&written.key)
            && kept.revision == written.revision
        {
            kept.stage = Stage::Waiting;
            self.first_at.get_or_insert_default();
            self.waiting.push_front(written.key);
        }
    }

    /// Writes again what lies in a segment that is to be emptied.
    pub(super) fn leave(&mut self, now: Mono, segment: SegmentSeq) {
        let there = self.by_place.range((segment, 0)..=(segment, u32::MAX));
        let there: Vec<Arc<Key>> = there.map(|(_, key)| Arc::clone(key)).collect();
        for key in there {
            let Some(kept) = self.kept.get_mut(&key) else { continue };
            // What is on its way will lie elsewhere.
            if kept.landed == kept.revision {
                let value = std::mem::take(&mut kept.value);
                self.set(now, &key, value);
            }
        }
    }
}

impl Spool {
    /// Keeps a value from now on, in place of the one before it: it rides in the next commit. What is
    /// longer than its bounds, or one too many, is not kept.
    pub fn remember(&mut self, now: Now, item: StateItem) {
        let fits = item.fits();
        let key = Key { topic: item.topic, bytes: item.key };
        let states = &mut self.states;
        let is_said = |kept: &Kept| kept.value == item.value;
        let known = states.kept.get_key_value(&key);
        let known = known.map(|(key, kept)| (Arc::clone(key), is_said(kept)));
        match known {
            Some((_, true)) => {}
            Some((key, false)) if fits => {
                states.set(now.mono, &key, item.value);
            }
            // What is unknown is on no disk.
            None if item.value.is_empty() && states.is_complete => {}
            None if fits && states.make_room(now.mono, key.topic) => {
                states.set(now.mono, &Arc::new(key), item.value);
            }
            _ => {}
        }
    }

    /// `poll_durable` tells when what was said last under this key, or that there is nothing any more,
    /// is on disk, or that it cannot be written now.
    pub fn tell_when_kept(&mut self, topic: Topic, key: &[u8], is_end: bool, token: u64) {
        let key = Key { topic, bytes: key.into() };
        let Some((key, kept)) = self.states.kept.get_key_value(&key) else {
            // What is unknown is on no disk.
            let told = if is_end { Durable::Kept { token } } else { Durable::NotKept { token } };
            return self.durable.push_back(told);
        };
        if kept.landed == kept.revision {
            self.durable.push_back(Durable::Kept { token });
        } else if self.states.waiters.len() >= WAITERS_MAX {
            self.durable.push_back(Durable::NotKept { token });
        } else {
            let (key, revision) = (Arc::clone(key), kept.revision);
            self.states.waiters.push(Waiter { key, revision, token });
        }
    }

    /// Values that are kept.
    #[must_use]
    pub fn states_kept(&self) -> usize {
        self.states.kept.values().filter(|kept| !kept.value.is_empty()).count()
    }

    /// Whether values wait for a segment: its coming will be told.
    pub(super) fn is_state_stuck(&self) -> bool {
        let Some(bytes) = self.states.next_bytes() else { return false };
        let open = self.open.as_ref().map_or(RECORD_HEADER_BYTES, |open| open.block.len());
        let fits = |active: &Active| active.holds(open + bytes, MARK_GROWTH);
        !self.active.as_ref().is_some_and(fits) && !self.may_take_spare_for_state()
    }

    pub(super) fn may_take_spare_for_state(&self) -> bool {
        self.spares.len() > SPARES_KEPT
    }

    /// Who waits for what cannot be written, as no segment can be made, is told so; it is written once it
    /// can be.
    pub(super) fn tell_stuck_states(&mut self) {
        let waits = !self.states.waiters.is_empty();
        if waits && self.is_growth_refused() && self.is_state_stuck() {
            let waiters = std::mem::take(&mut self.states.waiters).into_iter();
            self.durable.extend(waiters.map(|waiter| Durable::NotKept { token: waiter.token }));
        }
    }

    pub(super) fn state_landed(&mut self, written: Written) {
        let Written { key, revision, place, is_end } = written;
        let states = &mut self.states;
        states.in_flight -= 1;
        let told = states
            .waiters
            .extract_if(.., |waiter| waiter.key == key && waiter.revision <= revision);
        self.durable.extend(told.map(|waiter| Durable::Kept { token: waiter.token }));
        let Some(kept) = states.kept.get_mut(&key) else { return };
        kept.landed = revision;
        let old = std::mem::replace(&mut kept.place, (!is_end).then_some(place));
        // Until all is known, some older record of it may be found yet.
        if is_end && kept.revision == revision && states.is_complete {
            states.kept.remove(&key);
        }
        if let Some(old) = old {
            states.by_place.remove(&(old.segment, old.offset));
            self.remove_live(old);
        }
        if !is_end {
            self.states.by_place.insert((place.segment, place.offset), key);
            if !planted(Bug::StateNotLive) {
                self.add_live(place);
            }
        }
    }

    /// Takes over what an earlier run kept. What was written since the start is newer.
    pub(super) fn adopt_states(&mut self, recovered: Vec<PlacedState>) {
        for PlacedState { item, place } in recovered {
            let StateItem { topic, key: bytes, value } = item;
            let key = Arc::new(Key { topic, bytes });
            if self.states.kept.contains_key(&key) {
                self.outdated(&key, place.segment);
                continue;
            }
            let (stage, last) = (Stage::Written, Some(place.segment));
            let kept = Kept { value, revision: 1, landed: 1, stage, place: Some(place), last };
            self.states.kept.insert(Arc::clone(&key), kept);
            self.states.by_place.insert((place.segment, place.offset), key);
            self.add_live(place);
        }
        self.states.is_complete = true;
        self.states.kept.retain(|_, kept| !kept.value.is_empty() || kept.landed < kept.revision);
    }

    /// An older record than the one of this run was found: the newer must outlive it.
    fn outdated(&mut self, key: &Arc<Key>, older: SegmentSeq) {
        let Some(kept) = self.states.kept.get_mut(key) else { return };
        match kept.last.and_then(|last| self.segments.get_mut(&last)) {
            Some(segment) => segment.refer(&[older]),
            // Not written yet, or gone already.
            None => {
                kept.last = Some(older);
                let value = std::mem::take(&mut kept.value);
                self.states.set(Mono::default(), key, value);
            }
        }
    }
}

fn append_state(group: &mut Group, key: &Key, value: &[u8]) -> Place {
    let (tag, offset) = (group.tag, group.offset);
    let at = super::record::begin_record(&mut group.block);
    group.block.append(&key.bytes);
    group.block.append(value);
    let fields = StateFields { topic: key.topic.code(), key_bytes: len16(key.bytes.len()) };
    let position = offset + super::bytes::len32(at);
    let bytes = end_record(&mut group.block, at, Kind::State, &fields.to_fields(), &tag, position);
    Place { segment: tag.sequence, offset: position, bytes }
}

/// What a State record says; `None`: it is not well formed.
pub(super) fn read_state(header: &RecordHeader, payload: &[u8]) -> Option<StateItem> {
    let StateFields { topic, key_bytes } = StateFields::from_fields(&header.fields)?;
    let (key, value) = payload.split_at_checked(key_bytes.into())?;
    let item = StateItem::new(Topic::from_code(topic), key, value);
    item.fits().then_some(item)
}
