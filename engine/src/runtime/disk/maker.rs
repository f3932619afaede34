//! The thread that makes segment files: written in full and synced before a shard gets one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use memmap2::MmapMut;

use super::{BLOCK_BYTES, FILE_MAX, SpoolFolder};
use crate::model::connection::ShardId;
use crate::runtime::clock;
use crate::shard::event::DiskError;
use crate::spool::files::{FileId, SpareSegment};
use crate::spool::segment::new_file_headers;

/// Requests that may wait. A shard has one or two open at a time, and there are not more shards
/// than this.
const REQUESTS_MAX: usize = 4096;

/// Zeros written at once: large enough for the disk's full speed, small enough to stop soon.
const CHUNK_BYTES: usize = 1 << 20;

/// A segment made for a shard, and its descriptor, which nobody else has.
#[derive(Debug)]
pub(crate) struct NewSegment {
    pub spare: SpareSegment,
    pub descriptor: OwnedFd,
}

/// The maker's thread.
#[derive(Debug)]
pub(crate) struct SegmentMaker {
    requests: SegmentRequests,
    thread: JoinHandle<()>,
}

/// Where shards ask for segments.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRequests(Sender<ShardId>);

impl SegmentMaker {
    /// Starts the thread. Each request is answered once, by `answer` on the maker's thread, which
    /// must not block.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    ///
    /// # Panics
    /// If `segment_bytes` is not a positive multiple of [`BLOCK_BYTES`]: the settings check it.
    pub(crate) fn start(
        folder: Arc<SpoolFolder>,
        segment_bytes: u32,
        answer: impl Fn(ShardId, Result<NewSegment, DiskError>) + Send + 'static,
    ) -> io::Result<Self> {
        assert!(segment_bytes > 0 && segment_bytes.is_multiple_of(BLOCK_BYTES));
        let (requests, inbox) = bounded(REQUESTS_MAX);
        let next = folder.found().last().map_or(0, |last| last.0 + 1);
        let work = Work { folder, segment_bytes, next };
        let thread = std::thread::Builder::new()
            .name("segments".into())
            .spawn(move || work.run(&inbox, answer))?;
        Ok(Self { requests: SegmentRequests(requests), thread })
    }

    #[must_use]
    pub(crate) fn requests(&self) -> SegmentRequests {
        self.requests.clone()
    }

    /// Ends the thread once every [`SegmentRequests`] is dropped and what was asked for is made.
    pub(crate) fn stop(self) {
        drop(self.requests);
        if self.thread.join().is_err() {
            tracing::error!("the segment maker had died");
        }
    }
}

impl SegmentRequests {
    /// Asks for one more segment for `shard`.
    ///
    /// # Errors
    /// Too many requests wait, or the thread is gone: the shard asks again later.
    pub(crate) fn request(&self, shard: ShardId) -> Result<(), DiskError> {
        self.0.try_send(shard).map_err(|error| match error {
            TrySendError::Full(_) => DiskError::Failed(libc::EAGAIN),
            TrySendError::Disconnected(_) => DiskError::Failed(libc::EPIPE),
        })
    }
}

struct Work {
    folder: Arc<SpoolFolder>,
    segment_bytes: u32,
    /// Number of the next file. There are no gaps: a file that is missing is to be noticed.
    next: u32,
}

impl Work {
    fn run(
        mut self,
        requests: &Receiver<ShardId>,
        answer: impl Fn(ShardId, Result<NewSegment, DiskError>),
    ) {
        for shard in requests {
            let made = self.make(shard).map_err(|error| {
                tracing::warn!(%error, "a new segment could not be made");
                disk_error(&error)
            });
            answer(shard, made);
        }
    }

    fn make(&mut self, shard: ShardId) -> io::Result<NewSegment> {
        if self.next > FILE_MAX {
            return Err(io::Error::other("the spool has used up its file numbers"));
        }
        let file = FileId(self.next);
        let path = self.folder.path_of(file);
        let unfinished = path.with_extension("new");
        // What a failure before could not remove.
        remove(&unfinished);
        let made = self.write_in_full(&unfinished, shard).and_then(|opened| {
            // Never over a file that is there, whoever put it there.
            rename_to_new(&unfinished, &path)?;
            File::open(&self.folder.segments)?.sync_all()?;
            Ok(opened)
        });
        if made.is_err() {
            // Space that a half-made file holds is the very space that is short.
            remove(&unfinished);
        }
        // One that has its name counts, even if that could not be synced.
        if path.exists() {
            self.next += 1;
        }
        let spare =
            SpareSegment { file, bytes: self.segment_bytes, generation: 1, header_writes: 2 };
        Ok(NewSegment { spare, descriptor: made?.into() })
    }

