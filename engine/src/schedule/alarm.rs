//! What the timing wheel wakes: one thing of one site, never a site that has nothing to do.

use super::retry::FifoKey;
use super::site::Site;
use super::{Action, Scheduler};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};

/// How long an empty site is remembered, from when its gate is open again: a lull between two
/// messages should not forget its state.
const SITE_LINGER: std::time::Duration = std::time::Duration::from_secs(60);

/// Which thing of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first of a retry FIFO is due.
    Retry(FifoKey),
    /// A bucket of deliveries deferred before a restart is due.
    Restored,
    /// An expiry bucket has ended.
    Expiry,
    /// A connection has been without work for long enough.
    Idle,
    /// A path changes by itself: its door opens, or a rule's effect ends.
    Path(u16),
    /// The site has been empty for long enough.
    Linger,
}

/// One timer. It counts only if its site has it armed for now, or before: timers cannot be taken off
/// the wheel.
#[derive(Debug)]
pub(super) struct Alarm {
    site: u32,
    serial: u32,
    kind: Kind,
}

impl Scheduler {
    /// Sets an alarm, unless it rings earlier anyway; whoever it wakes sets the next one.
    pub(super) fn arm(&mut self, number: u32, kind: Kind, at: Mono) {
        let site = &mut self.sites[number];
        let serial = site.serial;
        let Some(armed) = site.armed(kind) else { return };
        if planted(Bug::GateNeverOpens) && matches!(kind, Kind::Path(_)) {
            return;
        }
        if at < *armed {
            *armed = at;
            self.wheel.insert(at, Alarm { site: number, serial, kind });
        }
    }

    pub(super) fn ring(&mut self, now: Now, alarm: &Alarm) {
        let Alarm { site: number, serial, kind } = *alarm;
        if !self.sites.current(number, serial).is_some_and(|site| disarm(site, kind, now.mono)) {
            return;
        }
        self.wakes += 1;
        match kind {
            Kind::Retry(key) => self.release_fifo(now, number, key),
            Kind::Restored => self.release_restored(now, number),
            Kind::Expiry => self.expire_due(now, number),
            Kind::Idle => self.close_idle(now, number),
            Kind::Path(path) => self.path_time(now, number, path),
            Kind::Linger => return self.reclaim(now, number),
        }
        // A gate may have opened, a strict domain may have left.
        self.dispatch(now, number);
    }

    /// Wakes a site when its rates let the next message, or connection, go.
    pub(super) fn arm_pace(&mut self, number: u32, at: Mono) {
        let site = &mut self.sites[number];
        if at < site.alarms.pace {
            site.alarms.pace = at;
            self.pace_alarms.set(at, number, site.serial);
        }
    }

    /// Sites whose next message may go now.
    pub(super) fn ring_paced(&mut self, now: Now) {
        while let Some((at, number, serial)) = self.pace_alarms.pop_due(now.mono) {
            let Some(site) = self.sites.current(number, serial) else { continue };
            if site.alarms.pace == at {
                site.alarms.pace = Mono::NEVER;
                self.wakes += 1;
                if self.lacks_a_day(number) {
                    self.find_all_days(now, number);
                }
                self.dispatch(now, number);
            }
        }
    }

    /// Notes that a site may have become empty.
    pub(super) fn note_if_empty(&mut self, now: Now, number: u32) {
        if self.sites[number].is_empty() {
            let site = &mut self.sites[number];
            site.empty_since = now.mono;
            site.paths.iter_mut().for_each(|path| path.control.handle_rest(now.mono));
            self.arm(number, Kind::Linger, now.mono.plus(SITE_LINGER));
        }
    }

    fn reclaim(&mut self, now: Now, number: u32) {
        let site = &self.sites[number];
        if !site.is_empty() {
            return;
        }
        let reopens = site.keeps_until().unwrap_or(site.empty_since);
        let end = reopens.max(site.empty_since).plus(SITE_LINGER);
        if end > now.mono {
            self.arm(number, Kind::Linger, end);
        } else {
            self.actions.extend(self.sites[number].lent().map(Action::Report));
            self.remember(now, number);
            self.end_rest(number);
            self.sites.remove(number);
        }
    }
}

/// Whether the alarm was set for a moment that has come; it no longer is.
fn disarm(site: &mut Site, kind: Kind, now: Mono) -> bool {
    match site.armed(kind) {
        Some(armed) if *armed <= now => {
            *armed = Mono::NEVER;
            true
        }
        _ => false,
    }
}
