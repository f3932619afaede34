//! A limit that settings change under way, and what it was when something began.

use super::clock::MINUTE;

/// How long a permit may be on its way to a connection: the site's hosts are tried one after the
/// other, and each attempt may take minutes to time out.
pub const PERMIT_AGE_MAX: u64 = 15 * MINUTE;

/// What it is, and every change of it.
#[derive(Debug)]
pub struct Limit {
    /// Since when, and how much; in order.
    changes: Vec<(u64, u32)>,
}

impl Limit {
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { changes: vec![(0, limit)] }
    }

    pub fn change(&mut self, at: u64, limit: u32) {
        self.changes.push((at, limit));
    }

    /// All that have been in force since then.
    #[must_use]
    pub fn since(&self, oldest: u64) -> Vec<u32> {
        let ends = self.changes.iter().skip(1).map(|(since, _)| *since).chain([u64::MAX]);
        let lasting = self.changes.iter().zip(ends).filter(|(_, end)| *end >= oldest);
        lasting.map(|((_, limit), _)| *limit).collect()
    }

    /// The largest under which a permit may have been given that is used now.
    #[must_use]
    pub fn at(&self, now: u64) -> u32 {
        let oldest = now.saturating_sub(PERMIT_AGE_MAX);
        self.since(oldest).into_iter().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_limit_holds_until_no_permit_of_it_can_be_on_its_way() {
        let mut limit = Limit::new(5);
        limit.change(MINUTE, 2);
        assert_eq!(limit.at(MINUTE + PERMIT_AGE_MAX), 5);
        assert_eq!(limit.at(MINUTE + PERMIT_AGE_MAX + 1), 2);
        limit.change(20 * MINUTE, 3);
        assert_eq!(limit.at(20 * MINUTE), 3);
    }
}
