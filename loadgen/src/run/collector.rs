//! Adds up what the threads of a run hand over: by second, by step, and over the whole run.

use super::honesty::{LOAD_MAX, ThreadLoad};
use super::recorder::{Inbox, Interval, Side, StepValues};
use crate::clock::{self, SECOND_NS};
use crate::latency::Latencies;

/// How long the end of a second waits for the threads; who is later counts in the next.
const GATHER_NS_MAX: u64 = SECOND_NS / 10;

pub(super) struct Collector {
    inbox: Inbox,
    start_ns: u64,
    /// End of the last second.
    last_ns: u64,
    pub(super) second: Latencies,
    pub(super) total: Latencies,
    pub(super) steps: Vec<StepValues>,
    processors: Vec<Processor>,
}

/// The processor time of one thread.
#[derive(Default)]
struct Processor {
    cpu_ns: u64,
    /// When that was.
    at_ns: u64,
    busy_seconds: u32,
    busy_seconds_max: u32,
}

impl Collector {
    /// Collects from all threads that have a recorder of `inbox`.
    pub(super) fn new(inbox: Inbox, start_ns: u64, steps: usize) -> Self {
        let processor = |_| Processor { at_ns: start_ns, ..Processor::default() };
        Self {
            processors: inbox.sides().iter().map(processor).collect(),
            inbox,
            start_ns,
            last_ns: start_ns,
            second: Latencies::default(),
            total: Latencies::default(),
            steps: (0..steps).map(|_| StepValues::default()).collect(),
        }
    }

    /// Takes what was handed over for the second that ends at `now`; says from when it was.
    pub(super) fn gather(&mut self, now: u64) -> u64 {
        let Self { inbox, second, total, steps, processors, .. } = self;
        second.clear();
        inbox.gather(clock::now_ns() + GATHER_NS_MAX, |interval| {
            second.add(&interval.latencies);
            total.add(&interval.latencies);
            for (sum, values) in steps.iter_mut().zip(&interval.steps) {
                sum.add(values);
            }
            processors[interval.thread].advance(interval, now);
        });
        std::mem::replace(&mut self.last_ns, now)
    }

    /// The loads of the threads of one side.
    pub(super) fn loads(&self, side: Side) -> Vec<ThreadLoad> {
        let sides = self.inbox.sides();
        let of_side = self.processors.iter().zip(&sides).filter(|(_, other)| **other == side);
        let word = match side {
            Side::Source => "source",
            Side::Sink => "sink",
        };
        let load = |(index, (processor, _)): (usize, (&Processor, &Side))| {
            let span_ns = processor.at_ns.saturating_sub(self.start_ns);
            ThreadLoad {
                name: format!("{word} {index}"),
                mean: share(processor.cpu_ns, span_ns),
                busy_seconds: processor.busy_seconds_max,
            }
        };
        of_side.enumerate().map(load).collect()
    }
}

impl Processor {
    fn advance(&mut self, interval: &Interval, now: u64) {
        let used_ns = interval.cpu_ns.saturating_sub(self.cpu_ns);
        let is_busy = share(used_ns, now.saturating_sub(self.at_ns)) > LOAD_MAX;
        self.busy_seconds = if is_busy { self.busy_seconds + 1 } else { 0 };
        self.busy_seconds_max = self.busy_seconds_max.max(self.busy_seconds);
        (self.cpu_ns, self.at_ns) = (interval.cpu_ns, now);
    }
}

fn share(part_ns: u64, whole_ns: u64) -> f64 {
    if whole_ns == 0 { 0.0 } else { clock::seconds(part_ns) / clock::seconds(whole_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_busy_seconds_on_end_are_told_from_three_single_ones() {
        let mut processor = Processor::default();
        let mut cpu_ns = 0;
        for (second, busy) in (1..).zip([9, 1, 9, 9, 1, 9]) {
            cpu_ns += busy * SECOND_NS / 10;
            let interval = Interval { cpu_ns, ..Interval::default() };
            processor.advance(&interval, second * SECOND_NS);
        }
        assert_eq!((processor.busy_seconds, processor.busy_seconds_max), (1, 2));
    }
}
