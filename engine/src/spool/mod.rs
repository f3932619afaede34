//! Mail is made safe: the spool of one shard, without I/O.
//!
//! ```text
//! begin_message, append_message, append_chunk, settle ──▶ open group ─close─▶ commit ─▶ segment
//!          poll_request ──▶ the driver writes ──▶ handle_committed ──▶ poll_durable
//! ```
//! `record.rs` and `segment.rs` draw the bytes on disk; `room.rs` says how much more is taken, `commit.rs`
//! when a commit goes and what its end means, `notice.rs` how a report and its failures share one;
//! `reclaim.rs` when a segment may be used again, `cleaning.rs` how the last live messages leave it and
//! `policy.rs` when; `opening.rs`, `recovery.rs` and `plan.rs` read everything back; `transfer.rs` takes
//! mail out for another spool; `replies.rs` says where last replies are found; `state.rs` keeps what is
//! no mail.

use std::collections::{BTreeMap, VecDeque};

use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::connection::ShardId;
use crate::model::delivery::RecordInMemory;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::{Outcome, RangeOutcome};
use crate::model::settings::OutcomeDurability;

mod active;
pub mod archive;
mod bytes;
mod cleaning;
#[cfg(test)]
mod cleaning_tests;
mod commit;
#[cfg(test)]
mod crash_tests;
pub mod files;
mod footer;
#[cfg(test)]
mod format_tests;
mod group;
pub mod image;
mod index;
mod ledger;
pub mod message;
mod notice;
pub mod opening;
#[cfg(test)]
mod opening_tests;
pub mod outcomes;
pub mod plan;
mod policy;
mod reclaim;
pub mod record;
pub mod recovery;
mod replies;
mod room;
pub mod segment;
mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;
pub mod transfer;

pub use cleaning::FetchId;
pub use commit::{Gather, Request};
pub use message::{ChunkRef, DomainRange, MessageParts, MessageView, PendingRun};
pub use notice::About;
pub use replies::ReplyPlace;
pub use room::Room;

use active::Active;
use cleaning::Cleaning;
use files::{CommitId, DiskError, FileId, SpareSegment};
use group::{Batch, Group, Waiting};
pub use index::Run;

use index::LiveIndex;
use ledger::{Phase, Segment};
use notice::Unreported;
use plan::{RecoveredMessage, RecoveredShard};
use reclaim::Preparing;
use record::{Fence, Kind, RECORD_HEADER_BYTES, RecordHeader, Tag};
use room::{Need, SPARES_RESERVED};
use state::States;

/// A group that reaches this goes at once: longer writes take longer without being cheaper per byte.
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// One Outcomes record: so that a segment's end never has to take a longer one.
const OUTCOMES_RECORD_BYTES_MAX: usize = 16 << 10;
/// One spare to go on with when the active segment is full, and the reserve.
const SPARES_MIN: usize = SPARES_RESERVED + 1;
/// Outcomes that wait while no segment can be had, in full. Beyond it deferrals are not written
/// (after a crash such a delivery is tried again at once) and final results go without the reply's
/// text: a few bytes for each live recipient, of which there are no new ones meanwhile.
const OUTCOMES_WAITING_BYTES_MAX: usize = 4 << 20;
/// Of a segment, at most this part: so that the next one that can be had takes all of them.
const OUTCOMES_WAITING_PART: usize = 4;

#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    pub shard: ShardId,
    /// Shards of this run: they draw sequences in turn.
    pub shards: u16,
    /// From recovery: the first sequence that no segment ever had.
    pub next_sequence: u64,
    pub outcomes: OutcomeDurability,
    /// Writes in flight at once, headers included: 4, or 1 where writes cannot overlap.
    pub commits_in_flight_max: usize,
}

