//! Little-endian numbers at places of bytes that may be anything.

use crate::base::time::Wall;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

pub(super) fn wall_at(bytes: &[u8], at: usize) -> Option<Wall> {
    u64_at(bytes, at).map(Wall)
}

/// Writes `value` over the bytes at `at`; the place must exist.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A length inside a segment, which is shorter than 4 GiB.
pub(super) fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("everything in a segment is shorter than 4 GiB")
}

/// A count that its owner bounds below 65,536.
pub(super) fn len16(len: usize) -> u16 {
    u16::try_from(len).expect("counts of one message fit 16 bits")
}
