//! What an operator is told of sites, queues and single deliveries.
//!
//! One site is told without looking at its mail; lists look at all sites, or all courses, as a reload
//! does.

use std::cmp::Ordering;

use super::Scheduler;
use super::control::Door as PathDoor;
use super::course::Course;
use super::explain::WaitsFor;
use super::limits::{Hindrance, connections_max};
use super::order::Blocked;
use super::path::Path;
use super::site::Site;
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::admin::{
    Amounts, Binding, Door, FlowLine, HOLDS_TOLD_MAX, HoldLine, PATHS_MAX, PathReport, QueueReport,
    Reach, SiteLine, SiteList, SiteReport, Waiting, Wanted,
};
use crate::model::flow::MailClass;
use crate::model::hold::{Hold, Scope};

/// Leases looked through for one delivery: a fraction of a millisecond. With more, a delivery that is
/// on a connection is told as one that is ready.
const LEASES_SEARCHED_MAX: usize = 10_000;

impl Scheduler {
    /// The sites with most mail, and the sum over all.
    #[must_use]
    pub fn list_sites(&self, now: Now, most: usize) -> SiteList {
        let mut total = Amounts::default();
        let mut sites: Vec<(u64, &Site)> = Vec::with_capacity(self.sites.len());
        for site in self.sites.iter() {
            let amounts = amounts_of(site);
            total.add(&amounts);
            sites.push((amounts.waiting() + amounts.in_flight, site));
        }
        let left_out = first_sorted(&mut sites, most, |(one, a), (other, b)| {
            other.cmp(one).then_with(|| a.key().cmp(b.key()))
        });
        let line = |(_, site): &(u64, &Site)| self.site_line(now, site);
        SiteList { sites: sites.iter().map(line).collect(), left_out, total }
    }

    fn site_line(&self, now: Now, site: &Site) -> SiteLine {
        SiteLine {
            site: site.key().name().to_owned(),
            amounts: amounts_of(site),
            connections: site.in_use,
            connections_max: connections_max(site),
            waits_for: self.site_binding(now, site),
        }
    }

    /// The site of this name.
    #[must_use]
    pub fn describe_site(&self, now: Now, name: &str) -> Option<SiteReport> {
        self.sites.named(name).map(|number| self.describe(now, &self.sites[number]))
    }

