//! What the operator's rules make of a reply.
//!
//! ```text
//! reply -> matching.rs (whose words, in whose scope) -> trigger.rs (often enough?) -> Fired
//!                                                       effects.rs: what lasts, and until when
//! ```
//! Rules are the same everywhere; what was counted and what lasts lives with the path.

mod effects;
mod matching;
mod trigger;

use std::sync::Arc;

use crate::base::time::Mono;
use crate::model::outcome::Reply;
use crate::model::route::SiteKey;
use crate::model::settings::{Action, Origin, Subject};

pub use effects::{Change, EFFECTS_MAX, Effect, Effects, Restraint};
pub use matching::{RULES_MAX, RuleError, Rules};
pub use trigger::{COUNTERS_MAX, RuleCounters};

/// Where a reply came from, as far as a rule's scope can ask.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub provider: Option<&'a str>,
    /// The recipient's, in lower case.
    pub domain: &'a str,
    pub site: &'a SiteKey,
    /// `None`: the kernel chose the address, and no scope with sources matches.
    pub source: Option<&'a str>,
}

/// How a rule is called wherever its work is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLabel {
    pub name: Box<str>,
    pub origin: Origin,
}

/// An action to be taken now, and the rule that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    /// Index into the rules of these settings.
    pub rule: u16,
    pub label: Arc<RuleLabel>,
    pub action: Action,
}

/// What rules have made of the replies of one delivery so far: it counts once for each rule, however
/// many of its recipients were refused.
#[derive(Debug, Default)]
pub struct Hearing {
    /// Rules that counted it, and whether that was often enough.
    counted: Vec<(u16, bool)>,
    acted: Vec<u16>,
}

impl Hearing {
    /// Whether what a rule asks for, and what lasts, was not asked for yet.
    pub fn is_first(&mut self, rule: u16) -> bool {
        let is_first = !self.acted.contains(&rule);
        if is_first {
            self.acted.push(rule);
        }
        is_first
    }

    fn is_enough(&mut self, rule: u16, count: impl FnOnce() -> bool) -> bool {
        if let Some((_, enough)) = self.counted.iter().find(|(known, _)| *known == rule) {
            return *enough;
        }
        let enough = count();
        self.counted.push((rule, enough));
        enough
    }
}

/// Of what sort an action is. Where several rules fire, the first of each kind is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Throttle,
    Backoff,
    Connections,
    MessageRate,
    Suspend(Subject),
    SkipHost,
    /// What becomes of the recipient; it has only one fate.
    Fate,
}

impl Kind {
    fn of(action: &Action) -> Self {
        match action {
            Action::Throttle => Self::Throttle,
            Action::Backoff { .. } => Self::Backoff,
            Action::Connections { .. } => Self::Connections,
            Action::MessageRate { .. } => Self::MessageRate,
            Action::Suspend { what, .. } => Self::Suspend(*what),
            Action::SkipHost { .. } => Self::SkipHost,
            Action::Bounce | Action::Defer | Action::OtherSource => Self::Fate,
        }
    }
}

impl Rules {
    /// What a reply of a delivery asks for; of each kind of action the first rule's. Rules that
    /// count take note of it in `counters`, which belong to the path of the delivery; its answer
    /// was noted there before, by [`Rules::note_answer`].
    #[must_use]
    pub fn judge(
        &self,
        now: Mono,
        place: &Place<'_>,
        reply: &Reply,
        counters: &mut RuleCounters,
        hearing: &mut Hearing,
    ) -> Vec<Fired> {
        let mut fired: Vec<Fired> = Vec::new();
        for index in self.matching(place, reply) {
            let rule = self.rule(index);
            // A rule counts what it matches even where an earlier one goes first.
            let count = || counters.note_match(now, self.generation(), index, rule);
            if !hearing.is_enough(index, count) {
                continue;
            }
            let kind = Kind::of(&rule.action);
            if fired.iter().all(|earlier| Kind::of(&earlier.action) != kind) {
                let (label, action) = (Arc::clone(&rule.label), rule.action);
                fired.push(Fired { rule: index, label, action });
            }
        }
        fired
    }

    /// A delivery was answered, whatever the answer: what ratio rules measure against.
    pub fn note_answer(&self, now: Mono, place: &Place<'_>, counters: &mut RuleCounters) {
        for (index, rule) in self.ratios() {
            if rule.applies_at(place) {
                counters.note_answer(now, self.generation(), index, rule);
            }
        }
    }
}

#[cfg(test)]
mod tests;
