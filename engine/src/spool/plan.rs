//! From what lies in all segments to what every shard starts with: live messages, deliveries,
//! spares. The number of shards may be another than when it was written.

mod found;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::found::Outcomes;
use self::standing::{Standing, common, pending_runs, tried_together};
use super::files::{FileId, SpareSegment};
use super::message::{ChunkRef, PendingRun, Runs};
use super::outcomes::EntryResult;
use super::record::{Fence, Tag};
use super::recovery::{
    Finding, Piece, ScannedMessage, ScannedOutcome, SegmentScan, SegmentUse, Trust,
};
use super::state::PlacedState;
use crate::base::map::{Map, Set};
use crate::base::planted::{Bug, planted};
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::delivery::Delivery;
use crate::model::flow::Flow;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::state::{KEEPER, StateItem, Topic};
use crate::wire::envelope::Labels;

/// What all shards start with.
#[derive(Debug)]
pub struct Recovered {
    /// One for each shard of this run.
    pub shards: Vec<RecoveredShard>,
    /// Everything that still is to be delivered, in order of acceptance within its segment.
    pub deliveries: Vec<RecoveredDelivery>,
    /// What was kept beside the mail: of each key what was said last.
    pub states: Vec<StateItem>,
    /// The first sequence that no segment ever had.
    pub next_sequence: u64,
    pub findings: Vec<Finding>,
}

impl Recovered {
    /// Whether something that is kept beside the mail lies in this segment.
    #[must_use]
    pub fn keeps_state_in(&self, segment: SegmentSeq) -> bool {
        let mut kept = self.shards.iter().flat_map(|shard| shard.states.iter().flatten());
        kept.any(|state| state.place.segment == segment)
    }
}

/// What one shard's spool takes over.
#[derive(Debug, Default)]
pub struct RecoveredShard {
    pub(super) segments: Vec<RecoveredSegment>,
    pub(super) messages: Vec<RecoveredMessage>,
    pub(super) spares: Vec<SpareSegment>,
    /// `None`: not known yet.
    pub(super) states: Option<Vec<PlacedState>>,
}

impl RecoveredShard {
    fn known() -> Self {
        Self { states: Some(Vec::new()), ..Self::default() }
    }

    /// What a shard may use at once, before it gets the rest.
    #[must_use]
    pub fn take_spares(&mut self) -> Self {
        Self { spares: std::mem::take(&mut self.spares), ..Self::default() }
    }

    /// The segment files it owns from now on, spares included: the driver opens these.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        let spares = self.spares.iter().map(|spare| spare.file);
        self.segments.iter().map(|segment| segment.file).chain(spares)
    }
}

/// One delivery to be scheduled; its record is not in memory.
#[derive(Debug)]
pub struct RecoveredDelivery {
    pub domain: Arc<str>,
    /// `None`: the flow that says nothing.
    pub flow: Option<Arc<Flow>>,
    pub delivery: Delivery,
    /// `None`: at once.
    pub due: Option<Wall>,
}

