//! Due times in 30 bits: coarse, and told apart only within 26 days of now.

use std::time::Duration;

use crate::base::time::Mono;

/// One tick is 2^22 ns, about 4 ms.
const TICK_SHIFT: u32 = 22;
const TICK_BITS: u32 = 30;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

/// The longest wait before a next try: well inside the 26 days a tick can be told from now.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20 * 24 * 3600);

/// A moment near now, counted in ticks, modulo 2^30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick(pub(super) u32);

impl Tick {
    /// Of two that lie within 26 days of each other.
    pub(super) fn is_before(self, other: Self) -> bool {
        let ahead = u64::from(other.0).wrapping_sub(self.0.into()) & TICK_MASK;
        (1..=TICK_MASK / 2).contains(&ahead)
    }

    /// The first tick at or after `at`, and the moment it stands for.
    pub(super) fn at_or_after(at: Mono) -> (Self, Mono) {
        let ticks = at.0.div_ceil(1 << TICK_SHIFT);
        (Self(u32::try_from(ticks & TICK_MASK).unwrap_or(0)), Mono(ticks << TICK_SHIFT))
    }

    /// The moment it stands for: the one nearest to `now`.
    pub(super) fn moment(self, now: Mono) -> Mono {
        let present = now.0 >> TICK_SHIFT;
        let ahead = (u64::from(self.0).wrapping_sub(present)) & TICK_MASK;
        if ahead <= TICK_MASK / 2 {
            return Mono((present + ahead) << TICK_SHIFT);
        }
        Mono(present.saturating_sub(TICK_MASK + 1 - ahead) << TICK_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_never_early_and_survives_the_wrap() {
        let day = 24 * 3_600_000_000_000;
        for now in [Mono(5), Mono(day * 51), Mono(day * 52 + 77), Mono(day * 400)] {
            for wait in [0, 1, 500_000_000, day, 20 * day] {
                let due = Mono(now.0 + wait);
                let (tick, moment) = Tick::at_or_after(due);
                assert!(moment >= due && moment.0 - due.0 < 1 << TICK_SHIFT);
                assert_eq!(tick.moment(now), moment);
                assert_eq!(tick.moment(Mono(due.0 + 3 * day)), moment, "also when it has passed");
            }
        }
    }
}
