//! Whether a site answers more slowly than it can: recent medians against their lowest.
//!
//! The lowest is one of medians, not of single replies: one message that is waved through would
//! make every ordinary reply look slow. One tarpitted message does not move a median either.

use std::time::Duration;

use super::throughput::{Advice, Throughput};
use crate::base::time::Mono;

/// Replies a median is taken of: odd, and few enough to follow a change within a second or two.
const RECENT: usize = 31;
const HELD_MAX: u8 = 31;
/// Fewer replies say nothing.
const RECENT_MIN: u8 = 9;
/// The median moves little with fewer new replies, and a narrow window asks for it each time.
const READ_EVERY: u8 = 8;
/// The lowest median is remembered for one to two of these: longer than a busy hour's half, short
/// enough that a site that moved further away is believed.
const LOWEST_AGE: Duration = Duration::from_secs(15 * 60);
/// A median up to half as much again as the lowest is ordinary.
const TOLERANCE_PERMILLE: u64 = 1500;
const GRADIENT_MIN: u64 = 500;
pub(super) const GRADIENT_NONE: u32 = 1000;

/// What was waited for. Sites delay each for reasons of its own, so they are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) enum Phase {
    /// From the connection to its greeting.
    Greeting,
    /// From the final dot to its reply.
    Dot,
}

/// The estimators of one busy path.
#[derive(Debug, Default)]
pub(super) struct Latency {
    greeting: Estimator,
    dot: Estimator,
    throughput: Throughput,
}

/// A median, and the lowest it was lately; microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) struct Reading {
    pub(in crate::schedule) p50: u32,
    pub(in crate::schedule) min: u32,
}

impl Latency {
    pub(super) fn record(&mut self, phase: Phase, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match phase {
            Phase::Greeting => self.greeting.record(micros),
            Phase::Dot => self.dot.record(micros),
        }
    }

    /// The reply to a message, while all of a window of `width` is in use.
    pub(super) fn record_full(&mut self, took: Duration, width: u32) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.throughput.record(micros, self.dot.median, width);
    }

    /// Whether another width is to be tried or kept.
    pub(super) fn poll_advice(&mut self, floor: u32, grain: Duration) -> Option<Advice> {
        let dot = self.dot.reading();
        let is_slow = |p50| {
            dot.is_some_and(|Reading { min, .. }| {
                Reading { p50, min }.gradient(grain) < GRADIENT_NONE
            })
        };
        self.throughput.poll(floor, is_slow)
    }

    pub(super) fn is_measuring(&self) -> bool {
        self.throughput.is_measuring()
    }

    /// One connection more than ever is tried, `width` now.
    pub(super) fn handle_probe(&mut self, width: u32) {
        self.throughput.handle_probe(width);
    }

    /// The phase that is slowed down most, as seen now.
    pub(super) fn take_reading(&mut self, now: Mono) -> Option<Reading> {
        let readings = [self.dot.take_reading(now), self.greeting.take_reading(now)];
        readings.into_iter().flatten().min_by_key(|reading| reading.gradient(Duration::ZERO))
    }

    /// The same without moving anything.
    pub(super) fn last_reading(&self) -> Option<Reading> {
        let readings = [self.dot.reading(), self.greeting.reading()];
        readings.into_iter().flatten().min_by_key(|reading| reading.gradient(Duration::ZERO))
    }
}

impl Reading {
    /// What is left of the window, per mille: 1000 as long as replies take no longer than half as
    /// much again as they must, or less than `grain`.
    pub(super) fn gradient(self, grain: Duration) -> u32 {
        if u128::from(self.p50) <= grain.as_micros() {
            return GRADIENT_NONE;
        }
        let gradient = TOLERANCE_PERMILLE * u64::from(self.min) / u64::from(self.p50.max(1));
        let gradient = gradient.clamp(GRADIENT_MIN, u64::from(GRADIENT_NONE));
        u32::try_from(gradient).unwrap_or(GRADIENT_NONE)
    }
}

#[derive(Debug)]
struct Estimator {
    /// The last replies, in a ring.
    recent: [u32; RECENT],
    next: u8,
    held: u8,
    /// Of them, not in `median` yet.
    unread: u8,
    median: u32,
    /// Lowest median of this age and of the one before.
    lowest: [u32; 2],
    age_began: Mono,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            recent: [0; RECENT],
            next: 0,
            held: 0,
            unread: 0,
            median: 0,
            lowest: [u32::MAX; 2],
            age_began: Mono(0),
        }
    }
}