    /// Zeros, not `fallocate`: unwritten extents cost a second flush at every commit.
    fn write_in_full(&self, path: &Path, shard: ShardId) -> io::Result<File> {
        let file = self.folder.options().create_new(true).open(path)?;
        let zeros = MmapMut::map_anon(CHUNK_BYTES)?;
        let bytes = self.segment_bytes as usize;
        for at in (0..bytes).step_by(CHUNK_BYTES) {
            let chunk = &zeros[..CHUNK_BYTES.min(bytes - at)];
            file.write_all_at(chunk, at as u64)?;
        }
        for (at, page) in new_file_headers(self.segment_bytes, shard, clock::now().wall) {
            file.write_all_at(page.bytes(), u64::from(at))?;
        }
        file.sync_all()?;
        Ok(file)
    }
}

fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "an unfinished segment stays behind");
    }
}

fn disk_error(error: &io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => DiskError::Full,
        code => DiskError::Failed(code.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn maker(folder: &Arc<SpoolFolder>, bytes: u32) -> (SegmentMaker, mpsc::Receiver<Answer>) {
        let (answers, seen) = mpsc::channel();
        let answer = move |shard, made| answers.send((shard, made)).unwrap();
        (SegmentMaker::start(Arc::clone(folder), bytes, answer).unwrap(), seen)
    }

    type Answer = (ShardId, Result<NewSegment, DiskError>);

    #[test]
    fn a_segment_is_whole_and_named_before_a_shard_gets_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(SpoolFolder::open(home.path()).unwrap());
        let bytes = 3 * 1024 * 1024 + 4096;
        let (maker, seen) = maker(&folder, bytes);
        maker.requests().request(ShardId(1)).unwrap();
        maker.requests().request(ShardId(0)).unwrap();
        for shard in [1, 0] {
            let (to, made) = seen.recv_timeout(WAIT).unwrap();
            let made = made.unwrap();
            assert_eq!(to, ShardId(shard));
            let held = folder.read_segment(made.spare.file).unwrap();
            assert_eq!(held.as_bytes().len(), bytes as usize);
            let data = &held.as_bytes()[4096..bytes as usize - 4096];
            assert!(data.iter().all(|byte| *byte == 0));
        }
        maker.stop();
        assert_eq!(std::fs::read_dir(home.path().join("segments")).unwrap().count(), 2);
        drop(folder);
        let again = SpoolFolder::open(home.path()).unwrap();
        assert_eq!(again.found(), [FileId(0), FileId(1)]);
    }

    #[test]
    fn the_descriptor_takes_aligned_commits() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(SpoolFolder::open(home.path()).unwrap());
        let (maker, seen) = maker(&folder, 8192);
        maker.requests().request(ShardId(0)).unwrap();
        let made = seen.recv_timeout(WAIT).unwrap().1.unwrap();
        let mut block = MmapMut::map_anon(4096).unwrap();
        block.fill(9);
        File::from(made.descriptor).write_all_at(&block, 4096).unwrap();
        let held = folder.read_segment(made.spare.file).unwrap();
        assert_eq!((held.as_bytes()[4095], held.as_bytes()[4096]), (0, 9));
        File::from(folder.open_segment(made.spare.file).unwrap()).write_all_at(&block, 0).unwrap();
        maker.stop();
    }

    #[test]
    fn numbers_go_on_behind_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("segments")).unwrap();
        std::fs::write(home.path().join("segments/00000000.seg"), vec![0; 4096]).unwrap();
        let folder = Arc::new(SpoolFolder::open(home.path()).unwrap());
        let (maker, seen) = maker(&folder, 4096);
        maker.requests().request(ShardId(0)).unwrap();
        assert_eq!(seen.recv_timeout(WAIT).unwrap().1.unwrap().spare.file, FileId(1));
        maker.stop();
    }

    #[test]
    fn what_cannot_be_finished_leaves_nothing_and_harms_nothing() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(SpoolFolder::open(home.path()).unwrap());
        std::fs::write(home.path().join("segments/00000000.seg"), b"appeared later").unwrap();
        let (maker, seen) = maker(&folder, 4096);
        maker.requests().request(ShardId(0)).unwrap();
        let error = seen.recv_timeout(WAIT).unwrap().1.unwrap_err();
        assert_eq!(error, DiskError::Failed(libc::EEXIST));
        maker.stop();
        let kept = std::fs::read(home.path().join("segments/00000000.seg")).unwrap();
        assert_eq!(kept, b"appeared later");
        assert!(!home.path().join("segments/00000000.new").exists());
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        assert_eq!(disk_error(&io::Error::from_raw_os_error(libc::ENOSPC)), DiskError::Full);
        assert_eq!(disk_error(&io::Error::from_raw_os_error(libc::EDQUOT)), DiskError::Full);
        let broken = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(disk_error(&broken), DiskError::Failed(libc::EIO));
    }
}
