//! What next, and when: the owner's side of the destination scheduler of one shard.
//!
//! A delivery waits in exactly one queue of its site: ready, in a retry FIFO, or, restored, by its
//! due time. It leaves by a lease, by its due time ([`Action::Relocate`]) or by expiry.
//! ```text
//! parcel -> queue.rs -> dispatch.rs (permit.rs) -> work        done -> settle.rs -> settlement
//!             limits.rs, pacing.rs, caps.rs, hold.rs: whether; retry.rs, expiry.rs: when;
//!             control/, rules/: what was learned and ruled; alarm.rs: who wakes
//! ```
//! Permits are exact across shards because only the owner of a site counts them.

mod alarm;
mod answers;
mod binding;
mod bucket;
mod caps;
mod control;
mod course;
mod dispatch;
mod due;
mod durable;
mod ended;
mod entry;
mod expiry;
mod explain;
mod fair;
mod feedback;
mod hold;
mod judge;
mod limits;
mod list;
mod memory;
mod order;
mod pacing;
mod path;
mod permit;
mod policy;
mod prefetch;
mod providers;
mod queue;
mod record;
mod restored;
mod retry;
mod roster;
pub mod rules;
mod ruling;
mod saved;
mod session;
mod settle;
mod site;
mod sparing;
mod steer;
mod sweep;
mod tick;
mod warm_up;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::cell::{Budget, Cell, CellTable, Day, Grant};
use crate::base::time::{Mono, Now, WallStep};
use crate::base::wheel::Wheel;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::flow::Flow;
use crate::model::hold::{Hold, Scope};
use crate::model::note::{Opening, Parcel, Settlement};
use crate::model::outcome::{Outcome, Reply};
use crate::model::route::{Target, Way};
use crate::model::settings::{OutcomeDurability, Settings};
use crate::model::state::StateItem;
use crate::shard::Fact;

use alarm::Alarm;
use caps::{InHand, Parked};
use course::{Course, Courses};
use entry::Entries;
use hold::Holds;
use memory::Remembered;
use order::Order;
use pacing::PaceAlarms;
use permit::{Flight, Leases};
use policy::Policies;
use record::Records;
use roster::Roster;
use rules::Rules;
use site::Sites;
use sweep::{Cancels, Sweep};

pub use durable::Reached;
pub use expiry::expired;
pub use explain::{SiteView, WaitsFor};
pub use hold::HOLDS_MAX;
pub use limits::Hindrance;
pub use pacing::Bound;
pub use restored::{cancel_key, hold_key, owner};
pub use warm_up::kept_day;

/// The sites one shard owns, and every delivery that waits for them.
pub struct Scheduler {
    shard: ShardId,
    shards: u16,
    durability: OutcomeDurability,
    policies: Policies,
    sites: Sites,
    courses: Courses,
    roster: Roster,
    order: Order,
    entries: Entries,
    records: Records,
    leases: Leases,
    rules: Rules,
    holds: Holds,
    cancels: Cancels,
    sweep: Sweep,
    cells: Arc<CellTable>,
    parked: Parked,
    /// A permit granted to the tenant that is being served.
    tenant_permit: Option<InHand>,
    remembered: Remembered,
    /// How far the wall clock has been stepped away from the one that everything goes by.
    wall_step: WallStep,
    /// When tenants' rates let their mail at a site go on.
    tenant_wakes: BTreeSet<(Mono, u32)>,
    wheel: Wheel<Alarm>,
    pace_alarms: PaceAlarms,
    fired: Vec<Alarm>,
    actions: VecDeque<Action>,
    in_flight: usize,
    stopping: bool,
    awaits_state: bool,
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
    /// The answer to [`Scheduler::handle_another`].
    Leave {
        to: ShardId,
        lease: LeaseId,
        may_connect: bool,
    },
    /// Outcomes on their way to the spool.
    Settle {
        home: ShardId,
        settlement: Settlement,
    },
    /// Due again: look its route up anew and hand it to the owner of its site.
    Relocate {
        domain: Arc<str>,
        flow: Arc<Flow>,
        delivery: Delivery,
        /// Not to be tried before.
        due: Option<Mono>,
    },
    /// To all shards, this one included: mail of it is stopped.
    Hold {
        scope: Scope,
        hold: Hold,
    },
    /// A permit of a shared cap for a shard that stands in line.
    Grant {
        to: ShardId,
        cell: Arc<Cell>,
        grant: Grant,
    },
    /// An order to cancel, by the key it is kept under, has reached all it was about here.
    CancelOver {
        key: Box<[u8]>,
        order: u64,
    },
    /// To be kept over a restart. Its times are of the wall clock, as the record keeps them.
    Remember(StateItem),
    /// A day's count is to be written down by that shard.
    WriteDay {
        to: ShardId,
        day: Arc<Day>,
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
        settings: &Settings,
        body_memory: Arc<Budget>,
        cells: Arc<CellTable>,
        now: Now,
    ) -> Self {
        let mut scheduler = Self {
            shard,
            shards,
            durability: settings.spool.outcomes,
            policies: Policies::new(settings),
            sites: Sites::default(),
            courses: Courses::default(),
            roster: Roster::new(settings),
            order: Order::new(&settings.order),
            entries: Entries::new(),
            records: Records::new(body_memory),
            leases: Leases::new(shard),
            rules: rules(settings),
            holds: Holds::default(),
            cancels: Cancels::default(),
            sweep: Sweep::default(),
            cells,
            parked: Parked::default(),
            tenant_permit: None,
            remembered: Remembered::default(),
            wall_step: WallStep::default(),
            tenant_wakes: BTreeSet::new(),
            wheel: Wheel::new(now.mono),
            pace_alarms: PaceAlarms::default(),
            fired: Vec::new(),
            actions: VecDeque::new(),
            in_flight: 0,
            stopping: false,
            awaits_state: false,
            wakes: 0,
        };
        scheduler.reload_tenants(now);
        scheduler
    }

