//! The archive file, byte by byte: messages on their way from one spool to another.
//!
//! ```text
//! archive = head [4096] | fence [4096] | claim [4096] | segment ...
//!
//! head, little-endian; what is not named is zero and ignored:
//!    0  8  magic "PoRiArc" 0x0a
//!    8  2  format version          10  2  oldest reader version that reads this file rightly
//!   12  2  kind: 1 copy, 2 move
//!   16 16  archive id, random      32 16  id of the spool it was taken from
//!   48  8  wall time               56  4  segments
//!   60  4  bytes of each segment but the last, which is what is left of the file
//!   64  8  bytes of the file       72  8  messages    80  8  recipients that are pending
//!  124  4  CRC-32C of bytes 0..124
//!
//! fence, claim: zeros until they are written, once
//!    0  8  magic "PoRiFen" 0x0a: the source never sends these messages again
//!          magic "PoRiTak" 0x0a: one spool has taken them, or was about to
//!    8 16  archive id              24 16  id of the source, of the spool that took it
//!   40  8  wall time              124  4  CRC-32C of bytes 0..124
//! ```
//! The segments have the format of a spool's (`segment.rs`, `record.rs`), sequences from 1, and lie
//! at multiples of 4096. They hold Copy records under the names that the messages had at the source,
//! the Chunks of their bodies, and Outcomes with the last reply to each deferral.
//!
//! Only a fenced and unclaimed archive may be imported. A claim is shorter than a sector, so it is
//! there or it is not; one that is neither zero nor whole is damage, and refused.

use super::bytes::{put, u16_at, u32_at, u64_at, wall_at};
use crate::base::block::PAGE_BYTES;
use crate::base::checksum::crc32c;
use crate::base::time::Wall;

/// The format this program writes, and the newest it reads.
const FORMAT_VERSION: u16 = 1;
/// The first segment lies behind head, fence and claim.
pub const SEGMENTS_AT: usize = 3 * PAGE_BYTES;
/// Where the fence page lies.
pub const FENCE_AT: usize = PAGE_BYTES;
/// Where the claim page lies.
pub const CLAIM_AT: usize = 2 * PAGE_BYTES;

const MAGIC: [u8; 8] = *b"PoRiArc\n";
const FENCE_MAGIC: [u8; 8] = *b"PoRiFen\n";
const CLAIM_MAGIC: [u8; 8] = *b"PoRiTak\n";
const CHECKSUM_AT: usize = 124;

/// A name that chance makes unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueId(pub [u8; 16]);

impl std::fmt::Display for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for UniqueId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).map_err(|_| ())?;
        if digits { Ok(Self(number.to_be_bytes())) } else { Err(()) }
    }
}

/// What an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// To look at, or for the day the source is lost: the source goes on sending.
    Copy,
    /// The source gives the messages up.
    Move,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveHead {
    pub id: UniqueId,
    pub kind: ArchiveKind,
    pub source: UniqueId,
    pub created: Wall,
    pub segments: u32,
    pub segment_bytes: u32,
    pub file_bytes: u64,
    pub messages: u64,
    pub recipients: u64,
}

/// One of the pages that are written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Fence,
    Claim,
}

impl Mark {
    /// Where its page lies.
    #[must_use]
    pub fn at(self) -> usize {
        match self {
            Self::Fence => FENCE_AT,
            Self::Claim => CLAIM_AT,
        }
    }

    fn magic(self) -> [u8; 8] {
        match self {
            Self::Fence => FENCE_MAGIC,
            Self::Claim => CLAIM_MAGIC,
        }
    }

    /// The page that says that `spool` fenced, or claimed, the archive.
    #[must_use]
    pub fn to_page(self, archive: UniqueId, spool: UniqueId, now: Wall) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        put(&mut page, 0, &self.magic());
        put(&mut page, 8, &archive.0);
        put(&mut page, 24, &spool.0);
        put(&mut page, 40, &now.0.to_le_bytes());
        sum_up(&mut page);
        page
    }
}

/// An archive as its first pages tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePages {
    pub head: ArchiveHead,
    /// Who gave the messages up.
    pub fenced_by: Option<UniqueId>,
    /// Who took them.
    pub claimed_by: Option<UniqueId>,
}

