//! How often a rule matched on one path of late, and whether that is often enough.
//!
//! Evidence is used once: what led to an action does not lead to the next. While an action keeps
//! the path from sending, replies still under way are not counted towards the next either.

use std::time::Duration;

use smallvec::SmallVec;

use super::matching::Rule;
use crate::base::prefetch;
use crate::base::time::Mono;
use crate::model::settings::{Action, Subject, Trigger};

/// Counting rules kept of one path. More make the one that counted last the longest ago start anew.
pub const COUNTERS_MAX: usize = 32;

/// A window is counted in so many parts. What is older than the window by less than one part still
/// counts: nothing that should is missed.
const PARTS: u32 = 8;

/// Those, and the current one.
const SLOTS: usize = 9;

/// What the counting rules saw on one path; takes a pointer until there is something.
#[derive(Debug, Default)]
pub struct RuleCounters(Option<Box<Counting>>);

#[derive(Debug)]
struct Counting {
    /// Of the rules: an index means nothing under others.
    generation: u64,
    /// Most paths never have a second.
    counters: SmallVec<[Counter; 1]>,
}

#[derive(Debug)]
struct Counter {
    rule: u16,
    matched: Window,
    answered: Window,
    seen: Mono,
    /// The action of the rule keeps the path from sending until then.
    paused_until: Mono,
}

/// Events of the last `PARTS` parts of time and of the current one.
#[derive(Debug)]
struct Window {
    part: Duration,
    /// The number of the current part since the origin of the clock.
    current: u64,
    counts: [u32; SLOTS],
}

impl RuleCounters {
    /// Fetches what was counted into the cache.
    pub fn prefetch(&self) {
        if let Some(counting) = &self.0 {
            prefetch::all(&**counting);
        }
    }

    /// A reply matched: whether the rule's action is to be taken.
    pub(super) fn note_match(
        &mut self,
        now: Mono,
        generation: u64,
        index: u16,
        rule: &Rule,
    ) -> bool {
        let Some(within) = within(rule.trigger) else { return true };
        let counter = self.counter(now, generation, index, within);
        if now < counter.paused_until {
            return false;
        }
        counter.matched.add(now);
        let fires = counter.is_enough(now, rule.trigger);
        if fires {
            counter.matched.clear();
            counter.answered.clear();
            counter.paused_until = now.plus(pause(&rule.action));
        }
        fires
    }

    /// A delivery was answered that a ratio rule looks at.
    pub(super) fn note_answer(&mut self, now: Mono, generation: u64, index: u16, rule: &Rule) {
        let Some(within) = within(rule.trigger) else { return };
        let counter = self.counter(now, generation, index, within);
        if now >= counter.paused_until {
            counter.answered.add(now);
        }
    }

    /// Gives the memory back if nothing in it matters any more. Call it when the path goes idle;
    /// `false`: ask again later.
    pub fn forget_old(&mut self, now: Mono) -> bool {
        if self.0.as_ref().is_none_or(|counting| counting.is_over(now)) {
            self.0 = None;
        }
        self.0.is_none()
    }

    fn counter(&mut self, now: Mono, generation: u64, rule: u16, within: Duration) -> &mut Counter {
        let new = || Box::new(Counting { generation, counters: SmallVec::new() });
        let counting = self.0.get_or_insert_with(new);
        if counting.generation != generation {
            **counting = *new();
        }
        counting.counter(now, rule, within)
    }
}

impl Counting {
    fn counter(&mut self, now: Mono, rule: u16, within: Duration) -> &mut Counter {
        let known = self.counters.iter().position(|counter| counter.rule == rule);
        let at = known.unwrap_or_else(|| {
            self.make_room();
            self.counters.push(Counter::new(rule, within));
            self.counters.len() - 1
        });
        let counter = &mut self.counters[at];
        counter.seen = now;
        counter
    }

    fn make_room(&mut self) {
        if self.counters.len() < COUNTERS_MAX {
            return;
        }
        let seen = |(_, counter): &(usize, &Counter)| counter.seen;
        if let Some((oldest, _)) = self.counters.iter().enumerate().min_by_key(seen) {
            self.counters.swap_remove(oldest);
        }
    }

    fn is_over(&self, now: Mono) -> bool {
        self.counters.iter().all(|counter| {
            counter.paused_until <= now
                && counter.matched.sum(now) == 0
                && counter.answered.sum(now) == 0
        })
    }
}

impl Counter {
    fn new(rule: u16, within: Duration) -> Self {
        let (matched, answered) = (Window::new(within), Window::new(within));
        Self { rule, matched, answered, seen: Mono(0), paused_until: Mono(0) }
    }

    fn is_enough(&self, now: Mono, trigger: Trigger) -> bool {
        let matched = self.matched.sum(now);
        match trigger {
            Trigger::Each => true,
            Trigger::Count { count, .. } => matched >= u64::from(count),
            Trigger::Share { percent, sample, .. } => {
                let answered = self.answered.sum(now);
                answered >= u64::from(sample) && matched * 100 > u64::from(percent) * answered
            }
        }
    }
}

impl Window {
    fn new(within: Duration) -> Self {
        let part = (within / PARTS).max(Duration::from_millis(1));
        Self { part, current: 0, counts: [0; SLOTS] }
    }

    fn add(&mut self, now: Mono) {
        self.advance(now);
        let slot = self.slot(self.current);
        self.counts[slot] = self.counts[slot].saturating_add(1);
    }

    fn sum(&self, now: Mono) -> u64 {
        let current = self.number(now).max(self.current);
        let oldest = current.saturating_sub(u64::from(PARTS));
        let fresh = (oldest..=self.current).rev().take(SLOTS);
        fresh.map(|part| u64::from(self.counts[self.slot(part)])).sum()
    }

    fn clear(&mut self) {
        self.counts = [0; SLOTS];
    }

    /// Empties the parts that begin anew.
    fn advance(&mut self, now: Mono) {
        let current = self.number(now);
        let passed = current.saturating_sub(self.current);
        for part in (self.current + 1..=current).rev().take(SLOTS) {
            let slot = self.slot(part);
            self.counts[slot] = 0;
        }
        self.current += passed;
    }

    fn number(&self, now: Mono) -> u64 {
        let parts = now.since(Mono(0)).as_nanos() / self.part.as_nanos();
        u64::try_from(parts).unwrap_or(u64::MAX - 1)
    }

    fn slot(&self, part: u64) -> usize {
        usize::try_from(part % (u64::from(PARTS) + 1)).unwrap_or(0)
    }
}

fn within(trigger: Trigger) -> Option<Duration> {
    match trigger {
        Trigger::Each => None,
        Trigger::Count { within, .. } | Trigger::Share { within, .. } => Some(within),
    }
}

/// How long nothing new can be learned of the path, because the action stops all of it.
fn pause(action: &Action) -> Duration {
    match action {
        Action::Backoff { wait } => *wait,
        Action::Suspend { what: Subject::Site | Subject::Path | Subject::Source, lasts } => *lasts,
        Action::Throttle
        | Action::Connections { .. }
        | Action::MessageRate { .. }
        | Action::Suspend { what: Subject::Tenant | Subject::Campaign, .. }
        | Action::SkipHost { .. }
        | Action::Bounce
        | Action::Defer
        | Action::OtherSource => Duration::ZERO,
    }
}
