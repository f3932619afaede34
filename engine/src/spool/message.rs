//! Message and Copy records, byte by byte: writing them, and finding the parts again.
//!
//! ```text
//! fields  20 4 envelope bytes    24 8 message id        32 8 accepted, wall time
//!         40 4 trace bytes       44 4 inline body bytes 48 2 recipients
//!         50 2 chunks            52 2 states (Copy)     54 2 zero
//!         56 8 bytes of the whole body, chunks included
//! payload envelope | trace | chunk ... | state ... | inline body
//! chunk   sequence u64 of its segment | offset u32 of its record | bytes u32 of its piece
//! state   first u16 | count u16 | attempts u16 | zero u16 | due u64, wall time, 0 = at once
//! ```
//! The envelope's own grammar is `wire::envelope`; the trace header goes out before the body; the
//! body is the chunks in order, then the inline part. A Copy is a Message moved forward: its states
//! are the recipients that still were pending then, and nothing written before it counts any more.
//! The last replies to them stand behind it, in an Outcomes record of the same commit (outcomes.rs).

use smallvec::SmallVec;

use super::bytes::{len16, len32, put, u16_at, u32_at, u64_at, wall_at};
use super::record::{Fields, Kind, RECORD_HEADER_BYTES, RecordHeader, Tag, field, fields};
use super::record::{begin_record, end_record};
use super::replies::ReplyPlace;
use crate::base::block::BlockBuilder;
use crate::base::time::Wall;
use crate::model::message::{MessageId, Place, SegmentSeq};

const CHUNK_REF_BYTES: usize = 16;
const STATE_BYTES: usize = 16;

/// A piece of a body that was written before its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub segment: SegmentSeq,
    /// Where its record begins in the segment.
    pub offset: u32,
    /// Bytes of the body in it: they follow the record's header.
    pub bytes: u32,
}

/// A run of recipients of one domain, as indices into the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainRange<'a> {
    pub domain: &'a str,
    pub first: u16,
    pub count: u16,
}

/// What a message record is made of.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    pub envelope: &'a [u8],
    pub recipients: u16,
    /// The recipients by domain, together all of them: the index at restart is made of these.
    pub groups: &'a [DomainRange<'a>],
    pub trace: &'a [u8],
    pub chunks: &'a [ChunkRef],
    /// What of the body is not in chunks.
    pub body: &'a [u8],
}

impl MessageParts<'_> {
    /// What to announce to `Spool::begin_message`.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.envelope.len()
            + self.trace.len()
            + self.chunks.len() * CHUNK_REF_BYTES
            + self.body.len()
    }
}

/// Bytes that so many states add to a record.
pub(super) fn states_bytes(states: usize) -> usize {
    states * STATE_BYTES
}

/// Pending recipients that share attempts and due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRun {
    pub first: u16,
    pub count: u16,
    pub attempts: u16,
    /// `None`: at once.
    pub due: Option<Wall>,
    /// Where the last reply lies; it is no part of a state on disk.
    pub reply: Option<ReplyPlace>,
}

/// What is pending of a message. As a rule that is one run, which must not cost an allocation.
pub type Runs = SmallVec<[PendingRun; 1]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageFields {
    pub(super) id: MessageId,
    pub(super) accepted: Wall,
    pub(super) recipients: u16,
    pub(super) envelope_bytes: u32,
    pub(super) trace_bytes: u32,
    pub(super) body_inline_bytes: u32,
    pub(super) body_bytes: u64,
    pub(super) chunks: u16,
    pub(super) states: u16,
}

impl MessageFields {
    fn to_fields(self) -> Fields {
        fields(&[
            (20, &self.envelope_bytes.to_le_bytes()),
            (24, &self.id.0.to_le_bytes()),
            (32, &self.accepted.0.to_le_bytes()),
            (40, &self.trace_bytes.to_le_bytes()),
            (44, &self.body_inline_bytes.to_le_bytes()),
            (48, &self.recipients.to_le_bytes()),
            (50, &self.chunks.to_le_bytes()),
            (52, &self.states.to_le_bytes()),
            (56, &self.body_bytes.to_le_bytes()),
        ])
    }

    pub(super) fn from_fields(fields: &Fields) -> Option<Self> {
        Some(Self {
            id: MessageId(u64_at(fields, field(24))?),
            accepted: wall_at(fields, field(32))?,
            recipients: u16_at(fields, field(48))?,
            envelope_bytes: u32_at(fields, field(20))?,
            trace_bytes: u32_at(fields, field(40))?,
            body_inline_bytes: u32_at(fields, field(44))?,
            body_bytes: u64_at(fields, field(56))?,
            chunks: u16_at(fields, field(50))?,
            states: u16_at(fields, field(52))?,
        })
    }
}

