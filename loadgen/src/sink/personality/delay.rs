//! Spans of time as people write them, and delays drawn from them.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::clock;
use crate::sink::chance::{draw, share};

/// No client waits longer for a reply than the ten minutes of RFC 5321 4.5.3.2.6.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// A wider log-normal is a mistake: a sigma of 4 spans factors of 3,000 both ways.
const SIGMA_MAX: f64 = 4.0;

/// A span of time: `250us`, `20ms`, `1.5s`, `5m`, `4h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(u64);

/// How long a reply is held back: `20ms`, `uniform(10ms, 50ms)`, `lognormal(80ms, 0.6)`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Delay {
    #[default]
    None,
    /// In nanoseconds, as all of these.
    Fixed(u64),
    Uniform {
        min: u64,
        max: u64,
    },
    /// Cut off at ten minutes.
    LogNormal {
        median: u64,
        sigma: f64,
    },
}

impl Span {
    pub fn ns(self) -> u64 {
        self.0
    }

    pub(super) fn minute() -> Self {
        Self(60 * clock::SECOND_NS)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(clock::nanos(duration))
    }
}

impl Delay {
    /// The delay for a drawn number, in nanoseconds.
    pub(in crate::sink) fn at(self, number: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Fixed(ns) => ns,
            Self::Uniform { min, max } => scaled(max - min, share(number)).saturating_add(min),
            Self::LogNormal { median, sigma } => scaled(median, (sigma * normal(number)).exp()),
        }
    }
}

/// A number of the normal distribution (Box and Muller).
fn normal(number: u64) -> f64 {
    let radius = (-2.0 * (1.0 - share(number)).ln()).sqrt();
    radius * (TAU * share(draw(number, &[]))).cos()
}

/// At most [`DELAY_MAX`].
fn scaled(ns: u64, factor: f64) -> u64 {
    let seconds = (clock::seconds(ns) * factor).min(DELAY_MAX.as_secs_f64());
    Duration::try_from_secs_f64(seconds).map_or(0, clock::nanos)
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no span of time: 250us, 20ms, 1.5s, 5m, 4h");
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
        let duration = Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())?;
        Ok(Self(clock::nanos(duration)))
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once('(') else {
            return bounded(text).map(Self::Fixed);
        };
        let wrong =
            || format!("{text:?} is no delay: 20ms, uniform(10ms, 50ms), lognormal(80ms, 0.6)");
        let inside = rest.strip_suffix(')').ok_or_else(wrong)?;
        let (first, second) = inside.split_once(',').ok_or_else(wrong)?;
        let (first, second) = (bounded(first.trim())?, second.trim());
        match kind {
            "uniform" => match bounded(second)? {
                max if max < first => Err(format!("{text:?} ends before it begins")),
                max => Ok(Self::Uniform { min: first, max }),
            },
            "lognormal" => match second.parse() {
                Ok(sigma) if (0.0..=SIGMA_MAX).contains(&sigma) => {
                    Ok(Self::LogNormal { median: first, sigma })
                }
                _ => Err(format!("{second:?} is no sigma: it lies between 0 and {SIGMA_MAX}")),
            },
            _ => Err(wrong()),
        }
    }
}

fn bounded(text: &str) -> Result<u64, String> {
    let span: Span = text.parse()?;
    if span.ns() > clock::nanos(DELAY_MAX) {
        return Err(format!("{text} is longer than any client waits: at most 10m"));
    }
    Ok(span.ns())
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Delay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn spans_and_delays_read_as_people_write_them() {
        let check = |text: &str, delay: Delay| assert_eq!(text.parse(), Ok(delay), "{text}");
        check("20ms", Delay::Fixed(20 * MS));
        check("1.5s", Delay::Fixed(1_500 * MS));
        check("uniform(10ms, 0.05s)", Delay::Uniform { min: 10 * MS, max: 50 * MS });
        check("lognormal(80ms,0.6)", Delay::LogNormal { median: 80 * MS, sigma: 0.6 });
        assert_eq!("4h".parse(), Ok(Span(4 * 3_600_000 * MS)));
        for wrong in [
            "20",
            "ms",
            "-1s",
            "11m",
            "uniform(2s, 1s)",
            "lognormal(1s, 9)",
            "beta(1s, 2)",
            "uniform(1s",
        ] {
            assert!(wrong.parse::<Delay>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn delays_follow_their_distribution() {
        let quantiles = |delay: Delay| {
            let mut all: Vec<_> = (0..2001).map(|n| delay.at(draw(3, &[n]))).collect();
            all.sort_unstable();
            [0, 318, 1000, 1683, 2000].map(|at| all[at] / MS)
        };
        let [min, _, median, _, max] = quantiles(Delay::Uniform { min: 10 * MS, max: 50 * MS });
        assert!(min >= 10 && max <= 50 && (28..32).contains(&median), "{min} {median} {max}");
        let [min, low, median, high, max] =
            quantiles(Delay::LogNormal { median: 80 * MS, sigma: 0.6 });
        assert!((75..85).contains(&median), "{median}");
        // A sigma away lies a factor of e^0.6: 44 and 146 ms.
        assert!((40..48).contains(&low) && (136..156).contains(&high), "{low} {high}");
        assert!((2..25).contains(&min) && (300..1500).contains(&max), "{min} {max}");
    }
}
