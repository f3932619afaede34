//! Mail taken out of one spool and into another, so that no message is sent from both.
//!
//! ```text
//! export --move   archive written ─▶ the source gives its messages up ─▶ archive marked as fenced
//! import          segments staged ─▶ archive claimed by this spool ─▶ the segments count
//! ```
//! Each step is durable before the next. The middle of an export is one renaming (`disk/staging.rs`):
//! before it the source sends and the archive is refused, behind it the source never sends these
//! messages again. A crash after it leaves an archive that is refused until the same command is run
//! again, which only adds the mark. So is the end of an import: before it the archive can be
//! imported by this spool alone, behind it the spool sends.
//!
//! What is guaranteed: of a spool and the archives moved out of it, each message is live in one
//! place at the most; no archive is taken twice by one spool, however often it was copied; no archive
//! file is taken by two spools; a copied or restored spool folder is not started.
//!
//! What is not: a copy of an archive file, made by hand before its import, can be imported by another
//! spool, as nothing tells the copy that the other was taken; a clone of a whole file system starts
//! (`disk/identity.rs`). An archive that never was fenced (a backup), or that another spool has
//! claimed, is imported only if the operator accepts that mail may be sent twice.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::disk::identity::Identity;
use super::disk::steps::Steps;
use super::disk::{SegmentBytes, SpoolError, SpoolFolder};
use super::recovery::groups_of;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::spool::archive::{ArchivePages, Mark, UniqueId, read_archive};
use crate::spool::files::FileId;
use crate::spool::recovery::{self, Finding};
use crate::spool::segment::NotASegment;
use crate::spool::transfer::{LiveMessage, Stock, WholeMessage, take_stock};

mod export;
mod import;
#[cfg(test)]
mod tests;

pub use export::{After, ExportOrder, ExportReport, Which, export};
pub use import::{Doubt, ImportOrder, ImportReport, import};

/// Segments of a source kept mapped: a message and the pieces of its body lie in few.
const MAPPED_MAX: usize = 4;

/// Why nothing was done, or how far it came: one line that names the file and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransferError(String);

impl From<SpoolError> for TransferError {
    fn from(error: SpoolError) -> Self {
        Self(error.to_string())
    }
}

/// Something that was not taken along.
#[derive(Debug)]
pub struct LeftBehind {
    /// As far as its name can be told.
    pub message: Option<MessageId>,
    pub cause: String,
}

/// Declares a copy of a spool folder, or one restored from a backup, to be a spool of its own.
///
/// # Errors
/// There is no spool, or an engine holds it.
pub fn adopt(path: &Path) -> Result<(), TransferError> {
    SpoolFolder::adopt(path).map_err(TransferError::from)
}

/// A spool that messages are read from.
struct Depot {
    folder: SpoolFolder,
    stock: Stock,
    /// Of the longest segment file.
    segment_bytes: u32,
    mapped: VecDeque<(SegmentSeq, SegmentBytes)>,
}

impl Depot {
    fn open(folder: SpoolFolder) -> Result<Self, TransferError> {
        let (mut scans, mut segment_bytes) = (Vec::new(), 0);
        for file in folder.found() {
            let look = |bytes: &[u8]| recovery::scan_thoroughly(*file, bytes, groups_of);
            let scan = folder.scan_whole(*file, look)?;
            segment_bytes = segment_bytes.max(scan.summary().file_bytes);
            scans.push(scan);
        }
        Ok(Self { folder, stock: take_stock(scans), segment_bytes, mapped: VecDeque::new() })
    }

    fn read(&mut self, message: &LiveMessage) -> Option<WholeMessage> {
        let Self { folder, stock, mapped, .. } = self;
        stock.read(message, |place| {
            let at = mapped.iter().position(|(segment, _)| *segment == place.segment);
            let at = match at {
                Some(at) => at,
                None => {
                    let bytes = folder.read_segment(stock.file_of(place.segment)?).ok()?;
                    mapped.truncate(MAPPED_MAX - 1);
                    mapped.push_front((place.segment, bytes));
                    0
                }
            };
            cut(mapped[at].1.as_bytes(), place)
        })
    }
}

