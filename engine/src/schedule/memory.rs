//! What was learned of sites that hold nothing at present: an hour without mail should not make a
//! provider's limits a surprise again.

use std::collections::VecDeque;

use super::Scheduler;
use super::control::Learned;
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::route::SiteKey;

/// Paths remembered, about 20 MiB; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 100_000;

type Name = (SiteKey, u16);

/// Learned states by site and source.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    by_name: Map<Name, Learned>,
    /// In the order in which they came; names that were taken out since are passed over.
    order: VecDeque<Name>,
}

impl Remembered {
    pub(super) fn take(&mut self, site: &SiteKey, source: u16) -> Option<Learned> {
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name.remove(&(site.clone(), source))
    }

    fn keep(&mut self, name: Name, learned: Learned) {
        if self.by_name.insert(name.clone(), learned).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_name.remove(&oldest);
            }
        }
    }
}

impl Scheduler {
    /// Keeps what was learned of a site that is about to be forgotten.
    pub(super) fn remember(&mut self, now: Now, number: u32) {
        let site = &self.sites[number];
        for path in &site.paths {
            let learned = path.control.learned(now.wall);
            self.remembered.keep((site.key.clone(), path.source), learned);
        }
    }
}