impl Estimator {
    fn record(&mut self, micros: u32) {
        let at = usize::from(self.next);
        self.recent[at] = micros;
        self.next = if at + 1 == RECENT { 0 } else { self.next + 1 };
        self.held = (self.held + 1).min(HELD_MAX);
        self.unread = (self.unread + 1).min(HELD_MAX);
    }

    fn take_reading(&mut self, now: Mono) -> Option<Reading> {
        if self.unread >= READ_EVERY && self.held >= RECENT_MIN {
            self.read(now);
        }
        self.reading()
    }

    fn reading(&self) -> Option<Reading> {
        let min = self.lowest[0].min(self.lowest[1]);
        (self.median > 0).then_some(Reading { p50: self.median, min })
    }

    fn read(&mut self, now: Mono) {
        let mut recent = self.recent;
        let recent = &mut recent[..usize::from(self.held)];
        let middle = recent.len() / 2;
        self.median = (*recent.select_nth_unstable(middle).1).max(1);
        self.unread = 0;
        if now.since(self.age_began) >= LOWEST_AGE {
            self.lowest = [u32::MAX, self.lowest[0]];
            self.age_began = now;
        }
        self.lowest[0] = self.lowest[0].min(self.median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAIN: Duration = Duration::from_millis(10);

    fn feed(latency: &mut Latency, millis: &[u64]) {
        for took in millis {
            latency.record(Phase::Dot, Duration::from_millis(*took));
        }
    }

    #[test]
    fn one_tarpitted_message_changes_nothing() {
        let mut latency = Latency::default();
        feed(&mut latency, &[100; 20]);
        latency.take_reading(Mono(1)).unwrap();
        feed(&mut latency, &[90_000, 100, 100]);
        let reading = latency.take_reading(Mono(2)).unwrap();
        assert_eq!(reading.gradient(GRAIN), GRADIENT_NONE);
    }

    #[test]
    fn a_site_that_slows_down_gets_less() {
        let mut latency = Latency::default();
        feed(&mut latency, &[100; 31]);
        latency.take_reading(Mono(1)).unwrap();
        for (millis, gradient) in [(150, 1000), (200, 750), (300, 500), (5_000, 500)] {
            feed(&mut latency, &[millis; 31]);
            assert_eq!(latency.take_reading(Mono(2)).unwrap().gradient(GRAIN), gradient);
        }
    }

    #[test]
    fn a_site_that_stays_slow_is_believed_after_half_an_hour() {
        let mut latency = Latency::default();
        let minute = 60_000_000_000;
        feed(&mut latency, &[100; 31]);
        latency.take_reading(Mono(20 * minute)).unwrap();
        feed(&mut latency, &[400; 31]);
        assert_eq!(latency.take_reading(Mono(21 * minute)).unwrap().gradient(GRAIN), 500);
        feed(&mut latency, &[400; 31]);
        latency.take_reading(Mono(36 * minute)).unwrap();
        feed(&mut latency, &[400; 31]);
        let reading = latency.take_reading(Mono(52 * minute)).unwrap();
        assert_eq!(reading, Reading { p50: 400_000, min: 400_000 });
    }

    #[test]
    fn few_and_quick_replies_say_nothing() {
        let mut latency = Latency::default();
        feed(&mut latency, &[1; 8]);
        assert_eq!(latency.take_reading(Mono(1)), None);
        feed(&mut latency, &[1; 31]);
        latency.take_reading(Mono(1)).unwrap();
        feed(&mut latency, &[9; 31]);
        assert_eq!(latency.take_reading(Mono(2)).unwrap().gradient(GRAIN), GRADIENT_NONE);
    }

    #[test]
    fn phases_are_never_mixed() {
        let mut latency = Latency::default();
        feed(&mut latency, &[100; 31]);
        for _ in 0..31 {
            latency.record(Phase::Greeting, Duration::from_secs(5));
        }
        assert_eq!(latency.take_reading(Mono(1)).unwrap().gradient(GRAIN), GRADIENT_NONE);
    }
}
