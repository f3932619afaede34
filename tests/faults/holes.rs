//! Zeros of a file that lie in an image become holes of that image: to write there again takes
//! room below the file system, which may be gone by then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `_IOWR('f', 11, struct fiemap)`: where the bytes of a file lie.
const FIEMAP: libc::Ioctl = 0xC020_660B;
/// Extents asked for; a segment that was written at one go has a few.
const EXTENTS_MAX: usize = 256;
const PAGE_BYTES: u64 = 4096;

/// `struct fiemap` of linux/fiemap.h, with room behind it.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS_MAX],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// Punches every page of `file` that is all zeros out of `image`, in which its file system lies.
/// Nobody may write there meanwhile. Returns the bytes that became holes.
pub(crate) fn punch_zeros(file: &Path, image: &File) -> io::Result<u64> {
    let mut punched = 0;
    let mut page = vec![0; usize::try_from(PAGE_BYTES).unwrap()];
    for extent in extents(&File::open(file)?)? {
        let end = extent.physical + extent.length;
        for at in (extent.physical..end).step_by(usize::try_from(PAGE_BYTES).unwrap()) {
            image.read_exact_at(&mut page, at)?;
            if page.iter().all(|byte| *byte == 0) {
                punch(image, at)?;
                punched += PAGE_BYTES;
            }
        }
    }
    Ok(punched)
}

fn extents(file: &File) -> io::Result<Vec<Extent>> {
    const NONE: Extent = Extent {
        logical: 0,
        physical: 0,
        length: 0,
        reserved64: [0; 2],
        flags: 0,
        reserved: [0; 3],
    };
    let mut map = Box::new(Map {
        start: 0,
        length: u64::MAX,
        flags: 0,
        mapped_extents: 0,
        extent_count: u32::try_from(EXTENTS_MAX).unwrap(),
        reserved: 0,
        extents: [NONE; EXTENTS_MAX],
    });
    // SAFETY: the descriptor is open, and `map` has room for as many extents as it says.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut *map) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let found = usize::try_from(map.mapped_extents).unwrap();
    Ok(map.extents[..found].to_vec())
}

fn punch(image: &File, at: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (at, length) = (at.cast_signed(), PAGE_BYTES.cast_signed());
    // SAFETY: plain system call on an open descriptor.
    let result = unsafe { libc::fallocate(image.as_raw_fd(), mode, at, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
