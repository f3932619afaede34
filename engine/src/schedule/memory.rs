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
#[derive(Debug, Default)]
pub(super) struct Remembered {
    learned: Map<Name, Learned>,
    /// In the order in which they came; names that were taken out since are passed over.
    order: VecDeque<Name>,
    /// What rules did before a restart; as long as that lasts, a path stays afterwards.
    effects: Map<SiteKey, Vec<(u16, Effects)>>,
}

impl Remembered {
    pub(super) fn take(&mut self, name: &Name) -> Option<Learned> {
        if self.learned.is_empty() { None } else { self.learned.remove(name) }
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
        if self.learned.insert(name.clone(), learned).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > REMEMBERED_MAX {
            let oldest = self.order.pop_front()?;
            if self.learned.remove(&oldest).is_some() {
                return Some(oldest);
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

impl Scheduler {
    /// Lets what rules did at a site before a restart bind its first connection.
    pub(super) fn resume_effects(&mut self, now: Now, number: u32) {
        let key = self.sites[number].key.clone();
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
            let (name, learned) = ((site.key.clone(), path.source), path.control.learned(now.wall));
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