/// Appends a Message record, or, with states, a Copy. Returns where it begins in the block and its
/// bytes without padding.
pub(super) fn append_message(
    block: &mut BlockBuilder,
    id: MessageId,
    accepted: Wall,
    parts: &MessageParts<'_>,
    states: &[PendingRun],
    tag: &Tag,
    block_offset: u32,
) -> (u32, u32) {
    let at = begin_record(block);
    block.append(parts.envelope);
    block.append(parts.trace);
    for chunk in parts.chunks {
        block.append(&chunk.to_bytes());
    }
    for state in states {
        block.append(&state.to_bytes());
    }
    block.append(parts.body);
    let chunked: u64 = parts.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
    let fields = MessageFields {
        id,
        accepted,
        recipients: parts.recipients,
        envelope_bytes: len32(parts.envelope.len()),
        trace_bytes: len32(parts.trace.len()),
        body_inline_bytes: len32(parts.body.len()),
        body_bytes: chunked + parts.body.len() as u64,
        chunks: len16(parts.chunks.len()),
        states: len16(states.len()),
    };
    let kind = if states.is_empty() { Kind::Message } else { Kind::Copy };
    let position = block_offset + len32(at);
    let bytes = end_record(block, at, kind, &fields.to_fields(), tag, position);
    (len32(at), bytes)
}

impl ChunkRef {
    /// The record that holds the piece.
    #[must_use]
    pub fn place(&self) -> Place {
        let bytes = len32(RECORD_HEADER_BYTES) + self.bytes;
        Place { segment: self.segment, offset: self.offset, bytes }
    }

    pub(super) fn to_bytes(self) -> [u8; CHUNK_REF_BYTES] {
        let mut bytes = [0; CHUNK_REF_BYTES];
        put(&mut bytes, 0, &self.segment.0.to_le_bytes());
        put(&mut bytes, 8, &self.offset.to_le_bytes());
        put(&mut bytes, 12, &self.bytes.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            segment: SegmentSeq(u64_at(bytes, 0)?),
            offset: u32_at(bytes, 8)?,
            bytes: u32_at(bytes, 12)?,
        })
    }
}

impl PendingRun {
    fn to_bytes(self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        put(&mut bytes, 0, &self.first.to_le_bytes());
        put(&mut bytes, 2, &self.count.to_le_bytes());
        put(&mut bytes, 4, &self.attempts.to_le_bytes());
        put(&mut bytes, 8, &self.due.unwrap_or_default().0.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let due = wall_at(bytes, 8)?;
        Some(Self {
            first: u16_at(bytes, 0)?,
            count: u16_at(bytes, 2)?,
            attempts: u16_at(bytes, 4)?,
            due: (due != Wall(0)).then_some(due),
            reply: None,
        })
    }
}

/// Bytes of a record, counted from its start: what a `Slice` of its block needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub at: u32,
    pub bytes: u32,
}

impl Part {
    /// The bytes themselves; `None` if `record` is cut short.
    #[must_use]
    pub fn of(self, record: &[u8]) -> Option<&[u8]> {
        record.get(self.at as usize..)?.get(..self.bytes as usize)
    }
}

/// The parts of a Message or Copy record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView {
    pub id: MessageId,
    pub accepted: Wall,
    pub recipients: u16,
    pub envelope: Part,
    pub trace: Part,
    /// The part of the body behind the chunks.
    pub body: Part,
    /// Bytes of the whole body, chunks included.
    pub body_bytes: u64,
    /// Bytes of the record, without padding.
    pub record_bytes: u32,
    chunks: Part,
    states: Part,
}

/// Why bytes are not a message record: it is to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAMessage {
    #[error("the checksum does not hold")]
    Damaged,
    #[error("the record is of another kind")]
    OtherKind,
    #[error("the parts do not fill the record")]
    BadLengths,
}

