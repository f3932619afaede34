//! Counts that outlive the process: written down a part of a day at a time, by one shard each.
//!
//! A part is a twentieth of the day's cap, and is written when it is begun. So a restart finds no day
//! less used than it was, but for what was sent in the milliseconds before a crash, and at most a part
//! more used. Answers are as of that moment. A stop in order writes each day of today as it is: when it
//! begins, and again when the last connection has ended.

use std::sync::Arc;

use super::curve::{self, cap_of, date_of};
use super::kept;
use crate::base::cell::{Day, DayCount};
use crate::base::map::stable_hash;
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::state::{StateItem, Topic};
use crate::schedule::{Action, Scheduler};

impl Scheduler {
    /// Has a count written down by the one shard that does so, which keeps what it writes in order.
    pub(super) fn write_day(&mut self, now: Now, day: &Arc<Day>) {
        let to = self.writer_of(day);
        if to == self.shard {
            self.handle_day(now, day);
        } else {
            self.actions.push_back(Action::WriteDay { to, day: Arc::clone(day) });
        }
    }

    /// A count is to be written, or is forgotten.
    pub fn handle_day(&mut self, now: Now, day: &Arc<Day>) {
        let key = kept::encode_key(day.key());
        let item = match self.cells.known_day(day.key()) {
            None => StateItem::forgotten(Topic::WarmUp, key),
            Some(known) if !Arc::ptr_eq(&known, day) => return,
            Some(_) => {
                let count = day.count();
                let tally = day.tally(count.date);
                let source = self.roster.source_number(&day.key().source);
                let Some(curve) = source.and_then(|source| self.curve_of(source)) else { return };
                let written = |cap| match self.stopping && !planted(Bug::DayRoundedAtStop) {
                    true => count.sent,
                    false => curve::written_of(count.sent, cap),
                };
                let sent = cap_of(curve, count.step).map_or(0, written);
                let date = self.durable_date(now, count.date);
                let value = kept::encode(DayCount { date, sent, ..count }, tally);
                StateItem::new(Topic::WarmUp, key, value)
            }
        };
        self.actions.push_back(Action::Remember(item));
    }

    /// At a stop: has all counts of today written as they are. Those that others write are told to them,
    /// for they may have stopped before; those it writes itself include what others told it before.
    pub(in crate::schedule) fn write_days(&mut self, now: Now) {
        let today = date_of(now.wall);
        let own = self.cells.days().into_iter().filter(|day| self.writer_of(day) == self.shard);
        let paths = self.sites.iter().flat_map(|site| &site.paths);
        let told = paths.filter_map(|path| path.day.clone());
        let told = told.filter(|day| self.writer_of(day) != self.shard);
        let all: Vec<Arc<Day>> = own.chain(told).filter(|day| day.count().date == today).collect();
        all.iter().for_each(|day| self.write_day(now, day));
    }

    fn writer_of(&self, day: &Day) -> ShardId {
        let writer = stable_hash(&kept::encode_key(day.key())) % u64::from(self.shards.max(1));
        ShardId(u16::try_from(writer).unwrap_or(0))
    }

    /// A date of the steady clock as the wall clock has it now.
    fn durable_date(&self, now: Now, date: u32) -> u32 {
        let (steady, set) = (date_of(now.wall), date_of(self.durable(now.wall)));
        (date + set).saturating_sub(steady)
    }

    /// What an earlier run left of a count; all shards may be told. Where the wall clock was set back
    /// since, its day is today. `None`: it is of no use any more.
    pub(in crate::schedule) fn restore_day(&mut self, now: Now, item: &StateItem) -> Option<()> {
        let key = kept::decode_key(&item.key)?;
        let source = self.roster.source_number(&key.source);
        source.and_then(|source| self.curve_of(source))?;
        match kept::decode(&item.value) {
            Ok((count, tally)) => {
                let today = date_of(now.wall);
                let count = DayCount { date: count.date.min(today), ..count };
                if let Some(day) = self.cells.day(&key, today).day {
                    day.restore(count, tally);
                }
                Some(())
            }
            Err(error) => {
                self.tell_warm_up(&key, format!("starts again: {error}"));
                None
            }
        }
    }
}
