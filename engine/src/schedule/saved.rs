//! When what a path knows is written down: what it learned, and what rules asked of it.
//!
//! Both change with every reply. They are written when they differ by enough to matter, at most once a
//! minute a path, and at the end: a restart in between loses a minute of experience.

use std::time::Duration;

use super::control::{Changes, Learned};
use super::durable::{ON_PATH, Reader, VERSION, Writer, left};
use super::feedback::At;
use super::rules::{Change, Effect, Effects};
use super::{Action, Scheduler};
use crate::base::time::{Mono, Now, Wall};
use crate::model::route::SiteKey;
use crate::model::state::{StateItem, Topic};

/// Between two writings of one path: ten thousand busy paths make some 170 records a second.
const SAVE_WAIT: Duration = Duration::from_secs(60);
/// A tenth is what matters.
const MATTERS_PART: u32 = 10;

/// What the disk knows of a path.
#[derive(Debug, Default)]
pub(super) struct Saved {
    learned: Option<Box<Learned>>,
    /// When that was written, or looked at, last.
    looked_at: Mono,
    changed: bool,
    /// When what rules asked for was written; `None`: nothing is.
    effects_at: Option<Mono>,
    prolonged: bool,
}

impl Saved {
    /// As a restart, or a site that was idle, left it.
    pub(super) fn of(learned: Option<Learned>) -> Self {
        Self { learned: learned.map(Box::new), ..Self::default() }
    }

    pub(super) fn has_effects(&mut self, now: Mono) {
        self.effects_at = Some(now);
    }
}

/// Whether a path should know this after a restart rather than what it wrote last.
fn matters(old: Option<&Learned>, new: &Learned, start_window: u32) -> bool {
    let differs = |old: u32, new: u32| old.abs_diff(new).saturating_mul(MATTERS_PART) >= old.max(1);
    let changed = |old: Option<u32>, new: Option<u32>| match (old, new) {
        (Some(old), Some(new)) => old != new && differs(old, new),
        (old, new) => old != new,
    };
    let (window, level, rate, closings) = old.map_or((start_window, None, None, 0), |old| {
        (old.window, old.ceiling_seen, old.rate, old.closings)
    });
    window != new.window && differs(window, new.window)
        || changed(level, new.ceiling_seen)
        || changed(rate, new.rate)
        || closings != new.closings
}

impl Scheduler {
    /// Something about a path may have changed.
    pub(super) fn note_change(&mut self, now: Now, at: At, changes: &Changes) {
        let saved = &mut self.sites[at.0].path(at.1).saved;
        saved.changed |= !changes.is_empty();
        if saved.changed && now.mono >= saved.looked_at.plus(SAVE_WAIT) {
            self.save_learned(now, at);
        }
    }

    /// Writes what a path learned, if it matters.
    pub(super) fn save_learned(&mut self, now: Now, (number, at): At) {
        let written = self.durable(now.wall);
        let site = &mut self.sites[number];
        let start_window = site.pace.control.start_window;
        let path = site.path(at);
        (path.saved.changed, path.saved.looked_at) = (false, now.mono);
        let learned = path.control.learned(now.wall);
        if !matters(path.saved.learned.as_deref(), &learned, start_window) {
            return;
        }
        path.saved.learned = Some(Box::new(learned));
        let source = path.source;
        let value = Learned { as_of: written, ..learned }.encode();
        let key = self.path_key(self.sites[number].key(), source);
        self.actions.push_back(Action::Remember(StateItem::new(Topic::Learned, key, value)));
    }

    /// A rule did something to a path.
    pub(super) fn note_effect(&mut self, now: Now, at: At, change: Change) {
        let saved = &mut self.sites[at.0].path(at.1).saved;
        let is_due = saved.effects_at.is_none_or(|since| now.mono >= since.plus(SAVE_WAIT));
        match change {
            Change::None => {}
            Change::Extended if !is_due => saved.prolonged = true,
            Change::Begun | Change::Extended => self.save_effects(now, at),
        }
    }

