//! When each message is meant to start: a function of the seed and its number, alike in all threads.

use std::fmt;
use std::time::Duration;

use crate::clock::{self, SECOND_NS};
use crate::quantity;
use crate::seed::{mix, unit};

/// Levels of a sweep: more would make the last steps differ by less than a run can tell.
pub const LEVELS_MAX: u32 = 100;
/// A ramp is reported in so many slices.
const RAMP_SLICES: u32 = 10;

/// An open loop: how many messages by when, and how they are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    pub spacing: Spacing,
}

/// The intended rate over time, in messages per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Constant {
        rate: f64,
    },
    /// So many at once, again and again.
    Burst {
        messages: f64,
        every: Duration,
    },
    /// From one rate to another in a straight line; a longer run stays at the last.
    Ramp {
        from: f64,
        to: f64,
        over: Duration,
    },
    /// Levels at even distances, each for a step; ends after the last.
    Sweep {
        from: f64,
        to: f64,
        levels: u32,
        step: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    Even,
    /// Exponential gaps: arrivals that know nothing of each other.
    Poisson,
}

/// The stretches of a run that are reported for themselves, all of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub width_ns: u64,
    pub count: usize,
}

impl Schedule {
    pub fn constant(rate: f64) -> Self {
        Self { shape: Shape::Constant { rate }, spacing: Spacing::Even }
    }

    /// Says what is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        let positive = |rate: f64| rate.is_finite() && rate > 0.0;
        let wrong = match self.shape {
            Shape::Constant { rate } if !positive(rate) => "a rate is a number above zero",
            Shape::Burst { .. } if self.spacing == Spacing::Poisson => {
                "a burst comes at once: it has no Poisson spacing"
            }
            Shape::Burst { messages, every } if !positive(messages) || every.is_zero() => {
                "a burst needs messages, and time between the bursts"
            }
            Shape::Ramp { from, to, over }
                if !from.is_finite() || from < 0.0 || !positive(to) || over.is_zero() =>
            {
                "a ramp goes from a rate to one above zero, in some time"
            }
            Shape::Sweep { from, to, levels, step }
                if !positive(from)
                    || !positive(to)
                    || levels == 0
                    || levels > LEVELS_MAX
                    || step.is_zero() =>
            {
                "a sweep needs rates above zero, 1 to 100 levels, and time for each"
            }
            _ => return Ok(()),
        };
        Err(wrong.to_owned())
    }

    /// Says whether it goes through levels, and so may end at the knee.
    pub fn is_sweep(&self) -> bool {
        matches!(self.shape, Shape::Sweep { .. })
    }

    /// How long it lasts by itself.
    pub fn span(&self) -> Option<Duration> {
        match self.shape {
            Shape::Constant { .. } | Shape::Burst { .. } => None,
            Shape::Ramp { over, .. } => Some(over),
            Shape::Sweep { levels, step, .. } => Some(step.saturating_mul(levels)),
        }
    }

    pub fn steps(&self) -> Steps {
        match self.shape {
            Shape::Constant { .. } | Shape::Burst { .. } => Steps::ONE,
            Shape::Ramp { over, .. } => Steps {
                width_ns: clock::nanos(over / RAMP_SLICES).max(1),
                count: RAMP_SLICES as usize,
            },
            Shape::Sweep { levels, step, .. } => {
                Steps { width_ns: clock::nanos(step).max(1), count: levels as usize }
            }
        }
    }

    /// The intended rate at an instant after the start.
    pub fn rate_at(&self, seconds: f64) -> f64 {
        match self.shape {
            Shape::Constant { rate } => rate,
            Shape::Burst { messages, every } => messages / every.as_secs_f64(),
            Shape::Ramp { from, to, over } => {
                from + (to - from) * (seconds / over.as_secs_f64()).clamp(0.0, 1.0)
            }
            Shape::Sweep { from, to, levels, step } => {
                let ended = (seconds / step.as_secs_f64()).floor().max(0.0);
                level_rate(from, to, levels, ended.min(f64::from(levels - 1)))
            }
        }
    }
}

impl Steps {
    pub const ONE: Self = Self { width_ns: u64::MAX, count: 1 };

