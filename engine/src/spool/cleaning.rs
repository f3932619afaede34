//! Live messages of the oldest segment are copied forward, so that it can be used again.
//!
//! ```text
//! victim ─next_in─▶ Request::Fetch ─▶ handle_fetched ─▶ Copy record in the open group
//!                                                   commit landed ─▶ the index knows the new place
//! ```
//! - A copy carries what is pending when it is written, with attempts and due times. It counts, and
//!   the old record stops to, when it is known to be on disk with every commit before it.
//! - Until then outcomes refer to both segments, so they outlive whichever record holds. The copy's
//!   segment refers to the old one, so that the old record never is the newest one left.
//! - Pieces of bodies are copied too, one after the other, then the message that names them, wherever
//!   its own record lies. So no segment is kept for a piece; a move costs at most the body again.
//! - Behind a copy stand the last replies to what is pending, in a record of their own, read from where
//!   they lay: that place goes with the old record. Replies of one attempt mostly lie together, so the
//!   few records read last are kept.
//! - What is kept beside the mail is written again from memory (`state.rs`).
//! - Copies wait a few milliseconds for each other: in commits of their own they would gain nothing.
//! - A record that does not hold what was written, or that the disk has refused to read for long, is set
//!   aside: told, and over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::files::DiskError;
use super::group::Batch;
use super::ledger::{Phase, Segment};
use super::message::{self, ChunkRef, MessageParts, MessageView, PendingRun};
use super::outcomes::entry_bytes;
use super::policy::{Credit, Growth, Usage, wants_cleaning};
use super::reclaim::Preparing;
use super::record::{Kind, RECORD_HEADER_BYTES, RecordHeader, padded_record_bytes};
use super::replies::{self, ReplyPlace};
use super::{Durable, Need, OUTCOMES_RECORD_BYTES_MAX, Request, SPARES_MIN, Spool};
use crate::base::block::Block;
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::{Outcome, RangeOutcome};

/// Bytes being read, or copied and not yet on disk: enough to fill one large commit. A longer
/// record goes alone.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Reads under way: small records fill a commit no faster with more.
const READS_MAX: usize = 256;
/// Mail goes first: while so much of it waits for the disk, nothing is read.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// When a segment could not be emptied, as by a read error, the next look at it.
const AGAIN: Duration = Duration::from_millis(100);

/// Records with replies that are kept for the messages that follow: some 16 KiB each.
const REPLIES_KEPT_MAX: usize = 16;
/// Of so many it is known how often the disk refused them; words are not worth more.
const REPLIES_REFUSED_KEPT: usize = 64;
/// Bytes of replies that a copy carries with their words: those of more recipients than that, each
/// with one of its own, keep code and status only.
const REPLIES_BYTES_MAX: usize = 64 << 10;

/// Reads of a record with replies that the disk may refuse before their words count as lost.
const READS_REFUSED_MAX: u8 = 3;
/// How long the disk may refuse to read a message before its bytes count as damaged, and go with the
/// segment: a path to a disk that comes back at all is back by then. Cleaning waits for it meanwhile.
const REFUSED_FOR_MAX: Duration = Duration::from_secs(120);

/// Names one read ordered by the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchId(pub u32);

/// A copy that waits for its commit.
#[derive(Debug)]
pub(super) struct Copied {
    id: MessageId,
    place: Place,
    chunks: Vec<ChunkRef>,
}

/// What is being copied.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    stage: Stage,
    reads: Map<FetchId, Reading>,
    next_fetch: u32,
    in_flight_bytes: usize,
    /// Reads of pieces and of replies, to be handed out before others.
    wanted: VecDeque<Request>,
    /// Who waits for a record with replies that is being read.
    awaiting: Map<ReplyPlace, Vec<Moving>>,
    /// The records with replies read last; `None`: it does not hold what was written.
    replies: VecDeque<(ReplyPlace, Option<Arc<Block>>)>,
    /// Copies written and not yet known to be on disk, by where they lie.
    copying: Map<MessageId, SegmentSeq>,
    /// How often a record with replies could not be read; only of those that could not.
    replies_refused: Map<ReplyPlace, u8>,
    credit: Credit,
    /// Segments that were gone through in vain, and when to look again.
    barren: Vec<(SegmentSeq, Mono)>,
    /// Since when a message cannot be read; only of those that could not.
    unreadable: Map<MessageId, Mono>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Goes through what lies in the victim, and once more if something found no room.
    Emptying { victim: SegmentSeq, at: usize, pass: Pass },
    /// For good: the process is about to end.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Complete,
    Missed,
}

