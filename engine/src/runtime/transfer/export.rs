//! Out of a spool, into an archive file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{Archive, Depot, LeftBehind, TransferError, damaged, lost, name_of, next_file};
use crate::base::time::Wall;
use crate::model::message::{MessageId, SegmentSeq};
use crate::runtime::clock;
use crate::runtime::disk::identity::unique_id;
use crate::runtime::disk::staging::{Staging, Way, is_decided, settle};
use crate::runtime::disk::steps::Steps;
use crate::runtime::disk::{SpoolError, SpoolFolder, Survey};
use crate::spool::archive::{ArchiveHead, ArchiveKind, Mark, SEGMENTS_AT, UniqueId};
use crate::spool::image::{Image, ImagePlan, Length, Naming, Series};
use crate::spool::transfer::{LiveMessage, taken_over};

/// The zeros of the pages that are written later.
const UNMARKED: [u8; SEGMENTS_AT] = [0; SEGMENTS_AT];

/// What is to be exported, and where to.
#[derive(Clone, Debug)]
pub struct ExportOrder {
    pub spool: PathBuf,
    /// The archive file; it must not be there, but for an export that is to be ended.
    pub to: PathBuf,
    pub which: Which,
    pub after: After,
}

/// Which messages are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    These(Vec<MessageId>),
}

/// What the source does afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on sending; the archive is a backup.
    Keep,
    /// It never sends these messages again; the archive is where they live.
    GiveUp,
}

/// What an export did.
#[derive(Debug)]
pub struct ExportReport {
    /// `None`: there was nothing to export, so no archive was written.
    pub archive: Option<String>,
    pub messages: u64,
    /// Recipients that are pending.
    pub recipients: u64,
    /// Of the archive file.
    pub bytes: u64,
    /// Damaged messages; they stay in the spool.
    pub left_behind: Vec<LeftBehind>,
    /// Whether an export that was cut short was ended: only its mark was missing.
    pub was_ended: bool,
}

/// Writes what is queued in a spool into an archive file.
///
/// # Errors
/// There is no such spool, an engine holds it, it is damaged so that it cannot be read, the file is
/// there already, a message named is not queued, or the disk fails.
pub fn export(order: &ExportOrder) -> Result<ExportReport, TransferError> {
    export_by(&Steps::default(), order)
}

pub(super) fn export_by(steps: &Steps, order: &ExportOrder) -> Result<ExportReport, TransferError> {
    let folder = match order.after {
        After::Keep => look(&order.spool)?,
        After::GiveUp => SpoolFolder::open_existing(steps, &order.spool)?,
    };
    if order.to.exists() {
        return end_it(steps, order, &folder);
    }
    let mut depot = Depot::open(folder)?;
    let (chosen, left_behind) = choose(&mut depot, &order.which)?;
    let id = unique_id().map_err(|error| TransferError(format!("no name: {error}")))?;
    let mut report = ExportReport {
        archive: None,
        messages: 0,
        recipients: 0,
        bytes: 0,
        left_behind,
        was_ended: false,
    };
    let taken = write_archive(steps, order, &mut depot, chosen, id, &mut report)?;
    if !taken.is_empty() && order.after == After::GiveUp {
        fence(steps, order, &depot, &taken, id)?;
    }
    Ok(report)
}

