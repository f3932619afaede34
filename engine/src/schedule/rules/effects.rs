//! What rules did to a path, site, source, tenant or campaign, and until when.

use std::sync::Arc;

use super::{Fired, RuleLabel};
use crate::base::planted::{Bug, planted};
use crate::base::time::Mono;
use crate::model::settings::{Action, Rate};

/// Effects on one subject at a time: all hosts of a site passed over, and every kind of limit. One
/// more takes the place of the one that ends first.
pub const EFFECTS_MAX: usize = 32;

/// The effects on one subject; takes a pointer until there is one. None counts behind its end,
/// whether or not [`Effects::poll_ended`] was asked meanwhile.
#[derive(Debug, Default)]
pub struct Effects(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    effects: Vec<Effect>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub restraint: Restraint,
    pub until: Mono,
    pub by: Arc<RuleLabel>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Restraint {
    /// Nothing is sent.
    Stop,
    /// At most so many connections.
    Connections(u32),
    /// At most at this rate.
    MessageRate(Rate),
    /// This host is passed over; if all hosts of a site are, it waits for the first that ends.
    Host(Box<str>),
}

/// What an action changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something holds that did not: an event.
    Begun,
    /// What the same rule had done lasts longer.
    Extended,
    /// The action has no lasting effect, or one that lasts as long already.
    None,
}

impl Effects {
    /// Lets an action of a rule take effect here. Which subject a suspension is of, the caller
    /// knows; `host` is the one that replied.
    pub fn apply(&mut self, now: Mono, fired: &Fired, host: &str) -> Change {
        let (restraint, lasts) = match fired.action {
            Action::Backoff { wait } => (Restraint::Stop, wait),
            Action::Suspend { lasts, .. } => (Restraint::Stop, lasts),
            Action::Connections { limit, lasts } => (Restraint::Connections(limit), lasts),
            Action::MessageRate { limit, lasts } => (Restraint::MessageRate(limit), lasts),
            Action::SkipHost { lasts } => (Restraint::Host(host.into()), lasts),
            Action::Throttle | Action::Bounce | Action::Defer | Action::OtherSource => {
                return Change::None;
            }
        };
        if planted(Bug::RuleNotApplied) {
            return Change::None;
        }
        let until = if planted(Bug::RuleNeverEnds) { Mono::NEVER } else { now.plus(lasts) };
        let effect = Effect { restraint, until, by: Arc::clone(&fired.label) };
        self.insert(now, effect)
    }

    /// Adds an effect, or prolongs the one it repeats: also how one known from before a restart
    /// comes back.
    pub fn insert(&mut self, now: Mono, effect: Effect) -> Change {
        if effect.until <= now {
            return Change::None;
        }
        let effects = &mut self.0.get_or_insert_default().effects;
        let same = |known: &&mut Effect| {
            known.restraint == effect.restraint && known.by.name == effect.by.name
        };
        if let Some(known) = effects.iter_mut().find(same) {
            return known.prolong(now, effect.until);
        }
        if effects.len() >= EFFECTS_MAX {
            remove_first_to_end(effects);
        }
        effects.push(effect);
        Change::Begun
    }

    /// What keeps the subject from sending at all; of several the last to end.
    #[must_use]
    pub fn stop(&self, now: Mono) -> Option<&Effect> {
        let stops = self.active(now).filter(|effect| effect.restraint == Restraint::Stop);
        stops.max_by_key(|effect| effect.until)
    }

    /// The strictest limit on connections.
    #[must_use]
    pub fn connections_limit(&self, now: Mono) -> Option<(u32, &Effect)> {
        let limits = self.active(now).filter_map(|effect| match effect.restraint {
            Restraint::Connections(limit) => Some((limit, effect)),
            _ => None,
        });
        limits.min_by_key(|(limit, _)| *limit)
    }

    /// The strictest rate.
    #[must_use]
    pub fn rate_limit(&self, now: Mono) -> Option<(Rate, &Effect)> {
        let rates = self.active(now).filter_map(|effect| match effect.restraint {
            Restraint::MessageRate(rate) => Some((rate, effect)),
            _ => None,
        });
        rates.min_by(|(one, _), (other, _)| compare_rates(one, other))
    }

