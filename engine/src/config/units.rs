//! Durations, sizes and CPU lists as an operator writes them.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use thiserror::Error;

/// The units of a duration in milliseconds, largest first: the order they are written in.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The units of a size in bytes, largest first; the binary ones are what [`Size`] is shown in.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

/// The highest core number that `sched_setaffinity` takes in its usual mask of 1024 bits.
pub(super) const CPU_MAX: usize = 1023;

/// A duration such as `500ms`, `5m` or `1h30m`, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes such as `64MiB`, `10MB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Core numbers such as `0-7` or `0,2,4-6`, in the order given, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Why a text is not a duration, size or CPU list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("expected a duration such as \"5m\" or \"1h30m\"")]
    NotADuration,
    #[error("a duration needs a unit: d, h, m, s or ms")]
    NoDurationUnit,
    #[error("unknown unit `{0}`: use d, h, m, s or ms")]
    UnknownDurationUnit(String),
    #[error("write each unit once, the largest first, as in \"1h30m\"")]
    UnitsOutOfOrder,
    #[error("expected a size such as \"64MiB\", \"10MB\" or \"4096\"")]
    NotASize,
    #[error("unknown unit `{0}`: use KiB, MiB, GiB, TiB, kB, MB, GB, TB or B")]
    UnknownSizeUnit(String),
    #[error("expected core numbers such as \"0-7\" or \"0,2,4-6\"")]
    NotACpuList,
    #[error("core {0} is listed twice")]
    CpuTwice(usize),
    #[error("expected a whole number")]
    NotANumber,
    #[error("expected {0}")]
    NotARate(&'static str),
    #[error("unknown unit of time `{0}`: use /s, /min, /h or /d")]
    UnknownRateUnit(String),
    #[error("expected whole percent such as \"5%\"")]
    NotAPercentage,
    #[error("the number is too large")]
    TooLarge,
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut units = DURATION_UNITS.iter();
        while !rest.is_empty() {
            let (count, unit, behind) = counted(rest, UnitError::NotADuration)?;
            let factor = match units.find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => return Err(misplaced_unit(unit)),
            };
            let part = count.checked_mul(factor).ok_or(UnitError::TooLarge)?;
            millis = millis.checked_add(part).ok_or(UnitError::TooLarge)?;
            rest = behind;
        }
        if text.is_empty() {
            return Err(UnitError::NotADuration);
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

fn misplaced_unit(unit: &str) -> UnitError {
    match unit {
        "" => UnitError::NoDurationUnit,
        _ if DURATION_UNITS.iter().any(|(name, _)| *name == unit) => UnitError::UnitsOutOfOrder,
        _ => UnitError::UnknownDurationUnit(unit.to_owned()),
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit, behind) = counted(text, UnitError::NotASize)?;
        if !behind.is_empty() {
            return Err(UnitError::NotASize);
        }
        let factor = match unit {
            "" => 1,
            _ => match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => return Err(UnitError::UnknownSizeUnit(unit.to_owned())),
            },
        };
        count.checked_mul(factor).map(Self).ok_or(UnitError::TooLarge)
    }
}

/// Splits `90m5s` into 90, `m` and `5s`.
fn counted(text: &str, otherwise: UnitError) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(otherwise);
    }
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, behind) = rest.split_at(unit);
    Ok((number.parse().map_err(|_| UnitError::TooLarge)?, unit.trim(), behind))
}

impl FromStr for CpuList {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            for core in core_number(first)?..=core_number(last)? {
                if cores.contains(&core) {
                    return Err(UnitError::CpuTwice(core));
                }
                cores.push(core);
            }
        }
        if cores.is_empty() {
            return Err(UnitError::NotACpuList);
        }
        Ok(Self(cores))
    }
}

