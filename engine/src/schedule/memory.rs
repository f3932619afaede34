//! What is known of paths that do not exist at present: an hour without mail, or a restart, should not
//! make a provider's limits a surprise again.

use std::collections::VecDeque;

use super::control::Learned;
use super::rules::Effects;
use super::{Action, Scheduler};
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::route::SiteKey;
use crate::model::state::{StateItem, Topic};

/// Paths remembered, about 20 MiB; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 100_000;

pub(super) type Name = (SiteKey, u16);

/// By site and source.
#[derive(Debug)]
pub(super) struct Remembered {
    max: usize,
    /// Each with its number in `order`.
    learned: Map<Name, (u64, Learned)>,
    /// In the order in which they came; those that were taken out since, or came again, are passed over.
    order: VecDeque<(u64, Name)>,
    next: u64,
    /// What rules did before a restart; as long as that lasts, a path stays afterwards.
    effects: Map<SiteKey, Vec<(u16, Effects)>>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self::of(REMEMBERED_MAX)
    }
}

impl Remembered {
    fn of(max: usize) -> Self {
        let (learned, effects) = (Map::default(), Map::default());
        Self { max, learned, order: VecDeque::new(), next: 0, effects }
    }

    pub(super) fn take(&mut self, name: &Name) -> Option<Learned> {
        if self.learned.is_empty() {
            return None;
        }
        self.learned.remove(name).map(|(_, learned)| learned)
    }

    /// What rules did at a site, by source.
    pub(super) fn take_effects(&mut self, site: &SiteKey) -> Vec<(u16, Effects)> {
        if self.effects.is_empty() {
            return Vec::new();
        }
        self.effects.remove(site).unwrap_or_default()
    }

    /// Keeps one more; whom it had to forget for it.
    pub(super) fn keep(&mut self, name: Name, learned: Learned) -> Option<Name> {
        self.next += 1;
        self.learned.insert(name.clone(), (self.next, learned));
        self.order.push_back((self.next, name));
        if self.order.len() > 2 * self.max {
            let learned = &self.learned;
            self.order.retain(|(number, name)| is_of(learned, *number, name));
        }
        if self.learned.len() <= self.max { None } else { self.forget_oldest() }
    }

    fn forget_oldest(&mut self) -> Option<Name> {
        while let Some((number, name)) = self.order.pop_front() {
            if is_of(&self.learned, number, &name) {
                self.learned.remove(&name);
                return Some(name);
            }
        }
        None
    }

    /// What a rule did to a path that will come with its mail.
    pub(super) fn keep_effects(&mut self, name: Name, effects: Effects) {
        if self.effects.len() < REMEMBERED_MAX {
            self.effects.entry(name.0).or_default().push((name.1, effects));
        }
    }

    /// An operator ended them, of all sources.
    pub(super) fn forget_effects(&mut self, site: &str) -> Vec<Name> {
        let is_of = |key: &SiteKey, _: &mut Vec<_>| key.name() == site;
        let names = |(key, paths): (SiteKey, Vec<(u16, Effects)>)| {
            paths.into_iter().map(move |(source, _)| (key.clone(), source))
        };
        self.effects.extract_if(is_of).flat_map(names).collect()
    }
}

/// Whether what is kept of a name came with this number.
fn is_of(learned: &Map<Name, (u64, Learned)>, number: u64, name: &Name) -> bool {
    learned.get(name).is_some_and(|(own, _)| *own == number)
}

impl Scheduler {
    /// Lets what rules did at a site before a restart bind its first connection.
    pub(super) fn resume_effects(&mut self, now: Now, number: u32) {
        let key = self.sites[number].key().clone();
        for (source, effects) in self.remembered.take_effects(&key) {
            let at = self.path_from(now, number, source);
            let path = self.sites[number].path(at);
            path.effects = effects;
            path.saved.has_effects(now.mono);
            self.arm_path((number, at));
        }
    }

    /// Keeps what was learned of a site that is about to be forgotten.
    pub(super) fn remember(&mut self, now: Now, number: u32) {
        self.save_site(now, number);
        for at in 0..self.sites[number].paths.len() {
            let site = &self.sites[number];
            let path = &site.paths[at];
            let (name, learned) =
                ((site.key().clone(), path.source), path.control.learned(now.wall));
            if let Some((site, source)) = self.remembered.keep(name, learned) {
                self.forget_learned(&site, source);
            }
        }
    }

    pub(super) fn forget_learned(&mut self, site: &SiteKey, source: u16) {
        let key = self.path_key(site, source);
        self.actions.push_back(Action::Remember(StateItem::forgotten(Topic::Learned, key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;

    const MAX: usize = 10;

    fn named(number: u16) -> Name {
        (SiteKey::MxSet("mx.example".into()), number)
    }

    fn of_window(window: u32) -> Learned {
        let (ceiling_seen, rate, closings) = (None, None, 0);
        Learned { window, ceiling_seen, rate, closings, as_of: Wall(0) }
    }

    #[test]
    fn sites_that_come_and_go_push_nobody_out() {
        let mut remembered = Remembered::of(MAX);
        assert_eq!(remembered.keep(named(9), of_window(9)), None);
        for round in 0..100 {
            for name in 0..3 {
                remembered.take(&named(name));
                assert_eq!(remembered.keep(named(name), of_window(round)), None);
                assert!(remembered.order.len() <= 2 * MAX);
            }
        }
        for name in 0..3 {
            assert_eq!(remembered.take(&named(name)), Some(of_window(99)));
        }
        assert_eq!(remembered.take(&named(9)), Some(of_window(9)));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut remembered = Remembered::of(MAX);
        (0..10).for_each(|name| assert_eq!(remembered.keep(named(name), of_window(1)), None));
        remembered.take(&named(0));
        assert_eq!(remembered.keep(named(0), of_window(2)), None);
        assert_eq!(remembered.keep(named(10), of_window(2)), Some(named(1)));
        assert_eq!(remembered.keep(named(11), of_window(2)), Some(named(2)));
        assert_eq!(remembered.take(&named(0)), Some(of_window(2)));
    }
}
