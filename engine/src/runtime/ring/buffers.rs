//! The provided buffer ring: memory the kernel fills with received bytes, one buffer at a time.
//!
//! ```text
//! free in the ring --kernel fills--> Filled --give_back--> free in the ring
//!                <------- kept aside <----------'
//! ```
//! The kernel goes round all that lies in the ring, so no more lies there than it needs: those stay in the
//! caches of the core, and what was never needed is no memory.

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

/// Buffers in the ring at first, and the fewest.
const WANTED_MIN: u16 = 64;
/// After so many turns of which none needed a quarter of what lies in the ring, half as many lie there.
const NARROW_AFTER_TURNS: u16 = 4096;

pub(super) struct Buffers {
    entries: Pages,
    memory: Pages,
    count: u16,
    bytes_each: u32,
    /// Entries ever offered, modulo 2^16; the kernel reads it from the ring.
    tail: u16,
    /// Buffers not in our hands.
    offered: u16,
    /// Buffers that are to be in the ring.
    wanted: u16,
    /// Free buffers that are not in the ring.
    aside: Vec<u16>,
    needed: Needed,
}

/// What the turns needed since it was looked at last.
#[derive(Clone, Copy, Debug, Default)]
struct Needed {
    turns: u16,
    in_this_turn: u16,
    at_most: u16,
}

/// One buffer the kernel filled and gave to us. Must come back through [`Buffers::give_back`].
#[derive(Debug)]
pub(super) struct Filled {
    id: u16,
    len: usize,
}

impl Buffers {
    /// Makes `count` buffers (a power of two), and offers as many as are wanted at first.
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
        let mut buffers = Self {
            entries,
            memory,
            count,
            bytes_each,
            tail: 0,
            offered: 0,
            wanted: WANTED_MIN.min(count),
            aside: (0..count).rev().collect(),
            needed: Needed::default(),
        };
        buffers.offer_wanted();
        Ok(buffers)
    }

    /// After each turn; `starved`: the kernel found no buffer in it.
    pub(super) fn end_turn(&mut self, starved: bool) {
        let Needed { turns, in_this_turn, at_most } = self.needed;
        let at_most = at_most.max(in_this_turn);
        self.needed = Needed { turns: turns + 1, in_this_turn: 0, at_most };
        if starved {
            self.wanted = self.wanted.saturating_mul(2).min(self.count);
            self.offer_wanted();
        } else if self.needed.turns < NARROW_AFTER_TURNS {
            return;
        } else if at_most <= self.wanted / 4 {
            self.wanted = (self.wanted / 2).max(WANTED_MIN.min(self.count));
        }
        self.needed = Needed::default();
    }

    /// The buffer a completion carries, if it carries one; it is ours until given back.
    pub(super) fn take(&mut self, flags: u32, result: i32) -> Option<Filled> {
        let id = cqueue::buffer_select(flags)?;
        assert!(id < self.count && self.offered > 0, "the kernel gives only what it was offered");
        self.offered -= 1;
        self.needed.in_this_turn = self.needed.in_this_turn.saturating_add(1);
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
        if self.offered < self.wanted {
            self.offer(filled.id);
        } else {
            self.aside.push(filled.id);
        }
    }

    /// Buffers that nobody holds: the kernel may fill them, or has without our having seen it yet, or they
    /// lie aside.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        usize::from(self.offered) + self.aside.len()
    }

    /// Those used last come first.
    fn offer_wanted(&mut self) {
        while self.offered < self.wanted
            && let Some(id) = self.aside.pop()
        {
            self.offer(id);
        }
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

    fn buffers(ring: &IoUring, count: u16) -> Buffers {
        Buffers::new(&ring.submitter(), count, 64).unwrap()
    }

    #[test]
    fn no_more_buffers_are_offered_than_there_are_and_odd_counts_refused() {
        let ring = IoUring::new(4).unwrap();
        assert_eq!(buffers(&ring, 8).offered, 8);
        let ring = IoUring::new(4).unwrap();
        assert!(Buffers::new(&ring.submitter(), 6, 64).is_err());
    }

    /// A turn in which the kernel fills `count` buffers, if it finds as many.
    fn turn(buffers: &mut Buffers, count: u16) {
        let found = count.min(buffers.offered);
        let filled: Vec<Filled> =
            (0..found).map(|id| buffers.take(buffer_flags(id), 1).unwrap()).collect();
        filled.into_iter().for_each(|filled| buffers.give_back(filled));
        buffers.end_turn(found < count);
    }

    /// As the kernel names a buffer in a completion.
    fn buffer_flags(id: u16) -> u32 {
        u32::from(id) << 16 | 1
    }

    #[test]
    fn as_many_buffers_lie_in_the_ring_as_turns_need() {
        let ring = IoUring::new(4).unwrap();
        let mut buffers = buffers(&ring, 1024);
        assert_eq!((buffers.offered, buffers.free()), (64, 1024));
        turn(&mut buffers, 64);
        assert_eq!(buffers.offered, 64);
        turn(&mut buffers, 65);
        assert_eq!((buffers.offered, buffers.free()), (128, 1024));
        (0..9).for_each(|_| turn(&mut buffers, 1100));
        assert_eq!((buffers.offered, buffers.free()), (1024, 1024), "there are no more");
        for _ in 0..100_000 {
            turn(&mut buffers, 33);
        }
        assert_eq!(
            (buffers.offered, buffers.free()),
            (128, 1024),
            "64 would be twice 33 only just"
        );
        for _ in 0..10_000 {
            turn(&mut buffers, 1);
        }
        assert_eq!((buffers.offered, buffers.free()), (64, 1024));
    }
}
