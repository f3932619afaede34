//! Pacing by GCRA, the generic cell rate algorithm (ITU-T I.371), as virtual scheduling.
//!
//! The state is one moment, the theoretical arrival time: when all that was taken is paid for. A
//! take moves it on by `units × per / units-of-the-rate` and conforms if it then lies no further
//! ahead than the burst reaches. That keeps the promise: **in any window `w`, at most
//! `rate × w + burst` units**.
//!
//! A third of a second is no whole number of nanoseconds, and rounding each step would drift. The
//! moments that steps lead to lie on a lattice, multiples of `per / units` and a whole number of
//! nanoseconds; stored rounded up, each gives its fraction back ([`Rate::fraction`]). So the sum of
//! all steps is exact, with eight bytes of state.

use std::time::Duration;

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
        if ready > now {
            return Err(ready);
        }
        // A rest is over: the sum begins at `now`, a whole nanosecond, which may lie between two
        // points of the lattice; the upper one keeps the promise. (So a burst of one pays up to a
        // nanosecond a take, as it must: with whole nanoseconds between them, three a second would
        // come too close.)
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
        let unused = self.price(self.burst.max(1).saturating_sub(units));
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

    /// Whether all is paid for: a fresh one would behave alike.
    #[must_use]
    pub fn is_rested(&self, now: Mono) -> bool {
        self.tat <= now
    }
}

fn saturated(nanos: u128) -> u64 {
    u64::try_from(nanos).unwrap_or(u64::MAX)
}
