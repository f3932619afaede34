//! How much a path takes: the control loop of one source to one site, as pure state machines.
//!
//! ```text
//! signals -> breaker.rs  whether at all: pauses, probes
//!            window.rs   how many connections: slow start, AIMD, the level at which trouble comes
//!            pace.rs     how many messages a second, once refusals show that this is what matters
//! latency -> latency.rs     lowers the window before anything is refused
//!            throughput.rs  finds the width that brings most where replies become slow
//! ```
//! Each change is a value (`event.rs`); what was learned outlives the process (`learned.rs`).

mod breaker;
mod event;
mod latency;
mod learned;
mod pace;
mod throughput;
mod window;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::time::{Mono, Now, Wall};

use breaker::Breaker;
use latency::Latency;
use pace::{Pace, Rise};
use throughput::Advice;
use window::{Growth, Window};

pub(super) use breaker::{Door, Trouble};
pub(super) use event::{Cause, Change, Changes, Evidence, What};
pub(super) use latency::{Phase, Reading};
pub(super) use learned::Learned;

/// A quiet path must be cheap: a million of them fit into a hundred megabytes.
const _: () = assert!(size_of::<Control>() <= 96);

/// A connection that fails so soon was refused: a far host needs a fraction of it, and one that is silent
/// half a minute.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What an attempt said about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Delivered,
    /// The site asked to slow down.
    Throttle,
    /// It could not be reached, or did not behave as a mail host.
    Site,
    /// About one mailbox.
    Recipient,
    /// About the message.
    Content,
    /// About who sends.
    Policy,
    Greylist,
    /// This machine could not.
    Local,
}

/// What an attempt was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Up to the greeting and the security of a connection.
    Connect,
    Message,
}

/// A signal, and what it was an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) signal: Signal,
    pub(super) stage: Stage,
    /// When the permit was taken (connect) or the work handed out (message): one cut for all that
    /// was under way at once.
    pub(super) started: Mono,
}

/// How busy the path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Permits in use, without the one that is free again if a connection just failed.
    pub(super) in_use: u32,
    /// Of these, with work, the one of a completion included.
    pub(super) busy: u32,
    /// Whether mail could go out on this path now, but for its limits.
    pub(super) mail_waits: bool,
    /// The strictest limit of connections that others set.
    pub(super) ceiling: u32,
}

/// The bounds of the control loop. They belong to a policy; paths only borrow them, so a reload
/// forgets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlSettings {
    /// Connections of a path that nothing is known about: small sites allow so many, and doubling
    /// finds the large ones in a few round trips.
    pub(super) start_window: u32,
    /// At least 1: a path without a connection learns nothing.
    pub(super) floor: u32,
    /// What a throttle leaves of the window: a site that says so is not overwhelmed yet.
    pub(super) throttle_permille: u32,
    /// What a failure leaves of it: half, as TCP does for a loss.
    pub(super) site_permille: u32,
    /// Messages per 1000 seconds, no less is learned: one in a hundred seconds still makes
    /// progress, and learns that more is taken.
    pub(super) rate_floor: u32,
    pub(super) rate_ceiling: u32,
    /// Latencies up to this show the network and the scheduler, not load.
    pub(super) latency_grain: Duration,
    /// Cohorts (W in a row at a window of W) that must go wrong before the path is left alone.
    pub(super) cohorts_max: u32,
    /// Waits of a path that cannot be reached: a restart of a mail host takes about the first, and
    /// half an hour is what its mail waits longer after an outage of more than an hour, at most.
    pub(super) probe_wait_first: Duration,
    pub(super) probe_wait_max: Duration,
    /// The message's own first and last wait: a probe is never rarer.
    pub(super) retry_first: Duration,
    pub(super) retry_last: Duration,
    /// Waits of a path that refuses everything.
    pub(super) throttle_wait_first: Duration,
    pub(super) throttle_wait_max: Duration,
    /// When this machine lacks something, other sites may have given it back by then.
    pub(super) local_wait: Duration,
}

