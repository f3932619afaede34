//! Into the queues of a site and out of them.

use std::sync::Arc;

use super::Action;
use super::Scheduler;
use super::alarm::Kind;
use super::bucket::bucket_end;
use super::entry::{Entry, Wait};
use super::expiry::expiry_bucket;
use super::list::NONE;
use super::permit::Flight;
use super::retry::{FifoKey, lane_of, wait_after};
use super::tick::Tick;
use crate::base::time::{Mono, Now};

/// Entries passed over at most when a delivery goes back to the front: those that other
/// connections gave back a moment before.
const RETURN_WALK_MAX: usize = 64;
/// Deliveries that come due in one alarm; the rest follow a tick later, so that a herd does not
/// hold up a turn.
const RELEASES_PER_ALARM: usize = 256;
/// Width of the buckets for deliveries deferred before a restart.
const RESTORED_WIDTH: std::time::Duration = std::time::Duration::from_secs(1);

impl Scheduler {
    /// To the end of the ready lane of its home.
    pub(super) fn enqueue(&mut self, now: Now, flight: Flight) {
        let id = self.insert_ready(now, flight);
        let (home, number) = (self.entries[id].home, self.site_of(id));
        self.sites[number].lane(home).ready.push_back(&mut self.entries.queued(), id);
    }

    /// Back to the front of its lane, behind older ones that came back before it.
    pub(super) fn put_back(&mut self, now: Now, flight: Flight) {
        let id = self.insert_ready(now, flight);
        let (home, number, age) = (self.entries[id].home, self.site_of(id), self.entries[id].age());
        let ready = &mut self.sites[number].lane(home).ready;
        let (mut behind, mut next) = (NONE, ready.front().unwrap_or(NONE));
        for _ in 0..RETURN_WALK_MAX {
            if next == NONE || self.entries[next].age() > age {
                break;
            }
            (behind, next) = (next, self.entries[next].queue.next);
        }
        ready.insert_after(&mut self.entries.queued(), behind, id);
    }

    /// Into the FIFO of its attempt; its attempts count the one just made. Tells when it is due.
    pub(super) fn defer(&mut self, now: Now, flight: Flight) -> Mono {
        let delivery = &flight.delivery;
        let number = self.bearings[flight.bearing].site;
        let key = FifoKey::new(delivery.message, delivery.attempts);
        let site = &mut self.sites[number];
        let retry = &site.pace.settings.retry;
        let wait = wait_after(retry, delivery.attempts, lane_of(delivery.message));
        let fifo = site.fifos.get_or_add(key);
        let (tick, due) = Tick::at_or_after(now.mono.plus(wait).max(fifo.last));
        fifo.last = due;
        site.deferred += 1;
        let id = self.insert(now, &flight, Wait::Retry(tick));
        let fifo = self.sites[number].fifos.get_or_add(key);
        fifo.list.push_back(&mut self.entries.queued(), id);
        self.arm(number, Kind::Retry(key), due);
        due
    }

    /// One that was deferred before a restart, not due before `due`. Such ones come in any order.
    pub(super) fn restore(&mut self, now: Now, flight: &Flight, due: Mono) {
        let number = self.bearings[flight.bearing].site;
        let due = due.min(now.mono.plus(super::tick::WAIT_MAX));
        let (tick, moment) = Tick::at_or_after(due);
        let end = bucket_end(moment, RESTORED_WIDTH);
        let id = self.insert(now, flight, Wait::Restored(tick));
        let site = &mut self.sites[number];
        site.deferred += 1;
        site.restored.add(&mut self.entries.queued(), end, id);
        self.arm_restored(number);
    }

    /// Takes an entry out of everything it is in.
    pub(super) fn remove(&mut self, now: Now, id: u32) -> Flight {
        let number = self.site_of(id);
        let site = &mut self.sites[number];
        let entry = &self.entries[id];
        let (mut delivery, bearing) = (entry.delivery(), entry.bearing);
        let (wait, expires) = (entry.wait(), entry.expires);
        let mut queued = self.entries.queued();
        match wait {
            Wait::Ready(record) => {
                site.lane(delivery.home).ready.remove(&mut queued, id);
                site.ready -= 1;
                delivery.record = record.map(|record| self.records.take(record));
            }
            Wait::Retry(_) => {
                let key = FifoKey::new(delivery.message, delivery.attempts);
                site.fifos.get_or_add(key).list.remove(&mut queued, id);
                site.fifos.drop_if_empty(key);
                site.deferred -= 1;
            }
            Wait::Restored(tick) => {
                let end = bucket_end(tick.moment(now.mono), RESTORED_WIDTH);
                site.restored.remove(&mut queued, end, id);
                site.deferred -= 1;
            }
        }
        site.expiry.remove(&mut self.entries.expiring(), expires, id);
        self.entries.remove(id);
        Flight { delivery, bearing }
    }

    pub(super) fn release_fifo(&mut self, now: Now, number: u32, key: FifoKey) {
        for _ in 0..RELEASES_PER_ALARM {
            let Some(due) = self.first_due(now, number, key) else { return };
            if due.1 > now.mono {
                return self.arm(number, Kind::Retry(key), due.1);
            }
            self.relocate(now, due.0);
        }
        self.arm(number, Kind::Retry(key), now.mono);
    }

    pub(super) fn release_restored(&mut self, now: Now, number: u32) {
        for _ in 0..RELEASES_PER_ALARM {
            let Some(id) = self.sites[number].restored.front_due(now.mono) else { break };
            self.relocate(now, id);
        }
        self.arm_restored(number);
    }

    pub(super) fn site_of(&self, id: u32) -> u32 {
        self.bearings[self.entries[id].bearing].site
    }

    /// The first of a FIFO and when it is due.
    fn first_due(&mut self, now: Now, number: u32, key: FifoKey) -> Option<(u32, Mono)> {
        let id = self.sites[number].fifos.get(key)?.list.front()?;
        Some((id, self.entries[id].due(now.mono)?))
    }

    /// Due again: its route may lead elsewhere by now.
    fn relocate(&mut self, now: Now, id: u32) {
        let Flight { delivery, bearing } = self.remove(now, id);
        let course = &self.bearings[bearing];
        let (domain, flow) = (Arc::clone(&course.domain), Arc::clone(&course.flow));
        self.let_go(now, bearing);
        self.actions.push_back(Action::Relocate { domain, flow, delivery });
    }

    fn arm_restored(&mut self, number: u32) {
        if let Some(next) = self.sites[number].restored.next() {
            self.arm(number, Kind::Restored, next);
        }
    }

    /// Keeps the record, if there is memory for it and the site is not closed for long.
    fn insert_ready(&mut self, now: Now, mut flight: Flight) -> u32 {
        let number = self.bearings[flight.bearing].site;
        let brief = self.sites[number].gate.is_brief();
        let record = flight.delivery.record.take().filter(|_| brief);
        let record = self.records.keep(record, flight.delivery.place.bytes);
        self.sites[number].ready += 1;
        self.insert(now, &flight, Wait::Ready(record))
    }

    /// Into the slab and its expiry bucket; the caller puts it in its queue.
    fn insert(&mut self, now: Now, flight: &Flight, wait: Wait) -> u32 {
        let Flight { delivery, bearing } = flight;
        let end = expiry_bucket(now, self.expires_at(delivery, *bearing));
        let number = self.bearings[*bearing].site;
        let id = self.entries.insert(Entry::new(delivery, *bearing, wait, end));
        let site = &mut self.sites[number];
        site.expiry.add(&mut self.entries.expiring(), end, id);
        self.arm_expiry(number);
        id
    }
}
