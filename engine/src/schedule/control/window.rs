//! How many connections a path may have: slow start, then additive increase up to the level at
//! which trouble came last, and beyond it only now and then.
//!
//! ```text
//!            trouble           ___________|~ a probe beyond the level, ever more rarely
//!               |        __---'  level
//!         slow /|     .-'  a quarter of what is missing, each round
//!       start / |___-'
//! ```
//! A refused connection tells more than that there are too many: it tells how many were let in.

use std::time::Duration;

use super::latency::GRADIENT_NONE;
use super::{ControlSettings, Load, Seen, Signal, Stage};
use crate::base::time::Mono;

/// Where trouble comes is not known.
const LEVEL_NONE: u32 = u32::MAX;
/// Deliveries between two connections tried beyond the level: with one refusal for each, refusals
/// stay below one in a hundred.
const PROBE_COMPLETIONS: u32 = 128;
/// Time between them, doubled with each that failed.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// At most eight and a half minutes: what a site allows changes in hours.
const PATIENCE_MAX: u8 = 9;
/// A probe costs one step of patience and a refusal adds two, so a level that holds is tried ever
/// more rarely, and one that rises is followed ever more quickly.
const PATIENCE_STEP: u8 = 2;
/// Of what is missing to the level, per round.
const APPROACH_SHARE: u32 = 4;
/// Below this gradient the site shows load: no more doubling.
const GRADIENT_STEEP: u32 = 800;

#[derive(Debug)]
pub(super) struct Window {
    width: u32,
    /// Slow start up to here; zero once it is over.
    slow_until: u32,
    /// The least that was refused lately, or that brought less.
    level: u32,
    /// Completions in this round.
    completed: u32,
    /// The last cut or probe: what began before it says nothing about the present width.
    turned: Mono,
    /// Steps of growth that no greeting of a new connection has confirmed yet.
    unproven: u16,
    patience: u8,
}

/// How a window grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Ramp,
    Additive,
    Probe,
}

impl Window {
    pub(super) fn start(width: u32) -> Self {
        Self {
            width,
            slow_until: u32::MAX,
            level: LEVEL_NONE,
            completed: 0,
            turned: Mono(0),
            unproven: 0,
            patience: 0,
        }
    }

    /// As after a restart: nothing is doubled beyond what was learned.
    pub(super) fn resume(width: u32, level: Option<u32>) -> Self {
        let level = level.unwrap_or(LEVEL_NONE);
        Self { slow_until: 0, level, patience: PATIENCE_STEP, ..Self::start(width) }
    }

    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// The least that was refused lately, or that brought less.
    pub(super) fn level(&self) -> Option<u32> {
        (self.level != LEVEL_NONE).then_some(self.level)
    }

    pub(super) fn is_slow_start(&self) -> bool {
        self.width < self.slow_until
    }

    /// Whether a signal of something begun at `started` says anything about the present width.
    pub(super) fn counts(&self, started: Mono) -> bool {
        started >= self.turned
    }

    /// A completion; `true` at the end of a round.
    pub(super) fn complete(&mut self) -> bool {
        self.completed = self.completed.saturating_add(1);
        self.completed > 0 && self.completed.is_multiple_of(self.width)
    }

    /// A connection was greeted: there was room for one more.
    pub(super) fn handle_greeting(&mut self) {
        self.unproven = self.unproven.saturating_sub(1);
    }

    /// Whether more would rest on what was validated (RFC 7661): all of the window was in use, and
    /// the last connections granted were greeted. A site may let those above its limit hang for
    /// minutes before they fail.
    fn is_validated(&self, load: Load) -> bool {
        let unproven_max = if self.is_slow_start() { self.width / 2 } else { 0 };
        load.busy.saturating_add(1) >= self.width && u32::from(self.unproven) <= unproven_max
    }

    /// Grows after a completion that went well.
    pub(super) fn grow(&mut self, now: Mono, load: Load) -> Option<Growth> {
        if self.width >= load.ceiling || !self.is_validated(load) {
            return None;
        }
        let below = self.level.saturating_sub(1).saturating_sub(self.width);
        if self.is_slow_start() && below > 0 {
            self.widen(1, load);
            return Some(Growth::Ramp);
        }
        if below > 0 {
            let near = if self.level == LEVEL_NONE { 1 } else { below.div_ceil(APPROACH_SHARE) };
            return (self.completed >= self.width).then(|| {
                self.widen(near.min(load.ceiling - self.width), load);
                Growth::Additive
            });
        }
        self.probe(now, load)
    }

    /// One more than was ever granted, once it is time.
    fn probe(&mut self, now: Mono, load: Load) -> Option<Growth> {
        let wait = PROBE_WAIT.saturating_mul(1 << self.patience);
        if self.completed < PROBE_COMPLETIONS.max(self.width) || now.since(self.turned) < wait {
            return None;
        }
        self.widen(1, load);
        self.level = if self.patience == 0 { LEVEL_NONE } else { self.width + 1 };
        self.patience = self.patience.saturating_sub(1);
        self.turned = now;
        Some(Growth::Probe)
    }

