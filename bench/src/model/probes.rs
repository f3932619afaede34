//! What the disk, the ring and memory cost on this machine: processor time of one thing each.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, bail};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use postrider_engine::base::checksum::crc32c;
use postrider_loadgen::clock;
use tempfile::TempDir;

use crate::run::number;

const PAGE: usize = 4096;
/// Messages that share a commit in the model.
pub(super) const GROUP: u64 = 64;
/// Commits of a probe, each behind the other as in a segment.
const COMMITS: u64 = 200;
const NO_OPS: u64 = 200_000;
const COPIES: u64 = 50_000;

/// Page-aligned memory, as `O_DIRECT` asks.
struct Aligned {
    at: *mut u8,
    layout: Layout,
}

impl Aligned {
    fn new(bytes: usize) -> Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE)?;
        // SAFETY: the layout has a size above zero.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() { bail!("no memory for a block") } else { Ok(Self { at, layout }) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nothing borrows from it.
        unsafe { dealloc(self.at, self.layout) };
    }
}

/// Microseconds of one write of a group of messages, `O_DIRECT` with `RWF_DSYNC` into a file that was
/// written before, as the engine does: of all threads, for the ring may use its own.
pub(super) fn commit(message_bytes: usize) -> Result<f64> {
    let folder = TempDir::with_prefix("postrider-model-")?;
    let path = folder.path().join("segment");
    let record = message_bytes.next_multiple_of(64) + 512;
    let bytes = (record * usize::try_from(GROUP)?).next_multiple_of(PAGE);
    let mut file = std::fs::File::create(&path)?;
    let zeros = vec![0; bytes];
    for _ in 0..COMMITS {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path)?;
    let block = Aligned::new(bytes)?;
    let mut ring = IoUring::new(8)?;
    let before = process_cpu_ns();
    for number in 0..COMMITS {
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), block.at, u32::try_from(bytes)?)
            .offset(number * u64::try_from(bytes)?)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: file and block live until the completion, which is awaited here.
        unsafe { ring.submission().push(&entry) }.context("a full queue")?;
        ring.submit_and_wait(1)?;
        let result = ring.completion().next().context("no completion")?.result();
        if usize::try_from(result).ok() != Some(bytes) {
            bail!("a write of {bytes} bytes gave {result}");
        }
    }
    Ok(number(process_cpu_ns() - before) / 1000.0 / number(COMMITS))
}

/// Microseconds of an entry on the ring that does nothing, 32 to a system call.
pub(super) fn no_op() -> Result<f64> {
    let mut ring = IoUring::new(32)?;
    let entries: Vec<_> = (0..32).map(|_| opcode::Nop::new().build()).collect();
    let before = clock::thread_cpu_ns();
    for _ in 0..NO_OPS / 32 {
        // SAFETY: a no-op refers to no memory.
        unsafe { ring.submission().push_multiple(&entries) }.context("a full queue")?;
        ring.submit_and_wait(32)?;
        ring.completion().for_each(drop);
    }
    Ok(number(clock::thread_cpu_ns() - before) / 1000.0 / number(NO_OPS))
}

/// Microseconds of one copy of a message, and its CRC.
pub(super) fn copy_and_crc(message_bytes: usize) -> f64 {
    let text = vec![b'x'; message_bytes];
    let mut block = vec![0; message_bytes];
    let before = clock::thread_cpu_ns();
    for _ in 0..COPIES {
        block.copy_from_slice(black_box(&text));
        black_box(crc32c(black_box(&block)));
    }
    number(clock::thread_cpu_ns() - before) / 1000.0 / number(COPIES)
}

fn process_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the whole call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "this clock exists on every Linux");
    time.tv_sec.cast_unsigned() * clock::SECOND_NS + time.tv_nsec.cast_unsigned()
}
