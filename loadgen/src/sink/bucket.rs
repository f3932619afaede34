//! A token bucket: at most `rate × w + burst` in any time `w`.

use crate::clock;

/// Rounding must not refuse what comes exactly in time.
const ROUNDING: f64 = 1e-9;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    at_ns: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(burst: f64, now: u64) -> Self {
        Self { tokens: burst, at_ns: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, per_second: f64, burst: f64, now: u64) -> bool {
        // Threads read the clock apart from each other: time may seem to go back a little.
        let gone = clock::seconds(now.saturating_sub(self.at_ns));
        self.at_ns = self.at_ns.max(now);
        self.tokens = (self.tokens + gone * per_second).min(burst);
        let is_left = self.tokens >= 1.0 - ROUNDING;
        if is_left {
            self.tokens -= 1.0;
        }
        is_left
    }

    /// Whether nothing would be missing before this is taken.
    pub(super) fn is_full(&self, per_second: f64, burst: f64, now: u64) -> bool {
        let gone = clock::seconds(now.saturating_sub(self.at_ns));
        self.tokens + gone * per_second >= burst - ROUNDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND_NS;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(3.0, 0);
        let mut taken = |now: u64| bucket.take(10.0, 3.0, now);
        assert_eq!([taken(0), taken(0), taken(0), taken(0)], [true, true, true, false]);
        assert!(!taken(SECOND_NS / 10 - 1_000));
        assert!(taken(SECOND_NS / 10));
        // Evenly spaced at the rate, for ever.
        assert!((2..200).all(|nth| taken(nth * SECOND_NS / 10)));
        assert!(!taken(199 * SECOND_NS / 10));
        assert!(!taken(0), "a clock that goes back gives nothing");
    }
}