    /// The step that an instant after the start falls in.
    pub fn at(&self, offset_ns: u64) -> usize {
        usize::try_from(offset_ns / self.width_ns).map_or(self.count - 1, |n| n.min(self.count - 1))
    }
}

/// Reads a schedule from its start; each thread walks its own.
pub(super) struct Timetable {
    schedule: Schedule,
    seed: u64,
    /// Poisson: gaps added so far, and their sum in mean gaps.
    passed: u64,
    sum: f64,
}

impl Timetable {
    pub(super) fn new(schedule: Schedule, seed: u64) -> Self {
        Self { schedule, seed: mix(seed ^ 0x7363_6865_6475_6c65), passed: 0, sum: 0.0 }
    }

    /// Nanoseconds from the start to the intended start of message `index`, or `None` behind the
    /// end of the schedule. Calls must not go back.
    #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^53 messages")]
    pub(super) fn offset_ns(&mut self, index: u64) -> Option<u64> {
        let place = match self.schedule.spacing {
            Spacing::Even => index as f64,
            Spacing::Poisson => self.walk_to(index),
        };
        self.schedule.shape.seconds_at(place).map(nanoseconds)
    }

    /// The sum is added in the same order everywhere, so that all threads see the same bits.
    fn walk_to(&mut self, index: u64) -> f64 {
        while self.passed <= index {
            self.sum -= unit(mix(self.seed ^ mix(self.passed))).ln();
            self.passed += 1;
        }
        self.sum
    }
}

impl Shape {
    /// When the `place`-th message is due, by the integral of the rate.
    fn seconds_at(&self, place: f64) -> Option<f64> {
        match *self {
            Self::Constant { rate } => Some(place / rate),
            Self::Burst { messages, every } => {
                Some((place / messages).floor() * every.as_secs_f64())
            }
            Self::Ramp { from, to, over } => {
                Some(ramp_seconds(place, from, to, over.as_secs_f64()))
            }
            Self::Sweep { from, to, levels, step } => {
                sweep_seconds(place, from, to, levels, step.as_secs_f64())
            }
        }
    }
}

fn ramp_seconds(place: f64, from: f64, to: f64, over: f64) -> f64 {
    let whole = (from + to) / 2.0 * over;
    if place >= whole {
        return over + (place - whole) / to;
    }
    // The root of `from t + (to - from) t² / (2 over) = place` that keeps its digits.
    let root = (from * from + 2.0 * (to - from) / over * place).max(0.0).sqrt();
    if place > 0.0 { 2.0 * place / (from + root) } else { 0.0 }
}

fn sweep_seconds(place: f64, from: f64, to: f64, levels: u32, step: f64) -> Option<f64> {
    let mut left = place;
    for level in 0..levels {
        let rate = level_rate(from, to, levels, f64::from(level));
        if left < rate * step {
            return Some(f64::from(level) * step + left / rate);
        }
        left -= rate * step;
    }
    None
}

fn level_rate(from: f64, to: f64, levels: u32, level: f64) -> f64 {
    if levels < 2 { from } else { from + (to - from) * level / f64::from(levels - 1) }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a schedule of months keeps its nanoseconds in a double, and the cast saturates"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = quantity::write_span;
        match self.shape {
            Shape::Constant { rate } => write!(f, "{} {rate}/s", self.spacing.word()),
            Shape::Burst { messages, every } => write!(f, "burst {messages} every {}", span(every)),
            Shape::Ramp { from, to, over } => {
                write!(f, "{} ramp {from}..{to}/s over {}", self.spacing.word(), span(over))
            }
            Shape::Sweep { from, to, levels, step } => {
                write!(f, "{} sweep {from}..{to}/s x{levels}, ", self.spacing.word())?;
                write!(f, "{} each", span(step))
            }
        }
    }
}

