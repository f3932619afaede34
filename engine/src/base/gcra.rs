//! Pacing by GCRA, the generic cell rate algorithm (ITU-T I.371), as virtual scheduling.
//!
//! The state is one moment, the theoretical arrival time: when all that was taken is paid for. A
//! take moves it on by `units × per / units-of-the-rate` and conforms if it then lies no further
//! ahead than the burst reaches. That keeps the promise: **in any window `w`, at most
//! `rate × w + burst` units**.
//!
//! A third of a second is no whole number of nanoseconds, and rounding each step would drift. The
//! moments that steps lead to lie on a lattice, multiples of `per / units` and a whole number of
//! nanoseconds; stored rounded up, each gives its fraction back (`Rate::fraction`). So the sum of all
//! steps is exact, with eight bytes of state. Only the end of a rest is rounded, up: where a second is
//! no multiple of the rate, the last unit of a burst taken one by one may come a nanosecond later,
//! and so may each with a burst of one.

use std::time::Duration;

use crate::base::planted::{Bug, planted};
use crate::base::time::Mono;

/// How much may pass: `units` in each `per`, and `burst` units at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// None at all may pass if this is zero.
    pub units: u64,
    pub per: Duration,
    /// At least one, also if this says zero: nothing would ever pass.
    pub burst: u64,
}

impl Rate {
    #[must_use]
    pub const fn per_second(units: u64, burst: u64) -> Self {
        Self { units, per: Duration::from_secs(1), burst }
    }

    /// The arrival time after a take of `units` at `now`.
    ///
    /// # Errors
    /// The moment at which the take will conform, if nobody else takes before.
    pub(super) fn step(&self, tat: Mono, now: Mono, units: u64) -> Result<Mono, Mono> {
        let ready = self.ready(tat, now, units);
        if ready > now || self.units == 0 {
            return Err(ready);
        }
        // At the end of a rest the sum begins at `now`, a whole nanosecond, which may lie between
        // two points of the lattice: the upper one keeps the promise.
        let rested = tat <= now;
        let from = tat.max(now);
        let fraction = self.fraction(from);
        let price = self.price(units).saturating_sub(fraction).div_ceil(u128::from(self.units));
        let step = price.saturating_add(u128::from(rested && fraction > 0));
        Ok(Mono(from.0.saturating_add(saturated(step))))
    }

    /// The first moment, `now` or later, at which a take of `units` conforms. More than the burst
    /// conforms when everything is paid for.
    pub(super) fn ready(&self, tat: Mono, now: Mono, units: u64) -> Mono {
        if self.units == 0 {
            return Mono::NEVER;
        }
        if tat <= now {
            return now;
        }
        let burst = self.burst.max(1) + u64::from(planted(Bug::BurstTooLarge));
        let unused = self.price(burst.saturating_sub(units));
        let reach = unused.saturating_add(self.fraction(tat)) / u128::from(self.units);
        Mono(tat.0.saturating_sub(saturated(reach))).max(now)
    }

    /// By how much the exact arrival time lies before the stored one, in `1 / units` nanoseconds.
    ///
    /// With T = `per / units`, the stored `t` stands for `k × T + d`, where `k × T` is the last
    /// multiple up to `t` and `d` whole nanoseconds: rounding `k × T` up lost exactly this.
    fn fraction(&self, at: Mono) -> u128 {
        let (units, per) = (u128::from(self.units), u128::from(self.per()));
        (u128::from(at.0 % self.per()) * units % per) % units
    }

    /// What `units` cost, in `1 / units-of-the-rate` nanoseconds.
    fn price(&self, units: u64) -> u128 {
        u128::from(units) * u128::from(self.per())
    }

