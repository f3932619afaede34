//! Whether a path takes mail at present, and how long it is left alone after trouble.
//!
//! ```text
//! Open --two cohorts of trouble--> Closed --its time--> Probing --an answer--> Open
//!                                     ^-----trouble--------'
//! ```

use std::time::Duration;

use super::ControlSettings;
use crate::base::time::Mono;

/// Closings in a row beyond this change nothing: the longest wait was reached before.
pub(super) const CLOSINGS_MAX: u8 = 64;
/// Probes of a path that cannot be reached, for its first hour: mail waits no longer for a site that
/// is back, and thirty connections an hour are nothing to one that is not. They are fewer than those
/// of a sender that tries five at once every five minutes.
const PROBE_WAIT_SOON: Duration = Duration::from_secs(2 * 60);
/// Closings that fill this hour, even where jitter makes all waits short. Then waits double again:
/// some sites never come back.
const SOON_CLOSINGS: u8 = 40;
/// Waits of a path that refuses at once, each below a number of closings: such a host is mostly being
/// started again, and each refusal costs it a packet. In the first two minutes it is found back after no
/// longer than it was away, then after a quarter of that; the rest of the hour is as for any other. An
/// hour takes some fifty connections.
const REFUSED_WAITS: [(u8, Duration); 4] = [
    (2, Duration::from_secs(10)),
    (4, Duration::from_secs(20)),
    (13, Duration::from_secs(30)),
    (28, Duration::from_secs(60)),
];
/// Closings of a path that refuses which fill the hour.
const REFUSED_SOON_CLOSINGS: u8 = 56;
/// A wait that was doubled so often is beyond every longest wait.
const DOUBLINGS_MAX: u8 = 24;
/// A wait up to this is over soon: bodies of mail that waits for it are worth their memory.
const BRIEF_WAIT: Duration = Duration::from_secs(10);
/// Parts of a cohort: one failure at a window of W counts 1/W.
const COHORT: u32 = 1 << 20;
/// ±20 %, so that paths closed at one moment are not probed at one moment.
const JITTER_PERMILLE: u64 = 200;

/// What closed a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) enum Trouble {
    /// It asked to slow down, whatever was tried.
    Throttled,
    /// It could not be reached, or answered nothing that counts.
    Unreachable,
    /// The same, and it said so at once.
    Refused,
    /// Not its fault: this machine could not.
    Local,
}

impl Trouble {
    /// Whether the site was not there at all.
    pub(super) fn is_absence(self) -> bool {
        matches!(self, Self::Unreachable | Self::Refused)
    }
}

/// What a path lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) enum Door {
    /// As much as its window and rate.
    Open,
    /// Nothing.
    Closed { until: Mono, cause: Trouble },
    /// One delivery at a time; nothing has gone well yet. What began before `since` says nothing.
    Probing { since: Mono, cause: Trouble },
}

#[derive(Debug)]
pub(super) struct Breaker {
    door: Door,
    /// Sum of 1/W over failures and refusals in a row, in parts of [`COHORT`].
    cohorts: u32,
    /// Closings since the last success.
    closings: u8,
}

impl Breaker {
    pub(super) const OPEN: Self = Self { door: Door::Open, cohorts: 0, closings: 0 };

    /// As after a restart: a path that was in trouble is probed first.
    pub(super) fn resume(now: Mono, closings: u8) -> Self {
        let closings = closings.min(CLOSINGS_MAX);
        let probing = Door::Probing { since: now, cause: Trouble::Unreachable };
        let door = if closings == 0 { Door::Open } else { probing };
        Self { door, closings, ..Self::OPEN }
    }

    pub(super) fn door(&self) -> Door {
        self.door
    }

    pub(super) fn closings(&self) -> u8 {
        self.closings
    }

    /// Whether the last thing that happened here was no failure.
    pub(super) fn is_sound(&self) -> bool {
        self.door == Door::Open && self.cohorts == 0
    }

    /// Whether a signal of something begun at `started` says anything about the present: what was
    /// under way when the door closed does not, so a burst of refusals closes it once.
    pub(super) fn counts(&self, started: Mono) -> bool {
        match self.door {
            Door::Open => true,
            Door::Closed { .. } => false,
            Door::Probing { since, .. } => started >= since,
        }
    }

    /// The site answered as a site does.
    pub(super) fn handle_answer(&mut self) {
        *self = Self::OPEN;
    }

