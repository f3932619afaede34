//! Commits and reads on real files.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::super::FileMode;
use super::world::{Seen, World, pattern, small};
use crate::base::block::{Block, BlockBuilder};
use crate::shard::{CommitId, DiskError, Effect, ReadId};
use crate::spool::files::FileId;

const FILE: FileId = FileId(3);

fn block(byte: u8, pages: usize) -> Arc<Block> {
    let mut builder = BlockBuilder::with_capacity(pages * 4096);
    builder.append(&vec![byte; pages * 4096]);
    builder.freeze()
}

/// A file of a megabyte, opened with `O_DIRECT` where the file system knows it.
fn segment(folder: &Path) -> (File, FileMode) {
    let path = folder.join("segment");
    File::create(&path).unwrap().write_all(&pattern(1 << 20)).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => (file, FileMode::Direct),
        Err(_) => (options.open(&path).unwrap(), FileMode::Buffered),
    }
}

fn world_with(file: File, mode: FileMode) -> World {
    let mut world = World::new(small());
    world.driver.register_file(FILE, file.into(), mode);
    world
}

fn commit(world: &mut World, id: u32, page: u64, block: Arc<Block>) {
    world.perform(Effect::Commit { commit: CommitId(id), file: FILE, offset: page * 4096, block });
}

fn committed(world: &World) -> Vec<(u32, Result<(), DiskError>)> {
    let committed = |seen: &Seen| match seen {
        Seen::Committed(commit, result) => Some((commit.0, *result)),
        _ => None,
    };
    world.core.seen.iter().filter_map(committed).collect()
}

fn fetch(world: &mut World, offset: u64, bytes: u32) -> Result<Vec<u8>, DiskError> {
    let read = ReadId(u32::try_from(world.core.seen.len()).unwrap());
    world.perform(Effect::Fetch { read, file: FILE, offset, bytes });
    world
        .until(|world| matches!(world.core.seen.last(), Some(Seen::Fetched(id, _)) if *id == read));
    match world.core.seen.pop() {
        Some(Seen::Fetched(_, result)) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commits_are_on_disk_and_told_in_order_per_batch() {
    for mode in [None, Some(FileMode::Buffered)] {
        let folder = tempfile::tempdir().unwrap();
        let (file, opened) = segment(folder.path());
        let mut world = world_with(file, mode.unwrap_or(opened));
        for id in 0..32u8 {
            commit(&mut world, id.into(), u64::from(id) * 2, block(id, 1 + usize::from(id % 2)));
        }
        world.until(|world| committed(world).len() == 32);
        assert!(committed(&world).iter().all(|(_, result)| result.is_ok()));
        if mode.is_some() {
            assert!(committed(&world).is_sorted_by_key(|(id, _)| *id), "one at a time is in order");
        }
        let file = File::open(folder.path().join("segment")).unwrap();
        for id in 0..32u8 {
            let mut page = [0; 4096];
            file.read_exact_at(&mut page, u64::from(id) * 8192).unwrap();
            assert_eq!(page, [id; 4096]);
        }
    }
}

#[test]
fn a_read_of_any_alignment_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mode) = segment(folder.path());
    let mut world = world_with(file, mode);
    let content = pattern(1 << 20);
    for (offset, bytes) in
        [(0, 4096), (64, 100), (4095, 2), (8192, 1), (8192 + 64, 200_000), ((1 << 20) - 64, 64)]
    {
        let at = usize::try_from(offset).unwrap();
        let wanted = &content[at..at + bytes as usize];
        assert!(fetch(&mut world, offset, bytes).unwrap() == wanted, "{offset} {bytes}");
    }
}

#[test]
fn a_read_past_the_end_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mode) = segment(folder.path());
    let mut world = world_with(file, mode);
    assert_eq!(fetch(&mut world, (1 << 20) - 64, 65), Err(DiskError::Failed(0)));
    assert_eq!(fetch(&mut world, 1 << 21, 10), Err(DiskError::Failed(0)));
}

#[test]
fn a_write_that_the_kernel_refuses_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mode) = segment(folder.path());
    let file = File::open(folder.path().join("segment")).unwrap();
    let mut world = world_with(file, mode);
    commit(&mut world, 1, 0, block(1, 1));
    world.until(|world| committed(world).len() == 1);
    assert_eq!(committed(&world), [(1, Err(DiskError::Failed(libc::EBADF)))]);
}

#[test]
fn a_full_device_is_full() {
    let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else { return };
    let mut world = world_with(file, FileMode::Buffered);
    commit(&mut world, 5, 0, block(1, 1));
    world.until(|world| committed(world).len() == 1);
    assert_eq!(committed(&world), [(5, Err(DiskError::Full))]);
}

#[test]
fn a_file_that_is_not_known_is_an_error() {
    let mut world = World::new(small());
    commit(&mut world, 9, 0, block(1, 1));
    world.until(|world| committed(world).len() == 1);
    assert_eq!(committed(&world), [(9, Err(DiskError::Failed(libc::EBADF)))]);
    assert_eq!(fetch(&mut world, 0, 1), Err(DiskError::Failed(libc::EBADF)));
}
