//! The segment file: its two header slots, byte by byte, and how the valid one is told.
//!
//! ```text
//! file = slot 0 [4096] | commits | slot 1 [4096]          as long as the header says
//!
//! slot, little-endian; what is not named is zero and ignored:
//!    0  8  magic "PoRiSeg" 0x0a
//!    8  2  format version
//!   10  2  oldest reader version that reads this file rightly
//!   12  4  generation: how often the file was taken into use; Free: the one its next use carries
//!   16  8  segment sequence (40 bits, never reused); Free: that of its last use, or 0
//!   24  8  header write counter; counter n lies in slot n modulo 2
//!   32  1  state: 0 Free, 1 Active, 2 Sealed
//!   34  2  shard that wrote it
//!   36  4  bytes of the file
//!   40  8  created: wall time when it was taken into use (Free: when it was freed)
//!   48  4  offset of the Footer record; 0: none
//!   52  4  bytes of the Footer record, without padding
//!  124  4  CRC-32C of bytes 0..124
//! ```
//! The valid slot with the highest counter holds. The magic, both versions and the checksum keep
//! their places in all versions to come. Active and Free are written to both slots, one after the
//! other, before anything relies on them; so one damaged slot never turns a segment into what it
//! was in an earlier use. Sealed is only a hint and is written once; a segment made in one go
//! (`image.rs`) is sealed in both. The length is a multiple of 4096 and below 4 GiB, the names of
//! files mean nothing.

use std::sync::Arc;

use super::bytes::{len32, put, u16_at, u32_at, u64_at, wall_at};
use super::record::Tag;
use crate::base::block::{Block, BlockBuilder, PAGE_BYTES};
use crate::base::checksum::crc32c;
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::message::SegmentSeq;

/// The format this program writes.
pub const FORMAT_VERSION: u16 = 1;
/// The newest format whose files this program reads.
const READER_VERSION: u16 = 1;
/// Where the first commit begins.
pub const DATA_START: u32 = 4096;

const PAGE: u32 = 4096;
const MAGIC: [u8; 8] = *b"PoRiSeg\n";
const CHECKSUM_AT: usize = 124;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Holds nothing that matters.
    Free,
    /// Commits are, or were when the process ended, appended to it.
    Active,
    /// Complete and durable; with an index if there was room for one.
    Sealed { footer: Option<FooterPlace> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterPlace {
    pub offset: u32,
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub tag: Tag,
    pub counter: u64,
    pub state: SegmentState,
    pub shard: ShardId,
    pub file_bytes: u32,
}

/// Why a file is not read as a segment. None of these says that it holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASegment {
    /// A new file whose first header never was written, or a file of something else, or both
    /// headers are damaged.
    #[error("no valid segment header in either slot")]
    NoHeader,
    #[error("written in format {format}, which needs a reader of version {reader} or newer")]
    Newer { format: u16, reader: u16 },
    #[error("the header says {expected} bytes, the file has {found}")]
    WrongLength { expected: u32, found: u64 },
    #[error("a record of a kind this program must, but does not, understand, at offset {offset}")]
    UnknownRecord { offset: u32 },
}

impl SegmentHeader {
    /// The offset in the file of the slot this header goes to.
    #[must_use]
    pub fn slot_offset(&self) -> u32 {
        if self.counter.is_multiple_of(2) { 0 } else { self.file_bytes - PAGE }
    }

    /// The page to be written there.
    #[must_use]
    pub fn to_page(&self) -> Arc<Block> {
        let (state, footer) = match self.state {
            SegmentState::Free => (0, None),
            SegmentState::Active => (1, None),
            SegmentState::Sealed { footer } => (2, footer),
        };
        let footer = footer.unwrap_or(FooterPlace { offset: 0, bytes: 0 });
        let mut page = BlockBuilder::zeroed(PAGE_BYTES);
        let slot = page.bytes_mut();
        put(slot, 0, &MAGIC);
        put(slot, 8, &FORMAT_VERSION.to_le_bytes());
        put(slot, 10, &READER_VERSION.to_le_bytes());
        put(slot, 12, &self.tag.generation.to_le_bytes());
        put(slot, 16, &self.tag.sequence.0.to_le_bytes());
        put(slot, 24, &self.counter.to_le_bytes());
        put(slot, 32, &[state]);
        put(slot, 34, &self.shard.0.to_le_bytes());
        put(slot, 36, &self.file_bytes.to_le_bytes());
        put(slot, 40, &self.tag.created.0.to_le_bytes());
        put(slot, 48, &footer.offset.to_le_bytes());
        put(slot, 52, &footer.bytes.to_le_bytes());
        let checksum = crc32c(&slot[..CHECKSUM_AT]);
        put(slot, CHECKSUM_AT, &checksum.to_le_bytes());
        page.freeze()
    }

    fn from_slot(slot: &[u8]) -> Option<Result<Self, NotASegment>> {
        let summed = slot.get(..CHECKSUM_AT)?;
        if !summed.starts_with(&MAGIC) || u32_at(slot, CHECKSUM_AT)? != crc32c(summed) {
            return None;
        }
        let (format, reader) = (u16_at(slot, 8)?, u16_at(slot, 10)?);
        if reader > READER_VERSION {
            return Some(Err(NotASegment::Newer { format, reader }));
        }
        let footer = FooterPlace { offset: u32_at(slot, 48)?, bytes: u32_at(slot, 52)? };
        let state = match slot.get(32)? {
            0 => SegmentState::Free,
            1 => SegmentState::Active,
            2 => SegmentState::Sealed { footer: (footer.offset != 0).then_some(footer) },
            _ => return None,
        };
        let tag = Tag {
            sequence: SegmentSeq(u64_at(slot, 16)?),
            generation: u32_at(slot, 12)?,
            created: wall_at(slot, 40)?,
        };
        Some(Ok(Self {
            tag,
            counter: u64_at(slot, 24)?,
            state,
            shard: ShardId(u16_at(slot, 34)?),
            file_bytes: u32_at(slot, 36)?,
        }))
    }
}

