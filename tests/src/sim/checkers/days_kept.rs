//! A source in its warm-up sends no more in a day than its curve says, as the hosts count it: over
//! all sites of a provider, and over all runs of the engine that ended in order. Such an end leaves the
//! exact count on the disk.
//!
//! A message is of the day in which it was decided on; one around midnight is not judged. How far the
//! curve is only the engine knows: hosts do not see what was counted, and then not sent after all. It
//! goes one step a date at most.

use std::collections::BTreeMap;

use super::{Begun, Checker, DayInForce, Seen};
use crate::sim::bounds::{Key, Of};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct DaysKept {
    days: BTreeMap<Key, Day>,
    /// The day of the message that began last on a connection, and what it allows at most.
    begun: BTreeMap<usize, (Key, u64, Option<u32>)>,
    /// A bit has flipped, which may have been one of a count.
    is_excused: bool,
    judged: u64,
}

/// The present one of what is counted together.
#[derive(Debug, Default)]
struct Day {
    date: Option<u64>,
    taken: u32,
}

impl DaysKept {
    fn begins(&mut self, begun: &Begun) {
        let Some(DayInForce { key, date, steps_max, is_doubtful, days }) = &begun.day else {
            return;
        };
        if begun.of != Of::Messages {
            return;
        }
        let day = self.days.entry(*key).or_default();
        if day.date != Some(*date) {
            *day = Day { date: Some(*date), taken: 0 };
        }
        self.begun.remove(&begun.way.link);
        if !is_doubtful {
            let most = days.get(..=*steps_max).and_then(|days| days.iter().max()).copied();
            self.begun.insert(begun.way.link, (*key, *date, most));
        }
    }

    fn taken(&mut self, link: usize) -> Result<(), String> {
        let Some((key, date, cap)) = self.begun.get(&link).copied() else { return Ok(()) };
        let Some(day) = self.days.get_mut(&key).filter(|day| day.date == Some(date)) else {
            return Ok(());
        };
        day.taken += 1;
        // Behind its last day the source is warm.
        let Some(cap) = cap else { return Ok(()) };
        self.judged += 1;
        if day.taken > cap {
            let taken = day.taken;
            return Err(format!("{key:?}: {taken} messages on day {date}, allowed: {cap}"));
        }
        Ok(())
    }
}

impl Checker for DaysKept {
    fn name(&self) -> &'static str {
        "days kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Begins(begun) => self.begins(begun),
            Seen::TakenFrom(way) => self.taken(way.link)?,
            Seen::Ended { in_order, is_disk_good } => {
                self.begun.clear();
                if !in_order || !is_disk_good {
                    self.days.values_mut().for_each(|day| day.taken = 0);
                }
            }
            Seen::DayEnded { key, counted, kept } if !self.is_excused => {
                self.judged += 1;
                if *kept != Some(*counted) {
                    return Err(format!("{key:?} counts {counted}, and the disk has {kept:?}"));
                }
            }
            Seen::Rotten { .. } => self.is_excused = true,
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