    /// It failed or refused, at a window of `width`. A site that takes some of what is offered is a
    /// matter of window and rate; one that takes nothing, twice over, is left alone.
    pub(super) fn handle_trouble(
        &mut self,
        now: Mono,
        (cause, width): (Trouble, u32),
        jitter: u64,
        settings: &ControlSettings,
    ) {
        self.cohorts = self.cohorts.saturating_add(COHORT.div_ceil(width.max(1)));
        let dead = self.cohorts >= settings.cohorts_max.saturating_mul(COHORT);
        if dead || matches!(self.door, Door::Probing { .. }) {
            self.close(now, cause, jitter, settings);
        }
    }

    /// This machine lacks something; other sites may have given it back soon.
    pub(super) fn handle_local(&mut self, now: Mono, settings: &ControlSettings) {
        let until = now.plus(settings.local_wait);
        self.door = Door::Closed { until, cause: Trouble::Local };
    }

    /// The time of a closed door may be over.
    pub(super) fn handle_time(&mut self, now: Mono) {
        if let Door::Closed { until, cause } = self.door
            && until <= now
        {
            let probing = Door::Probing { since: until, cause };
            self.door = if self.closings == 0 { Door::Open } else { probing };
        }
    }

    /// An operator does not want to wait: a closed door is probed at once. If that fails, it waits no
    /// longer than it did this time, however often he asks.
    pub(super) fn handle_flush(&mut self, now: Mono) {
        if let Door::Closed { cause, .. } = self.door {
            let probing = Door::Probing { since: now, cause };
            self.door = if self.closings == 0 { Door::Open } else { probing };
            self.closings = self.closings.saturating_sub(1).max(self.closings.min(1));
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Mono> {
        match self.door {
            Door::Closed { until, .. } => Some(until),
            Door::Open | Door::Probing { .. } => None,
        }
    }

    /// Whether mail that arrives now will soon be on its way, so that its body is worth keeping.
    pub(super) fn is_brief(&self, settings: &ControlSettings) -> bool {
        match self.door {
            Door::Open => true,
            Door::Closed { cause, .. } | Door::Probing { cause, .. } => {
                wait(cause, self.closings.saturating_sub(1), settings) <= BRIEF_WAIT
            }
        }
    }

    fn close(&mut self, now: Mono, cause: Trouble, jitter: u64, settings: &ControlSettings) {
        let until = now.plus(jittered(wait(cause, self.closings, settings), jitter));
        let closings = (self.closings + 1).min(CLOSINGS_MAX);
        *self = Self { door: Door::Closed { until, cause }, closings, cohorts: 0 };
    }
}

/// The wait after `closings` before, in a row; its jitter comes on top.
fn wait(cause: Trouble, closings: u8, settings: &ControlSettings) -> Duration {
    match cause {
        Trouble::Local => settings.local_wait,
        Trouble::Throttled => {
            let wait = doubled(settings.throttle_wait_first, closings);
            wait.min(settings.throttle_wait_max)
        }
        Trouble::Unreachable => {
            let first = settings.probe_wait_first.min(with_room(settings.retry_first));
            let max = settings.probe_wait_max.min(with_room(settings.retry_last));
            probe_wait(first, closings.min(CLOSINGS_MAX)).min(max)
        }
        Trouble::Refused => {
            let unreachable = wait(Trouble::Unreachable, closings, settings);
            refused_wait(closings.min(CLOSINGS_MAX)).min(unreachable)
        }
    }
}

fn refused_wait(closings: u8) -> Duration {
    let soon = REFUSED_WAITS.iter().find(|(below, _)| closings < *below);
    let soon = soon.map_or(PROBE_WAIT_SOON, |(_, wait)| *wait);
    doubled(soon, closings.saturating_sub(REFUSED_SOON_CLOSINGS))
}

/// Each wait comes twice before it doubles: a site is found half as late, seen from how long it was
/// away, as it would be with each wait once.
fn probe_wait(first: Duration, closings: u8) -> Duration {
    let soon = doubled(first, closings / 2).min(PROBE_WAIT_SOON);
    doubled(soon, closings.saturating_sub(SOON_CLOSINGS))
}

fn doubled(wait: Duration, times: u8) -> Duration {
    wait.saturating_mul(1 << times.min(DOUBLINGS_MAX))
}

/// A bound, less what the jitter may add: messages that retry sooner than we probe would wait for
/// the probe.
fn with_room(bound: Duration) -> Duration {
    let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_mul(1000) / (1000 + JITTER_PERMILLE))
}

fn jittered(wait: Duration, jitter: u64) -> Duration {
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    let spread = nanos / 1000 * JITTER_PERMILLE;
    let above = (u128::from(jitter) * u128::from(2 * spread)) >> 64;
    Duration::from_nanos(nanos - spread + u64::try_from(above).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither earlier nor later.
    const EVEN: u64 = 1 << 63;

    fn trip(breaker: &mut Breaker, now: Mono, cause: Trouble, settings: &ControlSettings) {
        match cause {
            Trouble::Local => breaker.handle_local(now, settings),
            site => breaker.handle_trouble(now, (site, 1), EVEN, settings),
        }
    }

    #[test]
    fn a_flushed_door_is_probed_at_once_and_waits_no_longer_for_it() {
        let settings = ControlSettings::default();
        let (mut breaker, mut now) = (Breaker::OPEN, Mono(0));
        let mut waits = Vec::new();
        for _ in 0..6 {
            trip(&mut breaker, now, Trouble::Unreachable, &settings);
            trip(&mut breaker, now, Trouble::Unreachable, &settings);
            let Door::Closed { until, .. } = breaker.door() else { panic!("it is shut") };
            waits.push(until.since(now).as_secs());
            now = now.plus(Duration::from_secs(1));
            breaker.handle_flush(now);
            let Door::Probing { since, .. } = breaker.door() else { panic!("it is probed") };
            assert!(since == now && breaker.counts(now) && breaker.next_wakeup().is_none());
        }
        assert_eq!(waits, [30; 6]);
        breaker.handle_answer();
        breaker.handle_flush(now);
        assert_eq!(breaker.door(), Door::Open);
        breaker.handle_local(now, &settings);
        breaker.handle_flush(now);
        assert_eq!(breaker.door(), Door::Open, "this machine's trouble is not the site's");
    }

    fn waits(cause: Trouble, settings: &ControlSettings, rounds: usize) -> Vec<u64> {
        let (mut breaker, mut now, mut waits) = (Breaker::OPEN, Mono(0), Vec::new());
        while waits.len() < rounds {
            trip(&mut breaker, now, cause, settings);
            if let Some(until) = breaker.next_wakeup() {
                waits.push(u64::try_from(until.since(now).as_millis()).unwrap());
                now = until;
                breaker.handle_time(now);
            }
        }
        waits
    }

    #[test]
    fn waits_double_up_to_their_limit() {
        let settings = ControlSettings::default();
        let throttled = waits(Trouble::Throttled, &settings, 11);
        assert_eq!(throttled[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(throttled[10], 300_000);
        let unreachable = waits(Trouble::Unreachable, &settings, 50);
        assert_eq!(unreachable[..5], [30_000, 30_000, 60_000, 60_000, 120_000]);
        assert_eq!(unreachable[39..45], [120_000, 120_000, 240_000, 480_000, 960_000, 1_800_000]);
        assert_eq!(unreachable[49], 30 * 60_000);
    }

    #[test]
    fn a_site_that_comes_back_within_the_hour_is_found_in_two_minutes() {
        let waits = waits(Trouble::Unreachable, &ControlSettings::default(), 41);
        assert!(waits.iter().all(|wait| *wait <= 120_000), "{waits:?}");
        assert!(waits.iter().sum::<u64>() * 8 / 10 >= 3_600_000, "jitter takes a fifth at most");
        let mut gone = 0;
        for wait in &waits[..8] {
            assert!(*wait <= 30_000 || wait * 2 <= gone + wait, "half of the time it was away");
            gone += wait;
        }
    }

    #[test]
    fn waits_never_become_shorter_however_often_the_door_closed() {
        let settings = ControlSettings::default();
        for cause in [Trouble::Throttled, Trouble::Unreachable, Trouble::Refused, Trouble::Local] {
            let waits: Vec<_> =
                (0..=u8::MAX).map(|closings| wait(cause, closings, &settings)).collect();
            assert!(waits.is_sorted(), "{cause:?}: {waits:?}");
        }
    }

    #[test]
    fn a_site_that_refuses_at_once_is_knocked_at_sooner_and_not_much_more_often() {
        let settings = ControlSettings::default();
        let refused = waits(Trouble::Refused, &settings, 64);
        let mut gone = 0;
        for wait in &refused[..56] {
            let share = if gone < 120_000 { gone } else { gone / 4 };
            assert!(*wait <= share.clamp(10_000, 120_000), "{wait} ms after {gone} ms");
            gone += wait;
        }
        assert!(gone * 8 / 10 >= 3_600_000, "jitter takes a fifth at most: {gone}");
        let within = |end: u64| {
            let ends = refused.iter().scan(0, |at, wait| {
                *at += wait;
                Some(*at)
            });
            ends.filter(|at| *at <= end).count()
        };
        assert_eq!([5, 20, 60].map(|minutes| within(minutes * 60_000)), [12, 27, 47]);
        assert_eq!(
            refused[56..],
            [120_000, 240_000, 480_000, 960_000, 1_800_000, 1_800_000, 1_800_000, 1_800_000]
        );
    }

    #[test]
    fn short_retries_make_short_probes() {
        let settings = ControlSettings {
            retry_first: Duration::from_millis(500),
            retry_last: Duration::from_millis(700),
            ..ControlSettings::default()
        };
        assert_eq!(waits(Trouble::Unreachable, &settings, 4), [416, 416, 583, 583]);
        for jitter in [0, EVEN, u64::MAX] {
            let wait = jittered(wait(Trouble::Unreachable, 9, &settings), jitter);
            assert!(wait <= settings.retry_last && wait >= Duration::from_millis(460), "{wait:?}");
        }
    }

    #[test]
    fn what_is_not_the_sites_fault_doubles_nothing() {
        let settings = ControlSettings::default();
        assert_eq!(waits(Trouble::Local, &settings, 3), [1_000; 3]);
        let mut breaker = Breaker::OPEN;
        breaker.handle_local(Mono(0), &settings);
        breaker.handle_time(breaker.next_wakeup().unwrap());
        assert_eq!(breaker.door(), Door::Open);
    }

    #[test]
    fn local_trouble_does_not_forget_that_a_probe_is_due() {
        let settings = ControlSettings::default();
        let mut breaker = Breaker::resume(Mono(0), 3);
        breaker.handle_local(Mono(0), &settings);
        breaker.handle_time(Mono::NEVER);
        assert!(matches!(breaker.door(), Door::Probing { .. }));
        assert_eq!(breaker.closings(), 3);
    }

    #[test]
    fn what_began_before_the_door_closed_says_nothing() {
        let settings = ControlSettings::default();
        let mut breaker = Breaker::OPEN;
        trip(&mut breaker, Mono(5), Trouble::Throttled, &settings);
        trip(&mut breaker, Mono(5), Trouble::Throttled, &settings);
        assert!(!breaker.counts(Mono(4)));
        let until = breaker.next_wakeup().unwrap();
        breaker.handle_time(until);
        assert!(!breaker.counts(Mono(5)), "nor does it decide a probe");
        assert!(breaker.counts(until));
    }

    #[test]
    fn it_takes_two_cohorts_in_a_row() {
        let settings = ControlSettings::default();
        for width in [1, 2, 5, 20, 1000] {
            let mut breaker = Breaker::OPEN;
            let cause = (Trouble::Unreachable, width);
            let fail = |breaker: &mut Breaker| breaker.handle_trouble(Mono(0), cause, 0, &settings);
            (0..width).for_each(|_| fail(&mut breaker));
            assert_eq!(breaker.door(), Door::Open, "one cohort at {width}");
            breaker.handle_answer();
            (0..width).for_each(|_| fail(&mut breaker));
            assert_eq!(breaker.door(), Door::Open, "an answer ends the row");
            (0..width).for_each(|_| fail(&mut breaker));
            assert!(matches!(breaker.door(), Door::Closed { .. }), "two at {width}");
        }
    }

    #[test]
    fn only_short_waits_are_brief() {
        let settings = ControlSettings::default();
        let mut breaker = Breaker::OPEN;
        let mut brief = Vec::new();
        for _ in 0..6 {
            trip(&mut breaker, Mono(0), Trouble::Throttled, &settings);
            brief.push(breaker.is_brief(&settings));
            breaker.handle_time(Mono::NEVER);
        }
        assert_eq!(brief, [true, true, true, true, true, false]);
        assert!(!Breaker::resume(Mono(0), 1).is_brief(&settings), "half a minute is not");
    }
}