#[derive(Debug)]
struct Reading {
    place: Place,
    what: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Record(MessageId),
    Piece(Box<Moving>),
    Replies(ReplyPlace),
}

/// A message on its way.
#[derive(Debug)]
struct Moving {
    id: MessageId,
    /// Its record as it was read.
    record: Arc<Block>,
    old: Vec<ChunkRef>,
    new: Vec<ChunkRef>,
    /// Records with its last replies; `None`: the reply is lost.
    replies: Vec<(ReplyPlace, Option<Arc<Block>>)>,
}

/// What came of copying one record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Append {
    Done,
    /// There is no room now, or the message is over.
    NotNow,
}

impl Cleaning {
    pub(super) fn wakeup(&self) -> Option<Mono> {
        self.barren.iter().map(|(_, at)| *at).min()
    }

    /// Where a copy of the message lies that is not yet known to be on disk.
    pub(super) fn copy_of(&self, id: MessageId) -> Option<SegmentSeq> {
        if self.copying.is_empty() { None } else { self.copying.get(&id).copied() }
    }

    /// Counts a read of replies that the disk refused; whether it is worth another.
    fn may_come_again(&mut self, at: ReplyPlace) -> bool {
        if self.replies_refused.len() >= REPLIES_REFUSED_KEPT {
            self.replies_refused.clear();
            return false;
        }
        let refused = self.replies_refused.entry(at).or_insert(0);
        *refused += 1;
        *refused < READS_REFUSED_MAX
    }

    /// The message is over: a copy on its way does not matter any more.
    pub(super) fn forget(&mut self, id: MessageId) {
        if !self.copying.is_empty() {
            self.copying.remove(&id);
        }
        self.all_read(id);
    }

    fn all_read(&mut self, id: MessageId) {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&id);
        }
    }
}

impl Spool {
    /// Mail has come, or was found: see [`Credit`].
    pub(super) fn pay_for_live(&mut self, bytes: u64) {
        self.cleaning.credit.earn_live(bytes, self.used_bytes);
    }

    /// Mail is over.
    pub(super) fn pay_for_dead(&mut self, bytes: u64) {
        self.cleaning.credit.earn_dead(bytes, self.used_bytes);
    }

    /// Reads no more: for an orderly stop. Copies already made still are written.
    pub fn stop_cleaning(&mut self) {
        self.cleaning.stage = Stage::Stopped;
        self.cleaning.barren.clear();
    }

    /// The next read that cleaning wants.
    pub(super) fn poll_cleaning(&mut self, now: Mono) -> Option<Request> {
        self.cleaning.barren.retain(|(_, at)| *at > now);
        if let Some(request) = self.cleaning.wanted.pop_front() {
            return Some(request);
        }
        loop {
            let waiting: usize = self.cleaning.awaiting.values().map(Vec::len).sum();
            let is_full = self.cleaning.in_flight_bytes >= IN_FLIGHT_BYTES_MAX
                || self.cleaning.reads.len() + waiting >= READS_MAX;
            if is_full || self.is_adopting() || self.waiting_bytes() > BACKLOG_BYTES_MAX {
                return None;
            }
            let (victim, at, pass) = match self.cleaning.stage {
                Stage::Stopped => return None,
                Stage::Idle => (self.choose_victim()?, 0, Pass::Complete),
                Stage::Emptying { victim, at, pass } => (victim, at, pass),
            };
            let Some((id, at)) = self.index.next_in(victim, at) else {
                self.states.leave(now, victim);
                self.end_pass(victim, pass, now)?;
                continue;
            };
            let place = self.index.place(id)?;
            // What could not be written is not read.
            if self.admits(place.bytes as usize, self.copy_need(victim)).is_err() {
                return None;
            }
            self.cleaning.stage = Stage::Emptying { victim, at, pass };
            if !self.cleaning.copying.contains_key(&id)
                && let Some(request) = self.fetch(place, Wanted::Record(id))
            {
                return Some(request);
            }
        }
    }

