//! The rate a path was found to bear, in messages per 1000 seconds; unlimited until refusals show
//! that the number of connections is not what the site minds.
//!
//! While a site refuses what is too much, what it takes is what it allows: the rate is not guessed
//! but measured, over a time in which there was always mail waiting.

use std::time::Duration;

use super::ControlSettings;
use super::window::scale;
use crate::base::time::Mono;

/// Without a rate, the sample forgets half of itself after this time ...
const SAMPLE_TIME: Duration = Duration::from_secs(10);
/// ... if it holds this many by then: a slow path is measured over as long as it takes.
const SAMPLE_MIN: u32 = 64;
/// Deliveries from which a measured rate means something.
const MEASURE_MIN: u32 = 8;
/// From this many on it is trusted, however low.
const TRUST_MIN: u32 = 32;
/// Refusals that are no accident.
const REFUSALS_MIN: u16 = 3;
/// Without a rate, refusals beyond this share of at least so many tries ask for one.
const NEED_PERMILLE: u64 = 20;
const NEED_TRIES: u32 = 50;
/// With a rate, refusals beyond this share cut it; a single one, or this share, lets it rise.
const CUT_PERMILLE: u64 = 10;
const CLEAN_PERMILLE: u64 = 5;
/// The first rate, of what was measured: the sample began before the refusals, and holds what the
/// site had saved up for us.
const FIRST_PERMILLE: u32 = 800;
/// Later ones: enough for the site to see that we heard.
const CUT_TO_PERMILLE: u32 = 950;
/// Between two raises, doubled with each probe that failed.
const HOLD: Duration = Duration::from_secs(10);
/// At most 320 s between two probes.
const PATIENCE_MAX: u8 = 5;
/// After an outage: 40 s before the first probe.
const PATIENCE_AFTER_OUTAGE: u8 = 2;
/// A probe costs one step of patience, and it takes one or two to find the level again: adding
/// three makes the probes of a level that holds ever rarer.
const PATIENCE_STEP: u8 = 3;
/// Deliveries between raises, and between probes: a failed probe costs some three refusals.
const RAISE_DELIVERIES: u32 = 16;
const PROBE_DELIVERIES: u32 = 256;
/// Of what is missing to the level, per raise.
const APPROACH_SHARE: u32 = 4;
/// So near to the level, a raise is a probe.
const NEAR_PERMILLE: u32 = 985;
const PROBE_PERMILLE: u32 = 1020;
/// Once nothing is known to refuse it, a rate rises quickly.
const FREE_PERMILLE: u32 = 1250;
/// A rate that little of was used is not raised.
const USED_PERMILLE: u32 = 800;
/// After an hour without a cut nothing shows that a rate is needed: a needed one is probed, and
/// cut, every few minutes.
const FORGET: Duration = Duration::from_secs(3600);
/// Where the site refuses is not known.
const LEVEL_NONE: u32 = u32::MAX;
/// No rate.
const FREE: u32 = 0;

#[derive(Debug)]
pub(super) struct Pace {
    /// Since when the sample is taken; there was always mail waiting.
    since: Mono,
    /// The last cut: what began before it says nothing about the present rate.
    cut: Mono,
    /// [`FREE`] or a rate.
    rate: u32,
    /// What the site took when it refused last.
    level: u32,
    delivered: u32,
    throttled: u16,
    /// Whether anything begun since the last cut was taken: if not, the door may be shut, and what
    /// is still delivered says nothing about a rate.
    taken: bool,
    patience: u8,
}

/// How a rate changed without a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    Raised,
    Probed,
    Forgotten,
}

impl Pace {
    pub(super) fn start(now: Mono) -> Self {
        Self {
            since: now,
            cut: Mono(0),
            rate: FREE,
            level: LEVEL_NONE,
            delivered: 0,
            throttled: 0,
            taken: false,
            patience: 0,
        }
    }

    pub(super) fn resume(now: Mono, rate: Option<u32>) -> Self {
        let rate = rate.unwrap_or(FREE);
        let level = if rate == FREE { LEVEL_NONE } else { rate };
        Self { rate, level, cut: now, patience: PATIENCE_STEP, ..Self::start(now) }
    }

    pub(super) fn rate(&self) -> Option<u32> {
        (self.rate != FREE).then_some(self.rate)
    }

    /// Refusals, and all tries of the sample.
    pub(super) fn sample(&self) -> (u32, u32) {
        let throttled = u32::from(self.throttled);
        (throttled, self.delivered.saturating_add(throttled))
    }

