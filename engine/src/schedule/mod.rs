//! What next, and when: the owner's side of the destination scheduler of one shard.
//!
//! A delivery waits in exactly one queue of its site: ready, in a retry FIFO, or in a bucket it
//! was restored to. It leaves by a lease, by its due time ([`Action::Relocate`]) or by expiry.
//! ```text
//! parcel -> queue.rs -> dispatch.rs (permit.rs) -> work        done -> settle.rs -> settlement
//!             retry.rs, expiry.rs, gate.rs: when; alarm.rs: who wakes
//! ```
//! Permits are exact across shards because only the owner of a site counts them.

mod alarm;
mod bearing;
mod bucket;
mod dispatch;
mod entry;
mod expiry;
mod explain;
mod gate;
mod list;
mod permit;
mod policy;
mod queue;
mod record;
mod retry;
mod settle;
mod site;
mod tick;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::cell::Budget;
use crate::base::time::{Mono, Now};
use crate::base::wheel::Wheel;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::note::{Opening, Parcel, Settlement};
use crate::model::outcome::{Outcome, Reply};
use crate::model::route::{Target, Way};
use crate::model::settings::{OutcomeDurability, SiteTable};
use crate::shard::Fact;

use alarm::Alarm;
use bearing::Bearings;
use entry::Entries;
use permit::{Flight, Leases};
use policy::{Policies, strictest};
use record::Records;
use site::Sites;

pub use expiry::expired;
pub use explain::{SiteView, WaitsFor};

/// The sites one shard owns, and every delivery that waits for them.
pub struct Scheduler {
    shard: ShardId,
    shards: u16,
    durability: OutcomeDurability,
    policies: Policies,
    sites: Sites,
    bearings: Bearings,
    entries: Entries,
    records: Records,
    leases: Leases,
    wheel: Wheel<Alarm>,
    fired: Vec<Alarm>,
    actions: VecDeque<Action>,
    in_flight: usize,
    stopping: bool,
    wakes: u64,
}

/// What the scheduler asks of the shard it runs on.
#[derive(Debug)]
pub enum Action {
    Open {
        to: ShardId,
        opening: Opening,
    },
    Work {
        to: ShardId,
        lease: LeaseId,
        delivery: Delivery,
    },
    Close {
        to: ShardId,
        lease: LeaseId,
    },
    /// Outcomes on their way to the spool.
    Settle {
        home: ShardId,
        settlement: Settlement,
    },
    /// Due again: look its route up anew and hand it to the owner of its site.
    Relocate {
        domain: Arc<str>,
        delivery: Delivery,
    },
    Report(Fact),
}

/// How much a scheduler holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Waiting: ready or deferred.
    pub queued: usize,
    pub in_flight: usize,
    /// Permits in use.
    pub leases: usize,
    pub sites: usize,
    /// Alarms that rang and were wanted, since the start.
    pub wakes: u64,
}

impl Scheduler {
    #[must_use]
    pub fn new(
        shard: ShardId,
        shards: u16,
        durability: OutcomeDurability,
        body_memory: Arc<Budget>,
        now: Now,
    ) -> Self {
        Self {
            shard,
            shards,
            durability,
            policies: Policies::default(),
            sites: Sites::default(),
            bearings: Bearings::default(),
            entries: Entries::new(),
            records: Records::new(body_memory),
            leases: Leases::new(shard),
            wheel: Wheel::new(now.mono),
            fired: Vec::new(),
            actions: VecDeque::new(),
            in_flight: 0,
            stopping: false,
            wakes: 0,
        }
    }

    /// A delivery for a site this shard owns. `due`: not before, for one deferred before a
    /// restart. `sites` counts until the first [`Scheduler::handle_settings`].
    pub fn handle_parcel(
        &mut self,
        now: Now,
        parcel: Parcel,
        sites: &SiteTable,
        due: Option<Mono>,
    ) {
        if self.policies.is_empty() {
            self.policies.load(sites);
        }
        let Parcel { bearing, delivery } = parcel;
        if let Way::Failed(reply) = &bearing.target.way {
            return self.fail(delivery, reply.clone());
        }
        let number = self.site_for(&bearing.target, &bearing.domain);
        let flight = self.take_in(number, bearing.domain, delivery);
        self.place(now, flight, &bearing.target.way, due.filter(|due| *due > now.mono));
        self.note_if_empty(now, number);
        self.dispatch(now, number);
    }

