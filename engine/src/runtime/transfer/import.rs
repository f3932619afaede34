//! Out of an archive file, into a spool.

use std::path::PathBuf;

use super::{Archive, ArchiveStock, LeftBehind, TransferError, cut, damaged, name_of, next_file};
use crate::model::message::{MessageId, SegmentSeq};
use crate::runtime::clock;
use crate::runtime::disk::SpoolFolder;
use crate::runtime::disk::staging::{Staging, Way, is_decided, settle};
use crate::runtime::disk::steps::Steps;
use crate::spool::archive::{ArchiveKind, Mark};
use crate::spool::image::{Image, ImagePlan, Length, Naming, Series, TooLong};
use crate::spool::transfer::Stock;

/// Segments of a spool that has none yet: what the settings say if they say nothing.
const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;

/// What is to be imported, and where to.
#[derive(Clone, Debug)]
pub struct ImportOrder {
    /// Made if missing.
    pub spool: PathBuf,
    pub from: PathBuf,
    pub doubt: Doubt,
}

/// What to do where it cannot be known that nobody else sends the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    Refuse,
    /// The operator accepts that mail may be sent twice.
    Accept,
}

/// What an import did.
#[derive(Debug)]
pub struct ImportReport {
    pub archive: String,
    /// The name that each message had in the archive, and the one it has here.
    pub names: Vec<(MessageId, MessageId)>,
    /// Recipients that are pending.
    pub recipients: u64,
    /// Damaged messages; they are in no spool.
    pub left_behind: Vec<LeftBehind>,
}

/// Takes the messages of an archive into a spool.
///
/// # Errors
/// The archive or the spool cannot be used, the messages may be live elsewhere, or the disk fails.
/// The spool is then what it was before.
pub fn import(order: &ImportOrder) -> Result<ImportReport, TransferError> {
    import_by(&Steps::default(), order)
}

pub(super) fn import_by(steps: &Steps, order: &ImportOrder) -> Result<ImportReport, TransferError> {
    let archive = Archive::open(&order.from)?;
    if order.doubt == Doubt::Refuse {
        check_fence(&archive)?;
    }
    let folder = SpoolFolder::open_by(steps, &order.spool)?;
    check_claim(&archive, &folder, order)?;
    let head = archive.pages.head;
    let ArchiveStock { stock, left_behind } = archive.take_stock()?;
    let (segment_bytes, next_sequence) = lengths(&folder)?;
    let mut series = Series::new(ImagePlan {
        sequence: next_sequence,
        now: clock::now().wall,
        file_bytes: segment_bytes,
        length: Length::Full,
    });
    let mut staging = Staging::begin(steps, &order.spool, Way::In, head.id, next_file(&folder))?;
    let mut report = ImportReport {
        archive: head.id.to_string(),
        names: Vec::new(),
        recipients: 0,
        left_behind,
    };
    for message in &stock.messages {
        let segment = |sequence| head.segments(&archive.map).nth(index(&stock, sequence)?);
        match stock.read(message, |place| cut(segment(place.segment)?, place)) {
            Some(whole) => {
                let name = series.append_message(&whole, Naming::New).map_err(too_long)?;
                report.names.push((message.id, name));
                report.recipients += message.recipients();
            }
            None => report.left_behind.push(damaged(message.id)),
        }
        write_full(&mut series, &mut staging)?;
    }
    series.finish();
    write_full(&mut series, &mut staging)?;
    report.left_behind.extend(missing(&report, head.messages));
    if report.names.is_empty() {
        return Err(TransferError(format!(
            "{}: none of its {} messages can be read; nothing was imported",
            order.from.display(),
            head.messages
        )));
    }
    archive.mark(steps, Mark::Claim, name_of(&folder))?;
    staging.decide()?;
    settle(steps, &order.spool)?;
    Ok(report)
}

fn write_full(series: &mut Series, staging: &mut Staging<'_>) -> Result<(), TransferError> {
    while let Some(Image { bytes, .. }) = series.poll_image() {
        staging.write(&bytes)?;
    }
    Ok(())
}

/// Whether the source has given the messages up.
fn check_fence(archive: &Archive) -> Result<(), TransferError> {
    let why = match (archive.pages.fenced_by, archive.pages.head.kind) {
        (Some(_), _) => return Ok(()),
        (None, ArchiveKind::Copy) => {
            "a copy: the spool it was taken from has gone on sending, so its mail would be sent \
             twice. Export with --move; or, if that spool is lost, import with --accept-duplicates: \
             what it sent since the export is sent again"
        }
        (None, ArchiveKind::Move) => {
            "its export was cut short: it is not known that its source has given the mail up. Run \
             the same export again, which ends it"
        }
    };
    Err(TransferError(format!("{}: {why}", archive.path.display())))
}

/// Whether nobody has taken the messages.
fn check_claim(
    archive: &Archive,
    folder: &SpoolFolder,
    order: &ImportOrder,
) -> Result<(), TransferError> {
    let refused = |why: &str| Err(TransferError(format!("{}: {why}", archive.path.display())));
    if is_decided(&order.spool, Way::In, archive.pages.head.id) {
        return refused("this spool has imported it already; nothing was done");
    }
    match archive.pages.claimed_by {
        Some(other) if other != name_of(folder) && order.doubt == Doubt::Refuse => {
            refused(&format!(
                "spool {other} has imported it, or had begun to; import it there. If that spool is \
                 lost, import with --accept-duplicates: what it sent is sent again"
            ))
        }
        _ => Ok(()),
    }
}

/// Parts of an archive are numbered like files.
fn index(stock: &Stock, segment: SegmentSeq) -> Option<usize> {
    usize::try_from(stock.file_of(segment)?.0).ok()
}

/// How long segments of the spool are, and the first sequence that none of them had.
fn lengths(folder: &SpoolFolder) -> Result<(u32, SegmentSeq), TransferError> {
    let (mut bytes_max, mut newest) = (0, 0);
    for file in folder.found() {
        let header = folder.read_slots(*file)?.header;
        bytes_max = bytes_max.max(header.file_bytes);
        newest = newest.max(header.tag.sequence.0);
    }
    let bytes_max = if bytes_max == 0 { SEGMENT_BYTES_DEFAULT } else { bytes_max };
    Ok((bytes_max, SegmentSeq(newest + 1)))
}

/// Messages that damage has left no trace of.
fn missing(report: &ImportReport, expected: u64) -> Option<LeftBehind> {
    let named = report.left_behind.iter().filter(|left| left.message.is_some()).count();
    let missing = expected.saturating_sub((report.names.len() + named) as u64);
    (missing > 0).then(|| LeftBehind {
        message: None,
        cause: format!("{missing} messages of the archive are damaged beyond their names"),
    })
}

fn too_long(error: TooLong) -> TransferError {
    TransferError(format!(
        "{error} as this spool has: set a larger spool.segment_size, let postrider run once, and \
         import again"
    ))
}
