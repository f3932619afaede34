//! Reading one segment back: what lies in it, and what is wrong with it.
//!
//! Bytes may be anything: nothing here panics, and every loop advances. A sealed segment is read by
//! its footer, any other record by record. An invalid record below the largest `durable_through`
//! found is damage, above it a torn write; the whole records behind either are kept.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::bytes::len32;
use super::files::{FileId, SpareSegment};
use super::footer::{FooterMessage, FooterOutcome, FooterView};
use super::message::{ChunkRef, MessageView, PendingRun};
use super::outcomes::{EntryResult, entries};
use super::record::{CommitFields, Fence, Kind, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use super::replies::Spot;
use super::segment::{
    DATA_START, FooterPlace, NotASegment, SegmentHeader, SegmentState, Slots, data_end, read_slots,
};
use super::state::{PlacedState, read_state};
use crate::base::block::PAGE_BYTES;
use crate::base::planted::{Bug, planted};
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::wire::envelope::labels_of;

/// Recipients of an envelope by domain: name, first, count. As a rule there is one, which must not
/// cost an allocation: a restart has a million of these.
pub type Groups = SmallVec<[(Arc<str>, u16, u16); 1]>;

/// Something wrong that was found; acting on it is for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A write that never was acknowledged, cut short by a crash: dropped.
    Torn { file: FileId, place: Place },
    /// Bytes that were on disk once are no longer what was written. A message is set aside;
    /// without its name, it cannot be told which.
    Damaged { file: FileId, place: Place, message: Option<MessageId> },
    /// The index of a sealed segment is damaged: all of the segment was read instead.
    FooterDamaged { file: FileId, segment: SegmentSeq },
    /// One of the two headers does not hold.
    HeaderDamaged { file: FileId, segment: SegmentSeq },
    /// What was kept beside the mail, as a hold or what was learned of a site, is damaged.
    StateDamaged { file: FileId, place: Place },
    /// Two files claim to be the same segment, as after a copy; this one was left alone.
    SegmentTwice { file: FileId, segment: SegmentSeq },
}

impl Finding {
    /// Whether something that was safe once is not: a torn write is what a crash leaves behind.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Torn { .. })
    }

    /// The file it was found in.
    #[must_use]
    pub fn file(&self) -> FileId {
        match self {
            Self::Torn { file, .. }
            | Self::Damaged { file, .. }
            | Self::FooterDamaged { file, .. }
            | Self::HeaderDamaged { file, .. }
            | Self::StateDamaged { file, .. }
            | Self::SegmentTwice { file, .. } => *file,
        }
    }
}

/// One line: what, where, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file().0;
        match self {
            Self::Torn { place, .. } => write!(
                f,
                "{file:08}.seg: a write of {} bytes at {} was cut short before it was acknowledged; \
                 dropped, nothing to do",
                place.bytes, place.offset
            ),
            Self::Damaged { place, message: Some(id), .. } => write!(
                f,
                "{file:08}.seg: message {id} at {} is damaged and set aside; tell its sender, and \
                 look at the health of the disk",
                place.offset
            ),
            Self::Damaged { place, message: None, .. } => write!(
                f,
                "{file:08}.seg: {} bytes at {} are damaged: a message may be lost, or an outcome, so \
                 that its delivery is repeated; look at the health of the disk",
                place.bytes, place.offset
            ),
            Self::FooterDamaged { segment, .. } => write!(
                f,
                "{file:08}.seg: the index of segment {} is damaged; all of it was read instead, look \
                 at the health of the disk",
                segment.0
            ),
            Self::HeaderDamaged { segment, .. } => write!(
                f,
                "{file:08}.seg: one of the two headers of segment {} does not hold, the other does; \
                 once after a power cut that is harmless, else look at the health of the disk",
                segment.0
            ),
            Self::StateDamaged { place, .. } => write!(
                f,
                "{file:08}.seg: {} bytes at {} are damaged, which told of a hold, of a rule's work or of what \
                 was learned of a site; what was told before holds: look at the holds, and at the \
                 health of the disk",
                place.bytes, place.offset
            ),
            Self::SegmentTwice { segment, .. } => write!(
                f,
                "{file:08}.seg: another file is segment {} too, this one was left alone; move the \
                 older copy out of the folder",
                segment.0
            ),
        }
    }
}