/// Why nothing more is taken: 452 to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolFull {
    /// There is no segment beyond the reserve; it may come back as mail is delivered.
    #[error("no free segment")]
    NoSegment,
    /// The disk is behind; trying again soon helps.
    #[error("too much waits to be written")]
    Backlog,
    /// No segment is long enough for such a record; trying again does not help.
    #[error("the record is longer than a segment takes")]
    TooLarge,
}

/// What has become durable, or never will.
#[derive(Debug)]
pub enum Durable {
    /// The message is safe: it may be acknowledged, and scheduled.
    Message { token: u64, id: MessageId, place: Place, record: RecordInMemory },
    /// The message is not safe and never will be: refuse it.
    Refused { token: u64 },
    /// The outcomes of the settlement with this token are on disk.
    Settled { token: u64 },
    /// What was to be remembered with this token is on disk.
    Kept { token: u64 },
    /// It is not, and cannot be now; it will be written if that becomes possible in this run.
    NotKept { token: u64 },
    /// A write failed: the segment takes no more of them. The operator is to be told.
    Fenced { file: FileId, cause: DiskError },
    /// What was written here cannot be read any more: the message is over. The operator is to be
    /// told.
    SetAside { id: MessageId, place: Place },
}

/// What a settlement left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Recipients of the message that still are pending.
    pub pending: u16,
    /// Whether anything was new: a final recipient never changes again.
    pub changed: bool,
}

/// Counted since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub commits: u64,
    pub header_writes: u64,
    pub bytes_written: u64,
    pub messages: u64,
    pub messages_refused: u64,
    pub outcomes: u64,
    pub segments_recycled: u64,
    pub segments_fenced: u64,
    pub messages_copied: u64,
    pub messages_set_aside: u64,
    /// Deferrals not written because too many outcomes waited for a segment.
    pub deferrals_unwritten: u64,
}

/// The spool of one shard.
#[derive(Debug)]
pub struct Spool {
    options: SpoolOptions,
    next_sequence: u64,
    next_commit: u32,
    spares: VecDeque<SpareSegment>,
    preparing: Preparing,
    segments: BTreeMap<SegmentSeq, Segment>,
    active: Option<Active>,
    /// The group that is being filled; it lies at the end of the active segment.
    open: Option<Group>,
    /// Groups that only wait to be issued, in order.
    closed: VecDeque<Group>,
    in_flight: Vec<(CommitId, commit::Writing)>,
    /// Segments that wait for a header write.
    header_work: VecDeque<SegmentSeq>,
    /// Outcomes that wait for the next commit, in order.
    batches: VecDeque<Batch>,
    unreported: Unreported,
    states: States,
    /// Fences that wait for the next commit.
    fences: Vec<Fence>,
    index: LiveIndex,
    cleaning: Cleaning,
    outcomes_waiting_max: usize,
    /// Bytes of the files that are not spares.
    used_bytes: u64,
    /// Bytes of live messages, and of pieces that are needed.
    live_bytes: u64,
    /// Messages on disk whose pieces, in another segment, are not yet.
    unready: Vec<commit::OnDisk>,
    durable: VecDeque<Durable>,
    reservation: Option<(MessageId, usize)>,
    /// What recovery found and is not in the index yet.
    adopting: std::vec::IntoIter<RecoveredMessage>,
    /// Whether some segment may have become free since the last look.
    reclaim_due: bool,
    last_group_bytes: usize,
    found: Vec<Run>,
    counters: Counters,
}