impl MessageView {
    /// Finds the parts in a record that never left memory: no checksum is taken. `bytes` begins with
    /// the record and may go on behind it.
    ///
    /// # Errors
    /// If the bytes do not have the shape of a message record.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAMessage> {
        let header = RecordHeader::read_unchecked(bytes).ok_or(NotAMessage::BadLengths)?;
        let view = Self::from_header(&header)?;
        if bytes.len() < view.record_bytes as usize {
            return Err(NotAMessage::BadLengths);
        }
        Ok(view)
    }

    /// Checks the checksums of a record read back from `offset` of the segment `tag`, and finds the
    /// parts.
    ///
    /// # Errors
    /// If it is damaged, or no message record.
    pub fn verify(bytes: &[u8], tag: &Tag, offset: u32) -> Result<Self, NotAMessage> {
        let header = RecordHeader::read(bytes, tag, offset).ok_or(NotAMessage::Damaged)?;
        header.payload(bytes).ok_or(NotAMessage::Damaged)?;
        Self::from_header(&header)
    }

    pub(super) fn from_header(header: &RecordHeader) -> Result<Self, NotAMessage> {
        if !matches!(header.kind(), Some(Kind::Message | Kind::Copy)) {
            return Err(NotAMessage::OtherKind);
        }
        let fields = MessageFields::from_fields(&header.fields).ok_or(NotAMessage::BadLengths)?;
        Self::from_fields(&fields, header).ok_or(NotAMessage::BadLengths)
    }

    fn from_fields(fields: &MessageFields, header: &RecordHeader) -> Option<Self> {
        let mut at = len32(RECORD_HEADER_BYTES);
        let mut part = |bytes: u32| {
            let part = Part { at, bytes };
            at = at.checked_add(bytes)?;
            Some(part)
        };
        let envelope = part(fields.envelope_bytes)?;
        let trace = part(fields.trace_bytes)?;
        let chunks = part(u32::from(fields.chunks) * len32(CHUNK_REF_BYTES))?;
        let states = part(u32::from(fields.states) * len32(STATE_BYTES))?;
        let body = part(fields.body_inline_bytes)?;
        let record_bytes = u32::try_from(header.record_bytes()).ok()?;
        (at == record_bytes).then_some(Self {
            id: fields.id,
            accepted: fields.accepted,
            recipients: fields.recipients,
            envelope,
            trace,
            body,
            body_bytes: fields.body_bytes,
            record_bytes,
            chunks,
            states,
        })
    }

    /// The pieces of the body that lie elsewhere, in order.
    pub fn chunks<'a>(&self, record: &'a [u8]) -> impl Iterator<Item = ChunkRef> + use<'a> {
        let list = self.chunks.of(record).unwrap_or_default();
        list.chunks_exact(CHUNK_REF_BYTES).filter_map(ChunkRef::from_bytes)
    }

    /// What a Copy says is pending; empty for a Message, of which all is.
    pub fn states<'a>(&self, record: &'a [u8]) -> impl Iterator<Item = PendingRun> + use<'a> {
        let list = self.states.of(record).unwrap_or_default();
        list.chunks_exact(STATE_BYTES).filter_map(PendingRun::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { sequence: SegmentSeq(7), generation: 3, created: Wall(99) };

    fn written(states: &[PendingRun]) -> Vec<u8> {
        let chunks = [ChunkRef { segment: SegmentSeq(6), offset: 4160, bytes: 1000 }];
        let parts = MessageParts {
            envelope: b"envelope",
            recipients: 3,
            groups: &[],
            trace: b"Received: x\r\n",
            chunks: &chunks,
            body: b"tail",
        };
        let mut block = BlockBuilder::with_capacity(4096);
        let id = MessageId::new(SegmentSeq(7), 2);
        let (at, bytes) = append_message(&mut block, id, Wall(5), &parts, states, &TAG, 4096);
        assert_eq!(at, 0);
        let payload = parts.payload_bytes() + states.len() * STATE_BYTES;
        assert_eq!(bytes as usize, 64 + payload);
        block.bytes().to_vec()
    }

    #[test]
    fn a_message_gives_its_parts_back() {
        let record = written(&[]);
        let view = MessageView::verify(&record, &TAG, 4096).unwrap();
        assert_eq!(MessageView::parse(&record), Ok(view));
        assert_eq!(view.id, MessageId::new(SegmentSeq(7), 2));
        assert_eq!((view.accepted, view.recipients, view.body_bytes), (Wall(5), 3, 1004));
        assert_eq!(view.envelope.of(&record), Some(&b"envelope"[..]));
        assert_eq!(view.trace.of(&record), Some(&b"Received: x\r\n"[..]));
        assert_eq!(view.body.of(&record), Some(&b"tail"[..]));
        let chunk = ChunkRef { segment: SegmentSeq(6), offset: 4160, bytes: 1000 };
        assert_eq!(view.chunks(&record).collect::<Vec<_>>(), [chunk]);
        assert_eq!(view.states(&record).count(), 0);
    }

    #[test]
    fn a_copy_carries_what_was_pending() {
        let states = [
            PendingRun { first: 0, count: 1, attempts: 2, due: Some(Wall(77)), reply: None },
            PendingRun { first: 2, count: 1, attempts: 0, due: None, reply: None },
        ];
        let record = written(&states);
        let view = MessageView::verify(&record, &TAG, 4096).unwrap();
        assert_eq!(view.states(&record).collect::<Vec<_>>(), states);
        assert_eq!(view.body.of(&record), Some(&b"tail"[..]));
        assert_eq!(RecordHeader::read_unchecked(&record).unwrap().kind(), Some(Kind::Copy));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let record = written(&[]);
        for at in [20, 40, 44, 50, 52] {
            let mut bad = record.clone();
            bad[at] ^= 1;
            assert_eq!(MessageView::parse(&bad), Err(NotAMessage::BadLengths), "field {at}");
            assert_eq!(MessageView::verify(&bad, &TAG, 4096), Err(NotAMessage::Damaged));
        }
        assert_eq!(MessageView::parse(&record[..70]), Err(NotAMessage::BadLengths));
        assert_eq!(MessageView::parse(&[]), Err(NotAMessage::BadLengths));
    }
}
