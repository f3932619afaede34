//! The thread that reads the spool after a start, while mail comes in already.
//!
//! Headers were read before the first client: `spool::opening` tells why that is enough. What is found
//! here goes to the shards in one piece each; the thread ends then.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use super::disk::{SegmentMap, SpoolError, SpoolFolder};
use super::mesh::{Control, Mesh};
use super::start::{insist_once, pause};
use crate::model::connection::ShardId;
use crate::model::state::StateItem;
use crate::spool::files::FileId;
use crate::spool::opening::{self, Opening};
use crate::spool::plan::{Recovered, RecoveredDelivery, RecoveredShard, plan};
use crate::spool::recovery::{self, Finding, Groups, SegmentScan};
use crate::spool::segment::{Slots, read_slots};
use crate::wire::envelope::EnvelopeView;

/// Between two looks at whether the shards have scheduled everything.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Allocations from this length on are maps of their own while the spool is read, and of the tables
/// that stay: the allocator would raise its own threshold to the length of what was freed last.
const MAPPED_WHILE_READING: libc::c_int = 128 << 10;
/// Afterwards: commit blocks, made and freed all the time, are not to be mapped each.
const MAPPED_AFTERWARDS: libc::c_int = 4 << 20;

/// With it goes, as in the allocator's own rule, how much it keeps free at the end of a heap.
fn set_map_threshold(bytes: libc::c_int) {
    // SAFETY: the allocator changes numbers of its own, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * bytes);
    }
}

/// What one shard takes over, with the files opened for it alone.
pub(super) struct Share {
    pub(super) spool: RecoveredShard,
    pub(super) backlog: Vec<RecoveredDelivery>,
    pub(super) files: Vec<(FileId, OwnedFd)>,
    /// The same for all shards.
    pub(super) states: Arc<[StateItem]>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("deliveries", &self.backlog.len()).finish_non_exhaustive()
    }
}

/// Reads the headers of all segments.
///
/// # Errors
/// The first file that cannot be read or is no segment of ours.
pub(super) fn read_headers(folder: &SpoolFolder, shards: u16) -> Result<Opening, SpoolError> {
    let slots = |file: &FileId| -> Result<(FileId, Slots), SpoolError> {
        Ok((*file, folder.read_slots(*file)?))
    };
    let headers: Vec<_> = folder.found().iter().map(slots).collect::<Result<_, _>>()?;
    let opening = opening::open(&headers, shards);
    tell(&opening.findings);
    Ok(opening)
}

/// The thread, and what became of it.
pub(super) struct Recovery {
    thread: JoinHandle<Result<(), SpoolError>>,
    failed: Arc<AtomicBool>,
}

/// What it works on.
pub(super) struct Work {
    pub(super) folder: Arc<SpoolFolder>,
    /// The files that hold something.
    pub(super) in_use: Vec<FileId>,
    pub(super) mesh: Arc<Mesh>,
    /// Once set, it ends soon, and what it found stays where it is.
    pub(super) stopping: Arc<AtomicBool>,
}

impl Recovery {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn start(work: Work) -> io::Result<Self> {
        let failed = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&failed);
        let run = move || {
            let done = work.run();
            if let Err(error) = &done {
                tracing::error!(%error, "the spool cannot be taken over: the engine stops");
                told.store(true, Ordering::SeqCst);
            }
            done
        };
        let thread = std::thread::Builder::new().name("recovery".into()).spawn(run)?;
        Ok(Self { thread, failed })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why the spool could not be taken over.
    pub(super) fn join(self) -> io::Result<()> {
        let ended = self.thread.join().map_err(|_| io::Error::other("the recovery had died"))?;
        ended.map_err(|error| io::Error::other(error.to_string()))
    }
}