/// Why a file is not read as an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnArchive {
    #[error("it is no archive of a spool, or its head is damaged")]
    NoHead,
    #[error("it is written in format {format}, which needs a newer postrider")]
    Newer { format: u16 },
    #[error("it was {expected} bytes long and is {found} now: it was cut short or added to")]
    WrongLength { expected: u64, found: u64 },
    #[error("the page that tells whether its source was fenced is damaged")]
    FenceDamaged,
    #[error("the page that tells who imported it is damaged")]
    ClaimDamaged,
}

impl ArchiveHead {
    #[must_use]
    pub fn to_page(&self) -> Vec<u8> {
        let kind: u16 = match self.kind {
            ArchiveKind::Copy => 1,
            ArchiveKind::Move => 2,
        };
        let mut page = vec![0; PAGE_BYTES];
        put(&mut page, 0, &MAGIC);
        put(&mut page, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut page, 10, &FORMAT_VERSION.to_le_bytes());
        put(&mut page, 12, &kind.to_le_bytes());
        put(&mut page, 16, &self.id.0);
        put(&mut page, 32, &self.source.0);
        put(&mut page, 48, &self.created.0.to_le_bytes());
        put(&mut page, 56, &self.segments.to_le_bytes());
        put(&mut page, 60, &self.segment_bytes.to_le_bytes());
        put(&mut page, 64, &self.file_bytes.to_le_bytes());
        put(&mut page, 72, &self.messages.to_le_bytes());
        put(&mut page, 80, &self.recipients.to_le_bytes());
        sum_up(&mut page);
        page
    }

    fn from_page(page: &[u8]) -> Option<Result<Self, NotAnArchive>> {
        if !page.starts_with(&MAGIC) || !is_summed_up(page) {
            return None;
        }
        let (format, reader) = (u16_at(page, 8)?, u16_at(page, 10)?);
        if reader > FORMAT_VERSION {
            return Some(Err(NotAnArchive::Newer { format }));
        }
        let kind = match u16_at(page, 12)? {
            1 => ArchiveKind::Copy,
            2 => ArchiveKind::Move,
            _ => return None,
        };
        Some(Ok(Self {
            id: id_at(page, 16)?,
            kind,
            source: id_at(page, 32)?,
            created: wall_at(page, 48)?,
            segments: u32_at(page, 56)?,
            segment_bytes: u32_at(page, 60)?,
            file_bytes: u64_at(page, 64)?,
            messages: u64_at(page, 72)?,
            recipients: u64_at(page, 80)?,
        }))
    }

    /// The bytes of each segment in the whole file.
    pub fn segments<'a>(&self, file: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let images = file.get(SEGMENTS_AT..).unwrap_or_default();
        images.chunks((self.segment_bytes as usize).max(PAGE_BYTES))
    }
}

/// Reads the first pages of a whole archive file.
///
/// # Errors
/// If it cannot be told what the file is, or what has become of it.
pub fn read_archive(file: &[u8]) -> Result<ArchivePages, NotAnArchive> {
    let page = |at: usize| file.get(at..at + PAGE_BYTES).unwrap_or_default();
    let head = ArchiveHead::from_page(page(0)).ok_or(NotAnArchive::NoHead)??;
    let found = file.len() as u64;
    if head.file_bytes != found || file.len() < SEGMENTS_AT {
        return Err(NotAnArchive::WrongLength { expected: head.file_bytes, found });
    }
    let marked = |mark: Mark| read_mark(page(mark.at()), mark, head.id);
    Ok(ArchivePages {
        head,
        fenced_by: marked(Mark::Fence).ok_or(NotAnArchive::FenceDamaged)?,
        claimed_by: marked(Mark::Claim).ok_or(NotAnArchive::ClaimDamaged)?,
    })
}

/// `None`: neither unwritten nor whole.
fn read_mark(page: &[u8], mark: Mark, archive: UniqueId) -> Option<Option<UniqueId>> {
    if page.iter().all(|byte| *byte == 0) {
        return Some(None);
    }
    let whole = page.starts_with(&mark.magic()) && is_summed_up(page);
    (whole && id_at(page, 8) == Some(archive)).then(|| id_at(page, 24))
}