    fn widen(&mut self, by: u32, load: Load) {
        self.width += by;
        self.completed = 0;
        // Connections that are still there after a cut were greeted long ago.
        if load.in_use < self.width {
            self.unproven = self.unproven.saturating_add(u16::try_from(by).unwrap_or(u16::MAX));
        }
    }

    /// Cuts after trouble, once for all that was under way at one moment.
    /// `first`: nothing else went wrong since the last answer. A row of failures halves it once;
    /// what makes it long is the breaker's matter.
    pub(super) fn cut(
        &mut self,
        now: Mono,
        (seen, first): (Seen, bool),
        load: Load,
        settings: &ControlSettings,
    ) {
        let (fresh, floor) = (self.counts(seen.started), settings.floor.max(1));
        if seen.stage == Stage::Connect {
            self.note_admitted(fresh, load.in_use);
        }
        match (seen.signal, seen.stage) {
            (Signal::Throttle, Stage::Connect) => {
                self.width = self.width.min(load.in_use.max(floor));
            }
            (_, Stage::Message) if first && fresh => self.level = self.width.max(2),
            _ => {}
        }
        if !fresh {
            return;
        }
        match (seen.signal, seen.stage) {
            (Signal::Throttle, Stage::Message) => self.shrink(settings.throttle_permille, floor),
            (Signal::Site, _) if first => self.shrink(settings.site_permille, floor),
            _ => {}
        }
        self.slow_until = 0;
        self.turned = now;
        self.completed = 0;
        self.unproven = 0;
        self.patience = (self.patience + PATIENCE_STEP).min(PATIENCE_MAX);
    }

    /// A connection was refused while `admitted` others were not. Of a burst the last refusal says
    /// it best, so those that began earlier count as well.
    fn note_admitted(&mut self, fresh: bool, admitted: u32) {
        let refused = admitted.saturating_add(1).max(2);
        self.level = if fresh { refused } else { self.level.min(refused) };
    }

    /// Follows a latency gradient, at the end of a round; `true` if there is one to follow. Slow
    /// start minds only a steep one.
    pub(super) fn lean(&mut self, gradient: u32, floor: u32) -> bool {
        let bearable = if self.is_slow_start() { GRADIENT_STEEP } else { GRADIENT_NONE };
        if gradient >= bearable {
            return false;
        }
        let wide = scale(self.width, gradient).saturating_add(self.width.isqrt());
        self.width = self.width.min(wide.max(floor).max(1));
        self.slow_until = 0;
        self.completed = 0;
        true
    }

    /// Another width, to be measured.
    pub(super) fn take(&mut self, width: u32) {
        self.width = width.max(1);
        self.slow_until = 0;
        self.completed = 0;
    }

    /// The best width, as was measured: beyond it as beyond one at which trouble came.
    pub(super) fn settle(&mut self, now: Mono, width: u32) {
        self.take(width);
        self.level = self.width + 1;
        self.turned = now;
        self.unproven = 0;
        self.patience = (self.patience + PATIENCE_STEP).min(PATIENCE_MAX);
    }

    /// A limit that others set; `true` if it is lower than what was learned.
    pub(super) fn lower_to(&mut self, ceiling: u32) -> bool {
        let lower = ceiling.max(1) < self.width;
        self.width = self.width.min(ceiling.max(1));
        lower
    }

    /// From the bottom, doubling up to `slow_until`, then by one.
    pub(super) fn restart(&mut self, floor: u32, slow_until: u32) {
        *self = Self { slow_until, turned: self.turned, ..Self::start(floor.max(1)) };
    }

    /// Where the rate was the trouble, no level of connections was.
    pub(super) fn forget_level(&mut self) {
        self.level = LEVEL_NONE;
        self.patience = 0;
    }

    fn shrink(&mut self, permille: u32, floor: u32) {
        self.width = self.width.min(scale(self.width, permille).max(floor));
    }
}