    /// The answer to `Request::Fetch`.
    pub fn handle_fetched(
        &mut self,
        now: Now,
        fetch: FetchId,
        result: Result<Arc<Block>, DiskError>,
    ) {
        let Some(Reading { place, what }) = self.cleaning.reads.remove(&fetch) else { return };
        self.cleaning.in_flight_bytes -= place.bytes as usize;
        match what {
            Wanted::Record(id) => self.record_read(now, id, place, result),
            Wanted::Piece(moving) => self.piece_read(now, *moving, place, result),
            Wanted::Replies(at) => self.replies_read(now, at, place, result),
        }
    }

    pub(super) fn copy_landed(&mut self, copied: Copied) {
        let Copied { id, place, chunks } = copied;
        self.cleaning.in_flight_bytes -= place.bytes as usize;
        let is_current = self.cleaning.copying.get(&id) == Some(&place.segment);
        if !is_current || !self.are_durable(&chunks) {
            self.cleaning.copying.retain(|one, at| *one != id || *at != place.segment);
            return self.drop_chunks(&chunks);
        }
        self.cleaning.copying.remove(&id);
        self.move_live(id, place, &chunks);
    }

    fn move_live(&mut self, id: MessageId, place: Place, chunks: &[ChunkRef]) {
        if let Some((old, old_chunks)) = self.index.move_to(id, place, chunks) {
            self.add_live(place);
            self.remove_live(old);
            self.drop_chunks(&old_chunks);
            self.counters.messages_copied += 1;
        }
    }

    pub(super) fn copy_lost(&mut self, copied: &Copied) {
        self.cleaning.in_flight_bytes -= copied.place.bytes as usize;
        if self.cleaning.copying.get(&copied.id) == Some(&copied.place.segment) {
            self.cleaning.copying.remove(&copied.id);
        }
        self.drop_chunks(&copied.chunks);
    }

    /// Copies a record whatever the policy says.
    #[cfg(test)]
    pub(super) fn copy_for_tests(&mut self, now: Now, id: MessageId, record: &[u8]) {
        let mut block = crate::base::block::BlockBuilder::with_capacity(record.len());
        block.append(record);
        let record = block.freeze();
        let moving = Moving { id, record, old: Vec::new(), new: Vec::new(), replies: Vec::new() };
        assert!(self.append_copy(now, &moving) == Append::Done);
    }

    fn choose_victim(&self) -> Option<SegmentSeq> {
        // What lies before the first live segment is as good as free: it only refers to older ones.
        let is_free = |segment: &&Segment| segment.is_empty() || segment.is_recycling();
        let (mut coming, mut coming_bytes) = (0, 0);
        for segment in self.segments.values().take_while(is_free) {
            (coming, coming_bytes) = (coming + 1, coming_bytes + u64::from(segment.file_bytes));
        }
        let usage = Usage {
            segments: self.segments.len() - coming,
            bytes: self.used_bytes - coming_bytes,
            live_bytes: self.live_bytes,
            spares: self.spares.len() + coming,
            growth: if self.is_growth_refused() { Growth::Refused } else { Growth::Possible },
            credit: self.cleaning.credit,
        };
        if !wants_cleaning(&usage) {
            return None;
        }
        let is_barren = |sequence| self.cleaning.barren.iter().any(|(one, _)| *one == sequence);
        for (sequence, segment) in &self.segments {
            let is_full = matches!(segment.phase, Phase::Sealed | Phase::Fenced);
            match (is_full, is_barren(*sequence)) {
                (true, false) if segment.live > 0 || segment.chunks_live > 0 => {
                    return Some(*sequence);
                }
                // Emptying younger ones gives little while this one holds them.
                (true, true) if segment.live > 0 => return None,
                // Pieces of a message that still comes in: it may take its time.
                _ => {}
            }
        }
        None
    }

    fn missed(&mut self) {
        if let Stage::Emptying { pass, .. } = &mut self.cleaning.stage {
            *pass = Pass::Missed;
        }
    }

