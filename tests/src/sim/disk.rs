//! A disk that keeps, of what was not told durable, whatever it likes, at 512-byte grain.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider_engine::base::block::{Block, BlockBuilder};
use postrider_engine::base::time::Wall;
use postrider_engine::model::connection::ShardId;
use postrider_engine::shard::{CommitId, DiskError, ReadId};
use postrider_engine::spool::files::{FileId, SpareSegment};
use postrider_engine::spool::segment::new_file_headers;

use super::chance::Chance;
use super::clock::{MS, SECOND, US};
use super::options::Faults;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const EIO: i32 = 5;

/// Segment files, and what is on its way to them.
#[derive(Debug)]
pub struct Disk {
    /// What a power cut leaves if it takes everything in flight.
    pub files: Vec<Vec<u8>>,
    writes: BTreeMap<u64, Write>,
    reads: BTreeMap<u64, Fetch>,
    next: u64,
    pub is_full: bool,
    chance: Chance,
}

#[derive(Debug)]
struct Write {
    commit: CommitId,
    file: usize,
    offset: usize,
    block: Arc<Block>,
    fate: Result<(), DiskError>,
}

#[derive(Debug)]
struct Fetch {
    read: ReadId,
    file: usize,
    offset: usize,
    bytes: usize,
    is_bad: bool,
}

impl Disk {
    #[must_use]
    pub fn new(chance: Chance) -> Self {
        Self {
            files: Vec::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            next: 0,
            is_full: false,
            chance,
        }
    }

    /// Takes a write; when it will end. Its fate is decided here, and hidden.
    pub fn write(
        &mut self,
        commit: CommitId,
        file: FileId,
        offset: u64,
        block: Arc<Block>,
        faults: Option<&Faults>,
    ) -> (u64, u64) {
        let offset = usize::try_from(offset).expect("a small file");
        let file = file.0 as usize;
        assert!(offset.is_multiple_of(4096) && block.len().is_multiple_of(4096), "whole pages");
        assert!(offset + block.len() <= self.files[file].len(), "writes stay inside the file");
        let fails = faults.is_some_and(|faults| self.chance.permille(faults.write_fails));
        let is_slow = faults.is_some_and(|faults| self.chance.permille(faults.write_is_slow));
        let fate = match fails {
            false => Ok(()),
            true if self.chance.one_in(3) => Err(DiskError::Full),
            true => Err(DiskError::Failed(EIO)),
        };
        let takes = if is_slow {
            self.chance.skewed(10 * MS, 30 * SECOND)
        } else {
            self.chance.between(30 * US, 2 * MS)
        };
        self.next += 1;
        self.writes.insert(self.next, Write { commit, file, offset, block, fate });
        (self.next, takes)
    }

    /// The write that was taken last will fail.
    pub fn fail(&mut self, write: u64) {
        if let Some(write) = self.writes.get_mut(&write) {
            write.fate = Err(DiskError::Failed(EIO));
        }
    }

    /// This read will fail.
    pub fn fail_read(&mut self, read: u64) {
        if let Some(read) = self.reads.get_mut(&read) {
            read.is_bad = true;
        }
    }

    /// Nothing of this write is there.
    pub fn lose(&mut self, write: u64) {
        self.writes.remove(&write);
    }

    /// Some sectors of this write are there, others are not.
    pub fn leave_torn(&mut self, write: u64) {
        let Some(write) = self.writes.remove(&write) else { return };
        let sectors = write.block.len() / SECTOR;
        let (kept, lost) = (self.chance.index(sectors), self.chance.index(sectors));
        let is_kept: Vec<bool> =
            (0..sectors).map(|one| one != lost && (one == kept || self.chance.one_in(2))).collect();
        self.apply(&write, |sector| is_kept[sector]);
    }

    /// A write ends: whole, or, if it fails, in any state.
    pub fn written(&mut self, write: u64) -> Option<(CommitId, Result<(), DiskError>)> {
        let write = self.writes.remove(&write)?;
        match write.fate {
            Ok(()) => self.apply(&write, |_| true),
            Err(_) => self.tear(&write),
        }
        Some((write.commit, write.fate))
    }

