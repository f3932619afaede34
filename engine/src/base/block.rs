//! Page-aligned memory that is filled by one owner and then only read, by the kernel and by anyone.

use std::sync::Arc;

/// What `O_DIRECT` asks of addresses, offsets and lengths on every file system we support.
pub const PAGE_BYTES: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A block while it is being filled: one owner, no reader.
pub struct BlockBuilder {
    pages: Vec<Page>,
    len: usize,
}

/// A frozen block: nobody can write it any more.
pub struct Block {
    pages: Vec<Page>,
    len: usize,
}

impl BlockBuilder {
    /// An empty block that takes `capacity` bytes, rounded up to pages, without growing.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { pages: Vec::with_capacity(capacity.div_ceil(PAGE_BYTES)), len: 0 }
    }

    /// A block of `len` zero bytes, to be read into.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { pages: vec![Page([0; PAGE_BYTES]); len.div_ceil(PAGE_BYTES)], len }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes set aside so far; filling beyond makes the block grow.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages.capacity() * PAGE_BYTES
    }

    pub fn append(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.grow_to(start + bytes.len());
        as_bytes_mut(&mut self.pages)[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Pads with zeros until the length is a multiple of `unit`.
    pub fn pad_to(&mut self, unit: usize) {
        self.grow_to(self.len.next_multiple_of(unit));
    }

    /// The bytes so far, to be patched in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut as_bytes_mut(&mut self.pages)[..len]
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &as_bytes(&self.pages)[..self.len]
    }

    /// Ends the filling.
    #[must_use]
    pub fn freeze(self) -> Arc<Block> {
        Arc::new(Block { pages: self.pages, len: self.len })
    }

    /// New pages come zeroed, so bytes between the old and the new length are zero.
    fn grow_to(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            self.pages.resize(pages, Page([0; PAGE_BYTES]));
        }
        self.len = len;
    }
}

impl Block {
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &as_bytes(&self.pages)[..self.len]
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} bytes)", self.len)
    }
}

impl std::fmt::Debug for BlockBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockBuilder({} bytes)", self.len)
    }
}

fn as_bytes(pages: &[Page]) -> &[u8] {
    // SAFETY: `Page` is `repr(C)` around `[u8; PAGE_BYTES]` and its size equals its alignment, so
    // the slice is `pages.len() * PAGE_BYTES` initialised bytes without padding.
    unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), pages.len() * PAGE_BYTES) }
}

fn as_bytes_mut(pages: &mut [Page]) -> &mut [u8] {
    // SAFETY: as in `as_bytes`; the borrow is unique, and every byte pattern is a valid `Page`.
    unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), pages.len() * PAGE_BYTES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_and_padded_with_zeros() {
        let mut builder = BlockBuilder::with_capacity(10);
        builder.append(b"hello");
        builder.pad_to(64);
        builder.append(b"world");
        let block = builder.freeze();
        assert_eq!(block.bytes().as_ptr() as usize % PAGE_BYTES, 0);
        assert_eq!(&block.bytes()[..5], b"hello");
        assert!(block.bytes()[5..64].iter().all(|byte| *byte == 0));
        assert_eq!(&block.bytes()[64..], b"world");
    }

    #[test]
    fn growing_keeps_what_was_there() {
        let mut builder = BlockBuilder::with_capacity(0);
        for round in 0..3u8 {
            builder.append(&[round; 3000]);
        }
        assert_eq!(builder.bytes()[2999], 0);
        assert_eq!(builder.bytes()[3000], 1);
        assert_eq!(builder.bytes()[8999], 2);
    }
}