#[derive(Debug)]
pub(super) struct RecoveredSegment {
    pub(super) file: FileId,
    pub(super) file_bytes: u32,
    pub(super) tag: Tag,
    pub(super) header_writes: u64,
    pub(super) refers: Vec<SegmentSeq>,
    pub(super) state: RecoveredState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecoveredState {
    InUse,
    HalfFreed,
}

#[derive(Debug)]
pub(super) struct RecoveredMessage {
    pub(super) id: MessageId,
    pub(super) place: Place,
    pub(super) runs: Runs,
    pub(super) chunks: Vec<ChunkRef>,
    /// Segments with a later record of it that does not count.
    pub(super) shadows: Vec<SegmentSeq>,
}

/// Puts together what was read. `shards` is the number of shards of this run.
#[must_use]
pub fn plan(scans: Vec<SegmentScan>, shards: u16) -> Recovered {
    let newest = scans.iter().map(|scan| scan.sequence().0).max().unwrap_or(0);
    let shards = shards.max(1);
    let mut plan = Plan {
        recovered: Recovered {
            shards: (0..shards).map(|_| RecoveredShard::known()).collect(),
            deliveries: Vec::new(),
            states: Vec::new(),
            next_sequence: newest + u64::from(!planted(Bug::SequenceReused)),
            findings: Vec::new(),
        },
        segments: BTreeMap::new(),
        void_from: Map::default(),
        refers: BTreeMap::new(),
        leaders: BTreeMap::new(),
        homes: BTreeMap::new(),
        with_states: Vec::new(),
        flows: Map::default(),
        domains: Set::default(),
        standings: Vec::new(),
    };
    plan.sort_segments(scans);
    plan.gather_fences();
    let outcomes = plan.gather_outcomes();
    let newest = plan.gather_messages();
    plan.refer_outcomes(&outcomes, &newest);
    plan.bind_chunks();
    plan.settle_states();
    plan.choose_homes();
    plan.settle_messages(&outcomes, &newest);
    plan.recovered
}

/// Which record of a message holds, and which others there are.
#[derive(Default)]
struct Newest {
    /// Of messages that may have several records, or one that was refused: where the one that holds lies.
    /// All others, nearly all, have one record, in the segment they were accepted in.
    contested: Map<MessageId, Option<(SegmentSeq, usize)>>,
    /// Segments with an older record of the same message, of which there are few.
    older: Map<MessageId, Vec<SegmentSeq>>,
    /// Segments with a later record that does not count.
    shadows: Map<MessageId, Vec<SegmentSeq>>,
}

impl Newest {
    fn holds(&self, id: MessageId, segment: SegmentSeq, index: usize) -> bool {
        self.contested.get(&id).is_none_or(|at| *at == Some((segment, index)))
    }

    /// The segment of the record that holds, if it may be another than that of its acceptance.
    fn elsewhere(&self, id: MessageId) -> Option<SegmentSeq> {
        let at = self.contested.get(&id).copied().flatten();
        at.map(|(segment, _)| segment)
    }
}

struct Plan {
    recovered: Recovered,
    /// All that is not a spare, in order.
    segments: BTreeMap<SegmentSeq, SegmentScan>,
    void_from: Map<SegmentSeq, u32>,
    refers: BTreeMap<SegmentSeq, Vec<SegmentSeq>>,
    /// Segments that must go to one shard are bound: each names an older one of its set, or itself.
    leaders: BTreeMap<SegmentSeq, SegmentSeq>,
    homes: BTreeMap<SegmentSeq, ShardId>,
    /// Those that hold what the keeper of states must see recycled.
    with_states: Vec<SegmentSeq>,
    flows: Map<Arc<str>, Arc<Flow>>,
    /// Each domain once, of all segments.
    domains: Set<Arc<str>>,
    /// Of the message being settled; used again for the next.
    standings: Vec<Standing>,
}

impl Plan {
    fn sort_segments(&mut self, scans: Vec<SegmentScan>) {
        for mut scan in scans {
            self.recovered.findings.append(&mut scan.findings);
            if let Some(spare) = scan.spare() {
                let shard = self.shard_of_header(&scan);
                self.recovered.shards[usize::from(shard.0)].spares.push(spare);
                continue;
            }
            let (file, segment) = (scan.file, scan.sequence());
            if self.segments.contains_key(&segment) {
                self.recovered.findings.push(Finding::SegmentTwice { file, segment });
                continue;
            }
            self.leaders.insert(segment, segment);
            self.segments.insert(segment, scan);
        }
    }

    fn gather_fences(&mut self) {
        let mut refers = Vec::new();
        for (sequence, scan) in &self.segments {
            for Fence { segment, from } in &scan.fences {
                self.void_from
                    .entry(*segment)
                    .and_modify(|old| *old = (*old).min(*from))
                    .or_insert(*from);
                refers.push((*sequence, *segment));
            }
        }
        for (holder, other) in refers {
            self.refer(holder, other);
        }
    }