    /// Writes what rules ask of a path, or that they ask nothing any more.
    pub(super) fn save_effects(&mut self, now: Now, (number, at): At) {
        let site = &self.sites[number];
        let path = &site.paths[usize::from(at)];
        let key = self.effects_key(site.key(), path.source);
        let effects: Vec<&Effect> = path.effects.active(now.mono).collect();
        let item = match effects[..] {
            [] if path.saved.effects_at.is_none() => return,
            [] => StateItem::forgotten(Topic::RuleEffect, key),
            _ => StateItem::new(Topic::RuleEffect, key, self.encode_effects(now, &effects)),
        };
        let is_there = !item.is_forgotten();
        self.actions.push_back(Action::Remember(item));
        let saved = &mut self.sites[number].path(at).saved;
        (saved.effects_at, saved.prolonged) = (is_there.then_some(now.mono), false);
    }

    /// Everything about a site that is not written yet.
    pub(super) fn save_site(&mut self, now: Now, number: u32) {
        for at in 0..self.sites[number].paths.len() {
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            self.save_learned(now, (number, at));
            if self.sites[number].path(at).saved.prolonged {
                self.save_effects(now, (number, at));
            }
        }
    }

    pub(super) fn path_key(&self, site: &SiteKey, source: u16) -> Box<[u8]> {
        Writer::default().path(site, &self.roster.source_at(source).name).done()
    }

    pub(super) fn effects_key(&self, site: &SiteKey, source: u16) -> Box<[u8]> {
        let name = &self.roster.source_at(source).name;
        Writer::default().byte(ON_PATH).path(site, name).done()
    }

    fn encode_effects(&self, now: Now, effects: &[&Effect]) -> Box<[u8]> {
        let count = u8::try_from(effects.len()).unwrap_or(u8::MAX);
        let as_of = self.durable(now.wall);
        let head = Writer::default().byte(VERSION).number64(as_of.0).byte(count);
        let add = |with: Writer, effect: &&Effect| {
            let until = self.durable(now.wall_at(effect.until));
            with.number64(until.0).text(&effect.by.name).restraint(&effect.restraint)
        };
        effects.iter().fold(head, add).done()
    }

    /// The effects in a value that still last, of rules that still are there.
    pub(super) fn decode_effects(&self, now: Now, value: &[u8]) -> Option<Effects> {
        let mut reader = Reader(value);
        reader.version()?;
        let as_of = Wall(reader.number64()?);
        let mut effects = Effects::default();
        for _ in 0..reader.byte()? {
            let left = left(now.wall, as_of, Wall(reader.number64()?));
            let until = now.mono.plus(left);
            let rule = reader.text()?;
            let restraint = reader.restraint()?;
            if let Some(by) = self.rules.label(rule) {
                effects.insert(now.mono, Effect { restraint, until, by });
            }
        }
        reader.end()?;
        Some(effects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Learned = Learned {
        window: 40,
        ceiling_seen: Some(44),
        rate: Some(5_000),
        closings: 0,
        as_of: Wall(0),
    };

    #[test]
    fn a_tenth_matters_and_less_does_not() {
        let is_news = |new: Learned| matters(Some(&OLD), &new, 4);
        assert!(!is_news(Learned { as_of: Wall(9), ..OLD }));
        assert!(!is_news(Learned { window: 43, ..OLD }));
        assert!(is_news(Learned { window: 44, ..OLD }) && is_news(Learned { window: 36, ..OLD }));
        assert!(is_news(Learned { ceiling_seen: None, ..OLD }));
        assert!(is_news(Learned { rate: Some(4_500), ..OLD }));
        assert!(!is_news(Learned { rate: Some(4_501), ..OLD }));
        assert!(is_news(Learned { closings: 1, ..OLD }));
    }

    #[test]
    fn a_path_that_learned_nothing_is_not_written() {
        let fresh = Learned { window: 4, ceiling_seen: None, rate: None, ..OLD };
        assert!(!matters(None, &fresh, 4));
        assert!(matters(None, &Learned { window: 5, ..fresh }, 4));
    }
}
