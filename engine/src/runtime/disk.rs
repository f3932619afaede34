//! The spool folder: who holds it, which segment files it has, how their bytes are read.
//!
//! ```text
//! spool/lock                  held exclusively (flock) while an engine runs; names its pid
//! spool/identity              which spool this is (identity.rs)
//! spool/segments/00000042.seg a segment file, written in full before it got this name; numbered
//!                             from 0 without gaps, never removed
//! spool/segments/00000043.new one being made when the engine ended: removed at the next start
//! spool/transfers/            what exports and imports bring, and which there were (staging.rs)
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, MmapMut};

use crate::spool::files::FileId;
use crate::spool::opening::Stretch;
use crate::spool::segment::{Slots, slots_of};

pub(super) mod identity;
mod maker;
pub(super) mod staging;
pub(super) mod steps;

use identity::Identity;
use steps::Steps;

pub(super) use maker::{NewSegment, SegmentMaker, SegmentRequests};

/// Commits are aligned to this, so every segment is a multiple of it.
pub(super) const BLOCK_BYTES: u32 = 4096;

/// A header slot is one such block.
const HEADER_BYTES: usize = BLOCK_BYTES as usize;

/// The largest number that fits a file's name.
const FILE_MAX: u32 = 99_999_999;

/// Files looked at in one folder; more than any disk of segments has.
const SEGMENTS_MAX: usize = 1_000_000;

/// An open spool folder. Nobody else can open it while this lives.
#[derive(Debug)]
pub(super) struct SpoolFolder {
    segments: PathBuf,
    /// Whether the file system takes `O_DIRECT`.
    direct: bool,
    /// In order of their ids, as found at the start.
    found: Vec<FileId>,
    /// Found elsewhere: they count, and are moved in by the next opening.
    staged: BTreeMap<FileId, PathBuf>,
    identity: Identity,
    /// Released by the kernel, however the process ends.
    _lock: Option<File>,
}

/// What lies among the segments, to be looked at only.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) folder: SpoolFolder,
    /// Files that no engine made.
    pub(super) foreign: Vec<PathBuf>,
    /// Segments that were being made when an engine ended; the next start removes them.
    pub(super) unfinished: Vec<PathBuf>,
    /// The first segment that should be there and is not.
    pub(super) missing: Option<SpoolError>,
}

/// Why the spool cannot be used: one line that names the path and the way out.
#[derive(Debug)]
pub(super) enum SpoolError {
    /// Another process holds it.
    Locked { path: PathBuf, pid: Box<str> },
    /// A file among the segments that no engine made; it is never touched.
    Foreign { path: PathBuf },
    /// The folder is a copy of a spool.
    Copied { path: PathBuf },
    /// Files are numbered without gaps, and none is ever removed; `last` is the highest.
    Missing { path: PathBuf, last: PathBuf },
    /// A segment whose bytes were refused, with the reason.
    Refused { path: PathBuf, cause: Box<str> },
    /// The kernel refused.
    Io { path: PathBuf, doing: &'static str, cause: io::Error },
}

/// The bytes of one segment file, for reading only.
#[derive(Debug)]
pub(super) struct SegmentBytes {
    bytes: Held,
    /// Blocks that the disk would not give, from the file's start; they read as zeros.
    pub unreadable_blocks: Vec<u32>,
}

/// One segment file, for reading only: bytes that were not reached must not be looked at.
#[derive(Debug)]
pub(super) struct SegmentMap {
    map: Mmap,
}

#[derive(Debug)]
enum Held {
    Mapped(Mmap),
    /// Copied block by block, because some could not be read.
    Copied(MmapMut),
}

impl SpoolFolder {
    /// Opens the folder, made if missing (only its owner may look inside), and locks it.
    ///
    /// # Errors
    /// See [`SpoolError`]; nothing was changed but for empty folders made, unfinished segments
    /// removed and transfers ended.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        Self::open_by(&Steps::default(), path)
    }

