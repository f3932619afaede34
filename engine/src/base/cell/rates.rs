//! A rate that several shards share: the arrival time of `base/gcra.rs` in one number.

use crate::base::cell::atomics::{AtomicU64, Ordering};
use crate::base::gcra::Rate;
use crate::base::time::Mono;

/// Paces all shards together, with the promise of [`crate::base::gcra::Gcra`]. The moments that two
/// shards take for now may differ; each take is judged, and counts, at its own.
#[derive(Debug)]
pub struct SharedRate {
    tat: AtomicU64,
}

impl SharedRate {
    /// A rate that was at rest for long.
    #[must_use]
    pub fn new() -> Self {
        Self { tat: AtomicU64::new(0) }
    }

    /// Takes `units` at `now`, as `Gcra::take` does. Tokens are never given back.
    ///
    /// # Errors
    /// The moment at which this take will conform if no other shard takes before.
    pub fn take(&self, now: Mono, rate: &Rate, units: u64) -> Result<(), Mono> {
        let mut tat = self.read();
        // Ends: each round more means that another shard took.
        loop {
            let next = rate.step(Mono(tat), now, units)?;
            match self.tat.compare_exchange(tat, next.0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(moved) => tat = moved,
            }
        }
    }

    /// When a take of `units` will conform as it looks now.
    #[must_use]
    pub fn ready_at(&self, now: Mono, rate: &Rate, units: u64) -> Mono {
        rate.ready(Mono(self.read()), now, units)
    }

    /// Goes over to another rate, as `Gcra::retune` does. One shard does it, once for each change;
    /// those that still take by the old rate meanwhile do so at the old price.
    pub fn retune(&self, now: Mono, old: &Rate, new: &Rate) {
        let mut tat = self.read();
        loop {
            let next = new.carry_over(old, Mono(tat), now);
            match self.tat.compare_exchange(tat, next.0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(moved) => tat = moved,
            }
        }
    }

    /// Whether all is paid for: a fresh one would behave alike.
    #[must_use]
    pub fn is_rested(&self, now: Mono) -> bool {
        self.read() <= now.0
    }

    fn read(&self) -> u64 {
        self.tat.load(Ordering::SeqCst)
    }
}

impl Default for SharedRate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::base::gcra::Gcra;

    #[test]
    fn one_shard_alone_is_paced_as_by_its_own() {
        let (rate, slower) = (Rate::per_second(7, 3), Rate::per_second(2, 3));
        let (shared, mut own) = (SharedRate::new(), Gcra::default());
        for step in 0..200 {
            let now = Mono(5 + step * 70_000_000);
            assert_eq!(shared.take(now, &rate, step % 4), own.take(now, &rate, step % 4));
            assert_eq!(shared.ready_at(now, &rate, 2), own.ready_at(now, &rate, 2));
            assert_eq!(shared.is_rested(now), own.is_rested(now));
        }
        shared.retune(Mono(0), &rate, &slower);
        own.retune(Mono(0), &rate, &slower);
        assert_eq!(shared.ready_at(Mono(0), &slower, 1), own.ready_at(Mono(0), &slower, 1));
    }
}