    fn per(&self) -> u64 {
        u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The arrival time under this rate that leaves as many units unpaid as `tat` does under `old`.
    pub(super) fn carry_over(&self, old: &Self, tat: Mono, now: Mono) -> Mono {
        let ahead = u128::from(tat.0.saturating_sub(now.0));
        if ahead == 0 || self.units == 0 || old.units == 0 {
            return tat;
        }
        // In 1 / per-of-the-old units. Where the product is too large, whole units, rounded up.
        let unpaid = ahead * u128::from(old.units);
        let (old_per, per) = (u128::from(old.per()), u128::from(self.per()));
        let nanos = match (unpaid.checked_mul(per), old_per.checked_mul(u128::from(self.units))) {
            (Some(price), Some(scale)) => price.div_ceil(scale),
            _ => unpaid.div_ceil(old_per).saturating_mul(per).div_ceil(u128::from(self.units)),
        };
        Mono(now.0.saturating_add(saturated(nanos)))
    }
}

/// One thing that is paced, by the shard that owns it. Fresh, it has its whole burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    tat: Mono,
}

impl Gcra {
    /// Takes `units` at `now`. More than the burst passes too, alone, once everything taken before
    /// is paid for, and is paid for afterwards: the promise then holds with `units` as the burst.
    ///
    /// # Errors
    /// The moment at which this take will conform; [`Mono::NEVER`] if the rate lets nothing pass.
    pub fn take(&mut self, now: Mono, rate: &Rate, units: u64) -> Result<(), Mono> {
        self.tat = rate.step(self.tat, now, units)?;
        Ok(())
    }

    /// When a take of `units` will conform: `now`, or the moment that [`Gcra::take`] would tell.
    #[must_use]
    pub fn ready_at(&self, now: Mono, rate: &Rate, units: u64) -> Mono {
        rate.ready(self.tat, now, units)
    }

    /// Goes over to another rate: what was taken stays unpaid in units, so that a slower rate
    /// makes no room for a second burst and a faster one pays sooner.
    pub fn retune(&mut self, now: Mono, old: &Rate, new: &Rate) {
        self.tat = new.carry_over(old, self.tat, now);
    }

    /// When all is paid for.
    #[must_use]
    pub fn rests_at(&self) -> Mono {
        self.tat
    }

    /// Whether all is paid for: a fresh one would behave alike.
    #[must_use]
    pub fn is_rested(&self, now: Mono) -> bool {
        self.tat <= now
    }
}

