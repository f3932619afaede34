//! Memory that is looked at soon, fetched into the cache ahead of time. Nothing changes but how long the
//! next look at it takes.

/// What a processor fetches at once.
const LINE_BYTES: usize = 64;
/// Of many things side by side no more is fetched ahead: they would push each other out.
const ROW_BYTES_MAX: usize = 8 * LINE_BYTES;

/// Fetches the first `bytes` of a value, or all of it where it is shorter.
#[inline]
pub fn start<T>(value: &T, bytes: usize) {
    lines(std::ptr::from_ref(value).cast(), bytes.min(size_of::<T>()));
}

/// Fetches a value.
#[inline]
pub fn all<T>(value: &T) {
    start(value, size_of::<T>());
}

/// Fetches what lies side by side.
#[inline]
pub fn row<T>(values: &[T]) {
    lines(values.as_ptr().cast(), size_of_val(values).min(ROW_BYTES_MAX));
}

#[inline]
fn lines(first: *const i8, bytes: usize) {
    let skew = first.addr() % LINE_BYTES;
    for at in (0..bytes + skew).step_by(LINE_BYTES) {
        line(first.wrapping_sub(skew).wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing into the program, and faults nowhere, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const i8) {}