    pub(super) fn is_growth_refused(&self) -> bool {
        matches!(self.preparing, Preparing::Failed | Preparing::RetryAt(_))
    }

    /// Everything in the victim was asked for. `None`: copies still are on their way.
    fn end_pass(&mut self, victim: SegmentSeq, pass: Pass, now: Mono) -> Option<()> {
        if !self.cleaning.reads.is_empty() || !self.cleaning.copying.is_empty() {
            return None;
        }
        self.cleaning.stage = Stage::Idle;
        self.cleaning.replies.clear();
        let is_left = self
            .segments
            .get(&victim)
            .is_some_and(|segment| segment.live > 0 || segment.chunks_live > 0);
        if is_left && pass == Pass::Complete {
            self.cleaning.barren.push((victim, now.plus(AGAIN)));
        }
        Some(())
    }

    fn fetch(&mut self, place: Place, what: Wanted) -> Option<Request> {
        let file = self.locate(place)?;
        let fetch = FetchId(self.cleaning.next_fetch);
        self.cleaning.next_fetch = self.cleaning.next_fetch.wrapping_add(1);
        self.cleaning.in_flight_bytes += place.bytes as usize;
        self.cleaning.reads.insert(fetch, Reading { place, what });
        let (offset, bytes) = (u64::from(place.offset), place.bytes);
        Some(Request::Fetch { fetch, file, offset, bytes })
    }

    fn record_read(
        &mut self,
        now: Now,
        id: MessageId,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
    ) {
        let is_wanted = self.index.pending(id) > 0 && self.index.place(id) == Some(place);
        if !is_wanted || self.cleaning.copying.contains_key(&id) {
            return;
        }
        let Ok(block) = result else { return self.read_refused(now, id, place) };
        let tag = self.tag(place.segment);
        let view = tag.and_then(|tag| MessageView::verify(block.bytes(), &tag, place.offset).ok());
        let Some(view) = view.filter(|view| view.id == id) else {
            return self.set_aside(id, place);
        };
        let old: Vec<ChunkRef> = view.chunks(block.bytes()).collect();
        let moving = Moving { id, record: block, old, new: Vec::new(), replies: Vec::new() };
        self.move_on(now, moving);
    }

    /// Orders the next piece, then what holds the last replies; with all of it, writes the message.
    fn move_on(&mut self, now: Now, mut moving: Moving) {
        let is_over = self.index.pending(moving.id) == 0 || self.cleaning.stage == Stage::Stopped;
        let is_stale = self.index.chunks(moving.id) != moving.old
            || self.cleaning.copying.contains_key(&moving.id);
        if is_over || is_stale {
            return self.drop_chunks(&moving.new);
        }
        if let Some(next) = moving.old.get(moving.new.len()) {
            let place = next.place();
            if self.locate(place).is_none() {
                return self.drop_chunks(&moving.new);
            }
            let request = self.fetch(place, Wanted::Piece(Box::new(moving)));
            return self.cleaning.wanted.extend(request);
        }
        while let Some(at) = self.next_replies(&moving) {
            match self.known_replies(at) {
                Some(known) => moving.replies.push((at, known)),
                None => return self.await_replies(at, moving),
            }
        }
        self.cleaning.all_read(moving.id);
        if self.append_copy(now, &moving) == Append::NotNow {
            self.drop_chunks(&moving.new);
        }
    }

    /// A record with last replies of the message that was not looked at. A newer attempt may have
    /// been noted meanwhile, so this is asked until the copy is written.
    fn next_replies(&self, moving: &Moving) -> Option<ReplyPlace> {
        let states = self.index.states(moving.id);
        let has = |at: &ReplyPlace| moving.replies.iter().any(|(known, _)| known == at);
        states.iter().filter_map(|run| run.reply).find(|at| !has(at))
    }

    /// The record, if it was read lately; `Some(None)`: it cannot be had.
    fn known_replies(&self, at: ReplyPlace) -> Option<Option<Arc<Block>>> {
        if self.reply_record(at).is_none() {
            return Some(None);
        }
        let known = self.cleaning.replies.iter().find(|(known, _)| *known == at);
        known.map(|(_, block)| block.clone())
    }

