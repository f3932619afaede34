//! Warm-up: how much a new source may send to each provider, or to each site of none, day by day.
//!
//! A day is a date in UTC, by the steady clock, on which something was sent: dates without mail take
//! nobody further. The counts are shared by all owners (`base/cell/day.rs`), so no day holds more than
//! its cap.

mod curve;
mod keeping;
mod kept;
mod words;

use std::sync::Arc;

use super::Scheduler;
use super::limits::Hindrance;
use super::path::Path;
use super::permit::Flight;
use super::roster::Member;
use super::site::Site;
use crate::base::cell::{Day, DayCount, DayKey, Days, Receiver, Refused};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::note::{Attempt, Cause, Class, Complaint, Done, RecipientResult, Took};
use crate::model::settings::{Overflow, WarmUp};
use curve::{cap_of, date_of, end_of};

pub use kept::kept_day;

/// The date in whose day a message is counted, if it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted(Option<u32>);

/// Where a source that is not warm stands today.
#[derive(Clone, Copy, Debug)]
struct Standing {
    day: DayCount,
    cap: u32,
    until: Mono,
}

impl Scheduler {
    fn curve_of(&self, source: u16) -> Option<&WarmUp> {
        self.roster.source_at(source).settings.as_ref()?.warm_up.as_ref()
    }

    /// Where a path stands; `None`: nothing binds it.
    fn standing(&self, now: Now, path: &Path) -> Option<Standing> {
        let curve = self.curve_of(path.source)?;
        let today = date_of(now.wall);
        let until = |date| now.mono_at(end_of(date));
        let Some(day) = &path.day else {
            // One of too many to be counted: tomorrow there is room.
            let day = DayCount { date: today, ..DayCount::default() };
            return Some(Standing { day, cap: 0, until: until(today) });
        };
        let count = day.count();
        let day = curve::standing(curve, count, day.tally(count.date), today);
        let cap = cap_of(curve, day.step)?;
        Some(Standing { day, cap, until: until(day.date) })
    }

    /// Whether the messages of a path are counted.
    pub(super) fn is_warming(&self, now: Now, path: &Path) -> bool {
        self.standing(now, path).is_some()
    }

    /// Whether a path may send one more today.
    pub(super) fn is_below_day(&self, now: Now, path: &Path) -> Result<(), Hindrance> {
        match self.standing(now, path) {
            Some(Standing { day, cap, until }) if day.sent >= cap => {
                Err(Hindrance::WarmUp { until })
            }
            _ => Ok(()),
        }
    }

    /// Whether the mail above a source's day is left to it, and waits.
    pub(super) fn keeps_its_share(&self, source: u16) -> bool {
        self.curve_of(source).is_some_and(|curve| curve.overflow == Overflow::Wait)
    }

    /// Deliveries that a member of a pool was given lately, for its weight.
    pub(super) fn share_of(&self, site: &Site, member: Member) -> u64 {
        site.given_to(member.source) * 1000 / u64::from(member.weight.max(1))
    }

    /// What others of its pool take while the day of a source is full is not owed to it afterwards: it
    /// would get all mail then until it has caught up. `share`: theirs.
    pub(super) fn forgo_share(&mut self, now: Now, number: u32, pool: u16, share: u64) {
        for at in 0..self.roster.members(pool).len() {
            let Member { source, weight } = self.roster.members(pool)[at];
            let site = &self.sites[number];
            let Some(path) = site.path_number(source) else { continue };
            if self.is_below_day(now, &site.paths[usize::from(path)]).is_err() {
                let given = u32::try_from(share * u64::from(weight) / 1000).unwrap_or(u32::MAX);
                let path = self.sites[number].path(path);
                path.given = path.given.max(given);
            }
        }
    }

    /// Mail of a site that could go out by some source, and is left to one whose day is full.
    pub(super) fn left_to_another(&self, now: Now, site: &Site) -> Option<Hindrance> {
        let pools = site.trunks.iter().map(|trunk| self.order.trunks[*trunk as usize].pool);
        let members = pools.flat_map(|pool| self.roster.members(pool));
        let keepers = members.filter(|member| self.keeps_its_share(member.source));
        let paths = keepers.filter_map(|member| site.path_of(member.source));
        let mut hindrances = paths.filter_map(|path| self.is_passable(now, path).err());
        hindrances.find(|one| matches!(one, Hindrance::WarmUp { .. }))
    }

    /// The counts of a pool's sources, so that who cannot send today is known before a connection is
    /// opened.
    pub(super) fn find_days(&mut self, now: Now, number: u32, pool: u16) {
        let members = self.roster.members(pool).iter().map(|member| member.source);
        let warming: Vec<u16> = members.filter(|one| self.curve_of(*one).is_some()).collect();
        for source in warming {
            let path = self.path_from(now, number, source);
            if self.sites[number].path(path).day.is_none() {
                self.sites[number].path(path).day = self.day_for(now, number, source);
            }
        }
    }

