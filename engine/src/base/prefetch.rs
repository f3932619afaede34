//! Memory that is looked at soon, fetched into the cache ahead of time. Nothing changes but how long the
//! next look at it takes.

/// What a processor fetches at once.
const LINE_BYTES: usize = 64;

/// Fetches the first `bytes` of a value, or all of it where it is shorter.
#[inline]
pub fn start<T>(value: &T, bytes: usize) {
    let first = std::ptr::from_ref(value).cast::<i8>();
    for at in (0..bytes.min(size_of::<T>())).step_by(LINE_BYTES) {
        line(first.wrapping_add(at));
    }
}

/// Fetches a value.
#[inline]
pub fn all<T>(value: &T) {
    start(value, size_of::<T>());
}

#[cfg(target_arch = "x86_64")]
fn line(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing into the program, and faults nowhere, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

#[cfg(not(target_arch = "x86_64"))]
fn line(_: *const i8) {}
