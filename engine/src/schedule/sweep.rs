//! Work on many waiting deliveries, a few a turn: what is cancelled goes, what is flushed is due, what
//! is rerouted, or goes by another pool, is located again.
//!
//! A cancelled delivery is not wanted from the moment of the order on: wherever it is met it is
//! dropped, and the sweep meets all of them. It is settled as final, and nobody is told.

use std::collections::VecDeque;
use std::time::Duration;

use super::durable::Reached;
use super::entry::Wait;
use super::permit::Flight;
use super::retry::FifoKey;
use super::settle::whole;
use super::{Action, Scheduler};
use crate::base::map::Map;
use crate::base::time::{Mono, Now, Wall};
use crate::model::admin::Reach;
use crate::model::delivery::Delivery;
use crate::model::hold::{Scope, ScopeName};
use crate::model::message::MessageId;
use crate::model::note::Parcel;
use crate::model::outcome::{Enhanced, Outcome, Reply};

/// Slots looked at in one turn: some ten microseconds.
const SLOTS_PER_TURN: u32 = 256;
/// Between two turns of a sweep: ten million deliveries take forty seconds, and a shard has nine tenths
/// of its time for mail.
const TURN_WAIT: Duration = Duration::from_millis(1);
/// Cancelled deliveries dropped in one turn where they stand in the way of others.
const DROPS_PER_TURN: u32 = 256;
/// Sweeps in line; beyond, the operator is told to wait.
pub(super) const JOBS_MAX: usize = 64;
/// How long after the order a cancelled delivery may still come in: from a restart, or while its route
/// was being looked up.
const CANCEL_REMEMBERED: Duration = Duration::from_secs(3600);
/// Orders remembered at once; beyond, what is still on its way when it is cancelled goes out.
const CANCELS_MAX: usize = 10_000;

/// What is done to each delivery that is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    DropCancelled,
    /// Those that were deferred when it was asked for.
    Flush {
        reach: Reach,
    },
    Reroute {
        reach: Reach,
    },
    /// Those of courses that were retired, as their tenant goes by another pool.
    ChangePool,
}

/// The jobs in line; the first is under way.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    jobs: VecDeque<(Task, u32)>,
    at: u32,
    next: Mono,
    dropped: u32,
}

impl Sweep {
    /// Puts a job in line, for all slots there are: what comes later is not meant. `false`: the line
    /// is full.
    pub(super) fn add(&mut self, now: Mono, task: Task, slots: u32) -> bool {
        if let Some((_, end)) = self.jobs.iter_mut().skip(1).find(|(waits, _)| *waits == task) {
            *end = slots;
            return true;
        }
        // Nobody can be told to wait with a reload; of its task, two are in line at most.
        if self.is_full() && task != Task::ChangePool {
            return false;
        }
        if self.jobs.is_empty() {
            (self.at, self.next) = (0, now);
        }
        self.jobs.push_back((task, slots));
        true
    }

    /// Whether cancelled mail is still being looked for.
    fn is_dropping(&self) -> bool {
        self.jobs.iter().any(|(task, _)| *task == Task::DropCancelled)
    }

    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= JOBS_MAX
    }

    pub(super) fn next(&self) -> Option<Mono> {
        (!self.jobs.is_empty()).then_some(self.next)
    }

    /// The slots of this turn and what to do there.
    fn take_turn(&mut self, now: Mono) -> Option<(Task, std::ops::Range<u32>)> {
        self.dropped = 0;
        let (task, end) = self.jobs.front().filter(|_| self.next <= now)?;
        let (task, end, begin) = (task.clone(), *end, self.at);
        self.at = end.min(begin + SLOTS_PER_TURN);
        self.next = now.plus(TURN_WAIT);
        if self.at == end {
            self.jobs.pop_front();
            self.at = 0;
        }
        Some((task, begin..end.min(begin + SLOTS_PER_TURN)))
    }
}

/// What was cancelled lately, for deliveries that were on their way here meanwhile.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    all: Option<Now>,
    by_scope: Map<Scope, Now>,
    latest: Wall,
    /// Orders of an earlier run.
    restored: Map<Scope, Reached>,
    restored_all: Option<Reached>,
    /// When each order has reached all there is, soonest first: then it need not be kept.
    over: VecDeque<(Mono, Option<Scope>, u64)>,
}

