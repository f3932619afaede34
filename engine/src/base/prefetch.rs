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
    starts(skew, bytes).for_each(|at| line(first.wrapping_sub(skew).wrapping_add(at)));
}

/// Where each line begins that some of these bytes lie in, counted from the first line's start; the
/// bytes begin so far into it.
#[inline]
fn starts(skew: usize, bytes: usize) -> impl Iterator<Item = usize> {
    let end = if bytes == 0 { 0 } else { skew + bytes };
    (0..end).step_by(LINE_BYTES)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_a_byte_lies_in_is_fetched_once_and_no_other() {
        let lines = |skew, bytes| starts(skew, bytes).collect::<Vec<_>>();
        assert_eq!(lines(5, 0), [0; 0]);
        assert_eq!(lines(0, 1), [0]);
        assert_eq!(lines(63, 1), [0]);
        assert_eq!(lines(63, 2), [0, 64]);
        assert_eq!(lines(0, 64), [0]);
        assert_eq!(lines(1, 64), [0, 64]);
        assert_eq!(lines(8, 3 * 64), [0, 64, 128, 192]);
    }

    #[test]
    fn a_fetch_changes_nothing_wherever_it_goes() {
        let values = [7_u64; 100];
        all(&values);
        start(&values[3], 1_000);
        row(&values);
        row::<u64>(&[]);
        line(std::ptr::null());
        assert_eq!(values, [7; 100]);
    }
}
