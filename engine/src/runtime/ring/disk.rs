//! Commits and reads of the spool: durable writes in flight, told in order; reads of any alignment.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use slab::Slab;

use super::submit::Ring;
use super::token::{Op, Token};
use crate::base::block::{Block, BlockBuilder, PAGE_BYTES};
use crate::base::map::Map;
use crate::shard::{CommitId, DiskError, Event, ReadId};
use crate::spool::files::FileId;

/// Reads in flight at once: the spool's read budget is far below; a core that loses count of its
/// reads gets errors, and the disk no queue without end.
const READS_IN_FLIGHT_MAX: usize = 1024;

/// How a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileMode {
    /// With `O_DIRECT`: commits overlap.
    Direct,
    /// On a file system without it. Commits go one at a time: concurrent synced writes through the
    /// page cache were measured to hide each other's errors.
    Buffered,
}

#[derive(Default)]
pub(super) struct Disk {
    files: Map<FileId, File>,
    commits: Slab<Commit>,
    reads: Slab<Fetch>,
    /// Commits completed in this turn.
    committed: Vec<(CommitId, Result<(), DiskError>)>,
}

struct File {
    fd: OwnedFd,
    mode: FileMode,
    /// Commits of a buffered file; the first is in flight.
    turns: VecDeque<Commit>,
}

pub(super) struct Commit {
    pub commit: CommitId,
    pub file: FileId,
    pub offset: u64,
    pub block: Arc<Block>,
}

pub(super) struct Wanted {
    pub read: ReadId,
    pub file: FileId,
    pub offset: u64,
    pub bytes: u32,
}

struct Fetch {
    wanted: Wanted,
    /// Whole pages around what is wanted.
    pages: BlockBuilder,
}

impl Disk {
    pub(super) fn register(&mut self, id: FileId, fd: OwnedFd, mode: FileMode) {
        let known = self.files.insert(id, File { fd, mode, turns: VecDeque::new() });
        assert!(known.is_none(), "a file is registered once");
    }

    pub(super) fn commit(&mut self, ring: &mut Ring, commit: Commit) {
        let page = PAGE_BYTES as u64;
        assert!(
            commit.offset.is_multiple_of(page) && commit.block.len().is_multiple_of(PAGE_BYTES),
            "commits are whole pages"
        );
        let Some(file) = self.files.get_mut(&commit.file) else {
            self.committed.push((commit.commit, Err(DiskError::Failed(libc::EBADF))));
            return;
        };
        if file.mode == FileMode::Buffered {
            file.turns.push_back(Commit { block: Arc::clone(&commit.block), ..commit });
            if file.turns.len() > 1 {
                return;
            }
        }
        self.write(ring, commit);
    }

