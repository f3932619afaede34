//! What an operator does to the mail of a site, a source, a tenant or a campaign, and how much that
//! concerns. Looks at courses, never at deliveries.

use super::course::Course;
use super::hold::HOLDS_MAX;
use super::sweep::Task;
use super::{Action, Scheduler};
use crate::base::time::Now;
use crate::model::admin::{Reach, Steer, Steered, Verb};
use crate::model::hold::{Hold, Scope};
use crate::model::state::{StateItem, Topic};
use crate::shard::Fact;

impl Scheduler {
    /// Does what is asked, or only counts what that would concern.
    pub fn handle_steer(&mut self, now: Now, steer: &Steer) -> Steered {
        let mut steered = self.concerned(steer.verb, &steer.reach);
        steered.dry_run = steer.dry_run;
        steered.refused = self.refuses(steer).map(str::to_owned);
        if !steer.dry_run && steered.refused.is_none() {
            self.carry_out(now, steer);
            self.actions.push_back(Action::Report(fact(steer, &steered)));
        }
        steered
    }

    fn refuses(&self, steer: &Steer) -> Option<&'static str> {
        match (steer.verb, &steer.reach) {
            (Verb::Hold | Verb::Release, Reach::All) => Some("name what is to be held"),
            (Verb::Cancel | Verb::Reroute, Reach::Source(_)) => {
                Some("no mail belongs to a source: name a site, tenant or campaign")
            }
            (Verb::Hold, _) if self.holds.len() >= HOLDS_MAX => Some("too many holds"),
            (Verb::Cancel, _) if self.cancels.is_full() => {
                Some("too many such requests in the last hour: name a wider scope, or wait")
            }
            (Verb::Flush | Verb::Cancel | Verb::Reroute, _) if self.sweep.is_full() => {
                Some("too many such requests are still being worked on: ask again in a minute")
            }
            _ => None,
        }
    }

    fn carry_out(&mut self, now: Now, steer: &Steer) {
        match steer.verb {
            Verb::Hold => {
                let by = match &*steer.reason {
                    "" => "operator".into(),
                    reason => format!("operator: {reason}").into(),
                };
                let hold = Hold { by, until: steer.lasts.map(|lasts| now.mono.plus(lasts)) };
                if let Some(scope) = steer.reach.scope() {
                    self.replace_hold(now, &scope, hold);
                }
            }
            Verb::Release => self.lift(now, &steer.reach),
            Verb::Flush => self.flush(now, &steer.reach),
            Verb::Cancel => self.cancel(now, &steer.reach, steer.order),
            Verb::Reroute => self.reroute(now, &steer.reach),
        }
    }

    /// How much there is of something.
    pub(super) fn concerned(&self, verb: Verb, reach: &Reach) -> Steered {
        let mut steered = Steered { known: self.knows(reach), ..Steered::default() };
        let mut sites = Vec::new();
        for (number, course) in self.courses.numbered() {
            let amounts = course.amounts();
            if (amounts.waiting() > 0 || amounts.in_flight > 0) && self.is_meant(reach, number) {
                steered.amounts.add(&amounts);
                sites.push(course.site);
            }
        }
        sites.sort_unstable();
        sites.dedup();
        steered.sites = sites.len() as u64;
        if verb == Verb::Flush {
            steered.amounts.ready = 0;
            steered.amounts.in_flight = 0;
        }
        steered
    }

    /// Whether a name is anybody's. Any tenant may come some day; sites and sources are there or not.
    fn knows(&self, reach: &Reach) -> bool {
        let is_held = reach.scope().is_some_and(|scope| self.holds.get(&scope).is_some());
        is_held
            || match reach {
                Reach::Site(name) => self.sites.named(name).is_some(),
                Reach::Source(name) => self.roster.source_number(name).is_some(),
                Reach::All | Reach::Tenant(_) | Reach::Campaign { .. } => true,
            }
    }

    pub(super) fn is_meant(&self, reach: &Reach, course: u32) -> bool {
        let course = &self.courses[course];
        match reach {
            Reach::All => true,
            Reach::Site(name) => *self.sites[course.site].key().name() == **name,
            Reach::Source(name) => {
                let trunk = self.order.trunk_of(course.leaf);
                let pool = self.order.trunks[trunk as usize].pool;
                let number = self.roster.source_number(name);
                self.roster.members(pool).iter().any(|member| Some(member.source) == number)
            }
            Reach::Tenant(tenant) => course.flow.tenant == *tenant,
            Reach::Campaign { tenant, campaign } => {
                course.flow.tenant == *tenant && course.flow.campaign == *campaign
            }
        }
    }

    fn courses_of(&self, reach: &Reach) -> Vec<u32> {
        let numbers = self.courses.numbered().map(|(number, _)| number);
        numbers.filter(|number| self.is_meant(reach, *number)).collect()
    }

    fn sites_of(&self, reach: &Reach) -> Vec<u32> {
        let courses = self.courses_of(reach).into_iter();
        let mut sites: Vec<u32> = courses.map(|course| self.courses[course].site).collect();
        sites.sort_unstable();
        sites.dedup();
        sites
    }

    /// Ends a hold, an operator's or a rule's.
    fn lift(&mut self, now: Now, reach: &Reach) {
        let Some(scope) = reach.scope() else { return };
        self.handle_release(now, &scope);
        if let Scope::Site(name) = &scope
            && let Some(number) = self.sites.named(name)
        {
            for path in 0..self.sites[number].paths.len() {
                let path = u16::try_from(path).unwrap_or(u16::MAX);
                self.sites[number].path(path).effects.clear();
                self.save_effects(now, (number, path));
            }
            self.dispatch(now, number);
        }
        if let Scope::Site(name) = &scope {
            for (site, source) in self.remembered.forget_effects(name) {
                let key = self.effects_key(&site, source);
                let forgotten = StateItem::forgotten(Topic::RuleEffect, key);
                self.actions.push_back(Action::Remember(forgotten));
            }
        }
    }

    /// What is deferred is due now, a few a turn; closed doors are probed at once.
    fn flush(&mut self, now: Now, reach: &Reach) {
        let sites = match reach {
            Reach::Site(name) => self.sites.named(name).into_iter().collect(),
            Reach::All => self.sites.numbers(),
            Reach::Source(_) | Reach::Tenant(_) | Reach::Campaign { .. } => self.sites_of(reach),
        };
        for number in &sites {
            self.knock(now, *number);
        }
        if matches!(reach, Reach::Site(_) | Reach::All) {
            sites.into_iter().for_each(|number| self.let_early(now, number));
        } else {
            for number in sites {
                self.sites[number].fifos.mark(&self.entries, now.mono);
            }
            let task = Task::Flush { reach: reach.clone() };
            self.sweep.add(now.mono, task, self.entries.slots());
        }
    }

    /// Lets go early of all that a site has deferred, from the heads of its queues.
    fn let_early(&mut self, now: Now, number: u32) {
        let site = &mut self.sites[number];
        let fifos = site.fifos.flush(&self.entries, now.mono);
        site.restored_flushed_to = site.restored.latest();
        for key in fifos {
            self.arm(number, super::alarm::Kind::Retry(key), now.mono);
        }
        self.arm_restored(now, number);
    }

    /// Tries closed doors now.
    fn knock(&mut self, now: Now, number: u32) {
        for path in 0..self.sites[number].paths.len() {
            let at = (number, u16::try_from(path).unwrap_or(u16::MAX));
            let changes = self.sites[number].paths[path].control.handle_flush(now.mono);
            self.take_changes(now, at, changes);
        }
        self.dispatch(now, number);
    }

    /// What is here is not wanted any more: marked at once, swept away bit by bit. What comes later
    /// gets courses of its own.
    fn cancel(&mut self, now: Now, reach: &Reach, order: u64) {
        self.cancels.insert(now, reach, order);
        for number in self.courses_of(reach) {
            let course = &mut self.courses[number];
            if course.is_cancelled {
                continue;
            }
            course.is_cancelled = true;
            let site = &mut self.sites[course.site].cancelled;
            site.ready += course.waits.ready;
            site.deferred += course.waits.deferred;
            self.courses.retire(number);
        }
        self.sweep.add(now.mono, Task::DropCancelled, self.entries.slots());
    }

    /// Looks routes up anew.
    fn reroute(&mut self, now: Now, reach: &Reach) {
        let task = Task::Reroute { reach: reach.clone() };
        self.sweep.add(now.mono, task, self.entries.slots());
    }

    /// After a reload: mail whose tenant goes by another pool now follows. What comes in gets a new
    /// course at once; what waits is met bit by bit.
    pub(super) fn change_pools(&mut self, now: Now) {
        let numbered = self.courses.numbered();
        let astray = numbered.filter(|(_, course)| self.is_astray(course));
        let astray: Vec<u32> = astray.map(|(number, _)| number).collect();
        if !astray.is_empty() {
            self.sweep.add(now.mono, Task::ChangePool, self.entries.slots());
        }
        astray.into_iter().for_each(|number| self.courses.retire(number));
    }

    /// Whether the mail of a course would go by another pool if it came now.
    fn is_astray(&self, course: &Course) -> bool {
        let trunk = self.order.trunk_of(course.leaf);
        self.roster.pool_of(&course.flow) != self.order.trunks[trunk as usize].pool
    }
}

fn fact(steer: &Steer, steered: &Steered) -> Fact {
    let deliveries = match steer.verb {
        Verb::Release | Verb::Hold | Verb::Cancel | Verb::Reroute => steered.amounts.waiting(),
        Verb::Flush => steered.amounts.deferred,
    };
    Fact::Steered {
        verb: steer.verb.name(),
        reach: steer.reach.to_string().into(),
        deliveries,
        reason: steer.reason.clone(),
    }
}
