//! Into the queues of a site and out of them.

use std::sync::Arc;

use super::Action;
use super::Scheduler;
use super::alarm::Kind;
use super::bucket::{bucket_end, moment};
use super::entry::{Entry, Wait};
use super::expiry::expiry_bucket;
use super::permit::Flight;
use super::retry::{FifoKey, lane_of, wait_after};
use super::tick::Tick;
use crate::base::time::{Mono, Now};
use crate::model::flow::Flow;

/// Deliveries that come due in one alarm; the rest follow a tick later, so that a herd does not
/// hold up a turn.
const RELEASES_PER_ALARM: usize = 256;
/// Deliveries deferred before a restart are let go together with those due within the same time.
const RESTORED_WIDTH: std::time::Duration = std::time::Duration::from_secs(1);

impl Scheduler {
    /// To the end of its flow's mail.
    pub(super) fn enqueue(&mut self, now: Now, flight: Flight) {
        let (home, leaf) = (flight.delivery.home, self.courses[flight.course].leaf);
        let id = self.insert_ready(now, flight);
        self.order.push_back(&mut self.entries, leaf, home, id);
    }

    /// Back to the front, behind older ones that came back before it.
    pub(super) fn put_back(&mut self, now: Now, flight: Flight) {
        if self.courses[flight.course].is_cancelled {
            return self.drop_cancelled(now, flight);
        }
        if self.courses.is_retired(flight.course) && !self.stopping {
            return self.locate_anew(now, flight, None);
        }
        let (home, leaf) = (flight.delivery.home, self.courses[flight.course].leaf);
        let id = self.insert_ready(now, flight);
        self.order.put_back(&mut self.entries, leaf, home, id);
    }

    /// Into the FIFO of its attempt; its attempts count the one just made. Tells when it is due.
    pub(super) fn defer(&mut self, now: Now, flight: Flight) -> Mono {
        let delivery = &flight.delivery;
        let number = self.courses[flight.course].site;
        let key = FifoKey::new(delivery.message, delivery.attempts);
        let site = &mut self.sites[number];
        let retry = &site.pace.settings.retry;
        let wait = wait_after(retry, delivery.attempts, lane_of(delivery.message));
        let fifo = site.fifos.get_or_add(key);
        let soonest = fifo.soonest(&self.entries, now.mono);
        let (tick, due) = Tick::at_or_after(now.mono.plus(wait).max(soonest));
        site.deferred += 1;
        let id = self.insert(now, &flight, Wait::Retry(tick));
        let fifo = self.sites[number].fifos.get_or_add(key);
        fifo.list.push_back(&mut self.entries.queued(), id);
        self.arm(number, Kind::Retry(key), due);
        due
    }

    /// One that was deferred before a restart, not due before `due`. Such ones come in any order.
    pub(super) fn restore(&mut self, now: Now, flight: &Flight, due: Mono) {
        let number = self.courses[flight.course].site;
        let due = due.min(now.mono.plus(super::tick::WAIT_MAX));
        let (tick, due) = Tick::at_or_after(due);
        let id = self.insert(now, flight, Wait::Restored(tick));
        let site = &mut self.sites[number];
        site.deferred += 1;
        site.restored.add(&mut self.entries, id, due);
        self.arm_restored(now, number);
    }

    /// Takes an entry out of everything it is in.
    pub(super) fn remove(&mut self, id: u32) -> Flight {
        let number = self.site_of(id);
        let site = &mut self.sites[number];
        let entry = &self.entries[id];
        let (mut delivery, course) = (entry.delivery(), entry.course);
        let (wait, expires) = (entry.wait(), entry.expires);
        match wait {
            Wait::Ready(record) => {
                site.ready -= 1;
                let leaf = self.courses[course].leaf;
                self.order.remove(&mut self.entries, leaf, delivery.home, id);
                delivery.record = record.map(|record| self.records.take(record));
            }
            Wait::Retry(_) => {
                let key = FifoKey::new(delivery.message, delivery.attempts);
                site.fifos.get_or_add(key).list.remove(&mut self.entries.queued(), id);
                site.fifos.drop_if_empty(key);
                site.deferred -= 1;
            }
            Wait::Restored(_) => {
                site.restored.remove(&mut self.entries, id);
                site.deferred -= 1;
            }
        }
        site.expiry.remove(&mut self.entries.expiring(), expires, id);
        self.entries.remove(id);
        self.count_out(course, wait);
        Flight::new(delivery, course)
    }