    /// A delivery for a site this shard owns. `due`: not before, for one deferred before a restart.
    pub fn handle_parcel(&mut self, now: Now, parcel: Parcel, due: Option<Mono>) {
        if self.cancels.reach(now, &parcel) {
            return self.settle_cancelled(parcel.delivery);
        }
        let Parcel { bearing, delivery, .. } = parcel;
        if let Way::Failed(reply) = &bearing.target.way {
            return self.fail(delivery, reply.clone());
        }
        let number = self.site_for(now, &bearing.target, &bearing.domain);
        let course = self.course_for(now, number, bearing.domain, bearing.flow);
        let due = due.filter(|due| *due > now.mono);
        // Held until all parts have found their place: the first may be over at once.
        self.courses.hold(course);
        for part in self.parts(number, delivery) {
            self.courses.hold(course);
            self.place(now, Flight::new(part, course), &bearing.target.way, due);
        }
        self.let_go(now, course);
        self.dispatch(now, number);
    }

    /// New settings. Looks at all sites: reloads are rare. An expiry already set stays; a lowered
    /// limit is reached as connections end.
    pub fn handle_settings(&mut self, now: Now, settings: &Settings) {
        self.policies = Policies::new(settings);
        self.roster.load(settings);
        self.order.handle_settings(&settings.order, &self.roster);
        self.rules = rules(settings);
        let numbers = self.sites.numbers();
        numbers.iter().for_each(|number| self.end_rest(*number));
        self.find_providers(&numbers);
        self.reload_cells(now);
        self.change_pools(now);
        for number in numbers {
            self.renew_pace(number);
            self.trim(number);
            self.dispatch(now, number);
        }
    }