    pub fn read(&mut self, read: ReadId, file: FileId, offset: u64, bytes: u32) -> (u64, u64) {
        let offset = usize::try_from(offset).expect("a small file");
        self.next += 1;
        let (file, bytes) = (file.0 as usize, bytes as usize);
        self.reads.insert(self.next, Fetch { read, file, offset, bytes, is_bad: false });
        (self.next, self.chance.between(20 * US, 5 * MS))
    }

    pub fn fetched(
        &mut self,
        read: u64,
        faults: Option<&Faults>,
    ) -> Option<(ReadId, Result<Arc<Block>, DiskError>)> {
        let Fetch { read, file, offset, bytes, is_bad } = self.reads.remove(&read)?;
        if is_bad || faults.is_some_and(|faults| self.chance.permille(faults.read_fails)) {
            return Some((read, Err(DiskError::Failed(EIO))));
        }
        let Some(found) = self.files[file].get(offset..offset + bytes) else {
            return Some((read, Err(DiskError::Failed(0))));
        };
        let mut block = BlockBuilder::with_capacity(bytes);
        block.append(found);
        Some((read, Ok(block.freeze())))
    }

    /// Makes a written-once file, if there is room.
    pub fn make(
        &mut self,
        bytes: u32,
        shard: ShardId,
        now: Wall,
        files_max: Option<usize>,
    ) -> Result<SpareSegment, DiskError> {
        if self.is_full || files_max.is_some_and(|most| self.files.len() >= most) {
            return Err(DiskError::Full);
        }
        let mut file = vec![0; bytes as usize];
        for (offset, page) in new_file_headers(bytes, shard, now) {
            file[offset as usize..][..page.len()].copy_from_slice(page.bytes());
        }
        self.files.push(file);
        let file = FileId(u32::try_from(self.files.len() - 1).expect("few files"));
        Ok(SpareSegment { file, bytes, generation: 1, header_writes: 2 })
    }

    /// The process is gone: what it had issued goes on, or never began.
    pub fn kill(&mut self) {
        self.reads.clear();
        for write in std::mem::take(&mut self.writes).into_values() {
            if write.fate.is_err() {
                self.tear(&write);
            } else if self.chance.one_in(2) {
                self.apply(&write, |_| true);
            }
        }
    }

    /// The power is gone: of what was issued, any sectors are there.
    pub fn cut(&mut self) {
        self.reads.clear();
        for write in std::mem::take(&mut self.writes).into_values() {
            self.tear(&write);
        }
    }

    /// Flips one bit somewhere; where.
    pub fn rot(&mut self) -> Option<(FileId, u64)> {
        if self.files.is_empty() {
            return None;
        }
        let file = self.chance.index(self.files.len());
        // Most of a file is zeros nobody reads: look for something written.
        for _ in 0..64 {
            let at = self.chance.index(self.files[file].len());
            if self.files[file][at] != 0 {
                self.files[file][at] ^= 1 << self.chance.below(8);
                return Some((FileId(u32::try_from(file).expect("few files")), at as u64));
            }
        }
        None
    }

    /// Flips one bit at this place.
    pub fn rot_at(&mut self, file: usize, at: usize, bit: u64) {
        self.files[file][at] ^= 1 << bit;
    }

    #[must_use]
    pub fn writes_in_flight(&self) -> usize {
        self.writes.len()
    }

    fn tear(&mut self, write: &Write) {
        match self.chance.below(4) {
            0 => {}
            1 => self.apply(write, |_| true),
            2 => {
                let end = self.chance.index(write.block.len() / SECTOR + 1);
                self.apply(write, |sector| sector < end);
            }
            _ => {
                let sectors = write.block.len() / SECTOR;
                let kept: Vec<bool> = (0..sectors).map(|_| self.chance.one_in(2)).collect();
                self.apply(write, |sector| kept[sector]);
            }
        }
    }

    fn apply(&mut self, write: &Write, is_kept: impl Fn(usize) -> bool) {
        let file = &mut self.files[write.file];
        for (sector, bytes) in write.block.bytes().chunks(SECTOR).enumerate() {
            if is_kept(sector) {
                file[write.offset + sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}