    /// The sites that have mail for a domain: looks at all courses.
    #[must_use]
    pub fn describe_sites_of(&self, now: Now, domain: &str) -> Vec<SiteReport> {
        let of_domain = self.courses.iter().filter(|course| *course.domain == *domain);
        let mut numbers: Vec<u32> = of_domain.map(|course| course.site).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| self.describe(now, &self.sites[number])).collect()
    }

    fn describe(&self, now: Now, site: &Site) -> SiteReport {
        let paths = site.paths.iter().take(PATHS_MAX);
        SiteReport {
            site: site.key().name().to_owned(),
            shard: self.shard.0,
            amounts: amounts_of(site),
            provider: site.provider.as_deref().map(str::to_owned),
            connections: site.in_use,
            connections_max: connections_max(site),
            origin: super::binding::origin_of(&site.pace.settings.limits_from.connections),
            waits_for: self.site_binding(now, site),
            next_try_seconds: self.next_try(now, site).map(|at| seconds(now, at)),
            last_reply: site.last_reply.as_ref().map(|reply| reply.to_string()),
            paths: paths.map(|path| self.describe_path(now, site, path)).collect(),
        }
    }

    fn describe_path(&self, now: Now, site: &Site, path: &Path) -> PathReport {
        let control = path.control.explain();
        let (door, until) = match control.door {
            PathDoor::Open => (Door::Open, None),
            PathDoor::Closed { until, .. } => (Door::Closed, Some(until)),
            PathDoor::Probing { .. } => (Door::Probing, None),
        };
        let hindrance = self.path_hindrance(now, site, path);
        PathReport {
            source: self.roster.source_at(path.source).name.as_ref().to_owned(),
            connections: path.in_use,
            in_flight: path.in_flight,
            window: self.width(now, site, path),
            slow_start: control.slow_start,
            learned_rate: control.rate.map(|rate| f64::from(rate) / 1000.0),
            door,
            door_until_seconds: until.map(|until| seconds(now, until)),
            closed_in_a_row: control.closings,
            messages_per_connection: path.session.get(now.mono),
            warm_up: self.warm_up_report(now, path),
            waits_for: hindrance.map(|one| self.binding(now, site, Some(path), &one)),
        }
    }

    fn site_binding(&self, now: Now, site: &Site) -> Option<Binding> {
        let word = |what: &str, text: &str| Binding {
            what: what.to_owned(),
            text: text.to_owned(),
            limit: None,
            used: None,
            origin: None,
            until_seconds: None,
        };
        let is_all_blocked = || site.trunks.iter().all(|trunk| !self.order.has_next(*trunk));
        match self.waits_for(now, site) {
            WaitsFor::Nothing if site.ready > site.cancelled.ready && is_all_blocked() => {
                self.capped_binding(site).or_else(|| {
                    Some(word(
                        "held",
                        "its tenants or campaigns are held: see `postrider queue list`",
                    ))
                })
            }
            WaitsFor::Nothing => None,
            WaitsFor::Stop => Some(word("stopping", "the engine is stopping")),
            WaitsFor::NextTry { at } => Some(Binding {
                until_seconds: Some(seconds(now, at)),
                ..word("next_try", "all of its mail waits for its next try")
            }),
            WaitsFor::Limit(hindrance) => {
                let path = site
                    .paths
                    .iter()
                    .find(|path| self.path_hindrance(now, site, path).as_ref() == Some(&hindrance));
                Some(self.binding(now, site, path, &hindrance))
            }
        }
    }

    /// The caps of the tenant that was last found to have no room here.
    fn capped_binding(&self, site: &Site) -> Option<Binding> {
        let branch = site.capped.filter(|branch| self.order.is_capped(*branch))?;
        let branch = &self.order.branches[branch as usize];
        let is_here = site.trunks.contains(&branch.trunk);
        is_here.then(|| self.tenant_binding(branch.tenant())).flatten()
    }

    /// Mail by class, tenant and campaign.
    #[must_use]
    pub fn list_queue(&self, now: Now, most: usize) -> QueueReport {
        let mut total = Amounts::default();
        let mut by_flow: Map<(MailClass, &str, &str), Amounts> = Map::default();
        for course in self.courses.iter() {
            let amounts = course.amounts();
            total.add(&amounts);
            let flow = &course.flow;
            by_flow.entry((flow.class, &flow.tenant, &flow.campaign)).or_default().add(&amounts);
        }
        let mut flows: Vec<_> = by_flow.into_iter().collect();
        let left_out = first_sorted(&mut flows, most, |(a, one), (b, other)| {
            let mail = |amounts: &Amounts| amounts.waiting() + amounts.in_flight;
            mail(other).cmp(&mail(one)).then_with(|| a.cmp(b))
        });
        let line = |((class, tenant, campaign), amounts): ((MailClass, &str, &str), Amounts)| {
            let (tenant, campaign) = (tenant.to_owned(), campaign.to_owned());
            FlowLine { class: class.name().to_owned(), tenant, campaign, amounts }
        };
        let flows = flows.into_iter().map(line).collect();
        QueueReport { total, flows, left_out, at_least: left_out > 0, holds: self.list_holds(now) }
    }

    fn list_holds(&self, now: Now) -> Vec<HoldLine> {
        let mut holds: Vec<HoldLine> = self
            .holds
            .iter()
            .map(|(scope, hold)| HoldLine {
                scope: reach_of(scope).to_string(),
                by: hold.by.to_string(),
                until_seconds: hold.until.map(|until| seconds(now, until)),
            })
            .collect();
        holds.sort_unstable();
        holds.truncate(HOLDS_TOLD_MAX);
        holds
    }

    /// What a delivery waits for, as far as its site knows it: no entry is looked for.
    #[must_use]
    pub fn describe_wait(&self, now: Now, wanted: &Wanted) -> Option<Waiting> {
        let number = self.sites.find(&wanted.site)?;
        let course = self.courses.find(number, &wanted.domain, &wanted.flow)?;
        let (site, course) = (&self.sites[number], &self.courses[course]);
        let is_searched = self.leases.len() <= LEASES_SEARCHED_MAX;
        let held = self.course_hold(now, course);
        Some(Waiting {
            in_flight: is_searched && self.leases.carry(wanted.message),
            amounts: course.amounts(),
            binding: held.or_else(|| self.site_binding(now, site)),
            last_reply: site.last_reply.as_ref().map(|reply| reply.to_string()),
        })
    }

    /// The hold of a course's tenant or campaign, or the tenant's cap.
    fn course_hold(&self, now: Now, course: &Course) -> Option<Binding> {
        let leaf = &self.order.leaves[course.leaf as usize];
        let branch = &self.order.branches[leaf.branch as usize];
        if branch.blocked == Blocked::Capped {
            return self.tenant_binding(branch.tenant());
        }
        if leaf.blocked != Blocked::Held && branch.blocked != Blocked::Held {
            return None;
        }
        if planted(Bug::HoldNotExplained) {
            return None;
        }
        let (tenant, campaign) = (course.flow.tenant.clone(), course.flow.campaign.clone());
        let scopes = [Scope::Tenant(tenant.clone()), Scope::Campaign { tenant, campaign }];
        // A stop lets no hold end, but one that is over is not what mail waits for.
        let is_on = |hold: &&Hold| hold.until.is_none_or(|until| until > now.mono);
        let hold_of = |scope| self.holds.get(scope).filter(is_on).map(|hold| (scope, hold));
        let (scope, hold) = scopes.iter().find_map(hold_of)?;
        let hindrance = Hindrance::Held { by: hold.by.clone(), until: hold.until };
        let site = &self.sites[course.site];
        let mut binding = self.binding(now, site, None, &hindrance);
        binding.text = format!("{} is held by {}", reach_of(scope), hold.by);
        Some(binding)
    }
}