/// Writes the archive, whole and durable; returns what is in it. Nothing: there is no archive.
fn write_archive(
    steps: &Steps,
    order: &ExportOrder,
    depot: &mut Depot,
    chosen: Vec<LiveMessage>,
    id: UniqueId,
    report: &mut ExportReport,
) -> Result<Vec<LiveMessage>, TransferError> {
    let now = clock::now().wall;
    let mut writer = Writer::begin(steps, &order.to, depot, now)?;
    let mut taken = Vec::new();
    for message in chosen {
        match depot.read(&message) {
            Some(whole) => {
                writer.series.append_message(&whole, Naming::Keep).map_err(too_long)?;
                taken.push(message);
                writer.write_full()?;
            }
            None => report.left_behind.push(damaged(message.id)),
        }
    }
    if taken.is_empty() {
        return Ok(taken);
    }
    report.messages = taken.len() as u64;
    report.recipients = taken.iter().map(LiveMessage::recipients).sum();
    report.archive = Some(id.to_string());
    let kind = match order.after {
        After::Keep => ArchiveKind::Copy,
        After::GiveUp => ArchiveKind::Move,
    };
    report.bytes = writer.finish(ArchiveHead {
        id,
        kind,
        source: name_of(&depot.folder),
        created: now,
        segments: 0,
        segment_bytes: depot.segment_bytes,
        file_bytes: 0,
        messages: report.messages,
        recipients: report.recipients,
    })?;
    Ok(taken)
}

/// Looks at a spool that goes on as it is.
pub(super) fn look(spool: &Path) -> Result<SpoolFolder, TransferError> {
    let Survey { folder, foreign, unfinished: _, missing } = SpoolFolder::survey(spool)?;
    let foreign = foreign.into_iter().map(|path| SpoolError::Foreign { path });
    foreign.chain(missing).next().map_or(Ok(folder), |error| Err(error.into()))
}

/// Takes the messages out of the stock; those that are too damaged to be in it are told.
fn choose(
    depot: &mut Depot,
    which: &Which,
) -> Result<(Vec<LiveMessage>, Vec<LeftBehind>), TransferError> {
    let live = std::mem::take(&mut depot.stock.messages);
    let Which::These(names) = which else {
        return Ok((live, lost(&depot.stock.findings).collect()));
    };
    let (mut chosen, mut left_behind) = (Vec::new(), Vec::new());
    for name in names {
        if live.iter().any(|message| message.id == *name) {
            continue;
        }
        match lost(&depot.stock.findings).find(|lost| lost.message == Some(*name)) {
            Some(lost) => left_behind.push(lost),
            None => {
                return Err(TransferError(format!(
                    "message {name} is not queued in this spool: nothing was exported"
                )));
            }
        }
    }
    chosen.extend(live.into_iter().filter(|message| names.contains(&message.id)));
    Ok((chosen, left_behind))
}

/// The source gives the messages up, and the archive is told.
fn fence(
    steps: &Steps,
    order: &ExportOrder,
    depot: &Depot,
    taken: &[LiveMessage],
    id: UniqueId,
) -> Result<(), TransferError> {
    let mut staging = Staging::begin(steps, &order.spool, Way::Out, id, next_file(&depot.folder))?;
    let mut series = Series::new(ImagePlan {
        sequence: SegmentSeq(depot.stock.next_sequence),
        now: clock::now().wall,
        file_bytes: depot.segment_bytes,
        length: Length::Full,
    });
    let archive = id.to_string();
    for message in taken {
        for run in &message.runs {
            let outcome = taken_over(run, &archive);
            series.append_outcome(message.id, &outcome).map_err(too_long)?;
        }
        while let Some(Image { bytes, .. }) = series.poll_image() {
            staging.write(&bytes)?;
        }
    }
    series.finish();
    while let Some(Image { bytes, .. }) = series.poll_image() {
        staging.write(&bytes)?;
    }
    let archive = Archive::open(&order.to)?;
    check_whole(&archive)?;
    staging.decide()?;
    archive.mark(steps, Mark::Fence, name_of(&depot.folder))?;
    settle(steps, &order.spool).map_err(TransferError::from)
}

/// Reads the archive back: what the source gives up must be there.
fn check_whole(archive: &Archive) -> Result<(), TransferError> {
    let stock = archive.take_stock()?;
    let is_whole = stock.left_behind.is_empty()
        && stock.stock.messages.len() as u64 == archive.pages.head.messages;
    is_whole.then_some(()).ok_or_else(|| {
        TransferError(format!(
            "{}: what was written does not read back; the spool has given nothing up. Look at the \
             health of the disk, and remove the file",
            archive.path.display()
        ))
    })
}

