//! Seeded chance in the shapes that the simulated world needs.

use std::time::Duration;

use postrider_engine::base::prng::Prng;

/// A stream of its own for each part, so that what one part draws shifts no other.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Prng);

impl Chance {
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        Self(Prng::new(Prng::new(seed).next_u64() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// In 0..1, never 0.
    pub(crate) fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.0.next_u64() >> 32).unwrap_or(0);
        (f64::from(high) + 0.5) / (f64::from(u32::MAX) + 1.0)
    }

    /// A wait of a Poisson process with so many events a second.
    pub(crate) fn exponential(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-self.unit().ln() / rate)
    }

    /// Around `mean`, between half and one and a half of it.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(0.5 + self.unit())
    }

    /// In `0..bound`.
    pub(crate) fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.0.below(u64::from(bound.max(1)))).unwrap_or(0)
    }
}