    pub(super) fn fetch(&mut self, ring: &mut Ring, wanted: Wanted) -> Result<(), Event<'static>> {
        let refused =
            |errno| Event::Fetched { read: wanted.read, result: Err(DiskError::Failed(errno)) };
        let Some(file) = self.files.get(&wanted.file) else {
            return Err(refused(libc::EBADF));
        };
        if self.reads.len() >= READS_IN_FLIGHT_MAX {
            return Err(refused(libc::EBUSY));
        }
        let page = PAGE_BYTES as u64;
        let start = wanted.offset - wanted.offset % page;
        let pages = BlockBuilder::zeroed(
            (wanted.head() + wanted.bytes as usize).next_multiple_of(PAGE_BYTES),
        );
        let key = self.reads.insert(Fetch { wanted, pages });
        let bytes: *mut [u8] = self.reads[key].pages.bytes_mut();
        // SAFETY: the pages lie on the heap behind the slab entry, which is not touched until the
        // completion removes it.
        unsafe { ring.read(file.fd.as_fd(), bytes, start, token(Op::Fetch, key)) };
        Ok(())
    }

    pub(super) fn handle_committed(&mut self, ring: &mut Ring, slot: u32, result: i32) {
        let commit = self.commits.remove(slot as usize);
        self.committed.push((commit.commit, written(result, commit.block.len())));
        let Some(file) = self.files.get_mut(&commit.file) else {
            return;
        };
        file.turns.pop_front();
        if let Some(next) = file.turns.front() {
            let next = Commit { block: Arc::clone(&next.block), ..*next };
            self.write(ring, next);
        }
    }

    pub(super) fn handle_fetched(&mut self, slot: u32, result: i32) -> Event<'static> {
        let Fetch { wanted, pages } = self.reads.remove(slot as usize);
        let result = match usize::try_from(result) {
            Err(_) => Err(failure(-result)),
            Ok(read) if read < wanted.head() + wanted.bytes as usize => Err(DiskError::Failed(0)),
            Ok(_) => Ok(wanted.cut(pages)),
        };
        Event::Fetched { read: wanted.read, result }
    }

    /// Commits completed since the last call, oldest first: the whole batch is known before any of
    /// it is told, and a later one never overtakes an earlier one.
    pub(super) fn take_committed(&mut self) -> impl Iterator<Item = Event<'static>> + '_ {
        if let Some((first, _)) = self.committed.first().copied() {
            // Ids wrap after days of full load; those in flight lie close together.
            let distance = |id: CommitId| id.0.wrapping_sub(first.0).wrapping_add(1 << 31);
            self.committed.sort_unstable_by_key(|(commit, _)| distance(*commit));
        }
        self.committed.drain(..).map(|(commit, result)| Event::Committed { commit, result })
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.committed.is_empty()
    }

    fn write(&mut self, ring: &mut Ring, commit: Commit) {
        let key = self.commits.insert(commit);
        let Commit { block, offset, file, .. } = &self.commits[key];
        let fd = self.files[file].fd.as_fd();
        // SAFETY: a frozen block never changes, and the slab keeps it alive until the completion
        // removes the entry.
        unsafe { ring.write_durably(fd, block.bytes(), *offset, token(Op::Commit, key)) };
    }
}

impl Wanted {
    /// Bytes of the first page before what is wanted.
    fn head(&self) -> usize {
        usize::try_from(self.offset % PAGE_BYTES as u64).expect("below a page")
    }

    /// Exactly what was asked for. Whole pages are handed on as they are; anything else is copied
    /// once, as a block begins at its first page.
    fn cut(&self, pages: BlockBuilder) -> Arc<Block> {
        let (head, bytes) = (self.head(), self.bytes as usize);
        if head == 0 && bytes == pages.len() {
            return pages.freeze();
        }
        let mut exact = BlockBuilder::with_capacity(bytes);
        exact.append(&pages.bytes()[head..head + bytes]);
        exact.freeze()
    }
}

fn token(op: Op, key: usize) -> Token {
    Token::new(op, u32::try_from(key).expect("few operations are in flight"))
}

fn written(result: i32, wanted: usize) -> Result<(), DiskError> {
    match usize::try_from(result) {
        Ok(bytes) if bytes == wanted => Ok(()),
        // A short write is a failed one: what it left on the disk is not known.
        Ok(_) => Err(DiskError::Failed(0)),
        Err(_) => Err(failure(-result)),
    }
}

fn failure(errno: i32) -> DiskError {
    match errno {
        libc::ENOSPC | libc::EDQUOT => DiskError::Full,
        errno => DiskError::Failed(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_classified() {
        assert_eq!(written(4096, 4096), Ok(()));
        assert_eq!(written(512, 4096), Err(DiskError::Failed(0)));
        assert_eq!(written(-libc::ENOSPC, 4096), Err(DiskError::Full));
        assert_eq!(written(-libc::EIO, 4096), Err(DiskError::Failed(libc::EIO)));
    }

    #[test]
    fn commits_are_told_in_order_even_when_ids_wrap() {
        let ids = [1, u32::MAX, 0, u32::MAX - 1];
        let committed = ids.map(|id| (CommitId(id), Ok(()))).to_vec();
        let mut disk = Disk { committed, ..Disk::default() };
        let told: Vec<u32> = disk
            .take_committed()
            .map(|event| match event {
                Event::Committed { commit, .. } => commit.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [u32::MAX - 1, u32::MAX, 0, 1]);
    }
}
