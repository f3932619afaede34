//! How many recipients each message has: one number, or a small choice of them.

use std::fmt;
use std::str::FromStr;

use crate::message::RECIPIENTS_MAX;
use crate::seed::{choose, mix};

/// Numbers of recipients, each with its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients {
    choices: Vec<(usize, u32)>,
    weight: u64,
}

impl Recipients {
    pub fn fixed(count: usize) -> Result<Self, String> {
        Self::weighted(vec![(count, 1)])
    }

    pub fn weighted(choices: Vec<(usize, u32)>) -> Result<Self, String> {
        if let Some((count, _)) =
            choices.iter().find(|(count, _)| *count == 0 || *count > RECIPIENTS_MAX)
        {
            let possible = format!("1 to {RECIPIENTS_MAX} are possible");
            return Err(format!("{count} recipients per message: {possible}"));
        }
        match choices.iter().map(|(_, weight)| u64::from(*weight)).sum() {
            0 => Err("the numbers of recipients need one with a weight above zero".to_owned()),
            weight => Ok(Self { choices, weight }),
        }
    }

    /// How many recipients message `sequence` has: the same for the same seed.
    pub fn count(&self, seed: u64, sequence: u64) -> usize {
        if let [(count, _)] = self.choices[..] {
            return count;
        }
        let number = mix(mix(seed ^ 0x7263_7074) ^ sequence);
        let mut ticket = choose(number, usize::try_from(self.weight).unwrap_or(usize::MAX)) as u64;
        for (count, weight) in &self.choices {
            match ticket.checked_sub(u64::from(*weight)) {
                Some(left) => ticket = left,
                None => return *count,
            }
        }
        unreachable!("a ticket is below the sum of the weights")
    }

    /// The mean, rounded up: what a reader of a report wants to know first.
    pub fn mean(&self) -> usize {
        let sum: u64 = self.choices.iter().map(|(n, weight)| *n as u64 * u64::from(*weight)).sum();
        usize::try_from(sum.div_ceil(self.weight)).unwrap_or(usize::MAX)
    }
}

impl FromStr for Recipients {
    type Err = String;

    /// Reads `3`, or numbers with weights: `1=90,5=8,100=2`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no number of recipients: 3, or 1=90,5=8,100=2");
        let choice = |part: &str| {
            let (count, weight) = part.split_once('=').unwrap_or((part, "1"));
            Some((count.trim().parse().ok()?, weight.trim().parse().ok()?))
        };
        let choices = text.split(',').map(choice).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        Self::weighted(choices)
    }
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(count, _)] = self.choices[..] {
            return write!(f, "{count}");
        }
        let parts: Vec<_> =
            self.choices.iter().map(|(n, weight)| format!("{n}={weight}")).collect();
        write!(f, "{}", parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_follows_the_weights_and_the_seed() {
        let recipients: Recipients = "1=90,5=8,100=2".parse().unwrap();
        let of = |wanted| (0..10_000).filter(|s| recipients.count(3, *s) == wanted).count();
        assert!((8_800..9_200).contains(&of(1)), "{}", of(1));
        assert!((150..250).contains(&of(100)), "{}", of(100));
        assert_eq!(of(1) + of(5) + of(100), 10_000);
        assert_eq!(recipients.to_string(), "1=90,5=8,100=2");
        assert_eq!("7".parse::<Recipients>().unwrap().count(1, 1), 7);
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for wrong in ["", "0", "101", "1=0", "a", "1=90,0=1"] {
            assert!(wrong.parse::<Recipients>().is_err(), "{wrong:?}");
        }
    }
}
