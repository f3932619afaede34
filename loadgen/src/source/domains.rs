//! The recipient domains of a run, and which of them a recipient has.

use std::io;

use crate::seed::{choose, mix};

/// A weighted list of domains.
#[derive(Debug, Clone)]
pub struct Domains {
    names: Vec<String>,
    /// Sums of the weights up to and with each name.
    sums: Vec<u64>,
    even: bool,
}

impl Domains {
    /// One domain for all.
    pub fn one(name: &str) -> Self {
        Self { names: vec![name.to_owned()], sums: vec![1], even: true }
    }

    /// `d0.<suffix>` to `d<count - 1>.<suffix>`, all alike.
    pub fn numbered(count: usize, suffix: &str) -> io::Result<Self> {
        Self::weighted((0..count).map(|index| (format!("d{index}.{suffix}"), 1)))
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
        Ok(Self { names, sums, even })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_follows_the_weights() {
        let list = [("a".to_owned(), 1), ("never".to_owned(), 0), ("b".to_owned(), 3)];
        let domains = Domains::weighted(list).unwrap();
        let chosen = |name| (0..4000).filter(|s| domains.choose(9, *s, 0) == name).count();
        assert_eq!(chosen("never"), 0);
        assert!((900..1100).contains(&chosen("a")), "{}", chosen("a"));
    }
}