impl Default for ControlSettings {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            start_window: 4,
            floor: 1,
            throttle_permille: 700,
            site_permille: 500,
            rate_floor: 10,
            rate_ceiling: 1_000_000_000,
            latency_grain: Duration::from_millis(20),
            cohorts_max: 2,
            probe_wait_first: Duration::from_secs(30),
            probe_wait_max: minutes(30),
            retry_first: minutes(5),
            retry_last: minutes(60),
            throttle_wait_first: Duration::from_secs(1),
            throttle_wait_max: minutes(5),
            local_wait: Duration::from_secs(1),
        }
    }
}

/// The control loop of one path.
#[derive(Debug)]
pub(super) struct Control {
    window: Window,
    pace: Pace,
    breaker: Breaker,
    /// Only while the path is busy.
    latency: Option<Box<Latency>>,
}

/// The present state of a path, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) window: u32,
    pub(super) slow_start: bool,
    /// The least number of connections that was refused lately, or that brought less.
    pub(super) level: Option<u32>,
    /// Messages per 1000 seconds.
    pub(super) rate: Option<u32>,
    pub(super) door: Door,
    /// Closings since the last success.
    pub(super) closings: u8,
    pub(super) latency: Option<Reading>,
}

impl Control {
    #[must_use]
    pub(super) fn new(now: Mono, ceiling: u32, settings: &ControlSettings) -> Self {
        let width = settings.start_window.max(settings.floor).min(ceiling).max(1);
        Self {
            window: Window::start(width),
            pace: Pace::start(now),
            breaker: Breaker::OPEN,
            latency: None,
        }
    }

    /// As it was, less what has gone stale since.
    #[must_use]
    pub(super) fn resume(
        now: Now,
        learned: &Learned,
        ceiling: u32,
        settings: &ControlSettings,
    ) -> Self {
        let learned = learned.aged(now.wall, settings.start_window);
        let width = learned.window.max(settings.floor).min(ceiling).max(1);
        let mut window = Window::resume(width, learned.ceiling_seen);
        if learned.closings > 0 {
            window.restart(settings.floor, width / 2);
        }
        Self {
            window,
            pace: Pace::resume(now.mono, learned.rate),
            breaker: Breaker::resume(now.mono, learned.closings),
            latency: None,
        }
    }

    /// What is worth keeping over a restart.
    #[must_use]
    pub(super) fn learned(&self, as_of: Wall) -> Learned {
        Learned {
            window: self.window.width(),
            ceiling_seen: self.window.level(),
            rate: self.pace.rate(),
            closings: self.breaker.closings(),
            as_of,
        }
    }

    #[cfg(test)]
    /// Connections the path may have now: none while it is closed, one while it is probed.
    #[must_use]
    pub(super) fn permits(&self, ceiling: u32) -> u32 {
        match self.breaker.door() {
            Door::Open => self.window.width().min(ceiling),
            Door::Probing { .. } => ceiling.min(1),
            Door::Closed { .. } => 0,
        }
    }

    /// Connections that were found to go well, whether or not the path is open at present.
    #[must_use]
    pub(super) fn width(&self) -> u32 {
        self.window.width()
    }

    /// Messages per 1000 seconds, where the path was found to bear no more.
    #[must_use]
    pub(super) fn rate(&self) -> Option<u32> {
        self.pace.rate()
    }

    #[must_use]
    pub(super) fn door(&self) -> Door {
        self.breaker.door()
    }

    /// Whether mail that arrives now will soon be on its way.
    #[must_use]
    pub(super) fn is_brief(&self, settings: &ControlSettings) -> bool {
        self.breaker.is_brief(settings)
    }

    /// When [`Control::handle_time`] should be called.
    #[must_use]
    pub(super) fn next_wakeup(&self) -> Option<Mono> {
        self.breaker.next_wakeup()
    }

    #[must_use]
    pub(super) fn explain(&self) -> View {
        View {
            window: self.window.width(),
            slow_start: self.window.is_slow_start(),
            level: self.window.level(),
            rate: self.pace.rate(),
            door: self.breaker.door(),
            closings: self.breaker.closings(),
            latency: self.latency.as_ref().and_then(|latency| latency.last_reading()),
        }
    }