impl Cancels {
    pub(super) fn insert(&mut self, now: Now, reach: &Reach, order: u64) {
        self.latest = now.wall;
        self.over.push_back((now.mono.plus(CANCEL_REMEMBERED), reach.scope(), order));
        match reach.scope() {
            None => self.all = Some(now),
            Some(scope) => {
                let has_room = self.by_scope.len() < CANCELS_MAX;
                if has_room || self.by_scope.contains_key(&scope) {
                    self.by_scope.insert(scope, now);
                }
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.over.len() >= CANCELS_MAX
    }

    /// An order of an earlier run, which may not have reached all of its mail.
    pub(super) fn restore(&mut self, now: Mono, scope: Option<Scope>, reached: Reached) {
        self.over.push_back((now.plus(CANCEL_REMEMBERED), scope.clone(), ORDER_OF_EARLIER_RUN));
        match scope {
            None => self.restored_all = Some(reached),
            Some(scope) => _ = self.restored.insert(scope, reached),
        }
    }

    fn has_restored(&self) -> bool {
        self.restored_all.is_some() || !self.restored.is_empty()
    }

    pub(super) fn next_over(&self) -> Option<Mono> {
        self.over.front().map(|(at, ..)| *at)
    }

    fn pop_over(&mut self, now: Mono) -> Option<(Option<Scope>, u64)> {
        let (at, ..) = self.over.front()?;
        if *at > now {
            return None;
        }
        let (_, scope, order) = self.over.pop_front()?;
        if order == ORDER_OF_EARLIER_RUN {
            match &scope {
                None => self.restored_all = None,
                Some(scope) => _ = self.restored.remove(scope),
            }
        }
        Some((scope, order))
    }

    /// Whether a delivery that comes in was cancelled before. An order for a site does not reach what
    /// was at another one then.
    pub(super) fn reach(&mut self, now: Now, parcel: &Parcel) -> bool {
        let Parcel { bearing, delivery, left } = parcel;
        if self.all.is_none() && self.by_scope.is_empty() && !self.has_restored() {
            return false;
        }
        if now.wall.since(self.latest) > CANCEL_REMEMBERED {
            self.all = None;
            self.by_scope.clear();
        }
        let flow = &bearing.flow;
        let site = ScopeName::Site(bearing.target.site.name());
        let (tenant, campaign) = (&*flow.tenant, &*flow.campaign);
        let flows = [ScopeName::Tenant(tenant), ScopeName::Campaign { tenant, campaign }];
        let was_before = |order: &Now| delivery.accepted <= order.wall;
        let was_here = |order: &Now| was_before(order) && left.is_none_or(|at| at <= order.mono);
        let by_flow = flows.iter().filter_map(|scope| self.by_scope.get(scope));
        if self.by_scope.get(&site).is_some_and(was_here)
            || by_flow.chain(&self.all).any(was_before)
        {
            return true;
        }
        let site = Some(site).filter(|_| left.is_none());
        self.reach_by_name(site.into_iter().chain(flows), delivery.message)
    }

    /// Whether an order of an earlier run reaches a message.
    fn reach_by_name<'a>(
        &self,
        scopes: impl Iterator<Item = ScopeName<'a>>,
        message: MessageId,
    ) -> bool {
        let restored = scopes.filter_map(|scope| self.restored.get(&scope));
        restored.chain(&self.restored_all).any(|reached| reached.has(message))
    }
}

/// The number of an order that was not given in this run.
const ORDER_OF_EARLIER_RUN: u64 = 0;
/// Where a sweep still is under way when an order would be over, the next look.
const OVER_AGAIN: Duration = Duration::from_secs(60);

impl Scheduler {
    /// Orders that have reached all there is.
    pub(super) fn end_cancels(&mut self, now: Now) {
        if self.sweep.is_dropping()
            && let Some((at, ..)) = self.cancels.over.front_mut()
            && *at <= now.mono
        {
            *at = now.mono.plus(OVER_AGAIN);
        }
        while let Some((scope, order)) = self.cancels.pop_over(now.mono) {
            let key = super::restored::cancel_key(scope.as_ref());
            self.actions.push_back(Action::CancelOver { key, order });
        }
    }

