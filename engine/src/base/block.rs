//! Memory that is filled by one owner and then only read, by the kernel and by anyone; page-aligned
//! where it goes to a disk.

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
pub struct Block(Memory);

enum Memory {
    /// From a [`BlockBuilder`].
    Pages(Vec<Page>, usize),
    /// A copy for whoever reads it in memory alone.
    Bytes(Box<[u8]>),
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
        let from = self.len;
        self.grow_to(from + bytes.len());
        self.bytes_mut()[from..].copy_from_slice(bytes);
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
        Arc::new(Block(Memory::Pages(self.pages, self.len)))
    }

    /// New pages come zeroed, so bytes between the old and the new length are zero.
    fn grow_to(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE_BYTES);
        if pages > self.pages.len() {
            // Made where it stays: `resize` would make one page and copy it.
            self.pages.resize_with(pages, || Page([0; PAGE_BYTES]));
        }
        self.len = len;
    }
}

impl Block {
    /// A copy that is not aligned: not to be written to a disk.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self(Memory::Bytes(bytes.into())))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Pages(pages, len) => &as_bytes(pages)[..*len],
            Memory::Bytes(bytes) => bytes,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Memory::Pages(_, len) => *len,
            Memory::Bytes(bytes) => bytes.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} bytes)", self.len())
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

    #[test]
    fn any_pieces_and_pads_add_up_to_the_same_bytes() {
        for piece in [1, 63, 4095, 4096, 4097, 9000] {
            let mut builder = BlockBuilder::with_capacity(0);
            let mut expected = Vec::new();
            for round in 1..6u8 {
                builder.append(&vec![round; piece]);
                expected.resize(expected.len() + piece, round);
                builder.pad_to(64);
                expected.resize(expected.len().next_multiple_of(64), 0);
            }
            assert_eq!(builder.freeze().bytes(), expected, "pieces of {piece} bytes");
        }
    }

    #[test]
    fn a_copy_has_the_bytes_and_their_length() {
        let copy = Block::copy_of(b"hello");
        assert_eq!((copy.bytes(), copy.len(), copy.is_empty()), (&b"hello"[..], 5, false));
    }
}