impl Spacing {
    fn word(self) -> &'static str {
        match self {
            Self::Even => "constant",
            Self::Poisson => "poisson",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn offsets(shape: Shape, spacing: Spacing, seed: u64, count: u64) -> Vec<Option<u64>> {
        let mut table = Timetable::new(Schedule { shape, spacing }, seed);
        (0..count).map(|index| table.offset_ns(index)).collect()
    }

    #[test]
    fn every_thread_sees_the_same_instants_whichever_messages_it_takes() {
        let shapes = [
            Shape::Constant { rate: 777.0 },
            Shape::Ramp { from: 0.0, to: 900.0, over: SECOND },
            Shape::Sweep { from: 100.0, to: 900.0, levels: 5, step: SECOND },
        ];
        for shape in shapes {
            for spacing in [Spacing::Even, Spacing::Poisson] {
                let all = offsets(shape, spacing, 7, 3000);
                assert!(
                    all.is_sorted_by(|a, b| a.is_some() >= b.is_some() && (b.is_none() || a <= b))
                );
                let mut third = Timetable::new(Schedule { shape, spacing }, 7);
                for (index, expected) in (0..).zip(&all).step_by(3) {
                    assert_eq!(third.offset_ns(index), *expected, "{shape:?}");
                }
            }
            assert_ne!(
                offsets(shape, Spacing::Poisson, 7, 9),
                offsets(shape, Spacing::Poisson, 8, 9)
            );
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_chance() {
        let all = offsets(Shape::Constant { rate: 1000.0 }, Spacing::Poisson, 3, 100_001);
        let gaps: Vec<f64> =
            all.windows(2).map(|pair| (pair[1].unwrap() - pair[0].unwrap()) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 1e5).sqrt();
        assert!((0.98..1.02).contains(&mean), "{mean}");
        assert!((0.97..1.03).contains(&spread), "{spread}");
    }

    #[test]
    fn each_second_gets_what_its_rate_says() {
        let count = |shape, from: u64, to: u64| {
            let inside = |at: &&Option<u64>| {
                at.is_some_and(|at| (from * SECOND_NS..to * SECOND_NS).contains(&at))
            };
            offsets(shape, Spacing::Even, 1, 20_000).iter().filter(inside).count()
        };
        let ramp = Shape::Ramp { from: 100.0, to: 300.0, over: SECOND * 2 };
        assert_eq!((count(ramp, 0, 1), count(ramp, 1, 2), count(ramp, 2, 3)), (150, 250, 300));
        let down = Shape::Ramp { from: 300.0, to: 100.0, over: SECOND * 2 };
        assert_eq!((count(down, 0, 1), count(down, 1, 2), count(down, 2, 3)), (250, 150, 100));
        let sweep = Shape::Sweep { from: 100.0, to: 300.0, levels: 3, step: SECOND };
        assert_eq!((count(sweep, 0, 1), count(sweep, 1, 2), count(sweep, 2, 3)), (100, 200, 300));
        assert_eq!(count(sweep, 3, 100), 0, "a sweep ends");
        let burst = Shape::Burst { messages: 50.0, every: SECOND };
        assert_eq!(offsets(burst, Spacing::Even, 1, 51)[49..], [Some(0), Some(SECOND_NS)]);
    }

    #[test]
    fn steps_cover_the_whole_schedule() {
        let shape = Shape::Sweep { from: 100.0, to: 300.0, levels: 3, step: SECOND };
        let schedule = Schedule { shape, spacing: Spacing::Even };
        let steps = schedule.steps();
        assert_eq!([0, SECOND_NS, 2 * SECOND_NS, u64::MAX].map(|at| steps.at(at)), [0, 1, 2, 2]);
        assert_eq!(
            [0.5, 1.5, 2.5, 9.0].map(|at| schedule.rate_at(at)),
            [100.0, 200.0, 300.0, 300.0]
        );
        assert_eq!(schedule.span(), Some(SECOND * 3));
        assert_eq!(Steps::ONE.at(u64::MAX), 0);
    }

    #[test]
    fn senseless_schedules_are_refused() {
        let refused = |shape, spacing| Schedule { shape, spacing }.check().is_err();
        assert!(refused(Shape::Constant { rate: 0.0 }, Spacing::Even));
        assert!(refused(Shape::Burst { messages: 5.0, every: SECOND }, Spacing::Poisson));
        assert!(refused(Shape::Ramp { from: 1.0, to: 0.0, over: SECOND }, Spacing::Even));
        let endless = Shape::Sweep { from: 1.0, to: 2.0, levels: 101, step: SECOND };
        assert!(refused(endless, Spacing::Even));
    }
}