    /// No new work from here on; idle connections are closed, the others when they have no work.
    pub fn handle_stop(&mut self, now: Now) {
        self.stopping = true;
        for number in self.sites.numbers() {
            self.save_site(now, number);
            self.trim(number);
            self.answer_askers(now, number);
            self.actions.extend(self.sites[number].lent().map(Action::Report));
        }
        self.write_days(now);
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
        if !self.stopping {
            self.end_holds(now);
            self.end_cancels(now);
            self.wake_tenants(now);
            self.sweep(now);
            self.ring_paced(now);
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Scheduler::handle_time`] should be called next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        // Nothing else happens any more: what is due stays due.
        if self.stopping {
            return self.wheel.next();
        }
        let own = [
            self.wheel.next(),
            self.pace_alarms.next(),
            self.holds.next_end(),
            self.cancels.next_over(),
            self.tenant_wakes.first().map(|(until, _)| *until),
            self.sweep.next(),
        ];
        own.into_iter().flatten().min()
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
        if self.expires_at(&flight.delivery, flight.course) <= now.wall {
            return self.fail_expired(now, flight);
        }
        match (way, due) {
            (_, Some(due)) => self.restore(now, &flight, due),
            (Way::Deferred(reply), None) => {
                let number = self.courses[flight.course].site;
                self.sites[number].note_complaint(reply.clone());
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
    fn site_for(&mut self, now: Now, target: &Arc<Target>, domain: &str) -> u32 {
        if let Some(number) = self.sites.find_target(target) {
            let site = &mut self.sites[number];
            let is_newer = target.fresh_until > site.target.fresh_until;
            if target.fresh_until >= site.target.fresh_until {
                site.target = Arc::clone(target);
            }
            if is_newer {
                // Other hosts may make it another provider's.
                self.end_rest(number);
            }
            return number;
        }
        let provider = self.policies.provider_of(target, domain);
        let policy = &self.policies[self.policies.of(domain, provider.as_deref())];
        let number = self.sites.add(Arc::clone(target), policy.pace(), provider);
        self.resume_effects(now, number);
        number
    }

    /// A delivery in transactions of as many recipients as the site takes.
    fn parts(&self, number: u32, whole: Delivery) -> impl Iterator<Item = Delivery> + use<> {
        let step = self.sites[number].pace.settings.recipients_per_message.max(1);
        let end = whole.first + whole.count;
        (whole.first..end).step_by(usize::from(step)).map(move |first| Delivery {
            first,
            count: step.min(end - first),
            ..whole.clone()
        })
    }

    /// The course of a domain's flow; its domain's settings bind the site from now on.
    fn course_for(&mut self, now: Now, number: u32, domain: Arc<str>, flow: Arc<Flow>) -> u32 {
        let resting = self.sites[number].resting;
        // Most mail comes a message at a time: then there is nothing to look for.
        let known = resting.filter(|course| self.courses.is(*course, number, &domain, &flow));
        let known = known.or_else(|| self.courses.find(number, &domain, &flow));
        if let Some(course) = known {
            self.sites[number].resting = None;
            return course;
        }
        self.end_rest(number);
        self.note_domain(now, number, &domain);
        let provider = self.sites[number].provider.clone();
        let policy = self.policies.of(&domain, provider.as_deref());
        let trunk = self.trunk_for(now, number, self.roster.pool_of(&flow));
        let leaf = self.order.hold_leaf(trunk, &flow, self.roster.weight_of(&flow.tenant));
        let course = self.courses.add(Course::new((number, policy, leaf), domain, flow));
        self.block_new(leaf);
        if self.sites[number].join(policy) {
            self.repace(number);
            self.trim(number);
        }
        course
    }

    fn trunk_for(&mut self, now: Now, number: u32, pool: u16) -> u32 {
        let trunks = &self.sites[number].trunks;
        let of_pool = |trunk: &&u32| self.order.trunks[**trunk as usize].pool == pool;
        if let Some(trunk) = trunks.iter().find(of_pool) {
            return *trunk;
        }
        let trunk = self.order.add_trunk(number, pool);
        self.sites[number].trunks.push(trunk);
        self.find_days(now, number, pool);
        trunk
    }

    /// A delivery leaves for good, or for another site.
    fn let_go(&mut self, now: Now, course: u32) {
        let Course { site: number, is_cancelled, .. } = self.courses[course];
        if self.courses.release(course) {
            let is_last = self.sites[number].courses() == 1;
            if is_last && !is_cancelled && !self.courses.is_retired(course) {
                self.sites[number].resting = Some(course);
            } else {
                self.end_course(number, course);
            }
        }
        self.note_if_empty(now, number);
    }

    /// Forgets the course that a site without mail has kept.
    fn end_rest(&mut self, number: u32) {
        if let Some(course) = self.sites[number].resting.take() {
            self.end_course(number, course);
        }
    }

    fn end_course(&mut self, number: u32, course: u32) {
        let course = self.courses.remove(course);
        if let Some(trunk) = self.order.release_leaf(course.leaf) {
            self.sites[number].trunks.retain(|one| *one != trunk);
            self.order.remove_trunk(trunk);
        }
        if self.sites[number].leave(course.policy) {
            self.repace(number);
        }
    }
}

/// The rules of these settings. They were checked when they were read; if they are refused all the
/// same, there are none.
fn rules(settings: &Settings) -> Rules {
    Rules::new(settings.generation, &settings.rules).unwrap_or_default()
}