    /// Outcomes count even where their commit was refused: they tell what happened. But not failures:
    /// the report that was refused with them may not have been written again.
    fn gather_outcomes(&mut self) -> Outcomes {
        let count = self.segments.values().map(|scan| scan.outcomes.len()).sum();
        let mut outcomes = Vec::with_capacity(count);
        for (sequence, scan) in &mut self.segments {
            let void_from = self.void_from.get(sequence).copied().unwrap_or(u32::MAX);
            let is_void = |outcome: &ScannedOutcome| {
                outcome.spot.offset() >= void_from && outcome.result == EntryResult::Failed
            };
            let mut in_order = std::mem::take(&mut scan.outcomes);
            in_order.retain(|outcome| !is_void(outcome));
            in_order.sort_by_key(|outcome| outcome.spot.offset());
            outcomes.extend(in_order.into_iter().map(|outcome| (*sequence, outcome)));
        }
        // Keeps the order among those of one message.
        outcomes.sort_by_key(|(_, outcome)| outcome.message);
        Outcomes(outcomes)
    }

    /// The record at the highest position holds. What holds supersedes all before it, and so must
    /// stay while one of those is there. A copy behind a tear may have been written without what it
    /// knows of, so it holds only if it is all there is: then the older record was recycled, which is
    /// done only when the copy is known to be on disk.
    fn gather_messages(&mut self) -> Newest {
        let mut newest = Newest { contested: self.contested(), ..Newest::default() };
        let mut refers = Vec::new();
        for (sequence, scan) in &self.segments {
            for (index, message) in scan.messages.iter().enumerate() {
                let Some(at) = newest.contested.get_mut(&message.id) else { continue };
                if is_void(&self.void_from, message) {
                    continue;
                }
                if message.trust == Trust::Doubtful && at.is_some() {
                    newest.shadows.entry(message.id).or_default().push(*sequence);
                    continue;
                }
                if let Some((older, _)) = at.replace((*sequence, index)) {
                    newest.older.entry(message.id).or_default().push(older);
                    refers.push((*sequence, older));
                }
            }
        }
        for (holder, other) in refers {
            self.refer(holder, other);
        }
        newest
    }

    /// Messages with a record that was refused, or that lies elsewhere than where it was accepted, or
    /// with several in one segment. Puts the records of each segment in order.
    fn contested(&mut self) -> Map<MessageId, Option<(SegmentSeq, usize)>> {
        let mut contested = Map::default();
        for (sequence, scan) in &mut self.segments {
            scan.messages.sort_by_key(|message| message.place.offset);
            let mut highest = None;
            for message in &scan.messages {
                let is_first = highest < Some(message.id);
                highest = highest.max(Some(message.id));
                let is_at_home = message.id.segment() == *sequence && is_first;
                if !is_at_home || is_void(&self.void_from, message) {
                    contested.insert(message.id, None);
                }
            }
        }
        contested
    }

    fn refer_outcomes(&mut self, outcomes: &Outcomes, newest: &Newest) {
        let mut last = None;
        let mut refer = |plan: &mut Self, holder: SegmentSeq, other: SegmentSeq| {
            // As a rule many outcomes in a row speak of one segment.
            if last.replace((holder, other)) != Some((holder, other)) {
                plan.refer(holder, other);
            }
        };
        for entries in outcomes.by_message() {
            let Some((_, ScannedOutcome { message: id, .. })) = entries.first() else { continue };
            let place = newest.elsewhere(*id);
            let older = newest.older.get(id).map_or(&[][..], |older| older);
            let shadows = newest.shadows.get(id).map_or(&[][..], |shadows| shadows);
            for (holder, _) in entries {
                refer(self, *holder, id.segment());
                for segment in
                    older.iter().chain(shadows).chain(&place).filter(|segment| *segment <= holder)
                {
                    refer(self, *holder, *segment);
                }
            }
        }
    }

    fn bind_chunks(&mut self) {
        let mut pairs = Vec::new();
        for (sequence, scan) in &self.segments {
            let chunks = scan.messages.iter().flat_map(|message| &message.chunks);
            pairs.extend(chunks.map(|chunk| (*sequence, chunk.segment)));
        }
        for (one, other) in pairs {
            self.bind(one, other);
        }
    }

