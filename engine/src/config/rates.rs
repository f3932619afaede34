//! Rates as an operator writes them: `10/s`, `10MiB/s`, or a table that also has the burst.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::document::Given;
use super::units::{Size, UnitError, Written, WrittenVisitor};
use crate::model::settings::Rate;

/// The units of time behind the slash, in seconds.
const TIME_UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 24 * 3600)];

/// A rate without a burst of its own lets out at once what comes due in 10 ms: as late as a busy core
/// may be, so that nothing of the rate is lost.
const BURSTS_PER_SECOND: u64 = 100;

/// A byte rate without a burst of its own lets this much out at once: below it, the text of one
/// message would come in drips.
const BYTE_BURST_MIN: u64 = 64 << 10;

/// A number of connections or messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Units(pub u64);

/// So many units in so much time: `1000/min`, `10MiB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed<A> {
    pub amount: A,
    /// A second, minute, hour or day.
    pub per: Duration,
}

/// What can be counted against time.
pub trait Amount: Copy + fmt::Display + Sized {
    /// The words for what is written.
    const EXAMPLE: &'static str;
    const PER_SECOND_MAX: u64;
    const BURST_MAX: u64;

    /// Reads what stands before the slash.
    fn read(text: &str) -> Result<Self, UnitError>;

    fn from_count(count: u64) -> Self;

    fn count(self) -> u64;

    /// What such a rate lets out at once if nothing is said.
    fn default_burst(self, per: Duration) -> u64;
}

/// A speed, perhaps with its burst.
#[derive(Debug)]
pub(super) enum Pace<A> {
    Plain(Speed<A>),
    Table(PaceTable<A>),
}

/// `{ rate = "1000/min", burst = 20 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "A: Amount + Deserialize<'de>")]
pub(super) struct PaceTable<A> {
    pub(super) rate: Spanned<Speed<A>>,
    #[serde(default)]
    pub(super) burst: Given<A>,
}

impl<A: Amount> Speed<A> {
    /// The rate with its usual burst.
    #[must_use]
    pub fn rate(self) -> Rate {
        let burst = self.amount.default_burst(self.per);
        Rate { units: self.amount.count(), per: self.per, burst }
    }

    /// A rate as it is written, but for its burst.
    #[must_use]
    pub fn of(rate: &Rate) -> Self {
        Self { amount: A::from_count(rate.units), per: rate.per }
    }
}

impl Amount for Units {
    const EXAMPLE: &'static str = "a rate such as \"10/s\" or \"1000/min\"";
    /// One in a microsecond: more than a core can send.
    const PER_SECOND_MAX: u64 = 1_000_000;
    const BURST_MAX: u64 = 1_000_000;

    fn read(text: &str) -> Result<Self, UnitError> {
        text.parse().map_err(|error| match error {
            UnitError::NotANumber => UnitError::NotARate(Self::EXAMPLE),
            other => other,
        })
    }

    fn from_count(count: u64) -> Self {
        Self(count)
    }

    fn count(self) -> u64 {
        self.0
    }

    fn default_burst(self, per: Duration) -> u64 {
        (self.0 / (per.as_secs().max(1) * BURSTS_PER_SECOND)).max(1)
    }
}

impl Amount for Size {
    const EXAMPLE: &'static str = "a rate such as \"10MiB/s\"";
    /// More than a network card sends.
    const PER_SECOND_MAX: u64 = 1 << 40;
    const BURST_MAX: u64 = 1 << 40;

    fn read(text: &str) -> Result<Self, UnitError> {
        // `10/s` would be ten bytes: surely not what was meant.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UnitError::NotARate(Self::EXAMPLE));
        }
        text.parse()
    }

    fn from_count(count: u64) -> Self {
        Self(count)
    }

    fn count(self) -> u64 {
        self.0
    }

    fn default_burst(self, per: Duration) -> u64 {
        (self.0 / per.as_secs().max(1)).max(BYTE_BURST_MIN)
    }
}

impl FromStr for Units {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UnitError::NotANumber);
        }
        text.parse().map(Self).map_err(|_| UnitError::TooLarge)
    }
}

