//! The clocks: time since boot for latencies, time on the processor for costs.

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC in nanoseconds: one origin for every process of the machine.
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Processor time of the calling thread, user and system, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// A span of nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a report needs seven digits, not nineteen")]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A duration as nanoseconds; what does not fit in 64 bits is "for ever".
pub fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the whole call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "these clocks exist on every Linux");
    time.tv_sec.cast_unsigned() * SECOND_NS + time.tv_nsec.cast_unsigned()
}