    pub(super) fn release_fifo(&mut self, now: Now, number: u32, key: FifoKey) {
        for _ in 0..RELEASES_PER_ALARM {
            let Some((id, due, flushed_to)) = self.first_due(now, number, key) else { return };
            if due > now.mono.max(flushed_to) {
                return self.arm(number, Kind::Retry(key), due);
            }
            self.relocate(now, id, None);
        }
        self.arm(number, Kind::Retry(key), now.mono);
    }

    pub(super) fn release_restored(&mut self, now: Now, number: u32) {
        for _ in 0..RELEASES_PER_ALARM {
            let let_go_to = now.mono.max(self.sites[number].restored_flushed_to);
            let first = self.first_restored(now, number).filter(|(_, due)| *due <= let_go_to);
            let Some((id, _)) = first else {
                self.sites[number].restored_flushed_to = Mono::default();
                break;
            };
            self.relocate(now, id, None);
        }
        self.arm_restored(now, number);
    }

    pub(super) fn site_of(&self, id: u32) -> u32 {
        self.courses[self.entries[id].course].site
    }

    fn names_of(&self, course: u32) -> (Arc<str>, Arc<Flow>) {
        let course = &self.courses[course];
        (Arc::clone(&course.domain), Arc::clone(&course.flow))
    }

    /// The first of a FIFO, when it is due, and up to when all are let go early.
    fn first_due(&mut self, now: Now, number: u32, key: FifoKey) -> Option<(u32, Mono, Mono)> {
        let fifo = self.sites[number].fifos.get(key)?;
        let (id, flushed_to) = (fifo.list.front()?, fifo.flushed_to());
        Some((id, self.entries[id].due(now.mono)?, flushed_to))
    }

    /// Its route may lead elsewhere by now. `due`: not to be tried before.
    pub(super) fn relocate(&mut self, now: Now, id: u32, due: Option<Mono>) {
        let flight = self.remove(id);
        if self.courses[flight.course].is_cancelled {
            return self.drop_cancelled(now, flight);
        }
        self.locate_anew(now, flight, due);
    }

    fn locate_anew(&mut self, now: Now, flight: Flight, due: Option<Mono>) {
        let Flight { delivery, course, .. } = flight;
        let (domain, flow) = self.names_of(course);
        self.let_go(now, course);
        self.actions.push_back(Action::Relocate { domain, flow, delivery, due });
    }

    /// The first of those deferred before a restart, and when it is due.
    fn first_restored(&self, now: Now, number: u32) -> Option<(u32, Mono)> {
        let id = self.sites[number].restored.first()?;
        Some((id, self.entries[id].due(now.mono)?))
    }

    pub(super) fn arm_restored(&mut self, now: Now, number: u32) {
        if let Some((_, due)) = self.first_restored(now, number) {
            let is_flushed = due <= self.sites[number].restored_flushed_to;
            let together = moment(bucket_end(due, RESTORED_WIDTH));
            self.arm(number, Kind::Restored, if is_flushed { now.mono } else { together });
        }
    }

    fn count_out(&mut self, course: u32, wait: Wait) {
        let course = &mut self.courses[course];
        *course.waits.of(wait) -= 1;
        if course.is_cancelled {
            *self.sites[course.site].cancelled.of(wait) -= 1;
        }
    }

    /// Keeps the record, if there is memory for it and the site is not closed for long.
    fn insert_ready(&mut self, now: Now, mut flight: Flight) -> u32 {
        let number = self.courses[flight.course].site;
        let brief = self.sites[number].is_brief();
        let record = flight.delivery.record.take().filter(|_| brief);
        let record = self.records.keep(record, flight.delivery.place.bytes);
        self.sites[number].ready += 1;
        self.insert(now, &flight, Wait::Ready(record))
    }

    /// Into the slab and its expiry bucket; the caller puts it in its queue.
    fn insert(&mut self, now: Now, flight: &Flight, wait: Wait) -> u32 {
        let Flight { delivery, course, .. } = flight;
        let end = expiry_bucket(now, self.expires_at(delivery, *course));
        let number = self.courses[*course].site;
        let id = self.entries.insert(Entry::new(delivery, *course, wait, end));
        *self.courses[*course].waits.of(wait) += 1;
        let site = &mut self.sites[number];
        site.expiry.add(&mut self.entries.expiring(), end, id);
        self.arm_expiry(number);
        id
    }
}
