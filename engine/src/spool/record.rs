//! The record: what everything in a segment is made of, byte by byte.
//!
//! ```text
//! segment = slot page | commit ... | unwritten or older bytes | slot page        (segment.rs)
//! commit  = Commit record, records, zeros up to a multiple of 4096; begins at a multiple of 4096
//! record  = header [64] | payload [payload bytes] | zeros up to a multiple of 64
//!
//! header, little-endian; what is not named is zero and ignored:
//!    0  4  magic "PrRc"
//!    4  4  CRC-32C of: segment sequence u64 | generation u32 | created u64 | position u32
//!          | header 0..4 | header 8..64
//!    8  4  CRC-32C of the payload
//!   12  4  payload bytes
//!   16  1  kind
//!   17  1  flags: bit 0 = must be understood (else a reader that does not know the kind skips it)
//!   18  2  zero
//!   20 44  fields of the kind, below (places count from the start of the header)
//!
//! 1 Commit    20 4 bytes up to the end of its last record   24 8 segment sequence
//!             32 4 generation   36 4 commit ordinal in the segment, from 0   40 8 created
//!             48 8 wall time    56 4 durable_through        60 4 bytes of the commit, padded
//! 2 Chunk     payload = a piece of a body
//! 3 Message   message.rs
//! 4 Outcomes  20 4 entries; payload: outcomes.rs
//! 5 Copy      message.rs
//! 6 State     20 2 topic   22 2 key bytes; payload = key | value. The newest of a key holds.
//! 7 Fence     20 4 first void offset   24 8 sequence of the segment it fences
//! 8 Footer    payload: footer.rs; only the last commit of a sealed segment has one
//! ```
//! Commit, Chunk, Message, Outcomes, Copy and Fence must be understood. Commit and Fence have no
//! payload.
//!
//! How it is read: of one message name, the Message or Copy at the highest (segment sequence, offset)
//! holds. Outcomes count in that order, on a Copy only those behind it; what is delivered or failed
//! stays so. A Fence voids every Message, Copy and Chunk of its segment from the offset on, and each
//! message with such a chunk, but no Outcomes and no State. A message counts only with all of its
//! chunks. Of one topic and key, the State at the highest (segment sequence, offset) holds; without a
//! value it says that the key is forgotten.
//!
//! Wall times are nanoseconds since 1970. The position is the record's offset in its file. It, the
//! sequence, the generation and the moment the segment was taken into use are part of every header
//! checksum, so neither a record of an earlier use nor one written elsewhere is ever taken for a
//! present one, and no sender can know what to put into a body to have it taken for a record.
//! The header has its own checksum so that damage to a payload loses neither length nor name.
//! `durable_through` is the offset below which the segment was known to be on disk when the commit
//! was issued.

use super::bytes::{len32, put, u16_at, u32_at, u64_at, wall_at};
use crate::base::block::BlockBuilder;
use crate::base::checksum::crc32c;
use crate::base::planted::{Bug, planted};
use crate::base::time::Wall;
use crate::model::message::SegmentSeq;

pub const RECORD_HEADER_BYTES: usize = 64;
/// Where records begin: every multiple of this. A lost length is found again by looking at all.
pub const RECORD_ALIGN: usize = 64;

const MAGIC: [u8; 4] = *b"PrRc";
const MUST_UNDERSTAND: u8 = 1;
const FIELDS_AT: usize = 20;

/// The bytes of a header that belong to its kind.
pub type Fields = [u8; RECORD_HEADER_BYTES - FIELDS_AT];

/// What tells one use of one segment file from every other: part of each of its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    pub sequence: SegmentSeq,
    pub generation: u32,
    pub created: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Commit = 1,
    Chunk = 2,
    Message = 3,
    Outcomes = 4,
    Copy = 5,
    State = 6,
    Fence = 7,
    Footer = 8,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        const ALL: [Kind; 8] = [
            Kind::Commit,
            Kind::Chunk,
            Kind::Message,
            Kind::Outcomes,
            Kind::Copy,
            Kind::State,
            Kind::Fence,
            Kind::Footer,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// A reader that misses learned state or an index is slower; missing any other kind, it is wrong.
    fn flags(self) -> u8 {
        match self {
            Self::State | Self::Footer => 0,
            _ => MUST_UNDERSTAND,
        }
    }
}