    /// Hosts to pass over.
    pub fn skipped_hosts(&self, now: Mono) -> impl Iterator<Item = (&str, &Effect)> {
        self.active(now).filter_map(|effect| match &effect.restraint {
            Restraint::Host(host) => Some((&**host, effect)),
            _ => None,
        })
    }

    /// All that holds now, for explain and for the state that outlives a restart.
    pub fn active(&self, now: Mono) -> impl Iterator<Item = &Effect> {
        self.all().filter(move |effect| now < effect.until)
    }

    /// When the next effect ends: wake then, and call [`Effects::poll_ended`].
    #[must_use]
    pub fn next_end(&self) -> Option<Mono> {
        self.all().map(|effect| effect.until).min()
    }

    /// Takes out an effect that is over, one a call; after the last the memory is given back.
    pub fn poll_ended(&mut self, now: Mono) -> Option<Effect> {
        let effects = &mut self.0.as_mut()?.effects;
        let ended = effects.iter().position(|effect| effect.until <= now);
        let ended = ended.map(|at| effects.swap_remove(at));
        if effects.is_empty() {
            self.0 = None;
        }
        ended
    }

    /// Ends everything at once, as an operator may.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    fn all(&self) -> impl Iterator<Item = &Effect> {
        self.0.iter().flat_map(|held| held.effects.iter())
    }
}

impl Effect {
    fn prolong(&mut self, now: Mono, until: Mono) -> Change {
        let before = self.until;
        self.until = before.max(until);
        match () {
            () if before <= now => Change::Begun,
            () if before < until => Change::Extended,
            () => Change::None,
        }
    }
}

fn remove_first_to_end(effects: &mut Vec<Effect>) {
    let until = |(_, effect): &(usize, &Effect)| effect.until;
    if let Some((first, _)) = effects.iter().enumerate().min_by_key(until) {
        effects.swap_remove(first);
    }
}