impl Spool {
    #[must_use]
    pub fn new(options: SpoolOptions, recovered: Option<RecoveredShard>) -> Self {
        let mut spool = Self {
            options,
            next_sequence: options.next_sequence.max(1) + u64::from(options.shard.0),
            next_commit: 0,
            spares: VecDeque::new(),
            preparing: Preparing::Idle,
            segments: BTreeMap::new(),
            active: None,
            open: None,
            closed: VecDeque::new(),
            in_flight: Vec::new(),
            header_work: VecDeque::new(),
            batches: VecDeque::new(),
            unreported: Unreported::default(),
            states: States::default(),
            fences: Vec::new(),
            index: LiveIndex::default(),
            cleaning: Cleaning::default(),
            outcomes_waiting_max: OUTCOMES_WAITING_BYTES_MAX,
            used_bytes: 0,
            live_bytes: 0,
            unready: Vec::new(),
            durable: VecDeque::new(),
            reservation: None,
            adopting: Vec::new().into_iter(),
            reclaim_due: true,
            last_group_bytes: 0,
            found: Vec::new(),
            counters: Counters::default(),
        };
        if let Some(recovered) = recovered {
            spool.adopt(recovered);
            spool.adopt_messages(usize::MAX);
        }
        spool
    }

    /// Makes sure that a message record of this many payload bytes fits the active segment, and
    /// names the message. To be followed by `append_message` in the same turn; a name that is not
    /// used is lost without harm.
    ///
    /// # Errors
    /// If the message is to be refused.
    pub fn begin_message(
        &mut self,
        now: Now,
        payload_bytes: usize,
    ) -> Result<MessageId, SpoolFull> {
        self.begin(now, payload_bytes, Need::Mail)
    }

    fn begin(
        &mut self,
        now: Now,
        payload_bytes: usize,
        need: Need,
    ) -> Result<MessageId, SpoolFull> {
        self.make_room(now, payload_bytes, need)?;
        let active = self.active.as_mut().ok_or(SpoolFull::NoSegment)?;
        let id = MessageId::new(active.tag.sequence, active.next_ordinal);
        active.next_ordinal += 1;
        self.reservation = Some((id, payload_bytes));
        Ok(id)
    }

    /// Appends the message named by the last `begin_message`. `poll_durable` will tell, under
    /// `token`, that it is safe or that it never will be. `None`: the segment failed since it was
    /// named; it is refused.
    pub fn append_message(
        &mut self,
        now: Now,
        id: MessageId,
        parts: MessageParts<'_>,
        token: u64,
    ) -> Option<Place> {
        let reservation = self.reservation.take();
        let (Some((reserved, payload_bytes)), Some(active)) = (reservation, &mut self.active)
        else {
            self.durable.push_back(Durable::Refused { token });
            return None;
        };
        assert!(reserved == id && parts.payload_bytes() <= payload_bytes, "appended as announced");
        assert!(parts.recipients > 0, "a message has a recipient");
        let tag = active.tag;
        let capacity = self.last_group_bytes.max(payload_bytes + 4 * RECORD_HEADER_BYTES);
        let group = self.open.get_or_insert_with(|| active.group(capacity));
        let (at, bytes) = message::append_message(
            &mut group.block,
            id,
            now.wall,
            &parts,
            &[],
            &tag,
            group.offset,
        );
        let place = Place { segment: tag.sequence, offset: group.offset + at, bytes };
        group.first_message.get_or_insert(now.mono);
        group.cargo.messages.push(Waiting { token, id, place, at });
        active.footer.add_message(id, place, now.wall, &parts);
        self.index.insert(id, place, parts.recipients, parts.chunks);
        self.add_live(place);
        self.pay_for_live(u64::from(place.bytes));
        if planted(Bug::PiecesFreedEarly) {
            self.drop_chunks(parts.chunks);
        }
        Some(place)
    }

    /// Writes a piece of a body whose message is still coming in. The piece is kept until the
    /// message that names it is over, or until `drop_chunks`.
    ///
    /// # Errors
    /// If the message is to be refused.
    pub fn append_chunk(&mut self, now: Now, bytes: &[u8]) -> Result<ChunkRef, SpoolFull> {
        let chunk = self.append_piece(now, bytes, Need::Mail)?;
        // What is refused pays for nothing: it would keep copying alive on a full disk.
        self.pay_for_live(u64::from(chunk.bytes));
        Ok(chunk)
    }

