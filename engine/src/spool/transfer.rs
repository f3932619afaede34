//! What is live in a spool or an archive, taken out of it whole: envelope, body, what is pending.

use std::collections::BTreeMap;

use super::files::FileId;
use super::message::{ChunkRef, MessageParts, MessageView, PendingRun, Runs};
use super::plan::plan;
use super::record::{RECORD_HEADER_BYTES, RecordHeader, Tag};
use super::recovery::{Finding, SegmentScan, SegmentUse};
use super::replies::last_replies;
use crate::base::time::Wall;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};

/// What is live, and where it lies.
#[derive(Debug)]
pub struct Stock {
    /// In order of their names.
    pub messages: Vec<LiveMessage>,
    pub findings: Vec<Finding>,
    /// The first sequence that no segment ever had.
    pub next_sequence: u64,
    segments: BTreeMap<SegmentSeq, (FileId, Tag)>,
}

/// A message that somebody still is to get.
#[derive(Debug)]
pub struct LiveMessage {
    pub id: MessageId,
    pub runs: Runs,
    place: Place,
    chunks: Vec<ChunkRef>,
}

impl LiveMessage {
    #[must_use]
    pub fn recipients(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }
}

/// A message that was read in full, and found undamaged.
#[derive(Debug)]
pub struct WholeMessage {
    pub id: MessageId,
    pub accepted: Wall,
    pub runs: Runs,
    /// The last reply to each run, as far as it still is there.
    pub deferrals: Vec<RangeOutcome>,
    pub(super) pieces: Vec<Vec<u8>>,
    record: Vec<u8>,
    view: MessageView,
}

impl WholeMessage {
    /// Envelope, trace and whole body.
    #[cfg(all(test, feature = "runtime"))]
    pub(crate) fn content(&self) -> [Vec<u8>; 3] {
        let parts = self.parts(&[]);
        let body = self.pieces.iter().map(Vec::as_slice).chain([parts.body]);
        [parts.envelope.to_vec(), parts.trace.to_vec(), body.flatten().copied().collect()]
    }

    /// What a record of it is made of, when its pieces lie there.
    pub(super) fn parts<'a>(&'a self, chunks: &'a [ChunkRef]) -> MessageParts<'a> {
        MessageParts {
            envelope: self.view.envelope.of(&self.record).unwrap_or_default(),
            recipients: self.view.recipients,
            groups: &[],
            trace: self.view.trace.of(&self.record).unwrap_or_default(),
            chunks,
            body: self.view.body.of(&self.record).unwrap_or_default(),
        }
    }
}

/// Sorts out what is live in these segments.
#[must_use]
pub fn take_stock(scans: Vec<SegmentScan>) -> Stock {
    let in_use = scans.iter().filter(|scan| scan.use_ == SegmentUse::InUse);
    let segments = in_use.map(|scan| (scan.sequence(), (scan.file, scan.header.tag))).collect();
    let recovered = plan(scans, 1);
    let mut messages = Vec::new();
    for message in recovered.shards.into_iter().flat_map(|shard| shard.messages) {
        messages.push(LiveMessage {
            id: message.id,
            runs: message.runs,
            place: message.place,
            chunks: message.chunks,
        });
    }
    messages.sort_unstable_by_key(|message| message.id);
    let (findings, next_sequence) = (recovered.findings, recovered.next_sequence);
    Stock { messages, findings, next_sequence, segments }
}

impl Stock {
    /// The file that is this segment.
    #[must_use]
    pub fn file_of(&self, segment: SegmentSeq) -> Option<FileId> {
        self.segments.get(&segment).map(|(file, _)| *file)
    }

    /// Reads the message in full. `read` gives the bytes of a place, cut off where the file ends.
    /// `None`: some of it is not what was written.
    pub fn read(
        &self,
        message: &LiveMessage,
        mut read: impl FnMut(Place) -> Option<Vec<u8>>,
    ) -> Option<WholeMessage> {
        let (_, tag) = self.segments.get(&message.place.segment)?;
        let record = read(message.place)?;
        let view = MessageView::verify(&record, tag, message.place.offset).ok()?;
        let pieces: Option<Vec<Vec<u8>>> =
            message.chunks.iter().map(|chunk| self.read_piece(chunk, &mut read)).collect();
        let deferrals = self.last_replies(message, &mut read);
        let (id, accepted, runs) = (message.id, view.accepted, message.runs.clone());
        (view.id == id).then_some(())?;
        Some(WholeMessage { id, accepted, runs, deferrals, pieces: pieces?, record, view })
    }

    fn read_piece(
        &self,
        chunk: &ChunkRef,
        read: &mut impl FnMut(Place) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let (_, tag) = self.segments.get(&chunk.segment)?;
        let mut record = read(chunk.place())?;
        let header = RecordHeader::read(&record, tag, chunk.offset)?;
        let piece = header.payload(&record)?;
        (piece.len() == chunk.bytes as usize).then_some(())?;
        record.drain(..RECORD_HEADER_BYTES);
        Some(record)
    }

    /// A reply that is gone or damaged costs nothing but its words.
    fn last_replies(
        &self,
        message: &LiveMessage,
        read: &mut impl FnMut(Place) -> Option<Vec<u8>>,
    ) -> Vec<RangeOutcome> {
        let mut last = Vec::new();
        for run in &message.runs {
            let (Some(at), Some(next)) = (run.reply, run.due) else { continue };
            let Some((_, tag)) = self.segments.get(&at.segment) else { continue };
            let place = at.place(u32::MAX);
            let Some(record) = read(place) else { continue };
            let header = RecordHeader::read(&record, tag, place.offset);
            let Some(payload) = header.and_then(|header| header.payload(&record)) else { continue };
            for (part, reply) in last_replies(payload, message.id, run.run()) {
                let outcome = Outcome::Deferred { reply, next };
                let (first, count, attempts) = (part.first, part.count, run.attempts);
                last.push(RangeOutcome { first, count, attempts, outcome });
            }
        }
        last
    }
}

/// What is written about recipients that an archive took over: nobody tries them here any more.
/// The format has no word of its own for it, so it is a delivery whose reply says where to.
#[must_use]
pub fn taken_over(run: &PendingRun, archive: &str) -> RangeOutcome {
    let text = format!("moved to archive {archive}");
    let reply = Reply::local(250, Enhanced(2, 0, 0), &text);
    let outcome = Outcome::Delivered { reply };
    RangeOutcome { first: run.first, count: run.count, attempts: run.attempts, outcome }
}
