//! Shares as an operator writes them: `5%`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};

use super::units::{UnitError, Written, WrittenVisitor};

/// Whole percent, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = text.strip_suffix('%').ok_or(UnitError::NotAPercentage)?.trim_end();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UnitError::NotAPercentage);
        }
        digits.parse().ok().filter(|share| *share <= 100).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Written for Percent {
    const EXPECTED: &'static str = "whole percent such as \"5%\"";
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u8, UnitError>) {
        assert_eq!(text.parse(), expected.map(Percent), "{text}");
    }

    #[test]
    fn a_share_is_whole_percent() {
        check("0%", Ok(0));
        check("5 %", Ok(5));
        check("100%", Ok(100));
        check("101%", Err(UnitError::TooLarge));
        check("5", Err(UnitError::NotAPercentage));
        check("%", Err(UnitError::NotAPercentage));
        check("2.5%", Err(UnitError::NotAPercentage));
        check("-5%", Err(UnitError::NotAPercentage));
        assert_eq!(Percent(5).to_string(), "5%");
    }
}