    fn append_piece(&mut self, now: Now, bytes: &[u8], need: Need) -> Result<ChunkRef, SpoolFull> {
        self.reservation = None;
        self.make_room(now, bytes.len(), need)?;
        let active = self.active.as_mut().ok_or(SpoolFull::NoSegment)?;
        let sequence = active.tag.sequence;
        let capacity = bytes.len() + 4 * RECORD_HEADER_BYTES;
        let group = self.open.get_or_insert_with(|| active.group(capacity));
        let place = group.append(Kind::Chunk, &[], bytes);
        group.chunks += 1;
        let segment = self.segment_mut(sequence);
        segment.chunks_live += 1;
        segment.live_bytes += u64::from(place.bytes);
        self.live_bytes += u64::from(place.bytes);
        Ok(ChunkRef { segment: sequence, offset: place.offset, bytes: bytes::len32(bytes.len()) })
    }

    /// Gives up pieces whose message will not come.
    pub fn drop_chunks(&mut self, chunks: &[ChunkRef]) {
        for chunk in chunks {
            if let Some(segment) = self.segments.get_mut(&chunk.segment) {
                let bytes = u64::from(chunk.place().bytes);
                segment.chunks_live = segment.chunks_live.saturating_sub(1);
                segment.live_bytes = segment.live_bytes.saturating_sub(bytes);
                self.live_bytes = self.live_bytes.saturating_sub(bytes);
                self.reclaim_due = true;
            }
        }
    }

    /// Takes what became of recipients of a message homed here. What is final already stays as it
    /// is. With a `token`, `poll_durable` tells when all of it is on disk.
    pub fn settle(
        &mut self,
        now: Now,
        id: MessageId,
        outcomes: &[RangeOutcome],
        token: Option<u64>,
    ) -> Settled {
        let mut changed = false;
        let mut found = std::mem::take(&mut self.found);
        for outcome in outcomes {
            self.index.pending_within(id, Run::of(outcome), &mut found);
            for run in &found {
                self.write_outcome(now.mono, id, *run, outcome);
                match outcome.outcome {
                    Outcome::Deferred { next, .. } => {
                        self.index.defer(id, *run, outcome.attempts, next);
                    }
                    Outcome::Delivered { .. }
                    | Outcome::Failed { .. }
                    | Outcome::Cancelled { .. } => {
                        self.index.finish(id, *run);
                    }
                }
                changed = true;
            }
        }
        self.found = found;
        let pending = self.index.pending(id);
        // With the last entry, be its batch full or not: only then is all of it on disk.
        if changed
            && pending == 0
            && let Some(batch) = self.batches.back_mut()
        {
            batch.finished.push(id);
        }
        if let Some(token) = token {
            self.tell_when_settled(now.mono, token, changed);
        }
        Settled { pending, changed }
    }

    /// See `OUTCOMES_WAITING_BYTES_MAX`. What is written must stay while a record is there that it
    /// speaks of, whichever will hold.
    fn write_outcome(&mut self, now: Mono, id: MessageId, run: Run, outcome: &RangeOutcome) {
        let waiting = self.batches.len() * OUTCOMES_RECORD_BYTES_MAX;
        if waiting <= self.outcomes_waiting_max {
            self.batch(now).add(id, run.first, run.count, outcome);
        } else if outcome.outcome.is_final() {
            self.batch(now).add_without_text(id, run.first, run.count, outcome);
        } else {
            self.counters.deferrals_unwritten += 1;
            return;
        }
        self.counters.outcomes += 1;
        if let Some(batch) = self.batches.back_mut() {
            record_segments(&self.index, &self.cleaning, id).for_each(|one| batch.refer(one));
        }
    }

    /// What has become durable, or never will, in order.
    pub fn poll_durable(&mut self) -> Option<Durable> {
        self.durable.pop_front()
    }