    /// Demand was met: what is delivered from here on says nothing about what could be.
    pub(super) fn restart_sample(&mut self, now: Mono) {
        (self.since, self.delivered, self.throttled) = (now, 0, 0);
    }

    /// The site is back: the outage is no part of a sample, and what was refused before it may be
    /// taken now.
    pub(super) fn handle_return(&mut self, now: Mono) {
        self.restart_sample(now);
        self.patience = self.patience.min(PATIENCE_AFTER_OUTAGE);
    }

    /// A delivery begun at `started`; `saturated`: mail was waiting for this path.
    pub(super) fn handle_delivered(
        &mut self,
        now: Mono,
        (started, saturated): (Mono, bool),
        settings: &ControlSettings,
    ) -> Option<Rise> {
        if self.rate != FREE && now.since(self.cut) >= FORGET {
            *self = Self::start(now);
            return Some(Rise::Forgotten);
        }
        if !saturated {
            self.restart_sample(now);
            return None;
        }
        self.taken |= started >= self.cut;
        self.delivered = self.delivered.saturating_add(1);
        if self.rate == FREE {
            self.fade(now);
            return None;
        }
        self.rise(now, settings)
    }

    /// A refusal of something begun at `started`; `futile`: cutting the window does not help.
    /// `true` if the rate was cut, or first set.
    pub(super) fn handle_throttle(
        &mut self,
        now: Mono,
        started: Mono,
        futile: bool,
        settings: &ControlSettings,
    ) -> bool {
        if started < self.cut {
            return false;
        }
        self.throttled = self.throttled.saturating_add(1);
        let (throttled, tried) = self.sample();
        let share = |permille| u64::from(throttled) * 1000 > u64::from(tried) * permille;
        let often = self.throttled >= REFUSALS_MIN;
        let needed = match self.rate {
            FREE => futile || often && tried >= NEED_TRIES && share(NEED_PERMILLE),
            _ => often && share(CUT_PERMILLE),
        };
        needed && self.slow_down(now, settings)
    }

    fn slow_down(&mut self, now: Mono, settings: &ControlSettings) -> bool {
        let Some(measured) = self.measured(now) else { return false };
        let was_free = self.rate == FREE;
        let level = if was_free { measured } else { measured.min(self.rate) };
        let part = if was_free { FIRST_PERMILLE } else { CUT_TO_PERMILLE };
        let trusted = self.delivered >= TRUST_MIN || was_free;
        let least = if trusted { 0 } else { self.rate / 4 };
        self.rate = scale(level, part).max(least).clamp(settings.rate_floor, settings.rate_ceiling);
        // The first measure may hold pauses, or what the site had saved up: it is no level yet.
        self.level = if was_free { LEVEL_NONE } else { level.max(self.rate) };
        self.cut = now;
        self.taken = false;
        let step = if was_free { 0 } else { PATIENCE_STEP };
        self.patience = (self.patience + step).min(PATIENCE_MAX);
        self.restart_sample(now);
        true
    }

    /// What the path took, per 1000 s; `None` if too little to tell. With a rate, one delivery is
    /// enough; less than that is a closed door, which is the breaker's matter.
    fn measured(&self, now: Mono) -> Option<u32> {
        let micros = u64::try_from(now.since(self.since).as_micros()).unwrap_or(u64::MAX);
        let per_1000_s = u64::from(self.delivered).saturating_mul(1_000_000_000) / micros.max(1);
        let measured = u32::try_from(per_1000_s).unwrap_or(u32::MAX - 1);
        let enough = if self.rate == FREE { self.delivered >= MEASURE_MIN } else { self.taken };
        (enough && self.delivered > 0).then_some(measured)
    }

    fn fade(&mut self, now: Mono) {
        let elapsed = now.since(self.since);
        if elapsed >= SAMPLE_TIME && self.delivered >= SAMPLE_MIN {
            self.since = self.since.plus(elapsed / 2);
            self.delivered /= 2;
            self.throttled /= 2;
        }
    }

    fn rise(&mut self, now: Mono, settings: &ControlSettings) -> Option<Rise> {
        let near = self.rate >= scale(self.level, NEAR_PERMILLE) && self.level != LEVEL_NONE;
        let doublings = if near { self.patience } else { 0 };
        let deliveries = if near { PROBE_DELIVERIES } else { RAISE_DELIVERIES };
        let held = now.since(self.since) >= HOLD.saturating_mul(1 << doublings);
        if !held || self.delivered < deliveries || !self.is_clean_and_used(now) {
            return None;
        }
        let before = self.rate;
        self.rate = self.raised(near).min(settings.rate_ceiling);
        if near {
            self.level = if self.patience == 0 { LEVEL_NONE } else { self.rate };
            self.patience = self.patience.saturating_sub(1);
        }
        self.restart_sample(now);
        (self.rate != before).then_some(if near { Rise::Probed } else { Rise::Raised })
    }