    pub(super) fn open_by(steps: &Steps, path: &Path) -> Result<Self, SpoolError> {
        let segments = path.join("segments");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&segments)
            .map_err(io_error(&segments, "make the folder"))?;
        make_durable(path).map_err(io_error(path, "sync"))?;
        let lock = lock(&path.join("lock"))?;
        let identity = match identity::read(path)? {
            Identity::Copied => return Err(SpoolError::Copied { path: path.into() }),
            Identity::Unnamed => Identity::Named(identity::draw(steps, path)?),
            named @ Identity::Named(_) => named,
        };
        staging::settle(steps, path)?;
        let found = list(&segments)?;
        first_missing(&segments, &found).map_or(Ok(()), Err)?;
        let direct = takes_direct(&segments).map_err(io_error(&segments, "write a test file"))?;
        if !direct {
            tracing::warn!(
                path = %segments.display(),
                "this file system has no O_DIRECT: commits go one at a time; ext4 or XFS is faster"
            );
        }
        let staged = BTreeMap::new();
        Ok(Self { segments, direct, found, staged, identity, _lock: Some(lock) })
    }

    /// The same, where there must be a spool already.
    ///
    /// # Errors
    /// As `open`, or there is none.
    pub(super) fn open_existing(steps: &Steps, path: &Path) -> Result<Self, SpoolError> {
        let segments = path.join("segments");
        std::fs::read_dir(&segments).map_err(io_error(&segments, "list"))?;
        Self::open_by(steps, path)
    }

    /// Takes a copy of a spool, or one restored from a backup, for a spool of its own.
    ///
    /// # Errors
    /// There is no spool, or an engine holds it.
    pub(super) fn adopt(path: &Path) -> Result<(), SpoolError> {
        let segments = path.join("segments");
        std::fs::read_dir(&segments).map_err(io_error(&segments, "list"))?;
        let _lock = lock(&path.join("lock"))?;
        identity::draw(&Steps::default(), path).map(drop)
    }

    /// Which spool this is.
    #[must_use]
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Looks at the folder and changes nothing in it. No engine can start meanwhile.
    ///
    /// # Errors
    /// There is no spool, or an engine holds it.
    pub(super) fn survey(path: &Path) -> Result<Survey, SpoolError> {
        let lock = lock_to_look(&path.join("lock"))?;
        let segments = path.join("segments");
        let (mut found, mut foreign, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
        let entries = std::fs::read_dir(&segments).map_err(io_error(&segments, "list"))?;
        for entry in entries.take(SEGMENTS_MAX) {
            let entry = entry.map_err(io_error(&segments, "list"))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            match (is_file, entry.file_name().to_str().and_then(parse_name)) {
                (true, Some((_, Stage::Unfinished))) => unfinished.push(entry.path()),
                (true, Some((file, Stage::Finished))) => found.push(file),
                _ => foreign.push(entry.path()),
            }
        }
        let (staged, identity) = (staging::decided(path)?, identity::read(path)?);
        found.extend(staged.keys().copied());
        found.sort_unstable();
        foreign.sort_unstable();
        let missing = first_missing(&segments, &found);
        let folder = Self { segments, direct: false, found, staged, identity, _lock: lock };
        Ok(Survey { folder, foreign, unfinished, missing })
    }

    #[must_use]
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// The segment files found when the folder was opened, oldest first.
    #[must_use]
    pub(super) fn found(&self) -> &[FileId] {
        &self.found
    }

    /// What the two headers of a segment say.
    ///
    /// # Errors
    /// The file cannot be read, or is no segment this program reads.
    pub(super) fn read_slots(&self, file: FileId) -> Result<Slots, SpoolError> {
        let (path, opened, length) = self.open_to_read(file)?;
        let (mut first, mut last) = ([0; HEADER_BYTES], [0; HEADER_BYTES]);
        // Where one cannot be read the other holds, as when its bytes are damaged.
        let read = [
            opened.read_exact_at(&mut first, 0),
            opened.read_exact_at(&mut last, length - HEADER_BYTES as u64),
        ];
        if let [Err(cause), Err(_)] = read {
            return Err(io_error(&path, "read")(cause));
        }
        slots_of(&first, &last, length).map_err(|cause| refused(path, &cause))
    }

    /// A segment mapped and not yet read: `reach` first what is to be looked at.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or has no segment's length.
    pub(super) fn map_segment(&self, file: FileId) -> Result<SegmentMap, SpoolError> {
        let (path, opened, _) = self.open_to_read(file)?;
        // SAFETY: the folder is locked, segments are never truncated, and only the engine that holds
        // the lock writes them, not while they are being read.
        let map = unsafe { Mmap::map(&opened) };
        Ok(SegmentMap { map: map.map_err(io_error(&path, "map"))? })
    }

    /// What `scan` makes of all bytes of a segment. Blocks that cannot be read are not an error: they
    /// are zeros.
    ///
    /// # Errors
    /// The file cannot be read, or was refused.
    pub(super) fn scan_whole<T, E: fmt::Display>(
        &self,
        file: FileId,
        scan: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, SpoolError> {
        let segment = self.read_segment(file)?;
        if !segment.unreadable_blocks.is_empty() {
            tracing::error!(
                path = %self.path_of(file).display(),
                blocks = segment.unreadable_blocks.len(),
                "the disk cannot read parts of this segment: look at its health"
            );
        }
        scan(segment.as_bytes()).map_err(|cause| refused(self.path_of(file), &cause))
    }

    /// The bytes of one segment, mapped; every page was read once, so that a bad one shows here
    /// and not as a SIGBUS.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or has no segment's length.
    pub(super) fn read_segment(&self, file: FileId) -> Result<SegmentBytes, SpoolError> {
        let (path, opened, _) = self.open_to_read(file)?;
        read_bytes(&opened).map_err(io_error(&path, "map"))
    }

    fn open_to_read(&self, file: FileId) -> Result<(PathBuf, File, u64), SpoolError> {
        let path = self.path_of(file);
        let opened = File::open(&path).map_err(io_error(&path, "open"))?;
        let length = opened.metadata().map_err(io_error(&path, "look at"))?.len();
        if !is_segment_length(length) {
            return Err(refused(path, &"no segment has this length"));
        }
        Ok((path, opened, length))
    }

    /// Opens a segment for reading and writing, `O_DIRECT` if the folder can. Each shard that
    /// uses a file opens it for itself.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(super) fn open_segment(&self, file: FileId) -> Result<OwnedFd, SpoolError> {
        let path = self.path_of(file);
        let opened = self.options().open(&path).map_err(io_error(&path, "open"))?;
        Ok(opened.into())
    }

    #[must_use]
    pub(super) fn path_of(&self, file: FileId) -> PathBuf {
        let inside = || self.segments.join(format!("{:08}.seg", file.0));
        self.staged.get(&file).cloned().unwrap_or_else(inside)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        if self.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options
    }
}