/// There is a file already: an export that was cut short is ended, anything else is left alone.
fn end_it(
    steps: &Steps,
    order: &ExportOrder,
    folder: &SpoolFolder,
) -> Result<ExportReport, TransferError> {
    let refused = |why: &str| Err(TransferError(format!("{}: {why}", order.to.display())));
    let archive = match Archive::open(&order.to) {
        Ok(archive) if order.after == After::GiveUp => archive,
        _ => return refused("there is such a file already; name another"),
    };
    let head = archive.pages.head;
    let is_ours = head.source == name_of(folder) && head.kind == ArchiveKind::Move;
    if !is_ours || archive.pages.fenced_by.is_some() {
        return refused("there is such a file already; name another");
    }
    if !is_decided(&order.spool, Way::Out, head.id) {
        return refused(
            "an export that was cut short before the spool gave anything up: all of its mail still \
             is in the spool. Remove the file, and export again",
        );
    }
    archive.mark(steps, Mark::Fence, head.source)?;
    Ok(ExportReport {
        archive: Some(head.id.to_string()),
        messages: head.messages,
        recipients: head.recipients,
        bytes: head.file_bytes,
        left_behind: Vec::new(),
        was_ended: true,
    })
}

/// An archive that is being written, under another name until it is whole.
struct Writer<'a> {
    steps: &'a Steps,
    to: &'a Path,
    new: PathBuf,
    file: File,
    series: Series,
    segments: u32,
    end: u64,
}

impl<'a> Writer<'a> {
    fn begin(
        steps: &'a Steps,
        to: &'a Path,
        depot: &Depot,
        now: Wall,
    ) -> Result<Self, TransferError> {
        let mut new = to.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let file = steps.create(&new).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => TransferError(format!(
                "{} is there: an export is under way, or was cut short; remove it if none is",
                new.display()
            )),
            _ => failed(&new, &error),
        })?;
        let series = Series::new(ImagePlan {
            sequence: SegmentSeq(1),
            now,
            file_bytes: depot.segment_bytes,
            length: Length::LastShort,
        });
        Ok(Self { steps, to, new, file, series, segments: 0, end: SEGMENTS_AT as u64 })
    }

    fn write_full(&mut self) -> Result<(), TransferError> {
        while let Some(Image { bytes, .. }) = self.series.poll_image() {
            self.write(&bytes, self.end)?;
            self.end += bytes.len() as u64;
            self.segments += 1;
        }
        Ok(())
    }

    /// Writes the rest, and gives the file its name once all of it is on disk. Returns its length.
    fn finish(mut self, head: ArchiveHead) -> Result<u64, TransferError> {
        self.series.finish();
        self.write_full()?;
        let head = ArchiveHead { segments: self.segments, file_bytes: self.end, ..head };
        let mut pages = UNMARKED;
        let page = head.to_page();
        pages[..page.len()].copy_from_slice(&page);
        self.write(&pages, 0)?;
        let name = || {
            self.steps.sync(&self.new, &self.file)?;
            self.steps.link(&self.new, self.to)?;
            self.steps.remove(&self.new)?;
            self.steps.sync_folder(folder_of(self.to))
        };
        name().map_err(|error| failed(self.to, &error))?;
        Ok(self.end)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), TransferError> {
        self.steps
            .write(&self.new, &self.file, bytes, at)
            .map_err(|error| failed(&self.new, &error))
    }
}

/// What a failure leaves half made holds space, which may be what was short.
impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Whole, it has another name, and this one is gone.
        drop(self.steps.remove(&self.new));
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn failed(path: &Path, error: &io::Error) -> TransferError {
    TransferError(format!("cannot write {}: {error}", path.display()))
}

fn too_long(error: crate::spool::image::TooLong) -> TransferError {
    TransferError(error.to_string())
}