/// `value` times `permille` / 1000.
pub(super) fn scale(value: u32, permille: u32) -> u32 {
    u32::try_from(u64::from(value) * u64::from(permille) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn load(in_use: u32) -> Load {
        Load { in_use, busy: in_use, mail_waits: true, ceiling: 100 }
    }

    fn trouble(signal: Signal, stage: Stage, started: u64) -> (Seen, bool) {
        (Seen { signal, stage, started: Mono(started) }, true)
    }

    fn settings() -> ControlSettings {
        ControlSettings::default()
    }

    /// Completions until the window stands at `width`, all of it in use, one a millisecond.
    fn completions_to(window: &mut Window, now: &mut u64, width: u32) -> u32 {
        let mut completions = 0;
        while window.width() < width {
            *now += SECOND / 1000;
            completions += 1;
            window.complete();
            window.grow(Mono(*now), load(window.width()));
            window.handle_greeting();
        }
        completions
    }

    #[test]
    fn slow_start_doubles_each_round() {
        let mut window = Window::start(4);
        assert_eq!(completions_to(&mut window, &mut 0, 64), 60);
    }

    #[test]
    fn the_first_trouble_ends_slow_start() {
        let mut window = Window::start(40);
        window.cut(Mono(9), trouble(Signal::Throttle, Stage::Message, 5), load(40), &settings());
        assert_eq!((window.width(), window.is_slow_start()), (28, false));
    }

    #[test]
    fn a_burst_is_cut_once() {
        for (signal, after) in [(Signal::Throttle, 28), (Signal::Site, 20)] {
            let mut window = Window::start(40);
            for at in 10..50 {
                window.cut(
                    Mono(at),
                    trouble(signal, Stage::Message, at % 10),
                    load(40),
                    &settings(),
                );
            }
            assert_eq!(window.width(), after);
            window.cut(Mono(60), trouble(signal, Stage::Message, 51), load(40), &settings());
            assert!(window.width() < after, "the next round is another matter");
        }
    }

    #[test]
    fn connections_that_hang_are_not_followed_by_more() {
        let mut window = Window::start(8);
        for at in 0..1000 {
            window.complete();
            window.grow(Mono(at), load(window.width()));
        }
        assert_eq!(window.width(), 17, "half of slow start may be on its way");
        window.cut(Mono(2000), trouble(Signal::Site, Stage::Connect, 999), load(8), &settings());
        for at in 2000..9000 {
            window.complete();
            window.grow(Mono(at * SECOND), load(window.width()));
        }
        assert_eq!((window.width(), window.level()), (9, Some(10)), "then one at a time");
    }

    #[test]
    fn refused_connections_leave_those_that_were_let_in() {
        let mut window = Window::start(32);
        for refused in 1..=12 {
            let seen = trouble(Signal::Throttle, Stage::Connect, 5);
            window.cut(Mono(10 + u64::from(refused)), seen, load(32 - refused), &settings());
        }
        assert_eq!((window.width(), window.level()), (20, Some(21)));
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = Window::start(10);
        for at in 0..1000 {
            window.complete();
            assert_eq!(window.grow(Mono(at), load(8)), None);
        }
        assert_eq!(window.grow(Mono(1000), load(9)), Some(Growth::Ramp));
    }

    #[test]
    fn a_failed_probe_makes_the_next_one_rarer() {
        let (mut window, mut now) = (Window::start(20), 0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let began = now;
            completions_to(&mut window, &mut now, 21);
            waits.push((now - began) / SECOND);
            let seen = trouble(Signal::Throttle, Stage::Connect, now);
            now += 1;
            window.cut(Mono(now), seen, load(20), &settings());
        }
        assert_eq!(waits, [0, 4, 8, 16, 32, 64, 128, 256, 512, 512]);
    }

    #[test]
    fn a_level_that_rises_is_followed() {
        let (mut window, mut now) = (Window::start(20), 0);
        let seen = trouble(Signal::Throttle, Stage::Connect, 0);
        window.cut(Mono(1), seen, load(19), &settings());
        completions_to(&mut window, &mut now, 60);
        assert!(now < 12 * SECOND, "{now}");
        assert_eq!(window.level(), None);
    }

    #[test]
    fn it_never_falls_below_its_floor() {
        let settings = ControlSettings { floor: 3, ..settings() };
        let mut window = Window::start(4);
        for at in 0..50 {
            for stage in [Stage::Connect, Stage::Message] {
                window.cut(Mono(at), trouble(Signal::Throttle, stage, at), load(0), &settings);
                window.cut(Mono(at), trouble(Signal::Site, stage, at), load(0), &settings);
                window.lean(500, settings.floor);
                assert!(window.width() >= 3);
            }
        }
    }

    #[test]
    fn what_was_settled_is_exceeded_by_rare_probes_alone() {
        let (mut window, mut now) = (Window::start(20), SECOND);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let began = now;
            window.settle(Mono(now), 8);
            assert_eq!((window.width(), window.level()), (8, Some(9)));
            completions_to(&mut window, &mut now, 9);
            waits.push((now - began) / SECOND);
        }
        assert_eq!(waits, [4, 8, 16, 32, 64]);
    }

    #[test]
    fn a_gradient_only_lowers() {
        let mut window = Window::start(64);
        window.lean(900, 1);
        assert_eq!(window.width(), 64, "57 + 8 is more than there was");
        window.lean(500, 1);
        assert_eq!((window.width(), window.is_slow_start()), (40, false));
    }
}