/// The slower is less; of the same speed the one with the smaller burst.
fn compare_rates(one: &Rate, other: &Rate) -> std::cmp::Ordering {
    let units = |rate: &Rate, per: &Rate| u128::from(rate.units).saturating_mul(per.per.as_nanos());
    units(one, other).cmp(&units(other, one)).then(one.burst.cmp(&other.burst))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::settings::Origin;

    const MINUTE: Duration = Duration::from_secs(60);

    fn label(name: &str) -> Arc<RuleLabel> {
        Arc::new(RuleLabel { name: name.into(), origin: Origin::default() })
    }

    fn fired(name: &str, action: Action) -> Fired {
        Fired { rule: 0, label: label(name), action }
    }

    fn rate(units: u64, seconds: u64, burst: u64) -> Rate {
        Rate { units, per: Duration::from_secs(seconds), burst }
    }

    #[test]
    fn the_strictest_limit_binds_and_names_its_rule() {
        let mut effects = Effects::default();
        let now = Mono(5);
        for (name, limit, lasts) in [("mild", 10, MINUTE), ("hard", 2, MINUTE / 2)] {
            let action = Action::Connections { limit, lasts };
            assert_eq!(effects.apply(now, &fired(name, action), "mx"), Change::Begun);
        }
        let (limit, effect) = effects.connections_limit(now).unwrap();
        assert_eq!((limit, &*effect.by.name), (2, "hard"));
        let (limit, effect) = effects.connections_limit(now.plus(MINUTE / 2)).unwrap();
        assert_eq!((limit, &*effect.by.name), (10, "mild"));
        assert!(effects.connections_limit(now.plus(MINUTE)).is_none());
    }

    #[test]
    fn rates_are_compared_as_speeds() {
        let mut effects = Effects::default();
        let now = Mono(0);
        for (name, limit) in [
            ("hour", rate(600, 3600, 1)),
            ("second", rate(1, 1, 1)),
            ("minute", rate(10, 60, 5)),
            ("burst", rate(600, 3600, 9)),
        ] {
            effects.apply(now, &fired(name, Action::MessageRate { limit, lasts: MINUTE }), "mx");
        }
        let (limit, effect) = effects.rate_limit(now).unwrap();
        assert_eq!((limit, &*effect.by.name), (rate(600, 3600, 1), "hour"));
    }

    #[test]
    fn the_same_action_again_lasts_longer_and_never_shorter() {
        let mut effects = Effects::default();
        let stop = |wait| fired("stop", Action::Backoff { wait });
        assert_eq!(effects.apply(Mono(0), &stop(MINUTE), "mx"), Change::Begun);
        assert_eq!(effects.apply(Mono(9), &stop(MINUTE), "mx"), Change::Extended);
        assert_eq!(effects.apply(Mono(9), &stop(MINUTE / 2), "mx"), Change::None);
        assert_eq!(effects.stop(Mono(9)).map(|effect| effect.until), Some(Mono(9).plus(MINUTE)));
        assert_eq!(effects.active(Mono(9)).count(), 1);
        // Over, and not yet taken out: it begins anew.
        let late = Mono(9).plus(2 * MINUTE);
        assert_eq!(effects.apply(late, &stop(MINUTE), "mx"), Change::Begun);
    }

    #[test]
    fn each_host_is_passed_over_for_itself() {
        let mut effects = Effects::default();
        let skip = fired("skip", Action::SkipHost { lasts: MINUTE });
        for host in ["mx1", "mx2", "mx1"] {
            effects.apply(Mono(0), &skip, host);
        }
        let hosts: Vec<&str> = effects.skipped_hosts(Mono(0)).map(|(host, _)| host).collect();
        assert_eq!(hosts, ["mx1", "mx2"]);
        assert!(effects.stop(Mono(0)).is_none() && effects.connections_limit(Mono(0)).is_none());
    }

    #[test]
    fn what_is_over_is_told_once_and_its_memory_given_back() {
        let mut effects = Effects::default();
        let now = Mono(7);
        effects.apply(now, &fired("a", Action::Backoff { wait: MINUTE }), "");
        effects.apply(now, &fired("b", Action::SkipHost { lasts: 2 * MINUTE }), "mx");
        assert_eq!(effects.next_end(), Some(now.plus(MINUTE)));
        assert!(effects.poll_ended(now).is_none());
        let first = effects.poll_ended(now.plus(MINUTE)).unwrap();
        assert_eq!((&*first.by.name, effects.next_end()), ("a", Some(now.plus(2 * MINUTE))));
        assert!(effects.poll_ended(now.plus(3 * MINUTE)).is_some());
        assert!(effects.poll_ended(now.plus(3 * MINUTE)).is_none());
        assert!(effects.0.is_none() && effects.next_end().is_none());
    }

    #[test]
    fn what_does_not_last_leaves_nothing() {
        let mut effects = Effects::default();
        for action in [Action::Throttle, Action::Bounce, Action::Defer, Action::OtherSource] {
            assert_eq!(effects.apply(Mono(0), &fired("x", action), "mx"), Change::None);
        }
        let none = Action::Backoff { wait: Duration::ZERO };
        assert_eq!(effects.apply(Mono(0), &fired("x", none), "mx"), Change::None);
        assert!(effects.0.is_none());
    }

    proptest! {
        #[test]
        fn effects_stay_within_their_bound(hosts in proptest::collection::vec(0_u64..200, 0..500)) {
            let mut effects = Effects::default();
            for host in &hosts {
                let skip = fired("skip", Action::SkipHost { lasts: MINUTE });
                effects.apply(Mono(*host), &skip, &host.to_string());
                prop_assert!(effects.active(Mono(0)).count() <= EFFECTS_MAX);
            }
            // What ends last is never what makes room.
            if let Some(last) = hosts.iter().max() {
                let name = last.to_string();
                prop_assert!(effects.skipped_hosts(Mono(0)).any(|(host, _)| host == name));
            }
        }
    }
}