    /// The value written last holds, and its record outlives the others of its key. One shard takes
    /// over all that were ever written: so what it writes is newer than what any other copies.
    fn settle_states(&mut self) {
        let mut newest: Map<(Topic, Box<[u8]>), PlacedState> = Map::default();
        let mut refers = Vec::new();
        for (sequence, scan) in &mut self.segments {
            let mut states = std::mem::take(&mut scan.states);
            states.sort_by_key(|state| state.place.offset);
            if !states.is_empty() {
                self.with_states.push(*sequence);
            }
            for PlacedState { item, place } in states {
                let name = (item.topic, item.key.clone());
                if let Some(older) = newest.insert(name, PlacedState { item, place }) {
                    refers.push((*sequence, older.place.segment));
                }
            }
        }
        for (holder, other) in refers {
            self.refer(holder, other);
        }
        let mut newest: Vec<PlacedState> = newest.into_values().collect();
        newest.retain(|state| !state.item.is_forgotten());
        newest.sort_by_key(|state| (state.place.segment, state.place.offset));
        self.recovered.states = newest.iter().map(|state| state.item.clone()).collect();
        self.recovered.shards[usize::from(KEEPER.0)].states = Some(newest);
    }

    fn refer(&mut self, holder: SegmentSeq, other: SegmentSeq) {
        if holder != other && self.segments.contains_key(&other) {
            let refers = self.refers.entry(holder).or_default();
            if let Err(at) = refers.binary_search(&other) {
                refers.insert(at, other);
                self.bind(holder, other);
            }
        }
    }

    /// Puts both into one shard: each sees only whether its own segments are recycled.
    fn bind(&mut self, one: SegmentSeq, other: SegmentSeq) {
        if !self.leaders.contains_key(&other) {
            return;
        }
        let (one, other) = (self.leader(one), self.leader(other));
        self.leaders.insert(one.max(other), one.min(other));
    }

    fn leader(&self, segment: SegmentSeq) -> SegmentSeq {
        let mut at = segment;
        // Ends: a leader is never newer than those it leads.
        while let Some(leader) = self.leaders.get(&at)
            && *leader != at
        {
            at = *leader;
        }
        at
    }

    /// The shard that wrote the oldest of a bound set, as far as there is one of that number.
    fn choose_homes(&mut self) {
        for segment in self.segments.keys() {
            let leader = self.segments.get(&self.leader(*segment));
            let home = leader.map_or(ShardId(0), |scan| self.shard_of_header(scan));
            self.homes.insert(*segment, home);
        }
        let of_keeper: Set<SegmentSeq> =
            self.with_states.iter().map(|segment| self.leader(*segment)).collect();
        for segment in self.segments.keys() {
            if of_keeper.contains(&self.leader(*segment)) {
                self.homes.insert(*segment, KEEPER);
            }
        }
    }

    fn shard_of_header(&self, scan: &SegmentScan) -> ShardId {
        let shards = u16::try_from(self.recovered.shards.len()).unwrap_or(u16::MAX);
        ShardId(scan.header.shard.0 % shards)
    }

    fn settle_messages(&mut self, outcomes: &Outcomes, newest: &Newest) {
        let records = self.segments.values().map(|scan| scan.messages.len()).sum();
        self.recovered.deliveries.reserve_exact(records);
        self.reserve_shards();
        let mut outcomes = outcomes.finder();
        let sequences: Vec<SegmentSeq> = self.segments.keys().copied().collect();
        for sequence in sequences {
            let Some(scan) = self.segments.get_mut(&sequence) else { continue };
            let (file, messages) = (scan.file, std::mem::take(&mut scan.messages));
            let home = self.homes.get(&sequence).copied().unwrap_or_default();
            for (index, message) in messages.into_iter().enumerate() {
                if newest.holds(message.id, sequence, index) {
                    let entries = outcomes.of(message.id);
                    let shadows = newest.shadows.get(&message.id).cloned().unwrap_or_default();
                    self.settle_message(file, home, message, entries, shadows);
                }
            }
        }
        for (sequence, scan) in std::mem::take(&mut self.segments) {
            let home = self.homes.get(&sequence).copied().unwrap_or_default();
            self.hand_out(&scan, home);
        }
    }

    /// As many messages as there are records: what is over leaves room that never is touched.
    fn reserve_shards(&mut self) {
        for (sequence, scan) in &self.segments {
            let home = self.homes.get(sequence).copied().unwrap_or_default();
            let messages = &mut self.recovered.shards[usize::from(home.0)].messages;
            messages.reserve(scan.messages.len());
        }
    }