    fn await_replies(&mut self, at: ReplyPlace, moving: Moving) {
        self.cleaning.in_flight_bytes += moving.record.len();
        let waiting = self.cleaning.awaiting.entry(at).or_default();
        waiting.push(moving);
        if waiting.len() == 1
            && let Some((place, _)) = self.reply_record(at)
        {
            let request = self.fetch(place, Wanted::Replies(at));
            self.cleaning.wanted.extend(request);
        }
    }

    /// A reply that cannot be read costs nothing but its words.
    fn replies_read(
        &mut self,
        now: Now,
        at: ReplyPlace,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
    ) {
        let again = result.is_err() && self.cleaning.may_come_again(at);
        let block = result.ok().filter(|block| self.holds(place, block.bytes()));
        if !again {
            self.cleaning.replies_refused.remove(&at);
            self.cleaning.replies.truncate(REPLIES_KEPT_MAX - 1);
            self.cleaning.replies.push_front((at, block.clone()));
        }
        for mut moving in self.cleaning.awaiting.remove(&at).unwrap_or_default() {
            self.cleaning.in_flight_bytes -= moving.record.len();
            if again {
                // With the next pass: it may be the way to the disk.
                self.drop_chunks(&moving.new);
                continue;
            }
            moving.replies.push((at, block.clone()));
            self.move_on(now, moving);
        }
    }

    fn piece_read(
        &mut self,
        now: Now,
        mut moving: Moving,
        place: Place,
        result: Result<Arc<Block>, DiskError>,
    ) {
        if self.index.pending(moving.id) == 0 || self.index.chunks(moving.id) != moving.old {
            return self.drop_chunks(&moving.new);
        }
        let Ok(block) = result else {
            self.drop_chunks(&moving.new);
            return self.read_refused(now, moving.id, place);
        };
        let tag = self.tag(place.segment);
        let header = tag.and_then(|tag| RecordHeader::read(block.bytes(), &tag, place.offset));
        let piece = header.and_then(|header| header.payload(block.bytes()));
        let Some(piece) =
            piece.filter(|piece| piece.len() + RECORD_HEADER_BYTES == place.bytes as usize)
        else {
            self.drop_chunks(&moving.new);
            return self.set_aside(moving.id, place);
        };
        match self.append_piece(now, piece, self.copy_need(place.segment)) {
            Ok(chunk) => {
                self.cleaning.credit.spend(u64::from(chunk.bytes));
                moving.new.push(chunk);
                self.move_on(now, moving);
            }
            Err(_) => {
                self.drop_chunks(&moving.new);
                self.missed();
            }
        }
    }

    /// Writes a Copy of the record into the open group, and behind it the last replies.
    fn append_copy(&mut self, now: Now, moving: &Moving) -> Append {
        let Moving { id, record, new: chunks, .. } = moving;
        let id = *id;
        let mut states = self.index.states(id);
        if planted(Bug::CopyForgetsAttempts) {
            states.iter_mut().for_each(|run| (run.attempts, run.due) = (0, None));
        }
        let (Some(old), Ok(view)) = (self.index.place(id), MessageView::parse(record.bytes()))
        else {
            return Append::NotNow;
        };
        let bytes = record.bytes();
        let parts = MessageParts {
            envelope: view.envelope.of(bytes).unwrap_or_default(),
            recipients: view.recipients,
            groups: &[],
            trace: view.trace.of(bytes).unwrap_or_default(),
            chunks,
            body: view.body.of(bytes).unwrap_or_default(),
        };
        let payload_bytes = parts.payload_bytes() + message::states_bytes(states.len());
        let (carried, room) = self.carried(now, moving, &states, payload_bytes);
        if states.is_empty() || self.make_room(now, room, self.copy_need(old.segment)).is_err() {
            self.missed();
            return Append::NotNow;
        }
        let Some(active) = &mut self.active else { return Append::NotNow };
        let tag = active.tag;
        let group = self.open.get_or_insert_with(|| active.group(room));
        let place = group.append_copy(id, view.accepted, &parts, &states);
        group.first_copy.get_or_insert(now.mono);
        group.cargo.copies.push(Copied { id, place, chunks: chunks.clone() });
        active.footer.add_mark(place.offset, place.bytes, Kind::Copy);
        for batch in carried {
            let (place, payload) = group.append_carried(batch);
            active.footer.add_outcomes(place.offset, place.bytes, payload);
        }
        let shadows = self.index.shadows(id).to_vec();
        let segment = self.segment_mut(tag.sequence);
        segment.refer(&shadows);
        segment.refer(&[old.segment]);
        self.cleaning.copying.insert(id, tag.sequence);
        self.cleaning.in_flight_bytes += place.bytes as usize;
        self.cleaning.credit.spend(u64::from(place.bytes));
        if planted(Bug::CopyCountsEarly) {
            self.move_live(id, place, chunks);
        }
        Append::Done
    }