    /// How long a phase took. Each greeting must be told: the window grows no further than new
    /// connections are greeted. A path with one connection is not slowed down by itself.
    pub(super) fn handle_latency(&mut self, phase: Phase, took: Duration, load: Load) {
        if phase == Phase::Greeting {
            self.window.handle_greeting();
        }
        if load.busy >= 2 || self.latency.is_some() {
            let latency = self.latency.get_or_insert_default();
            latency.record(phase, took);
            let width = self.window.width();
            if phase == Phase::Dot && load.busy.saturating_add(1) >= width {
                latency.record_full(took, width);
            }
        }
    }

    /// The path has nothing to do.
    pub(super) fn handle_rest(&mut self, now: Mono) {
        self.latency = None;
        self.pace.restart_sample(now);
    }

    /// The time of a closed door may be over.
    pub(super) fn handle_time(&mut self, now: Mono) -> Changes {
        let before = self.figures();
        self.breaker.handle_time(now);
        self.changes(before, Causes::all(Cause::Elapsed), 0)
    }

    /// An operator wants the path tried now, closed or not.
    pub(super) fn handle_flush(&mut self, now: Mono) -> Changes {
        let before = self.figures();
        self.breaker.handle_flush(now);
        self.changes(before, Causes::all(Cause::Operator), 0)
    }

    /// What an attempt said. What began before the door closed says nothing.
    pub(super) fn handle_signal(
        &mut self,
        now: Mono,
        seen: Seen,
        load: Load,
        jitter: u64,
        settings: &ControlSettings,
    ) -> Changes {
        let before = self.figures();
        let mut causes = Causes::all(Cause::Signal(seen.signal));
        if self.breaker.counts(seen.started) {
            match seen.signal {
                Signal::Delivered | Signal::Recipient => {
                    self.succeed(now, seen, load, settings, &mut causes);
                }
                Signal::Content | Signal::Policy | Signal::Greylist => self.hear_answer(now),
                Signal::Throttle => self.suffer_throttle(now, seen, load, jitter, settings),
                Signal::Site => self.suffer_failure(now, seen, load, jitter, settings),
                Signal::Local => self.breaker.handle_local(now, settings),
            }
        }
        if self.window.lower_to(load.ceiling) {
            causes.window = Cause::Ceiling;
        }
        self.changes(before, causes, load.in_use)
    }

    /// The site answers as sites do.
    fn hear_answer(&mut self, now: Mono) {
        if matches!(self.breaker.door(), Door::Probing { cause, .. } if cause.is_absence()) {
            self.pace.handle_return(now);
        }
        self.breaker.handle_answer();
    }

    fn succeed(
        &mut self,
        now: Mono,
        seen: Seen,
        load: Load,
        settings: &ControlSettings,
        causes: &mut Causes,
    ) {
        self.hear_answer(now);
        let rise = self.pace.handle_delivered(now, (seen.started, load.mail_waits), settings);
        causes.rate = match rise {
            Some(Rise::Forgotten) => Cause::Forgotten,
            Some(Rise::Probed) => Cause::Probe,
            Some(Rise::Raised) | None => Cause::Growth,
        };
        let round_over = self.window.complete();
        if self.compare(now, load, settings) {
            causes.window = Cause::Throughput;
        } else if (round_over || self.window.is_slow_start()) && self.lean(now, settings) {
            causes.window = Cause::Gradient;
        } else if let Some(growth) = self.grow(now, load) {
            causes.window = match growth {
                Growth::Ramp => Cause::Ramp,
                Growth::Additive => Cause::Growth,
                Growth::Probe => Cause::Probe,
            };
        }
    }

    /// Whether another width is to be tried, or was found to bring more.
    fn compare(&mut self, now: Mono, load: Load, settings: &ControlSettings) -> bool {
        let advice = self
            .latency
            .as_mut()
            .and_then(|latency| latency.poll_advice(settings.floor, settings.latency_grain));
        match advice {
            None => return false,
            Some(Advice::Try(width)) => self.window.take(width.min(load.ceiling)),
            Some(Advice::Settle(width)) => self.window.settle(now, width.min(load.ceiling)),
        }
        true
    }

    /// Grows, unless the present width is being measured.
    fn grow(&mut self, now: Mono, load: Load) -> Option<Growth> {
        if self.latency.as_ref().is_some_and(|latency| latency.is_measuring()) {
            return None;
        }
        let growth = self.window.grow(now, load)?;
        if growth == Growth::Probe
            && let Some(latency) = &mut self.latency
        {
            latency.handle_probe(self.window.width());
        }
        Some(growth)
    }