/// What the two slots of a file say.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// The header that holds.
    pub header: SegmentHeader,
    /// The other slot, if it is valid.
    pub other: Option<SegmentHeader>,
}

/// Reads both slots of a whole file.
///
/// # Errors
/// If neither slot, or the file as a whole, can be read as a segment of ours.
pub fn read_slots(file: &[u8]) -> Result<Slots, NotASegment> {
    let last = file.len().checked_sub(PAGE_BYTES).ok_or(NotASegment::NoHeader)?;
    slots_of(file, &file[last..], file.len() as u64)
}

/// As [`read_slots`], from the first and the last page of a file of `file_bytes`.
///
/// # Errors
/// As `read_slots`.
pub fn slots_of(first: &[u8], last: &[u8], file_bytes: u64) -> Result<Slots, NotASegment> {
    let first = SegmentHeader::from_slot(first).transpose()?;
    let second = SegmentHeader::from_slot(last).transpose()?;
    let (header, other) = match (first, second) {
        (Some(first), Some(second)) if second.counter > first.counter => (second, Some(first)),
        (Some(first), second) => (first, second),
        (None, Some(second)) => (second, None),
        (None, None) => return Err(NotASegment::NoHeader),
    };
    if u64::from(header.file_bytes) != file_bytes {
        return Err(NotASegment::WrongLength { expected: header.file_bytes, found: file_bytes });
    }
    Ok(Slots { header, other })
}

/// The two headers of a new file, with their offsets: to be written, and durable, behind its
/// zeros. The file is then a spare of generation 1 with two header writes.
#[must_use]
pub fn new_file_headers(file_bytes: u32, shard: ShardId, now: Wall) -> [(u32, Arc<Block>); 2] {
    [1, 2].map(|counter| {
        let tag = Tag { sequence: SegmentSeq(0), generation: 1, created: now };
        let header = SegmentHeader { tag, counter, state: SegmentState::Free, shard, file_bytes };
        (header.slot_offset(), header.to_page())
    })
}

/// Where commits must end.
pub(super) fn data_end(file_bytes: u32) -> u32 {
    file_bytes.saturating_sub(PAGE)
}

/// The smallest multiple of a page that is not below `bytes`.
pub(super) fn to_pages(bytes: usize) -> u32 {
    len32(bytes.next_multiple_of(PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(counter: u64, state: SegmentState) -> SegmentHeader {
        let tag = Tag { sequence: SegmentSeq(5), generation: 2, created: Wall(7) };
        SegmentHeader { tag, counter, state, shard: ShardId(1), file_bytes: 16384 }
    }

    fn file(headers: &[SegmentHeader]) -> Vec<u8> {
        let mut file = vec![0; 16384];
        for header in headers {
            let at = header.slot_offset() as usize;
            file[at..at + 4096].copy_from_slice(header.to_page().bytes());
        }
        file
    }

    #[test]
    fn the_highest_counter_holds() {
        let active = header(3, SegmentState::Active);
        let footer = Some(FooterPlace { offset: 8192, bytes: 100 });
        let sealed = header(4, SegmentState::Sealed { footer });
        let slots = read_slots(&file(&[active, sealed])).unwrap();
        assert_eq!((slots.header, slots.other), (sealed, Some(active)));
    }

    #[test]
    fn one_damaged_byte_leaves_the_other_slot() {
        let (older, newer) = (header(3, SegmentState::Active), header(4, SegmentState::Active));
        for at in 0..128 {
            let mut file = file(&[older, newer]);
            file[at] ^= 1;
            assert_eq!(read_slots(&file).unwrap().header, older, "byte {at}");
        }
    }

    #[test]
    fn foreign_newer_and_cut_files_are_told_apart() {
        assert_eq!(read_slots(&[]).unwrap_err(), NotASegment::NoHeader);
        assert_eq!(read_slots(&[7; 9000]).unwrap_err(), NotASegment::NoHeader);
        let mut newer = file(&[header(4, SegmentState::Free)]);
        newer[8] = 9;
        newer[10] = 9;
        let checksum = crc32c(&newer[..124]);
        newer[124..128].copy_from_slice(&checksum.to_le_bytes());
        let expected = NotASegment::Newer { format: 9, reader: 9 };
        assert_eq!(read_slots(&newer).unwrap_err(), expected);
        let cut = &file(&[header(4, SegmentState::Free)])[..12288];
        let expected = NotASegment::WrongLength { expected: 16384, found: 12288 };
        assert_eq!(read_slots(cut).unwrap_err(), expected);
    }

    #[test]
    fn a_new_file_is_free_in_both_slots() {
        let mut file = vec![0; 16384];
        for (offset, page) in new_file_headers(16384, ShardId(3), Wall(1)) {
            file[offset as usize..offset as usize + 4096].copy_from_slice(page.bytes());
        }
        let slots = read_slots(&file).unwrap();
        assert_eq!((slots.header.counter, slots.header.state), (2, SegmentState::Free));
        assert_eq!(slots.other.unwrap().state, SegmentState::Free);
    }
}