    /// Drops what other shards handed over before this one knew that an earlier run cancelled it.
    pub(super) fn drop_what_came_early(&mut self, now: Now) {
        if !self.cancels.has_restored() {
            return;
        }
        for id in 0..self.entries.slots() {
            if !self.entries.is_vacant(id) && self.was_cancelled_by_name(id) {
                let flight = self.remove(id);
                self.drop_cancelled(now, flight);
            }
        }
    }

    fn was_cancelled_by_name(&self, id: u32) -> bool {
        let entry = &self.entries[id];
        let course = &self.courses[entry.course];
        let (tenant, campaign) = (&*course.flow.tenant, &*course.flow.campaign);
        let site = ScopeName::Site(self.sites[course.site].key().name());
        let scopes = [site, ScopeName::Tenant(tenant), ScopeName::Campaign { tenant, campaign }];
        self.cancels.reach_by_name(scopes.into_iter(), entry.message)
    }

    /// One turn of the sweep, if its time has come.
    pub(super) fn sweep(&mut self, now: Now) {
        let Some((task, slots)) = self.sweep.take_turn(now.mono) else { return };
        for id in slots {
            if !self.entries.is_vacant(id) {
                self.sweep_one(now, &task, id);
            }
        }
    }

    fn sweep_one(&mut self, now: Now, task: &Task, id: u32) {
        let entry = &self.entries[id];
        let (course, due) = (entry.course, entry.due(now.mono));
        match task {
            Task::DropCancelled => {
                if self.is_entry_cancelled(id) {
                    let flight = self.remove(id);
                    self.drop_cancelled(now, flight);
                }
            }
            Task::Flush { reach } => {
                if self.is_meant(reach, course) && self.was_deferred_before(now, id) {
                    self.relocate(now, id, None);
                }
            }
            Task::Reroute { reach } => {
                if self.is_meant(reach, course) {
                    self.relocate(now, id, due);
                }
            }
            Task::ChangePool => {
                if self.courses.is_retired(course) {
                    self.relocate(now, id, due);
                }
            }
        }
    }

    /// So that one that was flushed, tried and deferred again is left in peace. An order for other mail
    /// of the site meanwhile lets it go once more.
    fn was_deferred_before(&mut self, now: Now, id: u32) -> bool {
        let entry = &self.entries[id];
        match entry.wait() {
            Wait::Ready(_) => false,
            Wait::Restored(_) => true,
            Wait::Retry(tick) => {
                let key = FifoKey::new(entry.message, entry.attempts);
                let fifo = self.sites[self.courses[entry.course].site].fifos.get(key);
                fifo.is_some_and(|fifo| tick.moment(now.mono) <= fifo.swept_to())
            }
        }
    }

    pub(super) fn is_entry_cancelled(&self, id: u32) -> bool {
        self.courses[self.entries[id].course].is_cancelled
    }

    /// A cancelled delivery whose turn it is. It costs its flow a turn, so that others go on meanwhile;
    /// `None`: enough of them for now.
    pub(super) fn pass_over(&mut self, now: Now, site: u32, leaf: u32, id: u32) -> Option<()> {
        if self.sweep.dropped >= DROPS_PER_TURN {
            self.arm_pace(site, now.mono.plus(TURN_WAIT));
            return None;
        }
        self.sweep.dropped += 1;
        self.order.charge(leaf, self.entries[id].cost());
        let flight = self.remove(id);
        self.drop_cancelled(now, flight);
        Some(())
    }

    pub(super) fn drop_cancelled(&mut self, now: Now, flight: Flight) {
        self.settle_cancelled(flight.delivery);
        self.let_go(now, flight.course);
    }

    pub(super) fn settle_cancelled(&mut self, delivery: Delivery) {
        let outcome = whole(&delivery, delivery.attempts, cancelled());
        self.settle(delivery, vec![outcome], None);
    }
}

pub(super) fn cancelled() -> Outcome {
    Outcome::Cancelled { reply: Reply::local(554, Enhanced(5, 0, 0), "cancelled by the operator") }
}