    /// Recipients of a message homed here that still are pending; 0 if it is over or unknown.
    #[must_use]
    pub fn pending(&self, id: MessageId) -> u16 {
        self.index.pending(id)
    }

    /// Where to read what a delivery knows under `asked`: its message's record, or a piece of its
    /// body. Either may have been copied since. `None`: the message is over, as far as is known.
    #[must_use]
    pub fn present(&self, id: MessageId, asked: Place) -> Option<Place> {
        let record = self.index.place(id)?;
        Some(self.index.piece_place(id, asked).unwrap_or(record))
    }

    /// Where a message lies of which somebody is pending here.
    #[must_use]
    pub fn pending_place(&self, id: MessageId) -> Option<Place> {
        self.index.place(id).filter(|_| self.index.pending(id) > 0)
    }

    /// Who is pending of a message, with attempts and next try.
    #[must_use]
    pub fn pending_runs(&self, id: MessageId) -> Vec<PendingRun> {
        self.index.states(id).to_vec()
    }

    /// The file a record lies in; `None`: it is not homed here, or is over.
    #[must_use]
    pub fn locate(&self, place: Place) -> Option<FileId> {
        self.segments.get(&place.segment).map(|segment| segment.file)
    }

    /// What `MessageView::verify` needs for records of this segment.
    #[must_use]
    pub fn tag(&self, segment: SegmentSeq) -> Option<Tag> {
        self.segments.get(&segment).map(|segment| segment.tag)
    }

    /// Whether `bytes`, read back from `place`, are the whole record that was written there.
    #[must_use]
    pub fn holds(&self, place: Place, bytes: &[u8]) -> bool {
        let Some(tag) = self.tag(place.segment) else { return false };
        let header = RecordHeader::read(bytes, &tag, place.offset);
        planted(Bug::RecordNotVerified)
            || header.is_some_and(|header| header.payload(bytes).is_some())
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether everything taken so far is on disk, or refused: a stop may end.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_none()
            && self.closed.is_empty()
            && self.batches.is_empty()
            && self.unreported.is_empty()
            && self.fences.is_empty()
            && (!self.states.is_waiting() || self.is_state_stuck())
            && self.in_flight.is_empty()
            && self.header_work.is_empty()
    }

    /// The batch that takes the next outcome.
    fn batch(&mut self, now: Mono) -> &mut Batch {
        let full = |batch: &Batch| batch.payload.len() >= OUTCOMES_RECORD_BYTES_MAX;
        if self.batches.back().is_none_or(full) {
            self.batches.push_back(Batch::new(now));
        }
        self.batches.back_mut().expect("one was just pushed")
    }

    /// A settlement that changed nothing is durable when everything before it is.
    fn tell_when_settled(&mut self, now: Mono, token: u64, changed: bool) {
        let nothing_waits =
            self.batches.is_empty() && self.closed.is_empty() && self.in_flight.is_empty();
        if !changed && nothing_waits {
            self.durable.push_back(Durable::Settled { token });
        } else if self.batches.is_empty() {
            self.batch(now).tokens.push(token);
        } else if let Some(batch) = self.batches.back_mut() {
            batch.tokens.push(token);
        }
    }

    fn segment_mut(&mut self, sequence: SegmentSeq) -> &mut Segment {
        self.segments.get_mut(&sequence).expect("a segment stays while anything of it is in use")
    }

    fn is_activating(&self) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let segment = self.segments.get(&active.tag.sequence);
            segment.is_some_and(|segment| matches!(segment.phase, Phase::Activating { .. }))
        })
    }
}

/// Segments with a record of the message, whichever will hold.
fn record_segments(
    index: &LiveIndex,
    cleaning: &Cleaning,
    id: MessageId,
) -> impl Iterator<Item = SegmentSeq> {
    let shadows = index.shadows(id).iter().copied();
    [index.segment_of(id)].into_iter().chain(cleaning.copy_of(id)).chain(shadows)
}