    /// Whether replies have become so slow that the window must not grow.
    fn lean(&mut self, now: Mono, settings: &ControlSettings) -> bool {
        let reading = self.latency.as_mut().and_then(|latency| latency.take_reading(now));
        let gradient = reading.map(|reading| reading.gradient(settings.latency_grain));
        gradient.is_some_and(|gradient| self.window.lean(gradient, settings.floor))
    }

    fn suffer_throttle(
        &mut self,
        now: Mono,
        seen: Seen,
        load: Load,
        jitter: u64,
        settings: &ControlSettings,
    ) {
        let (width, first) = (self.window.width(), self.breaker.is_sound());
        if self.breaker.door() == Door::Open {
            let fresh = self.window.counts(seen.started);
            // A narrower window did not help: at its floor, or throttled at messages once more.
            let again = seen.stage == Stage::Message && self.window.level().is_some();
            let futile = fresh && (again || width <= settings.floor.max(1));
            let was_free = self.pace.rate().is_none();
            let is_message = seen.stage == Stage::Message;
            let paced = (is_message || fresh)
                && self.pace.handle_throttle(now, seen.started, futile, settings);
            if paced && was_free {
                self.window.forget_level();
            }
            if !is_message || self.pace.rate().is_none() {
                self.window.cut(now, (seen, first), load, settings);
            }
        }
        self.breaker.handle_trouble(now, (Trouble::Throttled, width), jitter, settings);
        if first_closing(&self.breaker) {
            self.window.restart(settings.floor, settings.start_window);
        }
    }

    fn suffer_failure(
        &mut self,
        now: Mono,
        seen: Seen,
        load: Load,
        jitter: u64,
        settings: &ControlSettings,
    ) {
        let (width, first) = (self.window.width(), self.breaker.is_sound());
        if self.breaker.door() == Door::Open {
            self.window.cut(now, (seen, first), load, settings);
        }
        let is_refused = seen.stage == Stage::Connect && now.since(seen.started) <= AT_ONCE;
        let cause = if is_refused { Trouble::Refused } else { Trouble::Unreachable };
        self.breaker.handle_trouble(now, (cause, width), jitter, settings);
        if first_closing(&self.breaker) {
            // Half of what there was: the row of failures has cut it once.
            self.window.restart(settings.floor, self.window.width());
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            window: self.window.width(),
            rate: self.pace.rate(),
            door: self.breaker.door(),
            sample: self.pace.sample(),
        }
    }

    /// What differs from `before`.
    fn changes(&self, before: Figures, causes: Causes, in_use: u32) -> Changes {
        let (mut changes, after) = (Changes::default(), self.figures());
        let mut push = |what, cause| {
            let evidence = self.evidence(before.sample, in_use);
            changes.push(Change { what, cause, evidence });
        };
        if before.window != after.window {
            push(What::Window { old: before.window, new: after.window }, causes.window);
        }
        if before.rate != after.rate {
            push(What::Rate { old: before.rate, new: after.rate }, causes.rate);
        }
        if before.door != after.door {
            push(What::Breaker { old: before.door, new: after.door }, causes.breaker);
        }
        changes
    }

    fn evidence(&self, (throttled, tried): (u32, u32), in_use: u32) -> Evidence {
        let reading = self.latency.as_ref().and_then(|latency| latency.last_reading());
        let (latency_p50, latency_min) = reading.map_or((0, 0), |one| (one.p50, one.min));
        Evidence { in_use, throttled, tried, latency_p50, latency_min }
    }
}

/// Whether the door was just closed for the first time since a success: later closings are probes
/// that failed, and find the window where this one left it.
fn first_closing(breaker: &Breaker) -> bool {
    matches!(breaker.door(), Door::Closed { .. }) && breaker.closings() == 1
}

/// What changes are told of.
#[derive(Clone, Copy)]
struct Figures {
    window: u32,
    rate: Option<u32>,
    door: Door,
    sample: (u32, u32),
}

/// Why each of them would change.
struct Causes {
    window: Cause,
    rate: Cause,
    breaker: Cause,
}

impl Causes {
    fn all(cause: Cause) -> Self {
        Self { window: cause, rate: cause, breaker: cause }
    }
}