/// A header whose checksum held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    kind: u8,
    flags: u8,
    pub payload_bytes: u32,
    payload_checksum: u32,
    pub fields: Fields,
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`, which lie at `position` of the segment `tag`.
    #[must_use]
    pub fn read(bytes: &[u8], tag: &Tag, position: u32) -> Option<Self> {
        let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        let whole = header.starts_with(&MAGIC)
            && u32_at(header, 4)? == header_checksum(header, tag, position);
        if !whole {
            return None;
        }
        Self::read_unchecked(header)
    }

    /// Reads a header of a record that was checked before, or that never left this memory.
    pub(super) fn read_unchecked(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: *bytes.get(16)?,
            flags: *bytes.get(17)?,
            payload_bytes: u32_at(bytes, 12)?,
            payload_checksum: u32_at(bytes, 8)?,
            fields: *bytes.get(FIELDS_AT..)?.first_chunk()?,
        })
    }

    /// `None`: a kind that is newer than this reader.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.kind)
    }

    #[must_use]
    pub fn must_be_understood(&self) -> bool {
        self.flags & MUST_UNDERSTAND != 0
    }

    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The payload behind the header at the start of `record`, if it is whole.
    #[must_use]
    pub fn payload<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let payload = record.get(RECORD_HEADER_BYTES..)?.get(..self.payload_bytes as usize)?;
        (crc32c(payload) == self.payload_checksum).then_some(payload)
    }
}

/// Bytes of the piece of a body that a record holds, which was checked when it was read; `None`: it
/// holds none. The piece lies behind the header.
#[must_use]
pub fn piece_bytes(record: &[u8]) -> Option<u32> {
    let header = RecordHeader::read_unchecked(record)?;
    let is_whole = header.record_bytes() <= record.len() as u64;
    (header.kind() == Some(Kind::Chunk) && is_whole).then_some(header.payload_bytes)
}

/// Bytes of a record in a commit: header, payload, padding.
#[must_use]
pub fn padded_record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGN)
}

/// Makes room for a header at the end of `block` and tells where it begins.
pub(super) fn begin_record(block: &mut BlockBuilder) -> usize {
    let at = block.len();
    debug_assert!(at.is_multiple_of(RECORD_ALIGN), "records begin at 64-byte marks");
    block.append(&[0; RECORD_HEADER_BYTES]);
    at
}

/// Ends the record that begins at `at`: its payload is all that was appended since. Returns the
/// bytes of the record without padding.
pub(super) fn end_record(
    block: &mut BlockBuilder,
    at: usize,
    kind: Kind,
    fields: &Fields,
    tag: &Tag,
    position: u32,
) -> u32 {
    let bytes = len32(block.len() - at);
    patch_header(&mut block.bytes_mut()[at..], kind, fields, tag, position);
    block.pad_to(RECORD_ALIGN);
    bytes
}

/// Writes the header of the record that is all of `record`.
pub(super) fn patch_header(
    record: &mut [u8],
    kind: Kind,
    fields: &Fields,
    tag: &Tag,
    position: u32,
) {
    let (header, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
    put(header, 0, &MAGIC);
    put(header, 8, &crc32c(payload).to_le_bytes());
    put(header, 12, &len32(payload.len()).to_le_bytes());
    put(header, 16, &[kind as u8, kind.flags(), 0, 0]);
    put(header, FIELDS_AT, fields);
    let header: &mut [u8; RECORD_HEADER_BYTES] =
        header.first_chunk_mut().expect("split at the header's length");
    let checksum = header_checksum(header, tag, position);
    put(header, 4, &checksum.to_le_bytes());
}

/// One piece on the stack, so that one call sums it up.
fn header_checksum(header: &[u8; RECORD_HEADER_BYTES], tag: &Tag, position: u32) -> u32 {
    let mut summed = [0; 24 + RECORD_HEADER_BYTES - 4];
    if !planted(Bug::UseNotInChecksum) {
        put(&mut summed, 0, &tag.sequence.0.to_le_bytes());
        put(&mut summed, 8, &tag.generation.to_le_bytes());
        put(&mut summed, 12, &tag.created.0.to_le_bytes());
    }
    put(&mut summed, 20, &position.to_le_bytes());
    put(&mut summed, 24, &header[..4]);
    put(&mut summed, 28, &header[8..]);
    crc32c(&summed)
}

/// The fields of a `Commit` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitFields {
    pub tag: Tag,
    /// Which commit of its segment this is, from 0.
    pub ordinal: u32,
    /// From the start of the commit to the end of its last record.
    pub used_bytes: u32,
    /// The same, padded to pages.
    pub bytes: u32,
    /// The offset below which the segment was known to be on disk when this was issued.
    pub durable_through: u32,
    pub wall: Wall,
}

impl CommitFields {
    #[must_use]
    pub fn to_fields(self) -> Fields {
        fields(&[
            (20, &self.used_bytes.to_le_bytes()),
            (24, &self.tag.sequence.0.to_le_bytes()),
            (32, &self.tag.generation.to_le_bytes()),
            (36, &self.ordinal.to_le_bytes()),
            (40, &self.tag.created.0.to_le_bytes()),
            (48, &self.wall.0.to_le_bytes()),
            (56, &self.durable_through.to_le_bytes()),
            (60, &self.bytes.to_le_bytes()),
        ])
    }

    #[must_use]
    pub fn from_fields(fields: &Fields) -> Option<Self> {
        let tag = Tag {
            sequence: SegmentSeq(u64_at(fields, field(24))?),
            generation: u32_at(fields, field(32))?,
            created: wall_at(fields, field(40))?,
        };
        Some(Self {
            tag,
            ordinal: u32_at(fields, field(36))?,
            used_bytes: u32_at(fields, field(20))?,
            bytes: u32_at(fields, field(60))?,
            durable_through: u32_at(fields, field(56))?,
            wall: wall_at(fields, field(48))?,
        })
    }
}

/// A fence: what `segment` holds at `from` and above was refused and never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub segment: SegmentSeq,
    pub from: u32,
}

impl Fence {
    #[must_use]
    pub fn to_fields(self) -> Fields {
        fields(&[(20, &self.from.to_le_bytes()), (24, &self.segment.0.to_le_bytes())])
    }

    #[must_use]
    pub fn from_fields(fields: &Fields) -> Option<Self> {
        Some(Self {
            segment: SegmentSeq(u64_at(fields, field(24))?),
            from: u32_at(fields, field(20))?,
        })
    }
}

/// The fields of a `State` record: what its owner means by it, and how much of the payload is key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFields {
    pub topic: u16,
    pub key_bytes: u16,
}

impl StateFields {
    #[must_use]
    pub fn to_fields(self) -> Fields {
        fields(&[(20, &self.topic.to_le_bytes()), (22, &self.key_bytes.to_le_bytes())])
    }

    #[must_use]
    pub fn from_fields(fields: &Fields) -> Option<Self> {
        Some(Self { topic: u16_at(fields, field(20))?, key_bytes: u16_at(fields, field(22))? })
    }
}

/// Where a place counted from the start of the header lies inside [`Fields`].
pub(super) const fn field(place: usize) -> usize {
    place - FIELDS_AT
}

/// Fields with these values at these places, counted from the start of the header.
pub(super) fn fields(values: &[(usize, &[u8])]) -> Fields {
    let mut fields = [0; RECORD_HEADER_BYTES - FIELDS_AT];
    for (place, value) in values {
        put(&mut fields, field(*place), value);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { sequence: SegmentSeq(7), generation: 3, created: Wall(99) };

    fn record(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut block = BlockBuilder::with_capacity(4096);
        let at = begin_record(&mut block);
        block.append(payload);
        let bytes = end_record(&mut block, at, kind, &[9; 44], &TAG, 8192);
        assert_eq!(bytes as usize, 64 + payload.len());
        block.bytes().to_vec()
    }

    #[test]
    fn every_kind_reads_back() {
        for code in 1..=8 {
            let kind = Kind::from_code(code).unwrap();
            let record = record(kind, b"payload");
            assert_eq!(record.len(), 128);
            let header = RecordHeader::read(&record, &TAG, 8192).unwrap();
            assert_eq!(header.kind(), Some(kind));
            assert_eq!(header.fields, [9; 44]);
            assert_eq!(header.payload(&record), Some(&b"payload"[..]));
        }
        assert_eq!(Kind::from_code(0), None);
        assert_eq!(Kind::from_code(9), None);
    }

    #[test]
    fn only_a_whole_chunk_holds_a_piece() {
        let chunk = record(Kind::Chunk, b"piece");
        assert_eq!(piece_bytes(&chunk), Some(5));
        assert_eq!(piece_bytes(&chunk[..68]), None);
        assert_eq!(piece_bytes(&chunk[..20]), None);
        assert_eq!(piece_bytes(&record(Kind::Message, b"piece")), None);
    }

    #[test]
    fn a_record_is_valid_only_in_its_place_and_use() {
        let record = record(Kind::Chunk, b"x");
        assert!(RecordHeader::read(&record, &TAG, 8192 + 64).is_none());
        assert!(RecordHeader::read(&record, &Tag { generation: 4, ..TAG }, 8192).is_none());
        assert!(RecordHeader::read(&record, &Tag { created: Wall(98), ..TAG }, 8192).is_none());
        let elsewhere = Tag { sequence: SegmentSeq(8), ..TAG };
        assert!(RecordHeader::read(&record, &elsewhere, 8192).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let good = record(Kind::Message, b"payload");
        for bit in 0..(64 + 7) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = RecordHeader::read(&bad, &TAG, 8192);
            let whole = read.is_some_and(|header| header.payload(&bad).is_some());
            assert!(!whole, "bit {bit}");
            // Damage to the payload leaves the header, and with it the length, to be trusted.
            assert_eq!(read.is_some(), bit / 8 >= 64);
        }
    }

    #[test]
    fn fields_read_back() {
        let commit = CommitFields {
            tag: TAG,
            ordinal: 4,
            used_bytes: 320,
            bytes: 4096,
            durable_through: 12288,
            wall: Wall(5),
        };
        assert_eq!(CommitFields::from_fields(&commit.to_fields()), Some(commit));
        let fence = Fence { segment: SegmentSeq(6), from: 8192 };
        assert_eq!(Fence::from_fields(&fence.to_fields()), Some(fence));
        let state = StateFields { topic: 2, key_bytes: 11 };
        assert_eq!(StateFields::from_fields(&state.to_fields()), Some(state));
    }
}