    /// New settings. Looks at all sites: reloads are rare. An expiry already set stays; a lowered
    /// limit is reached as connections end.
    pub fn handle_settings(&mut self, now: Now, sites: &SiteTable) {
        self.policies.load(sites);
        let numbers = self.sites.numbers();
        for number in &numbers {
            self.sites[*number].policies.clear();
        }
        for course in self.bearings.iter_mut() {
            course.policy = self.policies.of_domain(&course.domain);
            self.sites[course.site].join(course.policy);
        }
        for number in numbers {
            self.repace(number);
            self.trim(number);
            self.dispatch(now, number);
        }
    }

    /// No new work from here on; idle connections are closed, the others when they have no work.
    pub fn handle_stop(&mut self) {
        self.stopping = true;
        for number in self.sites.numbers() {
            self.trim(number);
            self.actions.extend(self.sites[number].lent().map(Action::Report));
        }
    }

    /// Lets everything happen that is due. After a stop nothing is: what waits stays in the spool.
    pub fn handle_time(&mut self, now: Now) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(now.mono, &mut fired);
        for alarm in fired.drain(..) {
            if !self.stopping {
                self.ring(now, &alarm);
            }
        }
        self.fired = fired;
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Scheduler::handle_time`] should be called next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        self.wheel.next()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.entries.len(),
            in_flight: self.in_flight,
            leases: self.leases.len(),
            sites: self.sites.len(),
            wakes: self.wakes,
        }
    }

    /// Where a newcomer goes.
    fn place(&mut self, now: Now, flight: Flight, way: &Way, due: Option<Mono>) {
        if self.expires_at(&flight.delivery, flight.bearing) <= now.wall {
            return self.fail_expired(now, flight);
        }
        match (way, due) {
            (_, Some(due)) => self.restore(now, &flight, due),
            (Way::Deferred(reply), None) => {
                let number = self.bearings[flight.bearing].site;
                self.sites[number].last_reply = Some(reply.clone());
                self.charge(now, flight, reply.clone());
            }
            (_, None) => self.enqueue(now, flight),
        }
    }

    /// Undeliverable by routing: no site is made for it.
    fn fail(&mut self, delivery: Delivery, reply: Reply) {
        let outcome = settle::whole(&delivery, delivery.attempts, Outcome::Failed { reply });
        self.settle(delivery, vec![outcome], None);
    }

    /// The site of a target, new if need be; a fresher target replaces the one it had.
    fn site_for(&mut self, target: &Arc<Target>, domain: &str) -> u32 {
        if let Some(number) = self.sites.find(&target.site) {
            let site = &mut self.sites[number];
            if target.fresh_until >= site.target.fresh_until {
                site.target = Arc::clone(target);
            }
            return number;
        }
        let policy = &self.policies[self.policies.of_domain(domain)];
        let settings = Arc::clone(&policy.settings);
        let pace = policy::Pace { settings, bound_by: Arc::clone(&policy.name) };
        self.sites.add(Arc::clone(target), pace)
    }

    /// Gives a delivery the bearing of its domain; its domain's settings bind the site from now on.
    fn take_in(&mut self, number: u32, domain: Arc<str>, delivery: Delivery) -> Flight {
        let bearing = match self.bearings.find(number, &domain) {
            Some(bearing) => bearing,
            None => self.add_domain(number, domain),
        };
        self.bearings.hold(bearing);
        Flight { delivery, bearing }
    }

    fn add_domain(&mut self, number: u32, domain: Arc<str>) -> u32 {
        let policy = self.policies.of_domain(&domain);
        let bearing = self.bearings.add(number, domain, policy);
        if self.sites[number].join(policy) {
            self.repace(number);
            self.trim(number);
        }
        bearing
    }

    /// A delivery leaves for good, or for another site.
    fn let_go(&mut self, now: Now, bearing: u32) {
        let number = self.bearings[bearing].site;
        if let Some(course) = self.bearings.release(bearing)
            && self.sites[number].leave(course.policy)
        {
            self.repace(number);
        }
        self.note_if_empty(now, number);
    }

    /// Works the settings of a site out of those of its domains; without any, it keeps what it had.
    fn repace(&mut self, number: u32) {
        let site = &mut self.sites[number];
        let policies = site.policies.iter().map(|(policy, _)| &self.policies[*policy]);
        if let Some(pace) = strictest(policies) {
            site.pace = pace;
        }
    }
}
