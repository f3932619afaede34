//! What an earlier run wrote down, taken up again before any mail goes out.

use std::time::Duration;

use super::control::Learned;
use super::durable::{KeptHold, ON_PATH, ON_SCOPE, Reached, Reader, Writer, left};
use super::hold::{Held, RULE};
use super::{Action, Scheduler};
use crate::base::time::{Now, Wall, WallStep};
use crate::model::connection::ShardId;
use crate::model::hold::{Hold, Scope};
use crate::model::route::SiteKey;
use crate::model::state::{KEEPER, StateItem, Topic};

/// Nothing that was learned is left of it after so long.
const LEARNED_LASTS: Duration = Duration::from_secs(8 * 24 * 3600);

/// The shard that an item is for; `None`: all of them.
#[must_use]
pub fn owner(item: &StateItem, shards: u16) -> Option<ShardId> {
    let ((Topic::Learned, key) | (Topic::RuleEffect, [ON_PATH, key @ ..])) =
        (item.topic, &*item.key)
    else {
        return None;
    };
    Reader(key).path().map(|(site, _)| site.owner(shards))
}

impl Scheduler {
    /// Where the wall clock stands, for times that are written down.
    pub fn handle_wall(&mut self, step: WallStep) {
        self.wall_step = step;
    }

    /// A steady time as it is written down.
    pub(super) fn durable(&self, steady: Wall) -> Wall {
        self.wall_step.to_set(steady)
    }

    /// Nothing goes out before what an earlier run wrote down is known.
    pub fn await_state(&mut self) {
        self.awaits_state = true;
    }

    /// One item that was kept. All of them come before the first delivery of this shard's own; that of
    /// others may be here.
    pub fn handle_restored(&mut self, now: Now, item: &StateItem) {
        let is_used = match item.topic {
            Topic::Learned => self.restore_learned(now, item),
            Topic::Hold => Reader(&item.key).scope().and_then(|scope| {
                let hold = KeptHold::decode(&item.value)?;
                self.restore_hold(now, &scope?, hold)
            }),
            Topic::Cancel => Reader(&item.key).scope().and_then(|scope| {
                let reached = Reached::decode(&item.value)?;
                self.cancels.restore(now.mono, scope, reached);
                Some(())
            }),
            Topic::RuleEffect => self.restore_effect(now, item),
            Topic::WarmUp => self.restore_day(now, item),
            Topic::Other(_) => Some(()),
        };
        // What is over, or whose rule is gone, is not asked again at the next start.
        if is_used.is_none() && self.shard == owner(item, self.shards).unwrap_or(KEEPER) {
            let forgotten = StateItem::forgotten(item.topic, item.key.clone());
            self.actions.push_back(Action::Remember(forgotten));
        }
    }

    /// All was told: mail may go out.
    pub fn handle_state_complete(&mut self, now: Now) {
        self.awaits_state = false;
        self.drop_what_came_early(now);
        for number in self.sites.numbers() {
            self.dispatch(now, number);
        }
    }

    /// The number of a path's source; one that is not configured may be again.
    fn restored_name(&self, key: &[u8]) -> Option<Result<(SiteKey, u16), ()>> {
        let (site, source) = Reader(key).path()?;
        if site.owner(self.shards) != self.shard {
            return Some(Err(()));
        }
        Some(self.roster.source_number(source).map(|number| (site, number)).ok_or(()))
    }

    fn restore_learned(&mut self, now: Now, item: &StateItem) -> Option<()> {
        let learned = Learned::decode(&item.value).ok()?;
        if now.wall.since(learned.as_of) >= LEARNED_LASTS {
            return None;
        }
        if let Ok(name) = self.restored_name(&item.key)?
            && let Some((site, source)) = self.remembered.keep(name, learned)
        {
            self.forget_learned(&site, source);
        }
        Some(())
    }

    /// An order of this run stands.
    fn restore_hold(&mut self, now: Now, scope: &Scope, kept: KeptHold) -> Option<()> {
        let left = kept.until.map(|until| left(now.wall, kept.as_of, until));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        let until = left.map(|left| now.mono.plus(left));
        if self.holds.get(scope).is_none() {
            self.install_hold(scope, Held { hold: Hold { by: kept.by, until }, written: until });
        }
        Some(())
    }

    fn restore_effect(&mut self, now: Now, item: &StateItem) -> Option<()> {
        match &*item.key {
            [ON_SCOPE, key @ ..] => {
                let scope = Reader(key).scope()??;
                let kept = KeptHold::decode(&item.value)?;
                self.rules.label(kept.by.strip_prefix(RULE)?)?;
                self.restore_hold(now, &scope, kept)
            }
            [ON_PATH, key @ ..] => {
                let effects = self.decode_effects(now, &item.value)?;
                effects.next_end()?;
                if let Ok(name) = self.restored_name(key)? {
                    self.remembered.keep_effects(name, effects);
                }
                Some(())
            }
            _ => None,
        }
    }

    /// Writes down what is held, or that it is not any more. One shard does so for all.
    pub(super) fn write_hold(&mut self, now: Now, scope: &Scope) {
        if self.shard != KEEPER {
            return;
        }
        let key = Writer::default().scope(Some(scope)).done();
        let ruled: Box<[u8]> = [&[ON_SCOPE], &*key].concat().into();
        let (as_of, held) = (self.durable(now.wall), self.holds.get(scope));
        let is_ruled = held.is_some_and(|hold| hold.by.starts_with(RULE));
        let value = held.map(|hold| {
            let until = hold.until.map(|until| self.durable(now.wall_at(until)));
            KeptHold { as_of, until, by: hold.by.clone() }.encode()
        });
        let value = value.unwrap_or_default();
        let (by_operator, by_rule) =
            if is_ruled { (Box::default(), value) } else { (value, Box::default()) };
        let items = [(Topic::Hold, key, by_operator), (Topic::RuleEffect, ruled, by_rule)];
        for (topic, key, value) in items {
            self.actions.push_back(Action::Remember(StateItem { topic, key, value }));
        }
    }
}

/// The key of what an operator holds.
#[must_use]
pub fn hold_key(scope: &Scope) -> Box<[u8]> {
    Writer::default().scope(Some(scope)).done()
}

/// The key of what an operator cancelled; `None`: all mail.
#[must_use]
pub fn cancel_key(scope: Option<&Scope>) -> Box<[u8]> {
    Writer::default().scope(scope).done()
}
