//! What attempts teach the control loop of their path, and what it makes known of that.

use std::sync::Arc;

use super::alarm::Kind;
use super::control::{Changes, Door, Load, Phase, Seen, Signal, What};
use super::path::Path;
use super::site::Site;
use super::{Action, Scheduler};
use crate::base::map::stable_hash;
use crate::base::time::{Mono, Now};
use crate::model::note::{Cause, Phases};
use crate::shard::Fact;

/// A path of a site, by its number there.
pub(super) type At = (u32, u16);

impl Scheduler {
    /// Tells the control loop of a path what an attempt said.
    pub(super) fn learn(&mut self, now: Now, at: At, seen: Seen) {
        let load = self.load(now, at);
        let site = &mut self.sites[at.0];
        let jitter =
            stable_hash(&(now.mono.0 ^ u64::from(site.serial).rotate_left(32)).to_le_bytes());
        let control = Arc::clone(&site.pace.control);
        let path = site.path(at.1);
        let changes = path.control.handle_signal(now.mono, seen, load, jitter, &control);
        self.take_changes(now, at, changes);
    }

    /// How long the phases of an attempt took.
    pub(super) fn learn_phases(&mut self, now: Now, at: At, phases: &Phases) {
        self.learn_opening(at, phases);
        let load = self.load(now, at);
        let control = &mut self.sites[at.0].path(at.1).control;
        let took = [(Phase::Greeting, phases.greeting), (Phase::Dot, phases.dot)];
        for (phase, took) in
            took.into_iter().filter_map(|(phase, took)| Some((phase, took.duration()?)))
        {
            control.handle_latency(phase, took, load);
        }
    }

    fn load(&self, now: Now, (number, path): At) -> Load {
        let site = &self.sites[number];
        let path = &site.paths[usize::from(path)];
        let ceiling = self.ceiling(now, site, path);
        let mail_waits = self.has_mail_for(now, site, path);
        Load { in_use: path.in_use, busy: path.busy(), mail_waits, ceiling }
    }

    /// Whether a path would be given mail if it could take more: a time without is no measure of it.
    pub(super) fn has_mail_for(&self, now: Now, site: &Site, path: &Path) -> bool {
        let is_wanted = |trunk: &u32| {
            let pool = self.order.trunks[*trunk as usize].pool;
            let mut members = self.roster.members(pool).iter();
            self.order.has_next(*trunk) && members.any(|member| member.source == path.source)
        };
        site.ready > site.cancelled.ready
            && site.trunks.iter().any(is_wanted)
            && self.hold_on(site, path.source).is_none()
            && path.effects.stop(now.mono).is_none()
            && self.is_below_day(now, path).is_ok()
    }

    /// Reports what the control loop changed, and sets the alarm of the door.
    pub(super) fn take_changes(&mut self, now: Now, at: At, changes: Changes) {
        self.note_change(now, at, &changes);
        for change in changes {
            let fact = match change.what {
                What::Breaker { old: Door::Open, new: Door::Closed { until, .. } } => {
                    Some(self.site_closed(now, at, until))
                }
                What::Breaker { new: Door::Open, .. } => Some(self.site_opened(at)),
                What::Breaker { .. } => None,
                _ if change.is_routine() => None,
                _ => Some(self.site_paced(at, change.to_string().into())),
            };
            self.actions.extend(fact.map(Action::Report));
        }
        self.arm_path(at);
    }

    fn site_closed(&self, now: Now, (number, _): At, until: Mono) -> Fact {
        let site = &self.sites[number];
        Fact::SiteClosed {
            site: site.key().name().into(),
            cause: site.last_reply.iter().map(|reply| reply.to_string()).collect(),
            seconds: until.since(now.mono).as_secs(),
        }
    }

    fn site_opened(&self, (number, _): At) -> Fact {
        Fact::SiteOpened { site: self.sites[number].key().name().into() }
    }

    pub(super) fn site_paced(&self, (number, path): At, change: Box<str>) -> Fact {
        let site = &self.sites[number];
        let source = self.roster.source_at(site.paths[usize::from(path)].source);
        Fact::SitePaced { site: site.key().name().into(), source: (*source.name).into(), change }
    }

    /// When a path changes by itself: its door, or an effect of a rule that ends.
    pub(super) fn arm_path(&mut self, (number, at): At) {
        let path = self.sites[number].path(at);
        let ends = [path.control.next_wakeup(), path.effects.next_end()];
        if let Some(first) = ends.into_iter().flatten().min() {
            self.arm(number, Kind::Path(at), first);
        }
    }

    pub(super) fn path_time(&mut self, now: Now, number: u32, at: u16) {
        let path = self.sites[number].path(at);
        let mut ended = false;
        while path.effects.poll_ended(now.mono).is_some() {
            ended = true;
        }
        if ended && path.effects.next_end().is_none() {
            self.save_effects(now, (number, at));
        }
        let path = self.sites[number].path(at);
        let changes = path.control.handle_time(now.mono);
        self.take_changes(now, (number, at), changes);
    }
}

/// What a cause means for the path.
pub(super) fn signal_for(cause: Cause) -> Signal {
    match cause {
        Cause::None => Signal::Delivered,
        Cause::Throttle => Signal::Throttle,
        Cause::Site => Signal::Site,
        Cause::Recipient => Signal::Recipient,
        Cause::Content => Signal::Content,
        Cause::Policy => Signal::Policy,
        Cause::Greylist => Signal::Greylist,
        Cause::Local => Signal::Local,
    }
}