impl SegmentMap {
    /// Reads these bytes from the disk, so that a look at them never is a SIGBUS.
    ///
    /// # Errors
    /// The disk cannot read some of them, or the file does not have them.
    pub(super) fn reach(&self, stretch: Stretch) -> io::Result<()> {
        let (at, bytes) = (stretch.offset as usize, stretch.bytes as usize);
        if at.checked_add(bytes).is_none_or(|end| end > self.map.len()) || bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // All at once, and not fault by fault.
        self.map.advise_range(Advice::WillNeed, at, bytes)?;
        self.map.advise_range(Advice::PopulateRead, at, bytes)
    }

    /// Reads both headers.
    ///
    /// # Errors
    /// As `reach`.
    pub(super) fn reach_slots(&self) -> io::Result<()> {
        let bytes = BLOCK_BYTES;
        let last = u32::try_from(self.map.len()).unwrap_or(bytes).saturating_sub(bytes);
        self.reach(Stretch { offset: 0, bytes })?;
        self.reach(Stretch { offset: last, bytes })
    }

    #[must_use]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.map
    }
}

impl SegmentBytes {
    #[must_use]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Held::Mapped(map) => map,
            Held::Copied(copy) => copy,
        }
    }
}

/// Syncs the folder and the one it lies in: a segment is only as durable as the way to it.
fn make_durable(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    File::open(path.join(".."))?.sync_all()
}