fn saturated(nanos: u128) -> u64 {
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// What a taker got: moments and units, in order.
    type Taken = Vec<(u64, u64)>;

    /// Takes `units` whenever they conform, `late` nanoseconds after that moment, until `end`.
    fn greedy(rate: &Rate, start: u64, end: u64, units: u64, late: u64) -> Taken {
        let (mut gcra, mut now, mut taken) = (Gcra::default(), Mono(start), Vec::new());
        while now.0 < end {
            gcra.take(now, rate, units).unwrap();
            taken.push((now.0, units));
            let ready = gcra.ready_at(now, rate, units);
            now = if ready > now { Mono(ready.0 + late) } else { now };
        }
        taken
    }

    /// The promise, in whole numbers: in every window that begins and ends with a take.
    fn assert_no_window_is_over(rate: &Rate, taken: &Taken) {
        let (units, per) = (i128::from(rate.units), i128::from(rate.per()));
        let burst = i128::from(rate.burst);
        // A window from i to j is over if sum(j) - u × t(j) > sum(i - 1) - u × t(i) + burst.
        let (mut sum, mut least) = (0, i128::MAX);
        for (at, n) in taken {
            let paid = units * i128::from(*at);
            least = least.min(sum - paid);
            sum += i128::from(*n) * per;
            assert!(sum - paid - least <= burst * per, "over at {at} ns: {rate:?}");
        }
    }

    fn check_exact(rate: Rate, start: u64, seconds: u64, units: u64) {
        let taken = greedy(&rate, start, start + seconds * SECOND, units, 0);
        let sum: u64 = taken.iter().map(|(_, n)| n).sum();
        let in_time =
            u128::from(rate.units * seconds) * u128::from(SECOND) / u128::from(rate.per());
        let allowed = saturated(in_time) + rate.burst;
        assert!(sum <= allowed && sum + units + 1 >= allowed, "{sum} of {allowed}: {rate:?}");
        assert_no_window_is_over(&rate, &taken);
    }

    #[test]
    fn no_drift_over_hours() {
        check_exact(Rate::per_second(3, 2), 17, 36_000, 1);
        check_exact(Rate::per_second(7, 5), 1_234_567, 36_000, 1);
        check_exact(Rate::per_second(1_000_000_000, 400_000_000), 0, 36_000, 200_000_000);
        let odd = Rate { units: 1_001, per: Duration::from_secs(3_600), burst: 2 };
        check_exact(odd, 5, 36_000, 1);
        let day = Rate { units: 50_000, per: Duration::from_secs(86_400), burst: 10 };
        check_exact(day, 5, 864_000, 1);
    }

    #[test]
    fn spacing_below_a_millisecond_is_exact() {
        check_exact(Rate::per_second(7_000, 2), 99, 10, 1);
        check_exact(Rate::per_second(299_999, 2), 99, 2, 1);
        let taken = greedy(&Rate::per_second(10_000, 1), 0, SECOND, 1, 0);
        assert!(taken.windows(2).all(|pair| pair[1].0 - pair[0].0 == 100_000));
    }

    #[test]
    fn a_taker_who_comes_late_gets_99_percent_within_the_burst() {
        let rate = Rate::per_second(20_000, 20);
        let taken = greedy(&rate, 3, 10 * SECOND, 1, 400_000);
        assert!((198_000..=200_020).contains(&taken.len()), "{}", taken.len());
        assert_no_window_is_over(&rate, &taken);
    }

    #[test]
    fn a_burst_of_one_still_reaches_the_rate() {
        let taken = greedy(&Rate::per_second(333_333, 1), 3, 10 * SECOND, 1, 0);
        assert!((3_300_000..=3_333_331).contains(&taken.len()), "{}", taken.len());
        assert_no_window_is_over(&Rate::per_second(333_333, 1), &taken);
    }

    #[test]
    fn after_a_rest_the_whole_burst_passes_and_no_more() {
        let rate = Rate::per_second(3, 5);
        for start in [0, 1, 333_333_333, 1 << 40] {
            let mut at_once = Gcra::default();
            assert_eq!(at_once.take(Mono(start), &rate, 5), Ok(()));
            let mut gcra = Gcra::default();
            for _ in 0..5 {
                let ready = gcra.ready_at(Mono(start), &rate, 1);
                assert!(ready.0 - start <= 1);
                assert_eq!(gcra.take(ready, &rate, 1), Ok(()));
            }
            let ready = gcra.take(Mono(start + 1), &rate, 1).unwrap_err();
            assert!((333_333_334..=333_333_335).contains(&(ready.0 - start)));
            assert_eq!(gcra.take(Mono(ready.0 - 1), &rate, 1), Err(ready));
            assert_eq!(gcra.take(ready, &rate, 1), Ok(()));
        }
    }

    #[test]
    fn a_burst_at_a_common_rate_passes_at_one_moment() {
        for start in [0, 1, 333_333_333, 1 << 40] {
            let (rate, mut gcra) = (Rate::per_second(100, 50), Gcra::default());
            assert!((0..50).all(|_| gcra.take(Mono(start), &rate, 1).is_ok()));
            assert_eq!(gcra.take(Mono(start), &rate, 1), Err(Mono(start + 10_000_000)));
        }
    }

    #[test]
    fn more_than_the_burst_passes_alone_and_pays_afterwards() {
        let rate = Rate::per_second(1_000, 100);
        let mut gcra = Gcra::default();
        assert_eq!(gcra.take(Mono(0), &rate, 5_000), Ok(()));
        assert_eq!(gcra.take(Mono(0), &rate, 1), Err(Mono(4_901_000_000)));
        assert_eq!(gcra.ready_at(Mono(0), &rate, 5_000), Mono(5 * SECOND));
        assert_eq!(gcra.take(Mono(5 * SECOND), &rate, 5_000), Ok(()));
    }

    #[test]
    fn a_slower_rate_makes_no_room_for_a_second_burst() {
        let (fast, slow) = (Rate::per_second(1_000, 100), Rate::per_second(1, 100));
        let mut gcra = Gcra::default();
        gcra.take(Mono(0), &fast, 100).unwrap();
        gcra.retune(Mono(0), &fast, &slow);
        assert_eq!(gcra.take(Mono(0), &slow, 1), Err(Mono(SECOND)));
        gcra.retune(Mono(0), &slow, &fast);
        assert_eq!(gcra.take(Mono(0), &fast, 1), Err(Mono(1_000_000)));
    }

    #[test]
    fn nothing_passes_at_a_rate_of_zero() {
        let none = Rate::per_second(0, 5);
        assert_eq!(Gcra::default().take(Mono(9), &none, 1), Err(Mono::NEVER));
        let mut gcra = Gcra::default();
        gcra.retune(Mono(0), &none, &Rate::per_second(1, 1));
        assert_eq!(gcra.take(Mono(9), &Rate::per_second(1, 1), 1), Ok(()));
    }

    #[test]
    fn nothing_overflows() {
        let odd = [0, 1, 3, u64::MAX / 2, u64::MAX];
        for (units, per, burst) in odd.iter().flat_map(|u| odd.map(|p| (*u, p, *u))) {
            let rate = Rate { units, per: Duration::from_nanos(per), burst };
            for (now, n) in odd.iter().flat_map(|now| odd.map(|n| (Mono(*now), n))) {
                let mut gcra = Gcra::default();
                let first = gcra.take(now, &rate, n);
                assert_eq!(first.is_ok(), units > 0);
                assert!(gcra.ready_at(now, &rate, n) >= now);
                gcra.retune(now, &rate, &Rate { units: n, ..rate });
            }
        }
        check_exact(Rate::per_second(3, 2), 1 << 63, 1_000, 1);
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let units = prop_oneof![1..20_u64, 1..20_000_u64, 1..5_000_000_000_u64];
        (units, 1..100_000_000_000_u64, 1..50_u64).prop_map(|(units, per, burst)| Rate {
            units,
            per: Duration::from_nanos(per),
            burst,
        })
    }

    proptest! {
        #[test]
        fn no_schedule_breaks_the_promise(
            rate in any_rate(),
            start in 0..u64::MAX / 2,
            steps in prop::collection::vec((0..4_u64, 0..2_000_u64, 1..50_u64), 1..300),
        ) {
            let (mut gcra, mut now, mut taken) = (Gcra::default(), Mono(start), Vec::new());
            let spacing = rate.per() / rate.units;
            for (kind, part, units) in steps {
                let units = units.min(rate.burst);
                now = match kind {
                    0 => now,
                    1 => gcra.ready_at(now, &rate, units),
                    2 => Mono(gcra.ready_at(now, &rate, units).0.max(1) - 1).max(now),
                    _ => Mono(now.0 + spacing.saturating_mul(part) / 1_000 + part % 3),
                };
                match gcra.take(now, &rate, units) {
                    Ok(()) => taken.push((now.0, units)),
                    Err(ready) => prop_assert_eq!(ready, gcra.ready_at(now, &rate, units)),
                }
            }
            assert_no_window_is_over(&rate, &taken);
        }

        /// The exact algorithm in whole numbers of `1 / units` ns takes the same in a busy time.
        #[test]
        fn a_busy_time_is_summed_exactly(
            units in 1..2_000_000_u64,
            start in 0..1_u64 << 62,
            sizes in prop::collection::vec(1..40_u64, 1..400),
        ) {
            let rate = Rate::per_second(units, u64::MAX);
            let mut gcra = Gcra::default();
            for size in &sizes {
                gcra.take(Mono(start), &rate, *size).unwrap();
            }
            let exact = u128::from(sizes.iter().sum::<u64>()) * u128::from(SECOND);
            let stored = u128::from(gcra.tat.0 - start) * u128::from(units);
            prop_assert!(stored >= exact && stored <= exact + 3 * u128::from(units));
        }

        #[test]
        fn a_new_rate_never_forgives_units(
            (old, new) in (any_rate(), any_rate()),
            taken in 1..1_000_u64,
        ) {
            let mut gcra = Gcra::default();
            gcra.take(Mono(0), &old, taken).unwrap();
            gcra.retune(Mono(0), &old, &new);
            let paid = u128::from(gcra.tat.0) * u128::from(new.units);
            prop_assert!(paid >= u128::from(taken) * u128::from(new.per()));
        }
    }
}
