//! Rates as people write them: so many in a time, and how many at once on top.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `10/s`, `600/min`, `1000/h`, each perhaps with ` burst 20`; without it, the burst is what a
/// second brings, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    pub per_second: f64,
    pub burst: f64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate: 10/s, 600/min, 1000/h, 10/s burst 20");
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "min" | "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number = |text: &str, min: f64| {
            let number: f64 = text.trim().parse().ok()?;
            (number.is_finite() && number >= min).then_some(number)
        };
        let per_second = number(count, 0.0).ok_or_else(wrong)? / seconds;
        let burst = match burst {
            Some(burst) => number(burst, 1.0).ok_or_else(wrong)?,
            None => per_second.max(1.0),
        };
        Ok(Self { per_second, burst })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits, and no zeros behind them.
        let rate = (self.per_second * 1e3).round() / 1e3;
        write!(f, "{rate}/s burst {}", self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_show() {
        let check = |text: &str, shown: &str| {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), shown, "{text}");
        };
        check("10/s", "10/s burst 10");
        check("600/min burst 3", "10/s burst 3");
        check("60/h", "0.017/s burst 1");
        check("0/s burst 5", "0/s burst 5");
        for wrong in ["10", "10/d", "-1/s", "x/s", "10/s burst 0", "10/s burst", "inf/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