    fn settle_message(
        &mut self,
        file: FileId,
        home: ShardId,
        message: ScannedMessage,
        entries: &[(SegmentSeq, ScannedOutcome)],
        shadows: Vec<SegmentSeq>,
    ) {
        let runs = pending_runs(&message, entries, &mut self.standings);
        if runs.is_empty() {
            return;
        }
        let (id, place) = (message.id, message.place);
        match self.pieces(&message.chunks) {
            Piece::There => {}
            Piece::Torn => return self.recovered.findings.push(Finding::Torn { file, place }),
            Piece::Damaged => {
                let message = Some(id);
                return self.recovered.findings.push(Finding::Damaged { file, place, message });
            }
        }
        let flow = message.labels.as_ref().and_then(|labels| self.flow(labels));
        for (domain, first, count) in &message.groups {
            let domain = self.domains.get_or_insert_with(domain, Arc::clone);
            let parts = runs.iter().filter_map(|run| common(run, *first, *count));
            for part in tried_together(parts) {
                self.recovered.deliveries.push(delivery(
                    &message,
                    home,
                    domain,
                    flow.clone(),
                    part,
                ));
            }
        }
        let recovered = RecoveredMessage { id, place, runs, chunks: message.chunks, shadows };
        self.recovered.shards[usize::from(home.0)].messages.push(recovered);
    }

    /// The flow of these labels, one for all that have them.
    fn flow(&mut self, labels: &Arc<str>) -> Option<Arc<Flow>> {
        if let Some(flow) = self.flows.get(labels) {
            return Some(Arc::clone(flow));
        }
        let flow = Arc::new(Labels::parse(labels)?.to_flow());
        self.flows.insert(Arc::clone(labels), Arc::clone(&flow));
        Some(flow)
    }

    /// The worst that is known of any piece.
    fn pieces(&self, chunks: &[ChunkRef]) -> Piece {
        let pieces = chunks.iter().map(|chunk| {
            let segment = self.segments.get(&chunk.segment);
            segment.map_or(Piece::Damaged, |segment| segment.piece(chunk.offset))
        });
        pieces.max().unwrap_or(Piece::There)
    }

    fn hand_out(&mut self, scan: &SegmentScan, home: ShardId) {
        let (state, generation) = match scan.use_ {
            // Freed again, it must carry the generation that its next use was promised.
            SegmentUse::HalfFreed => {
                (RecoveredState::HalfFreed, scan.header.tag.generation.wrapping_sub(1))
            }
            SegmentUse::InUse | SegmentUse::Spare => {
                (RecoveredState::InUse, scan.header.tag.generation)
            }
        };
        self.recovered.shards[usize::from(home.0)].segments.push(RecoveredSegment {
            file: scan.file,
            file_bytes: scan.header.file_bytes,
            tag: Tag { generation, ..scan.header.tag },
            header_writes: scan.header.counter,
            refers: self.refers.remove(&scan.sequence()).unwrap_or_default(),
            state,
        });
    }
}

/// Whether a fence says that the message was refused: it, or a piece of its body.
fn is_void(void_from: &Map<SegmentSeq, u32>, message: &ScannedMessage) -> bool {
    let is_void = |segment, offset| void_from.get(&segment).is_some_and(|from| offset >= *from);
    is_void(message.place.segment, message.place.offset)
        || message.chunks.iter().any(|chunk| is_void(chunk.segment, chunk.offset))
}

fn delivery(
    message: &ScannedMessage,
    home: ShardId,
    domain: &Arc<str>,
    flow: Option<Arc<Flow>>,
    run: PendingRun,
) -> RecoveredDelivery {
    let pieces = message.chunks.iter().map(|chunk| chunk.bytes);
    RecoveredDelivery {
        domain: Arc::clone(domain),
        flow,
        delivery: Delivery {
            message: message.id,
            home,
            place: message.place,
            in_pieces: pieces.fold(0, u32::saturating_add),
            first: run.first,
            count: run.count,
            attempts: run.attempts,
            accepted: message.accepted,
            record: None,
        },
        due: run.due,
    }
}
