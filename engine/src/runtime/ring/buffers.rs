//! The provided buffer ring: memory the kernel fills with received bytes, one buffer at a time.
//!
//! ```text
//! free in the ring --kernel fills--> Filled --give_back--> free in the ring
//! ```

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

use crate::base::block::PAGE_BYTES;

/// The only buffer group of a shard's ring.
pub(super) const GROUP: u16 = 0;

/// The kernel's own bound on entries of one buffer ring.
const BUFFERS_MAX: u16 = 1 << 15;

pub(super) struct Buffers {
    entries: Pages,
    memory: Pages,
    count: u16,
    bytes_each: u32,
    /// Entries ever offered, modulo 2^16; the kernel reads it from the ring.
    tail: u16,
    /// Buffers not in our hands.
    offered: u16,
}

/// One buffer the kernel filled and gave to us. Must come back through [`Buffers::give_back`].
#[derive(Debug)]
pub(super) struct Filled {
    id: u16,
    len: usize,
}

impl Buffers {
    /// Makes `count` buffers (a power of two) and offers all of them to the kernel.
    pub(super) fn new(submitter: &Submitter<'_>, count: u16, bytes_each: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || count > BUFFERS_MAX || bytes_each == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "receive buffers: a power of two up to 32768",
            ));
        }
        let entries = Pages::zeroed(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Pages::zeroed(usize::from(count) * bytes_each as usize);
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the entries are `count` zeroed, page-aligned ring entries. They outlive the ring:
        // both belong to `Ring`, which drops its io_uring first and only once nothing is in flight.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0)? };
        let mut buffers = Self { entries, memory, count, bytes_each, tail: 0, offered: 0 };
        for id in 0..count {
            buffers.offer(id);
        }
        Ok(buffers)
    }

    /// The buffer a completion carries, if it carries one; it is ours until given back.
    pub(super) fn take(&mut self, flags: u32, result: i32) -> Option<Filled> {
        let id = cqueue::buffer_select(flags)?;
        assert!(id < self.count && self.offered > 0, "the kernel gives only what it was offered");
        self.offered -= 1;
        let len = usize::try_from(result).unwrap_or(0);
        Some(Filled { id, len: len.min(self.bytes_each as usize) })
    }

    pub(super) fn bytes(&self, filled: &Filled) -> &[u8] {
        let at = usize::from(filled.id) * self.bytes_each as usize;
        // SAFETY: id < count and len <= bytes_each, so the range lies in `memory`, which was zeroed
        // at birth; a `Filled` exists only between the completion and `give_back`, when the kernel
        // does not touch the buffer, and giving back needs it by value, after this borrow.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(at), filled.len) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a buffer given back can be read no more")]
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.offer(filled.id);
    }

    /// Buffers that the kernel may fill, or has filled without our having seen it yet.
    #[cfg(test)]
    pub(super) fn offered(&self) -> u16 {
        self.offered
    }

    /// Never frees the memory: the kernel would not let go of it.
    pub(super) fn leak(&mut self) {
        self.entries.layout = NOTHING;
        self.memory.layout = NOTHING;
    }

    fn offer(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let memory =
            self.memory.start.as_ptr().wrapping_add(usize::from(id) * self.bytes_each as usize);
        let first = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: place < count, so the entry lies in `entries`; beyond the published tail the
        // kernel does not read it. Fields are written one by one: the tail shares the first entry.
        unsafe {
            let entry = &mut *first.add(place);
            entry.set_addr(memory as u64);
            entry.set_len(self.bytes_each);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
        // SAFETY: `first` is the base of the registered ring, aligned and alive; the tail is a
        // 2-aligned u16 that the kernel only reads, and release order shows it the entry first.
        unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(first).cast_mut())
                .store(self.tail, Ordering::Release)
        };
    }
}

/// Marks memory that is never freed.
const NOTHING: Layout = Layout::new::<()>();

/// Zeroed, page-aligned memory.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn zeroed(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES)
            .expect("receive memory fits the address space");
        assert!(bytes > 0, "receive memory is never empty");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.layout != NOTHING {
            // SAFETY: allocated in `zeroed` with this layout, freed once.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::IoUring;

    #[test]
    fn all_buffers_are_offered_and_odd_counts_refused() {
        let ring = IoUring::new(4).unwrap();
        assert_eq!(Buffers::new(&ring.submitter(), 8, 64).unwrap().offered(), 8);
        let ring = IoUring::new(4).unwrap();
        assert!(Buffers::new(&ring.submitter(), 6, 64).is_err());
    }
}
