//! The recipient domains of a run, and which of them a recipient has.

use std::fmt;
use std::io;

use crate::seed::{choose, mix};

/// Domains of one run: their names are kept in memory.
const DOMAINS_MAX: usize = 1_000_000;
/// The weight of the first domain of a Zipf list; the millionth still has one.
const ZIPF_WEIGHT: f64 = 4e9;
/// Domains beside the large provider, unless a number is given.
const OTHERS: usize = 1000;

/// A weighted list of domains.
#[derive(Debug, Clone)]
pub struct Domains {
    names: Vec<String>,
    /// Sums of the weights up to and with each name.
    sums: Vec<u64>,
    even: bool,
    /// In words of the command line.
    words: String,
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Domains {
    /// One domain for all.
    pub fn one(name: &str) -> Self {
        Self { names: vec![name.to_owned()], sums: vec![1], even: true, words: name.to_owned() }
    }

    /// `d0.<suffix>` to `d<count - 1>.<suffix>`, all alike.
    pub fn numbered(count: usize, suffix: &str) -> io::Result<Self> {
        Self::require_few(count)?;
        let list = (0..count).map(|index| (format!("d{index}.{suffix}"), 1));
        Ok(Self::weighted(list)?.called(count.to_string()))
    }

    /// Names with weights; a name of weight 0 is never chosen.
    pub fn weighted(list: impl IntoIterator<Item = (String, u32)>) -> io::Result<Self> {
        let (mut names, mut sums, mut sum) = (Vec::new(), Vec::new(), 0u64);
        let mut even = true;
        for (name, weight) in list {
            sum += u64::from(weight);
            even &= weight == 1;
            names.push(name);
            sums.push(sum);
        }
        if sum == 0 {
            let text = "the recipient domains need one with a weight above zero";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let words = match names.as_slice() {
            [only] => only.clone(),
            several => format!("{} domains by weight", several.len()),
        };
        Ok(Self { names, sums, even, words })
    }

    /// `d0.<suffix>` and so on, the k-th with a weight of 1/k^exponent.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "weights need seven digits, and the cast saturates"
    )]
    pub fn zipf(count: usize, exponent: f64, suffix: &str) -> io::Result<Self> {
        Self::require_few(count)?;
        let weight = |index: usize| (ZIPF_WEIGHT / (index as f64 + 1.0).powf(exponent)) as u32;
        let list = (0..count).map(|index| (format!("d{index}.{suffix}"), weight(index).max(1)));
        Ok(Self::weighted(list)?.called(format!("zipf({count}, {exponent})")))
    }

    /// `d0.<suffix>` with so many percent of the recipients, `others` more domains with the rest.
    pub fn provider(percent: f64, others: usize, suffix: &str) -> io::Result<Self> {
        Self::require_few(others + 1)?;
        if !(0.0..=100.0).contains(&percent) || (others == 0 && percent < 100.0) {
            let text = format!("a provider with {percent} % and {others} others");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let [large, small] = provider_weights(percent, others);
        let weight = |index| if index == 0 { large } else { small };
        let list = (0..=others).map(|index| (format!("d{index}.{suffix}"), weight(index)));
        let words = format!("provider {percent}% of {}", others + 1);
        Ok(Self::weighted(list)?.called(words))
    }

    /// Reads `1000`, `zipf(1000, 1.1)`, `provider 60%` or `provider 60% of 1000`.
    pub fn parse(text: &str, suffix: &str) -> io::Result<Self> {
        let wrong = || {
            let some = "20, zipf(1000, 1.1), provider 60%, provider 60% of 1000";
            io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?}: domains are {some}"))
        };
        let text = text.trim();
        if let Some(inside) = text.strip_prefix("zipf(").and_then(|rest| rest.strip_suffix(')')) {
            let (count, exponent) = inside.split_once(',').ok_or_else(wrong)?;
            let count = count.trim().parse().map_err(|_| wrong())?;
            return Self::zipf(count, exponent.trim().parse().map_err(|_| wrong())?, suffix);
        }
        if let Some(rest) = text.strip_prefix("provider") {
            let (percent, count) = rest.split_once('%').ok_or_else(wrong)?;
            let percent = percent.trim().parse().map_err(|_| wrong())?;
            let others = match count.trim().strip_prefix("of") {
                Some(all) => all.trim().parse::<usize>().map_err(|_| wrong())?.saturating_sub(1),
                None if count.trim().is_empty() => OTHERS,
                None => return Err(wrong()),
            };
            return Self::provider(percent, others, suffix);
        }
        Self::numbered(text.parse().map_err(|_| wrong())?, suffix)
    }

    fn called(self, words: String) -> Self {
        Self { words, ..self }
    }

    fn require_few(count: usize) -> io::Result<()> {
        if count <= DOMAINS_MAX {
            return Ok(());
        }
        let text = format!("{count} domains: at most {DOMAINS_MAX} are possible");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The domain of recipient `index` of message `sequence`: the same for the same seed.
    pub fn choose(&self, seed: u64, sequence: u64, index: usize) -> &str {
        let number = mix(seed ^ mix(sequence) ^ mix(index as u64).rotate_left(17));
        if self.even {
            return &self.names[choose(number, self.names.len())];
        }
        let sum = self.sums[self.sums.len() - 1];
        let ticket = choose(number, usize::try_from(sum).unwrap_or(usize::MAX)) as u64;
        &self.names[self.sums.partition_point(|up_to| *up_to <= ticket)]
    }
}

/// Weights of the one and of each other that make up its share.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "weights need seven digits, and shares are between 0 and 100"
)]
fn provider_weights(percent: f64, others: usize) -> [u32; 2] {
    let each = (100.0 - percent) / others.max(1) as f64;
    let scale = ZIPF_WEIGHT / percent.max(each);
    [(percent * scale) as u32, (each * scale) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_asked() {
        let first_of_4000 = |text: &str| {
            let domains = Domains::parse(text, "test").unwrap();
            (0..4000).filter(|s| domains.choose(9, *s, 0) == "d0.test").count()
        };
        let seen = first_of_4000("provider 60%");
        assert!((2300..2500).contains(&seen), "{seen}");
        assert_eq!(first_of_4000("provider 100% of 1"), 4000);
        // 1 / (1 + 1/2 + ... + 1/10) = 0.341
        let seen = first_of_4000("zipf(10, 1.0)");
        assert!((1270..1460).contains(&seen), "{seen}");
        assert_eq!(first_of_4000("1"), 4000);
        for wrong in ["", "0", "zipf(10)", "provider", "provider 160%", "zipf(2000000, 1)"] {
            assert!(Domains::parse(wrong, "test").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn choice_follows_the_weights() {
        let list = [("a".to_owned(), 1), ("never".to_owned(), 0), ("b".to_owned(), 3)];
        let domains = Domains::weighted(list).unwrap();
        let chosen = |name| (0..4000).filter(|s| domains.choose(9, *s, 0) == name).count();
        assert_eq!(chosen("never"), 0);
        assert!((900..1100).contains(&chosen("a")), "{}", chosen("a"));
    }
}