/// Keeps engines away without writing anything; `None`: none was ever here.
fn lock_to_look(path: &Path) -> Result<Option<File>, SpoolError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "open")(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(locked(path, &mut file)),
        Err(TryLockError::Error(cause)) => Err(io_error(path, "lock")(cause)),
    }
}

fn locked(path: &Path, file: &mut File) -> SpoolError {
    let mut pid = String::new();
    let read = Read::by_ref(file).take(20).read_to_string(&mut pid);
    let known = read.is_ok() && pid.trim().parse::<u32>().is_ok();
    let pid = if known { pid.trim().into() } else { "unknown".into() };
    SpoolError::Locked { path: path.into(), pid }
}

/// Takes the lock and leaves our pid in it for whoever comes second.
fn lock(path: &Path) -> Result<File, SpoolError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io_error(path, "open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(locked(path, &mut file)),
        Err(TryLockError::Error(cause)) => return Err(io_error(path, "lock")(cause)),
    }
    let write_pid = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write_pid.map_err(io_error(path, "write"))?;
    Ok(file)
}

/// All segments by id; removes what was being made, refuses what is not ours.
fn list(segments: &Path) -> Result<Vec<FileId>, SpoolError> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(segments).map_err(io_error(segments, "list"))?;
    for entry in entries {
        let entry = entry.map_err(io_error(segments, "list"))?;
        let path = entry.path();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        match (is_file, entry.file_name().to_str().and_then(parse_name)) {
            (true, Some((_, Stage::Unfinished))) => {
                std::fs::remove_file(&path).map_err(io_error(&path, "remove"))?;
            }
            (true, Some((file, Stage::Finished))) if found.len() < SEGMENTS_MAX => found.push(file),
            _ => return Err(SpoolError::Foreign { path }),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Where the numbers of the files, in order, have a gap.
fn first_missing(segments: &Path, found: &[FileId]) -> Option<SpoolError> {
    let path_of = |number: u32| segments.join(format!("{number:08}.seg"));
    let gap = (0..).zip(found).find(|(number, file)| *number != file.0);
    let (missing, last) = (gap?.0, found.last()?.0);
    Some(SpoolError::Missing { path: path_of(missing), last: path_of(last) })
}

enum Stage {
    Unfinished,
    Finished,
}

fn parse_name(name: &str) -> Option<(FileId, Stage)> {
    let (number, ending) = name.split_once('.')?;
    let stage = match ending {
        "seg" => Stage::Finished,
        "new" => Stage::Unfinished,
        _ => return None,
    };
    let is_ours = number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_ours { Some((FileId(number.parse().ok()?), stage)) } else { None }
}

fn is_segment_length(length: u64) -> bool {
    length > 0 && length.is_multiple_of(u64::from(BLOCK_BYTES)) && u32::try_from(length).is_ok()
}

/// Whether `O_DIRECT` really works here: some file systems accept the flag and refuse the write.
fn takes_direct(segments: &Path) -> io::Result<bool> {
    let path = segments.join("99999999.new");
    let result = try_direct(&path);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(false),
            // A full disk answers only where the flag was taken.
            Some(libc::ENOSPC | libc::EDQUOT) => Ok(true),
            _ => Err(error),
        },
    }
}

fn try_direct(path: &Path) -> io::Result<()> {
    let block = MmapMut::map_anon(BLOCK_BYTES as usize)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    file.write_all_at(&block, 0)
}