fn id_at(bytes: &[u8], at: usize) -> Option<UniqueId> {
    bytes.get(at..)?.first_chunk().copied().map(UniqueId)
}

fn sum_up(page: &mut [u8]) {
    let checksum = crc32c(&page[..CHECKSUM_AT]);
    put(page, CHECKSUM_AT, &checksum.to_le_bytes());
}

fn is_summed_up(page: &[u8]) -> bool {
    page.get(..CHECKSUM_AT).map(crc32c) == u32_at(page, CHECKSUM_AT) && page.len() > CHECKSUM_AT
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: UniqueId = UniqueId([1; 16]);
    const SOURCE: UniqueId = UniqueId([2; 16]);

    fn archive() -> Vec<u8> {
        let head = ArchiveHead {
            id: ID,
            kind: ArchiveKind::Move,
            source: SOURCE,
            created: Wall(5),
            segments: 2,
            segment_bytes: 8192,
            file_bytes: SEGMENTS_AT as u64 + 12288,
            messages: 3,
            recipients: 4,
        };
        let mut file = vec![0; SEGMENTS_AT + 12288];
        put(&mut file, 0, &head.to_page());
        assert_eq!(read_archive(&file).unwrap().head, head);
        file
    }

    #[test]
    fn marks_are_read_back_and_each_is_its_own() {
        let mut file = archive();
        assert_eq!(read_archive(&file).unwrap().fenced_by, None);
        put(&mut file, Mark::Fence.at(), &Mark::Fence.to_page(ID, SOURCE, Wall(6)));
        let pages = read_archive(&file).unwrap();
        assert_eq!((pages.fenced_by, pages.claimed_by), (Some(SOURCE), None));
        let fence = file[FENCE_AT..CLAIM_AT].to_vec();
        put(&mut file, CLAIM_AT, &fence);
        assert_eq!(read_archive(&file), Err(NotAnArchive::ClaimDamaged));
        let lengths: Vec<_> = pages.head.segments(&file).map(<[u8]>::len).collect();
        assert_eq!(lengths, [8192, 4096]);
    }

    #[test]
    fn a_mark_of_another_archive_does_not_count() {
        let mut file = archive();
        put(&mut file, FENCE_AT, &Mark::Fence.to_page(SOURCE, SOURCE, Wall(6)));
        assert_eq!(read_archive(&file), Err(NotAnArchive::FenceDamaged));
    }

    #[test]
    fn every_flipped_bit_of_the_first_pages_is_noticed() {
        let mut file = archive();
        put(&mut file, FENCE_AT, &Mark::Fence.to_page(ID, SOURCE, Wall(6)));
        put(&mut file, CLAIM_AT, &Mark::Claim.to_page(ID, SOURCE, Wall(7)));
        let good = read_archive(&file).unwrap();
        for page in [0, FENCE_AT, CLAIM_AT] {
            for bit in 0..128 * 8 {
                let mut bad = file.clone();
                bad[page + bit / 8] ^= 1 << (bit % 8);
                assert!(read_archive(&bad).is_err(), "page {page}, bit {bit}");
            }
        }
        assert_eq!(read_archive(&file), Ok(good));
    }

    #[test]
    fn cut_foreign_and_newer_files_are_told_apart() {
        let file = archive();
        let cut = read_archive(&file[..file.len() - 1]);
        assert!(matches!(cut, Err(NotAnArchive::WrongLength { .. })));
        assert_eq!(read_archive(b"mine"), Err(NotAnArchive::NoHead));
        assert_eq!(read_archive(&[]), Err(NotAnArchive::NoHead));
        let mut newer = file;
        newer[8] = 2;
        newer[10] = 2;
        sum_up(&mut newer[..PAGE_BYTES]);
        assert_eq!(read_archive(&newer), Err(NotAnArchive::Newer { format: 2 }));
    }

    #[test]
    fn an_id_reads_back() {
        let id = UniqueId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("+0102030405060708090a0b0c0d0effff".parse::<UniqueId>(), Err(()));
    }
}