    fn raised(&self, near: bool) -> u32 {
        if near {
            return scale(self.rate, PROBE_PERMILLE).max(self.rate.saturating_add(1));
        }
        if self.level == LEVEL_NONE {
            return scale(self.rate, FREE_PERMILLE).max(self.rate.saturating_add(1));
        }
        self.rate.saturating_add((self.level.saturating_sub(self.rate)).div_ceil(APPROACH_SHARE))
    }

    fn is_clean_and_used(&self, now: Mono) -> bool {
        let (throttled, tried) = self.sample();
        let used = self.measured(now).is_some_and(|rate| rate >= scale(self.rate, USED_PERMILLE));
        let share = u64::from(tried) * CLEAN_PERMILLE / 1000;
        u64::from(throttled) <= share.max(1) && used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;

    fn settings() -> ControlSettings {
        ControlSettings::default()
    }

    /// Deliveries at `per_second` for so many seconds, none refused.
    fn deliver(pace: &mut Pace, now: &mut u64, per_second: u64, seconds: u64) {
        for _ in 0..per_second * seconds {
            *now += SECOND / per_second;
            pace.handle_delivered(Mono(*now), (Mono(*now), true), &settings());
        }
    }

    fn refuse(pace: &mut Pace, now: &mut u64, times: u32) -> bool {
        let mut cut = false;
        for _ in 0..times {
            *now += MILLI;
            cut |= pace.handle_throttle(Mono(*now), Mono(*now - 1), false, &settings());
        }
        cut
    }

    fn limited() -> (Pace, u64) {
        let (mut pace, mut now) = (Pace::start(Mono(0)), 0);
        deliver(&mut pace, &mut now, 100, 10);
        assert!(refuse(&mut pace, &mut now, 30));
        (pace, now)
    }

    #[test]
    fn few_refusals_ask_for_no_rate() {
        let (mut pace, mut now) = (Pace::start(Mono(0)), 0);
        deliver(&mut pace, &mut now, 100, 10);
        assert!(!refuse(&mut pace, &mut now, 2));
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn the_first_rate_is_below_what_was_measured() {
        let (pace, _) = limited();
        let rate = pace.rate().unwrap();
        assert!((75_000..=80_000).contains(&rate), "{rate}");
    }

    #[test]
    fn refusals_of_one_moment_cut_once() {
        let (mut pace, now) = limited();
        let before = pace.rate();
        for later in 0..50 {
            assert!(!pace.handle_throttle(Mono(now + later), Mono(now - 2), false, &settings()));
        }
        assert_eq!(pace.rate(), before);
    }

    #[test]
    fn a_slow_path_is_measured_over_as_long_as_it_takes() {
        let (mut pace, mut now) = (Pace::start(Mono(0)), 0);
        for _ in 0..10 {
            now += 20 * SECOND;
            pace.handle_delivered(Mono(now), (Mono(now), true), &settings());
        }
        assert!(pace.handle_throttle(Mono(now), Mono(now - 1), true, &settings()));
        assert_eq!(pace.rate(), Some(40), "four fifths of one in 20 s");
    }

    #[test]
    fn what_nobody_waited_for_is_no_measure() {
        let (mut pace, mut now) = (Pace::start(Mono(0)), 0);
        for _ in 0..100 {
            now += 3600 * SECOND;
            pace.handle_delivered(Mono(now), (Mono(now), false), &settings());
        }
        assert!(!pace.handle_throttle(Mono(now), Mono(now), true, &settings()));
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn a_closed_door_does_not_cut_the_rate() {
        let (mut pace, mut now) = limited();
        let before = pace.rate();
        for _ in 0..20 {
            now += 60 * SECOND;
            refuse(&mut pace, &mut now, 5);
        }
        assert_eq!(pace.rate(), before);
    }

    #[test]
    fn a_rate_rises_where_nothing_is_refused_and_is_forgotten_in_the_end() {
        let (mut pace, mut now) = limited();
        for _ in 0..12 {
            let rate = u64::from(pace.rate().unwrap()) / 1000;
            deliver(&mut pace, &mut now, rate, 11);
        }
        assert!(pace.rate().unwrap() >= 94_000, "{:?}", pace.rate());
        now += 3601 * SECOND;
        assert_eq!(
            pace.handle_delivered(Mono(now), (Mono(now), true), &settings()),
            Some(Rise::Forgotten)
        );
        assert_eq!(pace.rate(), None);
    }
}