fn read_bytes(file: &File) -> io::Result<SegmentBytes> {
    // SAFETY: the folder is locked, segments are never truncated, and only the engine that holds
    // the lock writes them, not while they are being read.
    let map = unsafe { Mmap::map(file)? };
    match map.advise(Advice::PopulateRead) {
        Ok(()) => Ok(SegmentBytes { bytes: Held::Mapped(map), unreadable_blocks: Vec::new() }),
        Err(_) => copy_readable(map.len(), |block, at| file.read_exact_at(block, at)),
    }
}

/// Reads block by block and leaves zeros where that fails: what is lost is told by checksums, as
/// any other damage, and the rest of the segment is kept.
fn copy_readable(
    length: usize,
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<SegmentBytes> {
    let mut copy = MmapMut::map_anon(length)?;
    let mut unreadable_blocks = Vec::new();
    for (number, block) in (0u32..).zip(copy.chunks_mut(BLOCK_BYTES as usize)) {
        if read(block, u64::from(number) * u64::from(BLOCK_BYTES)).is_err() {
            block.fill(0);
            unreadable_blocks.push(number);
        }
    }
    Ok(SegmentBytes { bytes: Held::Copied(copy), unreadable_blocks })
}

fn refused(path: PathBuf, cause: &impl fmt::Display) -> SpoolError {
    SpoolError::Refused { path, cause: cause.to_string().into() }
}

fn io_error<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> SpoolError + 'a {
    move |cause| SpoolError::Io { path: path.into(), doing, cause }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path, pid } => write!(
                f,
                "the spool is in use by process {pid} ({} is locked): stop it first, or set \
                 another spool.path",
                path.display()
            ),
            Self::Foreign { path } => write!(
                f,
                "{} is no segment of a spool: move it away, nothing but segments may be there",
                path.display()
            ),
            Self::Copied { path } => write!(
                f,
                "{} is a copy of a spool, or was restored from a backup: what the original has \
                 sent or still sends would be sent twice. If the original is gone for good, or \
                 never sends again, run: postrider spool adopt {}",
                path.display(),
                path.display()
            ),
            Self::Missing { path, last } => write!(
                f,
                "{} is missing: put it back. If it is lost for good, with the mail in it, and what \
                 is known of other mail (which may be sent again), go on without it: mv {} {}",
                path.display(),
                last.display(),
                path.display()
            ),
            Self::Refused { path, cause } => {
                write!(f, "{} is not used: {cause}; it was left as it is", path.display())
            }
            Self::Io { path, doing, cause } => {
                write!(f, "cannot {doing} {}: {cause}", path.display())
            }
        }
    }
}