/// A segment as it was read.
#[derive(Debug)]
pub struct SegmentScan {
    pub(super) file: FileId,
    pub(super) header: SegmentHeader,
    pub(super) use_: SegmentUse,
    pub(super) messages: Vec<ScannedMessage>,
    pub(super) outcomes: Vec<ScannedOutcome>,
    pub(super) fences: Vec<Fence>,
    pub(super) states: Vec<PlacedState>,
    /// Where whole Chunk records begin, in order; `None`: an index was read, which trusts them.
    pub(super) chunks: Option<Vec<u32>>,
    /// The offset below which all was on disk once.
    pub(super) durable_through: u32,
    pub(super) findings: Vec<Finding>,
}

/// What the two headers together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentUse {
    Spare,
    /// It was being made a spare: one slot still speaks of its last use.
    HalfFreed,
    InUse,
}

/// What one segment holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSummary {
    pub segment: SegmentSeq,
    pub generation: u32,
    pub shard: ShardId,
    pub file_bytes: u32,
    pub state: ScanState,
    /// Records of messages, over or not.
    pub messages: usize,
    pub outcomes: usize,
    /// Values kept beside the mail, newer ones of the same key or not.
    pub states: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanState {
    Spare,
    /// Was being made a spare.
    HalfFreed,
    /// Was being written when the engine ended.
    Open,
    Sealed,
}

/// A piece of a body, as far as the segment it should lie in tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    There,
    /// It never was on disk, so its message never was acknowledged.
    Torn,
    Damaged,
}

/// A Message or Copy record.
#[derive(Debug)]
pub(super) struct ScannedMessage {
    pub(super) id: MessageId,
    pub(super) place: Place,
    pub(super) accepted: Wall,
    pub(super) recipients: u16,
    pub(super) groups: Groups,
    pub(super) chunks: Vec<ChunkRef>,
    /// A Copy's; a Message has none.
    pub(super) states: Option<Vec<PendingRun>>,
    pub(super) trust: Trust,
    /// What names its flow, if it has one.
    pub(super) labels: Option<Arc<str>>,
}

/// Whether everything that was written before a record is known to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Full,
    /// A Copy behind a tear: it may know of outcomes, and of reports about them, that were lost.
    Doubtful,
}

/// One entry of an Outcomes record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScannedOutcome {
    /// Of its record.
    pub(super) spot: Spot,
    pub(super) message: MessageId,
    pub(super) first: u16,
    pub(super) count: u16,
    pub(super) attempts: u16,
    pub(super) result: EntryResult,
}

/// Reads the whole file `bytes`. `groups_of` parses an envelope; it is asked only for messages that
/// no footer speaks of.
///
/// # Errors
/// If the file is not a segment this program reads; it is to be left alone and reported.
pub fn scan(
    file: FileId,
    bytes: &[u8],
    groups_of: impl Fn(&[u8]) -> Option<Groups>,
) -> Result<SegmentScan, NotASegment> {
    scan_to(Depth::Index, file, bytes, groups_of)
}

/// As [`scan`], for a sealed segment of which only the two headers, the index and the records that
/// `opening::to_read` names can be looked at. `None`: that is not enough.
pub fn scan_by_index(
    file: FileId,
    bytes: &[u8],
    groups_of: impl Fn(&[u8]) -> Option<Groups>,
) -> Option<SegmentScan> {
    let slots = read_slots(bytes).ok()?;
    let SegmentState::Sealed { footer: Some(place) } = slots.header.state else { return None };
    let mut reader = Reader { bytes, groups_of: &groups_of, scan: SegmentScan::new(file, &slots) };
    reader.read_footer(place)?;
    reader.scan.findings.extend(header_finding(file, &slots));
    Some(reader.scan)
}

/// As [`scan`], but every record is read, whatever an index says: finds what a restart would only
/// find when it comes to send it.
///
/// # Errors
/// As `scan`.
pub fn scan_thoroughly(
    file: FileId,
    bytes: &[u8],
    groups_of: impl Fn(&[u8]) -> Option<Groups>,
) -> Result<SegmentScan, NotASegment> {
    let by_index = scan_to(Depth::Index, file, bytes, &groups_of)?;
    if by_index.chunks.is_some() || by_index.use_ != SegmentUse::InUse {
        return Ok(by_index);
    }
    scan_to(Depth::Everything, file, bytes, groups_of)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Index,
    Everything,
}

fn scan_to(
    depth: Depth,
    file: FileId,
    bytes: &[u8],
    groups_of: impl Fn(&[u8]) -> Option<Groups>,
) -> Result<SegmentScan, NotASegment> {
    let slots = read_slots(bytes)?;
    let scan = SegmentScan::new(file, &slots);
    let header_finding = header_finding(file, &slots);
    let mut reader = Reader { bytes, groups_of: &groups_of, scan };
    match (reader.scan.use_, depth) {
        (SegmentUse::InUse, Depth::Index) => reader.read()?,
        (SegmentUse::InUse, Depth::Everything) => reader.read_everything()?,
        _ => {}
    }
    reader.scan.findings.extend(header_finding);
    Ok(reader.scan)
}