    /// What is written behind a copy of this length, and the room that both take. Where they would
    /// fit no segment, the words stay behind.
    fn carried(
        &self,
        now: Now,
        moving: &Moving,
        states: &[PendingRun],
        payload_bytes: usize,
    ) -> (Vec<Batch>, usize) {
        let batches = last_replies(now, moving, states);
        let bytes = batches.iter().map(|batch| padded_record_bytes(batch.payload.len()));
        let room = payload_bytes + bytes.sum::<usize>();
        if self.fits_a_fresh_segment(room) { (batches, room) } else { (Vec::new(), payload_bytes) }
    }

    /// The last spare may go too where little is left to copy: a whole segment comes back for it.
    fn copy_need(&self, from: SegmentSeq) -> Need {
        let is_little =
            |segment: &&Segment| segment.live_bytes <= u64::from(segment.file_bytes / 4);
        if !self.is_growth_refused() {
            return Need::EarlyCopy;
        }
        match self.segments.get(&from).filter(is_little) {
            Some(_) => Need::LastCopies,
            None => Need::Copy,
        }
    }

    fn are_durable(&self, chunks: &[ChunkRef]) -> bool {
        chunks.iter().all(|chunk| {
            let segment = self.segments.get(&chunk.segment);
            segment.is_some_and(|segment| chunk.offset < segment.durable_through)
        })
    }

    /// Tried again with the next pass: it may be the way to the disk and not the bytes.
    fn read_refused(&mut self, now: Now, id: MessageId, place: Place) {
        let since = *self.cleaning.unreadable.entry(id).or_insert(now.mono);
        if now.mono >= since.plus(REFUSED_FOR_MAX) {
            self.set_aside(id, place);
        }
    }

    /// What was written is not there any more: nobody can deliver it. The operator is told.
    fn set_aside(&mut self, id: MessageId, place: Place) {
        self.drop_message(id);
        self.counters.messages_set_aside += 1;
        self.durable.push_back(Durable::SetAside { id, place });
    }
}

/// The last replies to what is pending, as they are written behind the copy.
fn last_replies(now: Now, moving: &Moving, states: &[PendingRun]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    for run in states {
        let (Some(next), Some(at)) = (run.due, run.reply) else { continue };
        let read = moving.replies.iter().find(|(known, _)| *known == at);
        let Some((_, Some(block))) = read else { continue };
        let payload = replies::payload(block.bytes()).unwrap_or_default();
        for (part, reply) in replies::last_replies(payload, moving.id, run.run()) {
            let outcome = Outcome::Deferred { reply, next };
            let (first, count, attempts) = (part.first, part.count, run.attempts);
            let range = RangeOutcome { first, count, attempts, outcome };
            let is_full = |batch: &Batch| batch.payload.len() >= OUTCOMES_RECORD_BYTES_MAX;
            if batches.last().is_none_or(is_full) {
                batches.push(Batch::new(now.mono));
            }
            let Some(batch) = batches.last_mut() else { continue };
            bytes += entry_bytes(&range);
            if bytes <= REPLIES_BYTES_MAX {
                batch.add(moving.id, first, count, &range);
            } else {
                batch.add_without_text(moving.id, first, count, &range);
            }
        }
    }
    batches
}

const _: () =
    assert!(SPARES_MIN > super::SPARES_RESERVED, "cleaning starts before mail is refused");
