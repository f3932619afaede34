//! Durations, rates and limits as shaping.toml writes them, and how we do.

use std::time::Duration;

use postrider_engine::config::Period;

use super::target::{Pace, Time};

/// Names of units of time in seconds; those below a second are read too, see [`duration`].
const TIME_UNITS: [(&[&str], u64); 7] = [
    (&["s", "sec", "secs", "second", "seconds"], 1),
    (&["m", "min", "mins", "minute", "minutes"], 60),
    (&["h", "hr", "hrs", "hour", "hours"], 3600),
    (&["d", "day", "days"], 86_400),
    (&["w", "wk", "wks", "week", "weeks"], 604_800),
    // As humantime counts them: 30.44 and 365.25 days.
    (&["M", "month", "months"], 2_630_016),
    (&["y", "yr", "yrs", "year", "years"], 31_557_600),
];

/// The periods of a rate that we have.
const RATE_UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)];

/// Bounds of our rates and bursts; see the settings.
const BURST_MAX: u64 = 1_000_000;
const PER_SECOND_MAX: u64 = 1_000_000;

/// `10/s`, `1,000/2hr`, `local:10/min,max_burst=5`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throttle {
    pub(super) limit: u64,
    pub(super) period: Duration,
    /// `None`: as much as the limit.
    pub(super) burst: Option<u64>,
}

/// `90m`, `2 hours`, `1h 30m`, `500ms`
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (count, behind) = digits(rest)?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let part = match unit {
            "ms" | "msec" | "millis" => Duration::from_millis(count),
            _ => Duration::from_secs(count.checked_mul(seconds_of(unit)?)?),
        };
        sum = sum.checked_add(part)?;
        rest = behind.trim_start();
    }
    Some(sum)
}

pub(super) fn throttle(text: &str) -> Option<Throttle> {
    let text = text.strip_prefix("local:").unwrap_or(text);
    let (rate, burst) = match text.split_once(",max_burst=") {
        Some((rate, burst)) => (rate, Some(separated(burst)?)),
        None => (text, None),
    };
    let (limit, period) = rate.split_once('/')?;
    let (scale, unit) = digits(period).unwrap_or((1, period));
    let period = Duration::from_secs(seconds_of(unit)?.checked_mul(scale)?);
    let limit = separated(limit)?;
    (limit > 0 && !period.is_zero()).then_some(Throttle { limit, period, burst })
}

/// `10`, `1,000`, `local:10`
pub(super) fn limit(text: &str) -> Option<u64> {
    separated(text.strip_prefix("local:").unwrap_or(text))
}

impl Throttle {
    /// The rate as we write it, for `sources` together: same average, same burst. `Err`: why not.
    pub(super) fn pace(self, sources: u32) -> Result<Pace, String> {
        let sources = u64::from(sources);
        let (limit, unit) =
            self.in_a_unit().ok_or("no whole number in a second, minute, hour or day")?;
        let units = limit.checked_mul(sources).filter(|units| {
            let seconds = RATE_UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, s)| *s);
            *units <= PER_SECOND_MAX.saturating_mul(seconds)
        });
        let units = units.ok_or_else(|| format!("above {PER_SECOND_MAX}/s there is no limit"))?;
        let rate = format!("{units}/{unit}");
        let burst = self.burst.unwrap_or(self.limit).saturating_mul(sources);
        match burst.clamp(1, BURST_MAX) {
            1 => Ok(Pace::Plain(rate)),
            burst => Ok(Pace::Bursting { rate, burst }),
        }
    }

    /// A number in the shortest of our units that gives a whole one.
    fn in_a_unit(self) -> Option<(u64, &'static str)> {
        let period = self.period.as_secs();
        let exact = RATE_UNITS.iter().find(|(_, seconds)| *seconds == period);
        let whole = || {
            RATE_UNITS.iter().find(|(_, seconds)| {
                self.limit.checked_mul(*seconds).is_some_and(|units| units % period == 0)
            })
        };
        let (name, seconds) = exact.or_else(whole)?;
        Some((self.limit.checked_mul(*seconds)? / period, *name)).filter(|(units, _)| *units > 0)
    }
}

pub(super) fn time(duration: Duration) -> Time {
    // In whole milliseconds, as ours are.
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Time(Period(Duration::from_millis(millis)))
}

fn seconds_of(unit: &str) -> Option<u64> {
    TIME_UNITS.iter().find(|(names, _)| names.contains(&unit)).map(|(_, seconds)| *seconds)
}

fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

/// Digits with `_` and `,` between them.
fn separated(text: &str) -> Option<u64> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, '_' | ',')).collect();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_are_read_in_words_and_letters() {
        check_duration("90m", Some(5_400_000));
        check_duration("2 hours", Some(7_200_000));
        check_duration("1h 30m", Some(5_400_000));
        check_duration("1h30m5s", Some(5_405_000));
        check_duration("3 days", Some(259_200_000));
        check_duration("500ms", Some(500));
        for bad in
            ["", " ", "5", "h", "5 parsecs", "-1s", "99999999999999999999s", "9999999999999999y"]
        {
            check_duration(bad, None);
        }
    }

    fn check_pace(text: &str, sources: u32, expected: Option<(&str, u64)>) {
        let pace = throttle(text).and_then(|throttle| throttle.pace(sources).ok());
        let shown = pace.map(|pace| match pace {
            Pace::Plain(rate) => (rate, 1),
            Pace::Bursting { rate, burst } => (rate, burst),
        });
        assert_eq!(shown, expected.map(|(rate, burst)| (rate.to_owned(), burst)), "{text}");
    }

    #[test]
    fn a_rate_keeps_its_average_and_its_burst() {
        check_pace("100/s", 1, Some(("100/s", 100)));
        check_pace("1/minute", 1, Some(("1/min", 1)));
        check_pace("10,000/hr", 1, Some(("10000/h", 10_000)));
        check_pace("1_000/day,max_burst=1", 1, Some(("1000/d", 1)));
        check_pace("local:10/min", 3, Some(("30/min", 30)));
        check_pace("10/2hr", 1, Some(("5/h", 10)));
        check_pace("1/2s", 1, Some(("30/min", 1)));
        check_pace("1/7d", 1, None);
        for bad in [
            "",
            "10",
            "0/s",
            "/s",
            "10/",
            "10/fortnight",
            "x/s",
            "10/0s",
            "-1/s",
            "1/99999999999999999999s",
        ] {
            check_pace(bad, 1, None);
        }
    }

    #[test]
    fn a_limit_may_be_local() {
        assert_eq!((limit("10"), limit("local:1,000")), (Some(10), Some(1000)));
        assert_eq!((limit(""), limit("ten"), limit("+5")), (None, None, None));
    }
}