/// Both slots of a file are written before it is used, so both are there unless one was damaged, or
/// cut by a power failure.
pub(super) fn header_finding(file: FileId, slots: &Slots) -> Option<Finding> {
    let segment = slots.header.tag.sequence;
    slots.other.is_none().then_some(Finding::HeaderDamaged { file, segment })
}

pub(super) fn segment_use(slots: &Slots) -> SegmentUse {
    if slots.header.state != SegmentState::Free {
        return SegmentUse::InUse;
    }
    match slots.other {
        Some(other) if other.state != SegmentState::Free => SegmentUse::HalfFreed,
        _ => SegmentUse::Spare,
    }
}

impl SegmentScan {
    fn new(file: FileId, slots: &Slots) -> Self {
        Self {
            file,
            header: slots.header,
            use_: segment_use(slots),
            messages: Vec::new(),
            outcomes: Vec::new(),
            fences: Vec::new(),
            states: Vec::new(),
            chunks: None,
            durable_through: 0,
            findings: Vec::new(),
        }
    }

    /// What the segment was called in its last or present use.
    #[must_use]
    pub fn sequence(&self) -> SegmentSeq {
        self.header.tag.sequence
    }

    /// What a tool shows of it.
    #[must_use]
    pub fn summary(&self) -> ScanSummary {
        ScanSummary {
            segment: self.sequence(),
            generation: self.header.tag.generation,
            shard: self.header.shard,
            file_bytes: self.header.file_bytes,
            state: match (self.use_, self.header.state) {
                (SegmentUse::Spare, _) => ScanState::Spare,
                (SegmentUse::HalfFreed, _) => ScanState::HalfFreed,
                (SegmentUse::InUse, SegmentState::Sealed { .. }) => ScanState::Sealed,
                (SegmentUse::InUse, _) => ScanState::Open,
            },
            messages: self.messages.len(),
            outcomes: self.outcomes.len(),
            states: self.states.len(),
        }
    }

    /// What is known of the piece of a body at `offset`.
    pub(super) fn piece(&self, offset: u32) -> Piece {
        match &self.chunks {
            Some(chunks) if chunks.binary_search(&offset).is_err() => {
                if offset < self.durable_through { Piece::Damaged } else { Piece::Torn }
            }
            _ => Piece::There,
        }
    }

    pub(super) fn spare(&self) -> Option<SpareSegment> {
        (self.use_ == SegmentUse::Spare).then(|| spare_of(self.file, &self.header))
    }
}

/// The spare that both headers say a file is.
pub(super) fn spare_of(file: FileId, header: &SegmentHeader) -> SpareSegment {
    SpareSegment {
        file,
        bytes: header.file_bytes,
        generation: header.tag.generation,
        header_writes: header.counter,
    }
}

/// A stretch of the segment that is not what was written, or was never written.
struct Bad {
    from: u32,
    to: u32,
    /// The header, if that still can be trusted.
    header: Option<RecordHeader>,
}

struct Reader<'a, G> {
    bytes: &'a [u8],
    groups_of: &'a G,
    scan: SegmentScan,
}