/// The bytes of a place, as far as the segment goes.
fn cut(segment: &[u8], place: Place) -> Option<Vec<u8>> {
    let record = segment.get(place.offset as usize..)?;
    Some(record[..record.len().min(place.bytes as usize)].to_vec())
}

/// The number of the next segment file.
fn next_file(folder: &SpoolFolder) -> FileId {
    FileId(folder.found().last().map_or(0, |last| last.0 + 1))
}

/// What damage has made unreadable, in words.
fn lost(findings: &[Finding]) -> impl Iterator<Item = LeftBehind> {
    findings.iter().filter_map(|finding| match finding {
        Finding::Damaged { message, .. } => {
            Some(LeftBehind { message: *message, cause: finding.to_string() })
        }
        _ => None,
    })
}

fn damaged(id: MessageId) -> LeftBehind {
    LeftBehind { message: Some(id), cause: format!("message {id} is damaged") }
}

fn name_of(folder: &SpoolFolder) -> UniqueId {
    match folder.identity() {
        Identity::Named(id) => id,
        Identity::Unnamed | Identity::Copied => UniqueId([0; 16]),
    }
}

/// What an archive holds.
struct ArchiveStock {
    stock: Stock,
    left_behind: Vec<LeftBehind>,
}

/// An archive file, open, and nobody else's meanwhile.
struct Archive {
    path: PathBuf,
    file: File,
    map: memmap2::Mmap,
    pages: ArchivePages,
}

impl Archive {
    fn open(path: &Path) -> Result<Self, TransferError> {
        let failed = |doing: &str, cause: &dyn std::fmt::Display| {
            TransferError(format!("cannot {doing} {}: {cause}", path.display()))
        };
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|error| failed("open, for reading and writing,", &error))?;
        file.try_lock().map_err(|error| failed("lock", &error))?;
        // SAFETY: the file is locked, so no other postrider writes it, and ours is written by `mark`
        // alone, behind what is read through the map.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| failed("map", &error))?;
        map.advise(memmap2::Advice::PopulateRead).map_err(|error| failed("read", &error))?;
        let pages = read_archive(&map).map_err(|error| failed("use", &error))?;
        Ok(Self { path: path.into(), file, map, pages })
    }

    /// What is in it, and what cannot be read.
    fn take_stock(&self) -> Result<ArchiveStock, TransferError> {
        let (mut scans, mut left_behind) = (Vec::new(), Vec::new());
        for (number, bytes) in (0..).zip(self.pages.head.segments(&self.map)) {
            let failed = |error: NotASegment| {
                format!("{}: its part {number} cannot be read: {error}", self.path.display())
            };
            match recovery::scan_thoroughly(FileId(number), bytes, groups_of) {
                Ok(scan) => scans.push(scan),
                Err(error @ (NotASegment::Newer { .. } | NotASegment::UnknownRecord { .. })) => {
                    return Err(TransferError(failed(error)));
                }
                Err(error) => left_behind.push(LeftBehind { message: None, cause: failed(error) }),
            }
        }
        let stock = take_stock(scans);
        left_behind.extend(lost(&stock.findings));
        Ok(ArchiveStock { stock, left_behind })
    }

    /// Writes one of the pages that are written once.
    fn mark(&self, steps: &Steps, mark: Mark, by: UniqueId) -> Result<(), TransferError> {
        let page = mark.to_page(self.pages.head.id, by, super::clock::now().wall);
        let write = || {
            steps.write(&self.path, &self.file, &page, mark.at() as u64)?;
            steps.sync(&self.path, &self.file)
        };
        write().map_err(|error: std::io::Error| {
            TransferError(format!("cannot mark {}: {error}", self.path.display()))
        })
    }
}
