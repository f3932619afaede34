//! What mail comes when: the same for every sender that is judged, drawn from the seed alone.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::chance::Chance;
use super::world::{Class, Mail, START};

/// The mail of one scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// There at the start.
    pub(crate) backlog: u32,
    /// New messages a second, on average.
    pub(crate) rate: f64,
    pub(crate) domains: u16,
    pub(crate) tenants: u16,
    /// Of a thousand messages, so many are transactional.
    pub(crate) transactional: u16,
}

impl Load {
    pub(crate) const fn plain(backlog: u32, rate: f64) -> Self {
        Self { backlog, rate, domains: 1, tenants: 1, transactional: 0 }
    }
}

/// A Poisson stream behind a backlog. The backlog lies there tenant by tenant, as campaigns do.
#[derive(Debug)]
pub(crate) struct Arrivals {
    load: Load,
    chance: Chance,
    number: u32,
    next: Mono,
}

impl Arrivals {
    pub(crate) fn new(load: Load, seed: u64) -> Self {
        let mut arrivals = Self { load, chance: Chance::new(seed, 1), number: 0, next: START };
        if load.backlog == 0 {
            arrivals.draw(START);
        }
        arrivals
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        (self.load.rate > 0.0 || self.number < self.load.backlog).then_some(self.next)
    }

    /// The next message, if its time has come.
    pub(crate) fn take(&mut self, now: Mono) -> Option<Mail> {
        self.next().filter(|next| *next <= now)?;
        let mail = Mail {
            number: self.number,
            arrival: self.next,
            domain: self.chance.below(self.load.domains),
            tenant: self.tenant(),
            class: self.class(),
        };
        self.number += 1;
        if self.number >= self.load.backlog {
            self.draw(self.next);
        }
        Some(mail)
    }

    fn tenant(&mut self) -> u16 {
        if self.number >= self.load.backlog {
            return self.chance.below(self.load.tenants);
        }
        let each = self.load.backlog.div_ceil(u32::from(self.load.tenants));
        u16::try_from(self.number / each).unwrap_or(0)
    }

    fn class(&mut self) -> Class {
        let is_bulk =
            self.number < self.load.backlog || self.chance.below(1000) >= self.load.transactional;
        if is_bulk { Class::Bulk } else { Class::Transactional }
    }

    fn draw(&mut self, from: Mono) {
        if self.load.rate > 0.0 {
            self.next = from.plus(self.chance.exponential(self.load.rate).max(NEVER_AT_ONCE));
        }
    }
}

/// Two messages never come in the same instant, so that their order is no accident.
const NEVER_AT_ONCE: Duration = Duration::from_nanos(1);