impl<A: Amount> FromStr for Speed<A> {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (amount, unit) = text.split_once('/').ok_or(UnitError::NotARate(A::EXAMPLE))?;
        let amount = A::read(amount.trim())?;
        match TIME_UNITS.iter().find(|(name, _)| *name == unit.trim()) {
            Some((_, seconds)) => Ok(Self { amount, per: Duration::from_secs(*seconds) }),
            None => Err(UnitError::UnknownRateUnit(unit.trim().to_owned())),
        }
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<A: Amount> fmt::Display for Speed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        match TIME_UNITS.iter().find(|(_, unit)| *unit == seconds) {
            Some((name, _)) => write!(f, "{}/{name}", self.amount),
            None => write!(f, "{}/{seconds}s", self.amount),
        }
    }
}

impl Written for Units {
    const EXPECTED: &'static str = "a whole number";

    fn from_number(count: u64) -> Option<Self> {
        Some(Self(count))
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor(PhantomData))
    }
}

struct SpeedVisitor<A>(PhantomData<A>);

impl<A: Amount> Visitor<'_> for SpeedVisitor<A> {
    type Value = Speed<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A::EXAMPLE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Speed<A>, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de, A: Amount> Deserialize<'de> for Speed<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpeedVisitor(PhantomData))
    }
}

struct PaceVisitor<A>(PhantomData<A>);

impl<'de, A: Amount + Deserialize<'de>> Visitor<'de> for PaceVisitor<A> {
    type Value = Pace<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A::EXAMPLE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pace<A>, E> {
        text.parse().map(Pace::Plain).map_err(E::custom)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Pace<A>, M::Error> {
        PaceTable::deserialize(MapAccessDeserializer::new(map)).map(Pace::Table)
    }
}

impl<'de, A: Amount + Deserialize<'de>> Deserialize<'de> for Pace<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PaceVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<A: Amount>(text: &str, expected: Result<(u64, u64, u64), UnitError>) {
        let shown = text.parse::<Speed<A>>().map(|speed| {
            assert_eq!(speed.to_string(), text.replace(' ', ""));
            let rate = speed.rate();
            (rate.units, rate.per.as_secs(), rate.burst)
        });
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn a_rate_is_a_number_in_a_unit_of_time() {
        check::<Units>("10/s", Ok((10, 1, 1)));
        check::<Units>("1000 / min", Ok((1000, 60, 1)));
        check::<Units>("5/h", Ok((5, 3600, 1)));
        check::<Units>("1/d", Ok((1, 86_400, 1)));
        let not_a_rate = || Err(UnitError::NotARate(Units::EXAMPLE));
        for bad in ["", "10", "/s", "x/s", "-1/s", "1.5/s", "10MiB/s"] {
            check::<Units>(bad, not_a_rate());
        }
        check::<Units>("10/m", Err(UnitError::UnknownRateUnit("m".into())));
        check::<Units>("10/", Err(UnitError::UnknownRateUnit("".into())));
        check::<Units>("10/5s", Err(UnitError::UnknownRateUnit("5s".into())));
        check::<Units>("99999999999999999999/s", Err(UnitError::TooLarge));
    }

    #[test]
    fn a_byte_rate_names_its_unit_and_bursts_by_a_second_or_more() {
        check::<Size>("10MiB/s", Ok((10 << 20, 1, 10 << 20)));
        check::<Size>("1MiB/min", Ok((1 << 20, 60, 64 << 10)));
        check::<Size>("10/s", Err(UnitError::NotARate(Size::EXAMPLE)));
        check::<Size>("10M/s", Err(UnitError::UnknownSizeUnit("M".into())));
        check::<Size>("MiB/s", Err(UnitError::NotASize));
    }

    #[test]
    fn a_rate_of_another_making_is_shown_too() {
        let rate = Rate { units: 3, per: Duration::from_secs(10), burst: 1 };
        assert_eq!(Speed::<Units>::of(&rate).to_string(), "3/10s");
    }
}
