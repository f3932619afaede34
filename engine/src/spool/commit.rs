//! When a commit goes, in which order its end counts, and what a failed one takes with it.

use std::sync::Arc;
use std::time::Duration;

use super::files::{CommitId, DiskError, FileId};
use super::group::{Batch, Cargo, Flight, Group, Issued, Waiting};
use super::ledger::Phase;
use super::outcomes::{EntryResult, entries};
use super::record::{Fence, Kind, RECORD_HEADER_BYTES, padded_record_bytes};
use super::{COMMIT_BYTES_MAX, ChunkRef, Durable, FetchId, ReplyPlace, Spool};
use crate::base::block::Block;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::delivery::RecordInMemory;
use crate::model::message::{MessageId, SegmentSeq};
use crate::model::settings::OutcomeDurability;

/// The longest a commit is held back for other transactions that are about to end.
const GATHER_MAX: Duration = Duration::from_millis(5);
/// What it is held back for one message, so that those who come alone do not wait for company that is
/// slow; and for each further one that shares it.
const GATHER_FIRST: Duration = Duration::from_millis(1);
const GATHER_EACH: Duration = Duration::from_micros(150);
/// The longest outcomes wait for a commit to ride in.
const OUTCOMES_WAIT_MAX: Duration = Duration::from_millis(5);

/// The longest copies wait for others to share their commit.
const COPIES_WAIT_MAX: Duration = Duration::from_millis(5);

/// Copies that reach this go at once. Fewer in a commit would waste pages: cleaning would then not
/// gain what it counts on.
const COPIES_BYTES_MAX: usize = 256 << 10;

/// What one more mark adds to a footer.
pub(super) const MARK_GROWTH: usize = 16;

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Write the whole block, durably.
    Commit { commit: CommitId, file: FileId, offset: u64, block: Arc<Block> },
    /// Read back what was written, any alignment: for cleaning.
    Fetch { fetch: FetchId, file: FileId, offset: u64, bytes: u32 },
    /// Make one more written-once segment file.
    PrepareSegment,
}

/// How many mail transactions are under way on this shard that may end soon, those that already
/// wait for a commit not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gather {
    pub transactions: usize,
}

/// What a write in flight is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Writing {
    Header(SegmentSeq),
    Group(SegmentSeq),
}

/// A message whose own commit is durable.
#[derive(Debug)]
pub(super) struct OnDisk {
    waiting: Waiting,
    block: Arc<Block>,
}

/// Whether all pieces of a body are on disk.
enum Pieces {
    Durable,
    InFlight,
    Lost,
}

impl Spool {
    /// What is to be written next; call until it is `None`, in every turn.
    pub fn poll_request(&mut self, now: Now, gather: Gather) -> Option<Request> {
        self.reclaim();
        self.seal_full();
        self.tell_stuck_states();
        if self.in_flight.len() < self.options.commits_in_flight_max {
            // While a closed group waits, the open one may as well grow. This comes first, as it may
            // take a segment into use.
            if self.closed.is_empty() && self.is_due(now.mono, gather) {
                self.close_due(now);
            }
            if let Some(request) = self.issue_header(now) {
                return Some(request);
            }
            if let Some(request) = self.issue_group(now) {
                return Some(request);
            }
        }
        if self.ask_for_segment(now.mono) {
            return Some(Request::PrepareSegment);
        }
        self.poll_cleaning(now.mono)
    }

    /// How a write ended. The order in which writes end does not matter.
    pub fn handle_committed(&mut self, commit: CommitId, result: Result<(), DiskError>) {
        let found = self.in_flight.iter().position(|(one, _)| *one == commit);
        let at = found.expect("a commit ends once");
        match (self.in_flight.swap_remove(at).1, result) {
            (Writing::Header(sequence), Ok(())) => self.header_written(sequence),
            (Writing::Group(sequence), Ok(())) => self.group_written(sequence, commit),
            (Writing::Group(sequence), Err(_)) if planted(Bug::FailedWriteIgnored) => {
                self.group_written(sequence, commit);
            }
            (Writing::Header(sequence) | Writing::Group(sequence), Err(cause)) => {
                self.fence(sequence, cause);
            }
        }
        self.tell_ready();
    }