fn core_number(text: &str) -> Result<usize, UnitError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::NotACpuList);
    }
    text.parse().ok().filter(|core| *core <= CPU_MAX).ok_or(UnitError::TooLarge)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in DURATION_UNITS {
            let count = millis / u128::from(factor);
            if count > 0 {
                write!(f, "{count}{name}")?;
                millis %= u128::from(factor);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        match SIZE_UNITS.iter().find(|(name, factor)| name.ends_with("iB") && exact(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

/// What the settings file gives as a string, with the words for a value of another type.
pub(super) trait Written: FromStr<Err = UnitError> {
    const EXPECTED: &'static str;

    /// A bare number, where one makes sense.
    fn from_number(_: u64) -> Option<Self> {
        None
    }
}

impl Written for Period {
    const EXPECTED: &'static str = "a duration such as \"5m\" or \"1h30m\"";
}

impl Written for Size {
    const EXPECTED: &'static str = "a size such as \"64MiB\"";

    fn from_number(bytes: u64) -> Option<Self> {
        Some(Self(bytes))
    }
}

/// Reads it from a string, or from a number.
pub(super) struct WrittenVisitor<T>(pub(super) PhantomData<T>);

impl<T: Written> Visitor<'_> for WrittenVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number)
            .ok()
            .and_then(T::from_number)
            .ok_or_else(|| E::invalid_type(de::Unexpected::Signed(number), &self))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_period(text: &str, expected: Result<u64, UnitError>) {
        let millis = expected.map(|millis| Period(Duration::from_millis(millis)));
        assert_eq!(text.parse::<Period>(), millis, "{text}");
    }

    #[test]
    fn a_duration_is_read_in_its_units() {
        check_period("500ms", Ok(500));
        check_period("5s", Ok(5000));
        check_period("1h30m", Ok(5_400_000));
        check_period("5d", Ok(432_000_000));
        check_period("0s", Ok(0));
        check_period("", Err(UnitError::NotADuration));
        check_period("m5", Err(UnitError::NotADuration));
        check_period("-5s", Err(UnitError::NotADuration));
        check_period("5", Err(UnitError::NoDurationUnit));
        check_period("1h30", Err(UnitError::NoDurationUnit));
        check_period("5min", Err(UnitError::UnknownDurationUnit("min".into())));
        check_period("5s1m", Err(UnitError::UnitsOutOfOrder));
        check_period("5s5s", Err(UnitError::UnitsOutOfOrder));
        check_period("999999999999999999d", Err(UnitError::TooLarge));
        check_period("99999999999999999999s", Err(UnitError::TooLarge));
    }

    fn check_size(text: &str, expected: Result<u64, UnitError>) {
        assert_eq!(text.parse::<Size>(), expected.map(Size), "{text}");
    }

    #[test]
    fn a_size_is_read_in_its_units() {
        check_size("4096", Ok(4096));
        check_size("64MiB", Ok(64 << 20));
        check_size("10MB", Ok(10_000_000));
        check_size("1 GiB", Ok(1 << 30));
        check_size("64M", Err(UnitError::UnknownSizeUnit("M".into())));
        check_size("1MiB5", Err(UnitError::NotASize));
        check_size("MiB", Err(UnitError::NotASize));
        check_size("-1", Err(UnitError::NotASize));
        check_size("99999999999TiB", Err(UnitError::TooLarge));
    }

    fn check_cores(text: &str, expected: Result<&[usize], UnitError>) {
        assert_eq!(
            text.parse::<CpuList>(),
            expected.map(|cores| CpuList(cores.to_vec())),
            "{text}"
        );
    }

    #[test]
    fn a_cpu_list_keeps_its_order_and_names_no_core_twice() {
        check_cores("0-3", Ok(&[0, 1, 2, 3]));
        check_cores("0,2,4-6", Ok(&[0, 2, 4, 5, 6]));
        check_cores("7, 3", Ok(&[7, 3]));
        check_cores("0-3,2", Err(UnitError::CpuTwice(2)));
        check_cores("3-0", Err(UnitError::NotACpuList));
        check_cores("", Err(UnitError::NotACpuList));
        check_cores("+1", Err(UnitError::NotACpuList));
        check_cores("0-", Err(UnitError::NotACpuList));
        check_cores("0-99999999", Err(UnitError::TooLarge));
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_as_itself(millis: u64) {
            let period = Period(Duration::from_millis(millis));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn a_shown_size_reads_as_itself(bytes: u64, shift in 0u32..48) {
            let size = Size(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn a_shown_cpu_list_reads_as_itself(
            cores in Just((0..40).collect::<Vec<_>>()).prop_shuffle(),
            count in 1usize..40,
        ) {
            let list = CpuList(cores[..count].to_vec());
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn whatever_is_taken_is_shown_as_the_same_value(text in "[0-9dhmskKMGTiB, -]{0,9}|.*") {
            if let Ok(period) = text.parse::<Period>() {
                prop_assert_eq!(period.to_string().parse(), Ok(period));
            }
            if let Ok(size) = text.parse::<Size>() {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
            if let Ok(list) = text.parse::<CpuList>() {
                prop_assert_eq!(list.to_string().parse(), Ok(list));
            }
        }
    }
}