impl<G: Fn(&[u8]) -> Option<Groups>> Reader<'_, G> {
    fn read(&mut self) -> Result<(), NotASegment> {
        if let SegmentState::Sealed { footer: Some(place) } = self.scan.header.state {
            if self.read_footer(place).is_some() {
                return Ok(());
            }
            let segment = self.scan.header.tag.sequence;
            self.scan.messages.clear();
            self.scan.outcomes.clear();
            self.scan.fences.clear();
            self.scan.states.clear();
            self.scan.findings = vec![Finding::FooterDamaged { file: self.scan.file, segment }];
        }
        self.read_everything()
    }

    fn read_everything(&mut self) -> Result<(), NotASegment> {
        self.scan.chunks = Some(Vec::new());
        self.read_all()
    }

    /// The index, and the few records it says must be read. `None`: it cannot be relied on.
    fn read_footer(&mut self, place: FooterPlace) -> Option<()> {
        let header = self.header_at(place.offset)?;
        if header.kind() != Some(Kind::Footer) {
            return None;
        }
        let view = FooterView::parse(header.payload(self.bytes.get(place.offset as usize..)?)?)?;
        let domains = view.domains()?;
        for message in view.messages(self.scan.header.tag.sequence, &domains) {
            let message = message?;
            if !covers(&message.groups, message.recipients) {
                return None;
            }
            self.scan.messages.push(message.into());
        }
        for outcome in view.outcomes() {
            let FooterOutcome { spot, message, first, count, attempts, result } = outcome?;
            let outcome = ScannedOutcome { spot, message, first, count, attempts, result };
            self.scan.outcomes.push(outcome);
        }
        for mark in view.marks().filter(|mark| mark.listed == 0) {
            let end = mark.offset.checked_add(mark.bytes)?;
            let whole = self
                .header_at(mark.offset)
                .and_then(|header| self.take(mark.offset, &header).ok()?.then_some(()));
            if whole.is_none() && mark.kind == Kind::State as u8 {
                let (file, place) = (self.scan.file, self.place(mark.offset, end));
                self.scan.findings.push(Finding::StateDamaged { file, place });
            } else if whole.is_none() {
                self.damaged(mark.offset, end, None);
            }
        }
        Some(())
    }

    /// Every record, one after the other.
    fn read_all(&mut self) -> Result<(), NotASegment> {
        let end = data_end(self.scan.header.file_bytes);
        let mut known = match self.scan.header.state {
            SegmentState::Sealed { .. } => end,
            SegmentState::Active | SegmentState::Free => 0,
        };
        let (mut at, mut commit_used, mut commit_end) = (DATA_START, DATA_START, DATA_START);
        let mut bad = Vec::new();
        while at < end {
            // Between the last record of a commit and the next commit lies padding.
            if at >= commit_used && at < commit_end {
                at = commit_end;
                continue;
            }
            let Some(header) = self.header_at(at) else {
                let next = self.next_header(at, end);
                bad.extend(self.gap(at, next, end, commit_used));
                at = next;
                continue;
            };
            let record_end = at.saturating_add(clamp32(header.record_bytes()));
            match header.kind() {
                Some(Kind::Commit) => {
                    let commit = CommitFields::from_fields(&header.fields);
                    let commit = commit.ok_or(NotASegment::UnknownRecord { offset: at })?;
                    known = known.max(commit.durable_through);
                    commit_used = at.saturating_add(commit.used_bytes);
                    commit_end = at.saturating_add(commit.bytes);
                }
                _ if !self.take(at, &header)? => {
                    bad.push(Bad { from: at, to: record_end, header: Some(header) });
                }
                _ => {}
            }
            at = record_end.max(at + len32(RECORD_ALIGN)).next_multiple_of(len32(RECORD_ALIGN));
        }
        self.scan.durable_through = known;
        if let Some(tear) = bad.iter().map(|bad| bad.from).filter(|from| *from >= known).min() {
            self.doubt_behind(tear);
        }
        for bad in bad {
            self.judge(&bad, known);
        }
        Ok(())
    }

    /// Takes a record of any kind but Commit; `false`: its payload is not what was written.
    fn take(&mut self, at: u32, header: &RecordHeader) -> Result<bool, NotASegment> {
        let Some(kind) = header.kind() else {
            return if header.must_be_understood() {
                Err(NotASegment::UnknownRecord { offset: at })
            } else {
                Ok(true)
            };
        };
        let record = self.bytes.get(at as usize..).unwrap_or_default();
        let Some(payload) = header.payload(record) else { return Ok(false) };
        Ok(match kind {
            Kind::Message | Kind::Copy => self.take_message(at, header, record).is_some(),
            Kind::Outcomes => {
                let spot = Spot::new(at, clamp32(header.record_bytes()));
                spot.into_iter().for_each(|spot| self.take_outcomes(spot, payload));
                true
            }
            Kind::Fence => {
                self.scan.fences.extend(Fence::from_fields(&header.fields));
                true
            }
            Kind::Chunk => {
                self.scan.chunks.iter_mut().for_each(|chunks| chunks.push(at));
                true
            }
            Kind::State => self.take_state(at, header, payload).is_some(),
            Kind::Commit | Kind::Footer => true,
        })
    }

    fn take_message(&mut self, at: u32, header: &RecordHeader, record: &[u8]) -> Option<()> {
        let view = MessageView::from_header(header).ok()?;
        let envelope = view.envelope.of(record)?;
        let groups = (self.groups_of)(envelope)?;
        if !covers(&groups, view.recipients) {
            return None;
        }
        let segment = self.scan.header.tag.sequence;
        let states = (header.kind() == Some(Kind::Copy)).then(|| view.states(record).collect());
        self.scan.messages.push(ScannedMessage {
            id: view.id,
            place: Place { segment, offset: at, bytes: view.record_bytes },
            accepted: view.accepted,
            recipients: view.recipients,
            groups,
            chunks: view.chunks(record).collect(),
            states,
            trust: Trust::Full,
            labels: labels_of(envelope).filter(|labels| !labels.is_empty()).map(Arc::from),
        });
        Some(())
    }

    fn take_outcomes(&mut self, spot: Spot, payload: &[u8]) {
        self.scan.outcomes.extend(entries(payload).map(|entry| ScannedOutcome {
            spot,
            message: entry.message,
            first: entry.first,
            count: entry.count,
            attempts: entry.attempts,
            result: entry.result,
        }));
    }

    fn take_state(&mut self, at: u32, header: &RecordHeader, payload: &[u8]) -> Option<()> {
        let item = read_state(header, payload)?;
        let place = self.place(at, at.saturating_add(clamp32(header.record_bytes())));
        self.scan.states.push(PlacedState { item, place });
        Some(())
    }

    /// What was not acknowledged by anybody and may lack what it follows from: a failure whose
    /// report, written before it, was lost is tried again instead.
    fn doubt_behind(&mut self, tear: u32) {
        if planted(Bug::FailureBehindTearKept) {
            return;
        }
        self.scan.outcomes.retain(|outcome| {
            outcome.spot.offset() < tear || outcome.result != EntryResult::Failed
        });
        let copies = self.scan.messages.iter_mut().filter(|message| message.states.is_some());
        for message in copies.filter(|message| message.place.offset > tear) {
            message.trust = Trust::Doubtful;
        }
    }

    fn header_at(&self, at: u32) -> Option<RecordHeader> {
        let end = data_end(self.scan.header.file_bytes);
        let header = RecordHeader::read(self.bytes.get(at as usize..)?, &self.scan.header.tag, at)?;
        (u64::from(at) + header.record_bytes() <= u64::from(end)).then_some(header)
    }

    /// The first mark behind `at` where a record begins, or `end`.
    fn next_header(&self, at: u32, end: u32) -> u32 {
        let marks = (at..end).step_by(RECORD_ALIGN).skip(1);
        marks.into_iter().find(|mark| self.header_at(*mark).is_some()).unwrap_or(end)
    }

    /// What of the stretch without headers was to hold records: not the unwritten rest of the
    /// segment, and not the padding of a commit whose own header was lost.
    fn gap(&self, from: u32, to: u32, end: u32, commit_used: u32) -> Option<Bad> {
        if from < commit_used {
            let to = if to == end { commit_used.min(end) } else { to };
            return Some(Bad { from, to, header: None });
        }
        if to == end {
            return None;
        }
        let page = from.next_multiple_of(len32(PAGE_BYTES)).min(to);
        let padding = self.bytes.get(from as usize..page as usize).unwrap_or_default();
        let from = if padding.iter().all(|byte| *byte == 0) { page } else { from };
        (from < to).then_some(Bad { from, to, header: None })
    }

    fn judge(&mut self, bad: &Bad, known: u32) {
        let is_state = bad.header.is_some_and(|header| header.kind() == Some(Kind::State));
        if bad.from < known && is_state {
            let (file, place) = (self.scan.file, self.place(bad.from, bad.to));
            self.scan.findings.push(Finding::StateDamaged { file, place });
        } else if bad.from < known {
            let message = bad.header.and_then(|header| MessageView::from_header(&header).ok());
            self.damaged(bad.from, bad.to, message.map(|view| view.id));
        } else {
            let place = self.place(bad.from, bad.to);
            self.scan.findings.push(Finding::Torn { file: self.scan.file, place });
        }
    }

    fn damaged(&mut self, from: u32, to: u32, message: Option<MessageId>) {
        let place = self.place(from, to);
        self.scan.findings.push(Finding::Damaged { file: self.scan.file, place, message });
    }

    fn place(&self, from: u32, to: u32) -> Place {
        let segment = self.scan.header.tag.sequence;
        Place { segment, offset: from, bytes: to.saturating_sub(from) }
    }
}

impl From<FooterMessage> for ScannedMessage {
    fn from(message: FooterMessage) -> Self {
        let FooterMessage { id, place, accepted, recipients, groups, chunks, labels } = message;
        let (states, trust) = (None, Trust::Full);
        Self { id, place, accepted, recipients, groups, chunks, states, trust, labels }
    }
}

/// Whether the groups, in order, are exactly all recipients.
fn covers(groups: &Groups, recipients: u16) -> bool {
    let end = groups.iter().try_fold(0u16, |at, (_, first, count)| {
        (*first == at && *count > 0).then(|| at.checked_add(*count)).flatten()
    });
    end == Some(recipients) && recipients > 0
}

fn clamp32(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