    /// When `poll_request` should be called again even if nothing happens.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        let can_write = self.in_flight.len() < self.options.commits_in_flight_max
            && self.closed.is_empty()
            && !self.is_stuck();
        let group = if can_write { self.group_wakeup() } else { None };
        [group, self.preparing.wakeup(), self.cleaning.wakeup()].into_iter().flatten().min()
    }

    /// Seals the active segment, so that the next start reads its index only: for an orderly stop.
    pub fn seal(&mut self) {
        self.seal_active();
    }

    fn group_wakeup(&self) -> Option<Mono> {
        let messages = self.open.as_ref().and_then(gathered);
        let first_outcome = self.batches.front().map(|batch| batch.first_at);
        let first_copy = self.open.as_ref().and_then(|open| open.first_copy);
        let copies = first_copy.map(|first| first.plus(COPIES_WAIT_MAX));
        let outcomes = first_outcome.map(|first| first.plus(self.outcomes_wait()));
        let states = self.states.first_at().filter(|_| !self.is_state_stuck());
        let states = states.map(|first| first.plus(self.outcomes_wait()));
        [messages, outcomes, copies, states].into_iter().flatten().min()
    }

    /// Whether outcomes must wait for a segment: its coming will be told.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let next_bytes = self.batches.front().map_or(0, |batch| batch.payload.len());
        let bytes = RECORD_HEADER_BYTES + padded_record_bytes(next_bytes);
        let room = self.active.as_ref().is_some_and(|active| active.holds(bytes, MARK_GROWTH));
        self.open.is_none() && self.spares.is_empty() && !room
    }

    fn outcomes_wait(&self) -> Duration {
        match self.options.outcomes {
            OutcomeDurability::Grouped => OUTCOMES_WAIT_MAX,
            OutcomeDurability::Strict => Duration::ZERO,
        }
    }

    fn is_due(&self, now: Mono, gather: Gather) -> bool {
        if !self.fences.is_empty() {
            return true;
        }
        let first_outcome = self.batches.front().map(|batch| batch.first_at);
        if first_outcome.is_some_and(|first| now >= first.plus(self.outcomes_wait())) {
            return true;
        }
        let first_state = self.states.first_at().filter(|_| !self.is_state_stuck());
        if first_state.is_some_and(|first| now >= first.plus(self.outcomes_wait())) {
            return true;
        }
        let Some(open) = &self.open else { return false };
        if open.holds_copies_only() {
            let waited_out = open.first_copy.is_none_or(|first| now >= first.plus(COPIES_WAIT_MAX));
            return waited_out || open.block.len() >= COPIES_BYTES_MAX;
        }
        let waiting = open.cargo.messages.len();
        // Worth waiting for is what makes the group half as large again. During a flush others come
        // that are best written together, when it is over.
        let is_worth_it = 2 * gather.transactions >= waiting;
        let company = gather.transactions > 0 && (is_worth_it || self.is_flushing());
        let waited_out = gathered(open).is_none_or(|end| now >= end);
        !company || waited_out || open.chunks > 0 || open.block.len() >= COMMIT_BYTES_MAX
    }

    fn is_flushing(&self) -> bool {
        self.in_flight.iter().any(|(_, writing)| matches!(writing, Writing::Group(_)))
    }

    /// Closes the open group; outcomes that do not fit take another segment, the reserve if need be.
    fn close_due(&mut self, now: Now) {
        if self.active.is_none() && !self.activate_spare(now, 0) {
            return;
        }
        self.close_group();
        let stuck = !self.batches.is_empty() || !self.fences.is_empty();
        if stuck && self.closed.is_empty() && !self.spares.is_empty() && self.seal_active() {
            self.activate_spare(now, 0);
            self.close_group();
        }
        let left_out = self.states.is_waiting() && self.may_take_spare_for_state();
        if left_out && self.closed.is_empty() && self.seal_active() {
            self.activate_spare(now, 0);
            self.close_group();
        }
    }

    /// Ends the open group, with as many outcomes as fit, and starts none.
    pub(super) fn close_group(&mut self) {
        let Some(active) = &mut self.active else { return };
        let segment = self.segments.get_mut(&active.tag.sequence).expect("the active one is there");
        let something = self.open.is_some()
            || !self.batches.is_empty()
            || !self.fences.is_empty()
            || self.states.is_waiting();
        if !something {
            return;
        }
        let mut group = self.open.take().unwrap_or_else(|| active.group(0));
        while let Some(fence) = self.fences.last() {
            if !active.holds(group.block.len() + padded_record_bytes(0), MARK_GROWTH) {
                break;
            }
            segment.refer(&[fence.segment]);
            let place = group.append_fence(*fence);
            active.footer.add_mark(place.offset, place.bytes, Kind::Fence);
            self.fences.pop();
        }
        while let Some(batch) = self.batches.front() {
            let bytes = group.block.len() + padded_record_bytes(batch.payload.len());
            let long = bytes > COMMIT_BYTES_MAX && !group.cargo.batches.is_empty();
            if long || !active.holds(bytes, MARK_GROWTH) {
                break;
            }
            let Some(batch) = self.batches.pop_front() else { break };
            segment.refer(&batch.refers);
            let (place, payload) = group.append_batch(batch);
            active.footer.add_outcomes(place.offset, place.bytes, payload);
        }
        self.states.append(active, segment, &mut group);
        if group.block.len() == RECORD_HEADER_BYTES {
            return;
        }
        group.close();
        active.write_at = group.end();
        active.commits += 1;
        segment.waiting += 1;
        self.last_group_bytes = group.block.len();
        self.closed.push_back(group);
    }

    fn issue_header(&mut self, now: Now) -> Option<Request> {
        while let Some(sequence) = self.header_work.pop_front() {
            let shard = self.options.shard;
            let Some(segment) = self.segments.get_mut(&sequence) else { continue };
            let Some(header) = segment.next_header(shard, now.wall) else { continue };
            let (file, offset) = (segment.file, u64::from(header.slot_offset()));
            let commit = self.track(Writing::Header(sequence));
            self.counters.header_writes += 1;
            return Some(Request::Commit { commit, file, offset, block: header.to_page() });
        }
        None
    }

    fn issue_group(&mut self, now: Now) -> Option<Request> {
        let sequence = self.closed.front()?.tag.sequence;
        // A copy, or the failure of a recipient, must not be there without what was written before.
        let mut older = self.segments.range(..sequence);
        if older.next_back().is_some_and(|(_, segment)| !segment.issued.is_empty()) {
            return None;
        }
        let activating = matches!(self.segment_mut(sequence).phase, Phase::Activating { .. });
        if activating && !planted(Bug::CommitBeforeHeader) {
            return None;
        }
        let group = self.closed.pop_front()?;
        let commit = self.track(Writing::Group(sequence));
        let segment = self.segment_mut(sequence);
        let (file, offset) = (segment.file, u64::from(group.offset));
        let known =
            if planted(Bug::DurableThroughTooFar) { group.end() } else { segment.durable_through };
        let issued = group.issue(commit, known, now.wall);
        let block = Arc::clone(&issued.block);
        segment.waiting -= 1;
        segment.issued.push_back(issued);
        self.counters.commits += 1;
        self.counters.bytes_written += block.len() as u64;
        if planted(Bug::AckWhenIssued) {
            self.group_written(sequence, commit);
            self.tell_ready();
        }
        Some(Request::Commit { commit, file, offset, block })
    }

    fn track(&mut self, writing: Writing) -> CommitId {
        let commit = CommitId(self.next_commit);
        self.next_commit = self.next_commit.wrapping_add(1);
        self.in_flight.push((commit, writing));
        commit
    }

    fn group_written(&mut self, sequence: SegmentSeq, commit: CommitId) {
        let segment = self.segment_mut(sequence);
        if segment.phase == Phase::Fenced {
            return;
        }
        if let Some(issued) = segment.issued.iter_mut().find(|issued| issued.commit == commit) {
            issued.flight = Flight::Landed;
        }
        // In order only: what lies behind a commit that is not known to be there may not be found.
        while let Some(landed) = self.pop_landed(sequence) {
            self.take_landed(sequence, landed);
        }
        let segment = self.segment_mut(sequence);
        if let Phase::Sealing { footer } = segment.phase
            && segment.issued.is_empty()
            && segment.waiting == 0
        {
            segment.phase = Phase::SealingHeader { footer };
            self.header_work.push_back(sequence);
        }
    }

    fn pop_landed(&mut self, sequence: SegmentSeq) -> Option<Issued> {
        let segment = self.segment_mut(sequence);
        if segment.issued.front()?.flight == Flight::Flying && !planted(Bug::AckOutOfOrder) {
            return None;
        }
        let landed = segment.issued.pop_front()?;
        segment.durable_through = landed.end;
        Some(landed)
    }

    fn take_landed(&mut self, sequence: SegmentSeq, landed: Issued) {
        for waiting in landed.cargo.messages {
            self.unready.push(OnDisk { waiting, block: Arc::clone(&landed.block) });
        }
        for copied in landed.cargo.copies {
            self.copy_landed(copied);
        }
        for batch in landed.cargo.carried.iter().chain(&landed.cargo.batches) {
            self.note_replies(sequence, batch);
        }
        for written in landed.cargo.states {
            self.state_landed(written);
        }
        for batch in landed.cargo.batches {
            for id in batch.finished {
                self.message_over(id);
            }
            for token in batch.tokens {
                self.durable.push_back(Durable::Settled { token });
            }
        }
    }

    /// Keeps where the last replies lie. Their record stays while that of the message does: one that
    /// waited while the message was copied did not know of the copy.
    fn note_replies(&mut self, sequence: SegmentSeq, batch: &Batch) {
        let Some(spot) = batch.spot else { return };
        let mut of = None;
        for entry in entries(&batch.payload) {
            let EntryResult::Deferred { .. } = entry.result else { continue };
            let at = ReplyPlace { segment: sequence, spot };
            self.index.replied(entry.message, entry.run(), at);
            let record = self.index.segment_of(entry.message);
            if of.replace(record) != Some(record) && record < sequence {
                self.segment_mut(sequence).refer(&[record]);
            }
        }
    }

    /// Tells of messages whose commit, and all of whose pieces, are on disk.
    fn tell_ready(&mut self) {
        let unready = std::mem::take(&mut self.unready);
        for on_disk in unready {
            match self.pieces(on_disk.waiting.id) {
                Pieces::Durable => self.tell_durable(on_disk),
                Pieces::InFlight => self.unready.push(on_disk),
                Pieces::Lost => self.refuse(on_disk.waiting),
            }
        }
    }

    fn pieces(&self, id: MessageId) -> Pieces {
        let mut all = Pieces::Durable;
        for chunk in self.index.chunks(id) {
            match self.piece(chunk) {
                Pieces::Durable => {}
                Pieces::InFlight => all = Pieces::InFlight,
                Pieces::Lost => return Pieces::Lost,
            }
        }
        all
    }

    fn piece(&self, chunk: &ChunkRef) -> Pieces {
        match self.segments.get(&chunk.segment) {
            Some(segment) if chunk.offset < segment.durable_through => Pieces::Durable,
            Some(segment) if segment.phase != Phase::Fenced => Pieces::InFlight,
            _ => Pieces::Lost,
        }
    }

    fn tell_durable(&mut self, on_disk: OnDisk) {
        let OnDisk { waiting: Waiting { token, id, place, at }, block } = on_disk;
        self.counters.messages += 1;
        let record = RecordInMemory { block, at };
        self.durable.push_back(Durable::Message { token, id, place, record });
    }

    fn refuse(&mut self, waiting: Waiting) {
        self.drop_message(waiting.id);
        self.counters.messages_refused += 1;
        self.durable.push_back(Durable::Refused { token: waiting.token });
    }

    /// A failed write is final: nothing of the segment that was not told durable before ever will
    /// be, whatever becomes of other writes to it. Its outcomes go into the next segment, failures
    /// behind the report that tells of them.
    fn fence(&mut self, sequence: SegmentSeq, cause: DiskError) {
        let segment = self.segment_mut(sequence);
        if segment.phase == Phase::Fenced {
            return;
        }
        segment.phase = Phase::Fenced;
        segment.waiting = 0;
        let file = segment.file;
        let void = Fence { segment: sequence, from: segment.durable_through };
        let mut cargos: Vec<Cargo> = segment.issued.drain(..).map(|issued| issued.cargo).collect();
        cargos.extend(self.take_unissued(sequence));
        // Even if nothing was issued: a message elsewhere may name a piece that was to be here.
        if !cargos.is_empty() && !planted(Bug::RefusedNotFenced) {
            self.fences.push(void);
        }
        let mut batches = Vec::new();
        for cargo in cargos {
            self.fences.extend(cargo.fences);
            batches.extend(cargo.batches);
            // The newest of several in a row is what waits first.
            for written in cargo.states {
                self.states.lost(written);
            }
            for copied in &cargo.copies {
                self.copy_lost(copied);
            }
            for waiting in cargo.messages {
                self.refuse(waiting);
            }
        }
        if planted(Bug::OutcomesLostWithSegment) {
            batches.clear();
        }
        for batch in batches.into_iter().rev() {
            match batch.notice.filter(|_| !planted(Bug::RefusedReportForgotten)) {
                Some(token) => drop(self.unreported.insert(token, batch)),
                None => self.batches.push_front(batch),
            }
        }
        self.counters.segments_fenced += 1;
        self.durable.push_back(Durable::Fenced { file, cause });
    }

    fn take_unissued(&mut self, sequence: SegmentSeq) -> Vec<Cargo> {
        let mut cargos = Vec::new();
        let closed = std::mem::take(&mut self.closed);
        for group in closed {
            if group.tag.sequence == sequence {
                cargos.push(group.cargo);
            } else {
                self.closed.push_back(group);
            }
        }
        if self.active.as_ref().is_some_and(|active| active.tag.sequence == sequence) {
            self.active = None;
            self.reservation = None;
            cargos.extend(self.open.take().map(|open| open.cargo));
        }
        cargos
    }
}

/// Until when the messages of an open group may wait for others.
fn gathered(open: &Group) -> Option<Mono> {
    let further = u32::try_from(open.cargo.messages.len()).unwrap_or(u32::MAX).saturating_sub(1);
    let wait = GATHER_FIRST.saturating_add(GATHER_EACH.saturating_mul(further)).min(GATHER_MAX);
    open.first_message.map(|first| first.plus(wait))
}