impl Work {
    fn run(&self) -> Result<(), SpoolError> {
        // What is read here is large and soon gone: as maps of its own it goes back to the kernel at
        // once, and leaves no holes among what stays.
        set_map_threshold(MAPPED_WHILE_READING);
        let Some(scans) = self.scan()? else { return Ok(()) };
        let shards = u16::try_from(self.mesh.shards()).unwrap_or(u16::MAX);
        let recovered = plan(scans, shards);
        tell(&recovered.findings);
        let busy = self.hand_over(recovered)?;
        self.wait_for(&busy);
        set_map_threshold(MAPPED_AFTERWARDS);
        // Notes and parcels were spread over the heaps of all shards.
        // SAFETY: no arguments that matter; it only gives free pages back.
        unsafe { libc::malloc_trim(0) };
        Ok(())
    }

    /// `None`: the engine stops.
    fn scan(&self) -> Result<Option<Vec<SegmentScan>>, SpoolError> {
        let mut scans = Vec::with_capacity(self.in_use.len());
        for file in &self.in_use {
            if self.is_stopping() {
                return Ok(None);
            }
            scans.push(scan(&self.folder, *file)?);
        }
        Ok(Some(scans))
    }

    /// Tells which shards got deliveries.
    fn hand_over(&self, recovered: Recovered) -> Result<Vec<ShardId>, SpoolError> {
        let Recovered { shards: spools, deliveries, states, .. } = recovered;
        let states: Arc<[StateItem]> = states.into();
        if !deliveries.is_empty() {
            tracing::info!(deliveries = deliveries.len(), "found in the spool");
        }
        let backlogs = deal(deliveries, spools.len());
        let mut busy = Vec::new();
        for ((shard, spool), backlog) in (0..).map(ShardId).zip(spools).zip(backlogs) {
            let open = |file| self.folder.open_segment(file).map(|opened| (file, opened));
            let files = spool.files().map(open).collect::<Result<_, _>>()?;
            if !backlog.is_empty() {
                busy.push(shard);
            }
            let states = Arc::clone(&states);
            let share = Box::new(Share { spool, backlog, files, states });
            insist_once(&self.mesh, shard, Control::Recovered(share));
        }
        Ok(busy)
    }

    /// Until these shards have scheduled what they got.
    fn wait_for(&self, shards: &[ShardId]) {
        let is_done = |shard: &ShardId| self.mesh.has_taken_over(*shard);
        while !shards.iter().all(is_done) && !self.is_stopping() && !self.mesh.has_lost_one() {
            pause(LOOK_AGAIN);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// By its index, if it has one that holds; else all of it.
fn scan(folder: &SpoolFolder, file: FileId) -> Result<SegmentScan, SpoolError> {
    let map = folder.map_segment(file)?;
    if let Some(scan) = scan_by_index(file, &map) {
        return Ok(scan);
    }
    folder.scan_whole(file, |bytes| recovery::scan(file, bytes, groups_of))
}

fn scan_by_index(file: FileId, map: &SegmentMap) -> Option<SegmentScan> {
    map.reach_slots().ok()?;
    let slots = read_slots(map.as_bytes()).ok()?;
    let index = opening::index_of(&slots)?;
    map.reach(index).ok()?;
    for record in opening::to_read(&slots, index, map.as_bytes())? {
        map.reach(record).ok()?;
    }
    recovery::scan_by_index(file, map.as_bytes(), groups_of)
}

/// Each recovered delivery to the shard that holds its record.
fn deal(deliveries: Vec<RecoveredDelivery>, shards: usize) -> Vec<Vec<RecoveredDelivery>> {
    let mut counts = vec![0; shards];
    deliveries.iter().for_each(|found| counts[usize::from(found.delivery.home.0)] += 1);
    let mut dealt: Vec<Vec<_>> = counts.into_iter().map(Vec::with_capacity).collect();
    for found in deliveries {
        dealt[usize::from(found.delivery.home.0)].push(found);
    }
    dealt
}

fn tell(findings: &[Finding]) {
    for finding in findings {
        if finding.is_damage() {
            tracing::error!("spool: {finding}");
        } else {
            tracing::info!("spool: {finding}");
        }
    }
}

/// The domains of a stored envelope and the recipients of each; `None`: it is damaged.
pub(super) fn groups_of(envelope: &[u8]) -> Option<Groups> {
    let (view, _) = EnvelopeView::parse(envelope).ok()?;
    Some(view.groups().map(|group| (group.domain.into(), group.first, group.count)).collect())
}