    /// Whether some source cannot be counted here for want of room.
    pub(super) fn lacks_a_day(&self, number: u32) -> bool {
        let lacks = |path: &Path| path.day.is_none() && self.curve_of(path.source).is_some();
        self.sites[number].paths.iter().any(lacks)
    }

    /// Those of all pools of a site, after a reload, or where there was no room for them before.
    pub(super) fn find_all_days(&mut self, now: Now, number: u32) {
        for at in 0..self.sites[number].trunks.len() {
            let trunk = self.sites[number].trunks[at];
            self.find_days(now, number, self.order.trunks[trunk as usize].pool);
        }
    }

    /// The count of a source at the receiver that a site belongs to.
    pub(super) fn day_for(&mut self, now: Now, number: u32, source: u16) -> Option<Arc<Day>> {
        self.curve_of(source)?;
        let site = &self.sites[number];
        let receiver = match site.provider.as_deref() {
            Some(provider) => Receiver::Provider(provider.into()),
            None => Receiver::Site(site.key().name().into()),
        };
        let source = (*self.roster.source_at(source).name).into();
        let Days { day, forgotten } =
            self.cells.day(&DayKey { source, receiver }, date_of(now.wall));
        forgotten.iter().for_each(|day| self.write_day(now, day));
        day
    }

    /// Counts one message in the day of a path, the last thing before it is given out. `None`: another
    /// shard has taken the last.
    pub(super) fn take_of_day(&mut self, now: Now, number: u32, path: u16) -> Option<Counted> {
        let path = &self.sites[number].paths[usize::from(path)];
        let settings = self.roster.source_at(path.source).settings.clone();
        let curve = settings.as_ref().and_then(|settings| settings.warm_up.as_ref());
        let Some(curve) = curve.filter(|_| !planted(Bug::DayNeverCounted)) else {
            return Some(Counted(None));
        };
        let cell = path.day.clone()?;
        let today = date_of(now.wall);
        // Ends: each round more means that another shard has begun a day.
        loop {
            let before = cell.count();
            let tally = cell.tally(before.date);
            let day = curve::standing(curve, before, tally, today);
            let is_new = (day.date, day.step) != (before.date, before.step);
            if is_new && !cell.turn(before, day) {
                continue;
            }
            if is_new {
                self.tell_turn(curve, cell.key(), (before, tally), day);
            }
            let Some(cap) = cap_of(curve, day.step) else {
                // Said once: a warm source is counted no more.
                if is_new {
                    self.write_day(now, &cell);
                }
                return Some(Counted(None));
            };
            match cell.take(day, cap) {
                Ok(sent) => {
                    if curve::is_written_at(sent, cap) {
                        self.write_day(now, &cell);
                    }
                    return Some(Counted(Some(day.date)));
                }
                Err(Refused::Full) => return None,
                Err(Refused::Moved) => {}
            }
        }
    }

    /// A message of which nothing was sent does not count. Nobody is woken by it: who found the day
    /// full meanwhile asks again when more mail comes, or tomorrow.
    pub(super) fn uncount(&mut self, (number, path): (u32, u16), flight: &mut Flight) {
        let Counted(date) = std::mem::take(&mut flight.counted);
        if let (Some(date), Some(day)) = (date, &self.sites[number].path(path).day) {
            day.put_back(date);
        }
    }

    /// The site had a word to say about a message: `is_bad`, if it was to slow down, or that it does
    /// not want us.
    pub(super) fn note_day_answer(
        &self,
        (number, path): (u32, u16),
        flight: &Flight,
        is_bad: bool,
    ) {
        if flight.counted.0.is_none() {
            return;
        }
        let path = &self.sites[number].paths[usize::from(path)];
        let (Some(curve), Some(day)) = (self.curve_of(path.source), &path.day) else { return };
        if cap_of(curve, day.count().step).is_some() {
            day.note_answer(is_bad);
        }
    }
}

/// Whether nothing of a message was sent: it came back, or could not be sent to this host as it is.
pub(super) fn is_unsent(done: &Done) -> bool {
    match &done.result {
        Attempt::NotTried | Attempt::Unreadable => true,
        Attempt::Mixed { recipients, .. } => {
            let is_objection = |one: &RecipientResult| one.cause == Cause::Content;
            done.phases.mail == Took::NOT && recipients.iter().all(is_objection)
        }
        Attempt::Delivered(_) | Attempt::Throttled(_) | Attempt::Unheard => false,
    }
}

/// Whether an answer is one that a day is repeated for.
pub(super) fn is_bad(recipients: &[RecipientResult], complaint: Option<&Complaint>) -> bool {
    let is_about_us = |cause| matches!(cause, Cause::Throttle | Cause::Policy);
    let refused = recipients.iter().filter(|one| one.class != Class::Delivered);
    let causes = refused.map(|one| one.cause).chain(complaint.map(|complaint| complaint.cause));
    causes.into_iter().any(is_about_us)
}
