//! The clocks: the only place that reads them.

use crate::base::time::{Mono, Now, Wall};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Both clocks, read one after the other.
///
/// `CLOCK_BOOTTIME` rather than `CLOCK_MONOTONIC`: a machine that was suspended has kept its
/// peers waiting too.
#[must_use]
pub(super) fn now() -> Now {
    Now { mono: Mono(read(libc::CLOCK_BOOTTIME)), wall: Wall(read(libc::CLOCK_REALTIME)) }
}

/// Nanoseconds on `clock`; a wall clock set before 1970 reads as 1970.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec of ours for the call, and nothing else is touched.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "every supported kernel has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let mut last = now().mono;
        for _ in 0..1_000 {
            let next = now().mono;
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn the_wall_clock_shows_this_century() {
        let seconds = now().wall.seconds();
        assert!(seconds > 1_700_000_000 && seconds < 4_102_444_800, "{seconds}");
    }
}
