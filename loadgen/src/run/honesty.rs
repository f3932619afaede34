//! Whether a run measured its target or its own generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::manifest::Honesty;
use crate::clock;
use crate::latency::{self, Quantiles};

/// A schedule that slips by more in one of a hundred messages was not kept.
const SLIP_P99_MAX_MS: f64 = 1.0;
/// A thread that is busier has a queue of its own before it.
pub(super) const LOAD_MAX: f64 = 0.8;
/// Seconds in a row above [`LOAD_MAX`] that count: a single one is a start or a burst.
pub(super) const BUSY_SECONDS_MAX: u32 = 3;
/// A machine that stops threads for longer in one of a hundred sleeps measures itself.
const PAUSE_P99_MAX_MS: f64 = 10.0;
/// Often enough to see every pause that is longer, and seldom enough to take nothing from the others.
const SLEEP: Duration = Duration::from_millis(4);

/// A thread that sleeps a little again and again, and records how late it woke up.
pub(super) struct PauseWatch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl PauseWatch {
    pub(super) fn start() -> std::io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let watch = move || {
            let mut late = latency::histogram();
            while !told.load(Relaxed) {
                let before = clock::now_ns();
                std::thread::park_timeout(SLEEP);
                let slept = clock::now_ns().saturating_sub(before);
                // Awake before time is awake for another reason.
                if let Some(late_ns) = slept.checked_sub(clock::nanos(SLEEP)) {
                    late.saturating_record(late_ns);
                }
            }
            late
        };
        let thread = std::thread::Builder::new().name("loadgen-pauses".to_owned()).spawn(watch)?;
        Ok(Self { is_over, thread })
    }

    pub(super) fn stop(self) -> Histogram<u64> {
        self.is_over.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|_| latency::histogram())
    }
}

/// How busy one thread of the generator was.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ThreadLoad {
    /// For people: `source 0`.
    pub(super) name: String,
    /// Processor seconds per second of the run.
    pub(super) mean: f64,
    /// The longest stretch of seconds above [`LOAD_MAX`].
    pub(super) busy_seconds: u32,
}

/// What is stamped on an open loop; a closed one runs as fast as anything lets it.
pub(super) fn judge(
    is_open_loop: bool,
    slip: Option<&Histogram<u64>>,
    pauses: &Histogram<u64>,
    [source, sink]: [&[ThreadLoad]; 2],
) -> Honesty {
    let empty = latency::histogram();
    let slip = Quantiles::of(slip.unwrap_or(&empty));
    let pauses = Quantiles::of(pauses);
    let mut invalid = Vec::new();
    if is_open_loop {
        if slip.p99_ms > SLIP_P99_MAX_MS {
            let seen = slip.p99_ms;
            invalid.push(format!("the source was late by {seen:.3} ms at p99 while it had sessions free (1 ms is allowed)"));
        }
        for load in source.iter().chain(sink).filter(|load| load.is_limit()) {
            let percent = load.mean * 100.0;
            invalid.push(format!("the {} thread was the limit: {percent:.0} % of a core over the run, above 80 % for {} s on end", load.name, load.busy_seconds));
        }
        if pauses.p99_ms > PAUSE_P99_MAX_MS {
            let seen = pauses.p99_ms;
            invalid.push(format!(
                "the machine held threads up by {seen:.3} ms at p99 (10 ms are allowed)"
            ));
        }
    }
    let means = |loads: &[ThreadLoad]| loads.iter().map(|load| load.mean).collect();
    Honesty { slip, pauses, source_load: means(source), sink_load: means(sink), invalid }
}

impl ThreadLoad {
    fn is_limit(&self) -> bool {
        self.mean > LOAD_MAX || self.busy_seconds >= BUSY_SECONDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: &[u64]) -> Histogram<u64> {
        let mut values = latency::histogram();
        ms.iter().for_each(|ms| values.saturating_record(ms * 1_000_000));
        values
    }

    #[test]
    fn each_limit_of_the_generator_is_a_reason_of_its_own() {
        let load =
            |mean, busy_seconds| [ThreadLoad { name: "source 0".into(), mean, busy_seconds }];
        let count = |open, slip: &[u64], pauses: &[u64], loads: &[ThreadLoad]| {
            judge(open, Some(&of(slip)), &of(pauses), [loads, &[]]).invalid.len()
        };
        assert_eq!(count(true, &[0, 0], &[1], &load(0.7, 2)), 0);
        assert_eq!(count(true, &[0, 2], &[1], &load(0.7, 2)), 1);
        assert_eq!(count(true, &[0], &[20], &load(0.7, 0)), 1);
        assert_eq!(count(true, &[0], &[1], &load(0.9, 0)), 1);
        assert_eq!(count(true, &[5], &[20], &load(0.5, 3)), 3);
        assert_eq!(count(false, &[5], &[20], &load(1.0, 9)), 0, "saturation is meant to be busy");
    }

    #[test]
    fn sleeps_are_watched() {
        let watch = PauseWatch::start().unwrap();
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(watch.stop().len() > 2);
    }
}