impl std::error::Error for SpoolError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(folder.join("segments")).unwrap();
        std::fs::write(folder.join("segments").join(name), bytes).unwrap();
    }

    #[test]
    fn a_missing_folder_is_made_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/spool");
        let folder = SpoolFolder::open(&path).unwrap();
        assert!(folder.found().is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(path.join("segments")).unwrap().count(), 0);
    }

    #[test]
    fn a_second_opening_is_refused_with_the_pid() {
        let home = tempfile::tempdir().unwrap();
        let first = SpoolFolder::open(home.path()).unwrap();
        let text = SpoolFolder::open(home.path()).unwrap_err().to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(first);
        SpoolFolder::open(home.path()).unwrap();
    }

    #[test]
    fn segments_are_seen_in_order_and_unfinished_ones_removed() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "00000001.seg", &[7; 4096]);
        write(home.path(), "00000000.seg", &[2; 8192]);
        write(home.path(), "00000009.new", b"half");
        let folder = SpoolFolder::open(home.path()).unwrap();
        let see = |file: &FileId| {
            let look = |bytes: &[u8]| Ok::<_, &str>((*file, bytes.len(), bytes[0]));
            folder.scan_whole(*file, look).unwrap()
        };
        let seen: Vec<_> = folder.found().iter().map(see).collect();
        assert_eq!(seen, [(FileId(0), 8192, 2), (FileId(1), 4096, 7)]);
        assert!(!home.path().join("segments/00000009.new").exists());
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        for name in ["notes.txt", "7.seg", "0000000a.seg", "00000001.seg.bak", "000000001.seg"] {
            let home = tempfile::tempdir().unwrap();
            write(home.path(), name, b"mine");
            let error = SpoolFolder::open(home.path()).unwrap_err();
            assert!(matches!(error, SpoolError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(name));
            assert_eq!(std::fs::read(home.path().join("segments").join(name)).unwrap(), b"mine");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_two_ways_out() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "00000000.seg", &[0; 4096]);
        write(home.path(), "00000002.seg", &[2; 4096]);
        let text = SpoolFolder::open(home.path()).unwrap_err().to_string();
        assert!(text.contains("00000001.seg is missing: put it back"), "{text}");
        assert!(SpoolFolder::survey(home.path()).unwrap().missing.is_some());
        let named = |number| home.path().join(format!("segments/{number:08}.seg"));
        std::fs::rename(named(2), named(1)).unwrap();
        assert_eq!(SpoolFolder::open(home.path()).unwrap().found(), [FileId(0), FileId(1)]);
    }

    #[test]
    fn a_refused_segment_is_named_with_the_reason() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "00000000.seg", &[1; 4096]);
        let folder = SpoolFolder::open(home.path()).unwrap();
        let newer = |_: &[u8]| Err::<(), _>("format 9 needs a newer postrider");
        let text = folder.scan_whole(FileId(0), newer).unwrap_err().to_string();
        assert!(text.contains("00000000.seg") && text.contains("format 9"), "{text}");
        let text = folder.read_slots(FileId(0)).unwrap_err().to_string();
        assert!(
            text.contains("00000000.seg") && text.contains("no valid segment header"),
            "{text}"
        );
    }

    #[test]
    fn what_was_reached_reads_as_the_file_does() {
        let home = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5 * 4096u32).map(|at| u8::try_from(at / 4096).unwrap()).collect();
        write(home.path(), "00000000.seg", &bytes);
        let folder = SpoolFolder::open(home.path()).unwrap();
        let map = folder.map_segment(FileId(0)).unwrap();
        map.reach_slots().unwrap();
        map.reach(Stretch { offset: 8200, bytes: 5000 }).unwrap();
        let seen = map.as_bytes();
        assert_eq!((seen[0], seen[5 * 4096 - 1], seen[8200], seen[13199]), (0, 4, 2, 3));
        for (offset, bytes) in [(5 * 4096, 1), (5 * 4096 - 1, 2), (0, 0), (u32::MAX, u32::MAX)] {
            assert!(map.reach(Stretch { offset, bytes }).is_err(), "{bytes} at {offset}");
        }
    }

    #[test]
    fn a_file_of_no_segments_length_is_refused() {
        for bytes in [0, 1, 4095, 4097] {
            let home = tempfile::tempdir().unwrap();
            write(home.path(), "00000000.seg", &vec![1; bytes]);
            let folder = SpoolFolder::open(home.path()).unwrap();
            assert!(folder.read_segment(FileId(0)).is_err(), "{bytes} bytes");
        }
    }

    #[test]
    fn unreadable_blocks_cost_only_themselves() {
        let read = |block: &mut [u8], at: u64| {
            block.fill(u8::try_from(at / 4096).unwrap() + 1);
            if at == 4096 { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        };
        let segment = copy_readable(3 * 4096, read).unwrap();
        assert_eq!(segment.unreadable_blocks, [1]);
        let bytes = segment.as_bytes();
        assert_eq!((bytes[0], bytes[4096], bytes[8191], bytes[8192]), (1, 0, 0, 3));
    }
}