/// Keeps the first `most`, in order; how many that leaves out. The others are never sorted.
fn first_sorted<T>(list: &mut Vec<T>, most: usize, compare: impl Fn(&T, &T) -> Ordering) -> u64 {
    let left_out = list.len().saturating_sub(most);
    if left_out > 0 {
        list.select_nth_unstable_by(most, &compare);
        list.truncate(most);
    }
    list.sort_unstable_by(compare);
    left_out as u64
}

fn amounts_of(site: &Site) -> Amounts {
    Amounts {
        ready: u64::from(site.ready.saturating_sub(site.cancelled.ready)),
        deferred: u64::from(site.deferred.saturating_sub(site.cancelled.deferred)),
        in_flight: u64::from(site.in_flight),
    }
}

fn reach_of(scope: &Scope) -> Reach {
    match scope.clone() {
        Scope::Site(name) => Reach::Site(name),
        Scope::Source(name) => Reach::Source(name),
        Scope::Tenant(name) => Reach::Tenant(name),
        Scope::Campaign { tenant, campaign } => Reach::Campaign { tenant, campaign },
    }
}

/// From now, in full seconds: what is not over yet is a second away at least.
pub(super) fn seconds(now: Now, at: Mono) -> u64 {
    u64::try_from(at.since(now.mono).as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_in_order_however_many_there_are() {
        let descending = |a: &u32, b: &u32| b.cmp(a);
        let first = |most| {
            let mut list = vec![3, 9, 1, 7, 5];
            let left_out = first_sorted(&mut list, most, descending);
            (list, left_out)
        };
        assert_eq!(first(0), (vec![], 5));
        assert_eq!(first(2), (vec![9, 7], 3));
        assert_eq!(first(5), (vec![9, 7, 5, 3, 1], 0));
        assert_eq!(first(9), first(5));
    }
}
