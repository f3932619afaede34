//! How a connection ended, and whose fault that was: the path's, a message's, or this machine's.

use std::time::Duration;

use super::Scheduler;
use super::control::{Door, Seen, Signal, Stage};
use super::feedback::{At, signal_for};
use super::permit::Lease;
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::delivery::LeaseId;
use crate::model::note::{LeaseEnd, Trouble};
use crate::model::outcome::{Enhanced, Reply};

/// When an address has all the connections it may, the next is tried after so long.
const CROWDED_WAIT: Duration = Duration::from_millis(200);

impl Scheduler {
    /// The permit of a lease is free again.
    pub fn handle_ended(&mut self, now: Now, lease: LeaseId, why: LeaseEnd) {
        let Some(slot) = self.leases.find(lease) else { return };
        self.end_willingness(slot);
        let Some(mut lease) = self.leases.end(slot) else { return };
        let Lease { site: number, path, .. } = lease;
        self.sites[number].path(path).fruitless -= u32::from(lease.is_fruitless());
        while let Some(flight) = lease.take_last() {
            self.land(number, path);
            lease.returned += 1;
            let mut flight = self.landed(flight);
            self.uncount((number, path), &mut flight);
            self.put_back(now, flight);
        }
        let freed = u32::from(!planted(Bug::PermitKept));
        self.sites[number].in_use -= freed;
        self.sites[number].path(path).in_use -= freed;
        let held = std::mem::take(&mut lease.held);
        self.release(held);
        self.judge_end(now, &lease, why);
        self.rest_if_unused(now, (number, path));
        self.note_if_empty(now, number);
        self.dispatch(now, number);
        if self.stopping && self.leases.len() == 0 {
            self.write_days(now);
        }
    }

    /// A path without a connection and without mail that could go needs no estimates of how busy it is,
    /// and no counters of rules whose time is over.
    fn rest_if_unused(&mut self, now: Now, (number, path): At) {
        let site = &mut self.sites[number];
        if site.ready == 0 && site.path(path).in_use == 0 {
            let path = site.path(path);
            path.control.handle_rest(now.mono);
            path.counters.forget_old(now.mono);
        }
    }

    fn judge_end(&mut self, now: Now, lease: &Lease, why: LeaseEnd) {
        match why {
            LeaseEnd::Unreachable(trouble) => {
                self.learn_phases(now, (lease.site, lease.path), &trouble.phases);
                // A delivery that was broken off has told so, and paid for it.
                if lease.answered == 0 {
                    self.blame(now, lease, Signal::Site, trouble.reply);
                }
            }
            LeaseEnd::TurnedAway(trouble) => {
                self.learn_phases(now, (lease.site, lease.path), &trouble.phases);
                self.turned_away(now, lease, *trouble);
            }
            LeaseEnd::Local(reply) => self.wait_for_ourselves(now, lease, reply),
            LeaseEnd::Busy { .. } => {
                let until = now.mono.plus(CROWDED_WAIT);
                self.sites[lease.site].path(lease.path).crowded_until = until;
                self.arm_pace(lease.site, until);
            }
            LeaseEnd::Skipped => {
                let text = "every mail host is to be passed over for now";
                self.wait_for_ourselves(now, lease, Reply::local(451, Enhanced(4, 3, 2), text));
            }
            LeaseEnd::Finished if lease.is_fruitless() && !self.stopping => {
                let text = "connection ended before anything was delivered";
                let reply = Reply::local(451, Enhanced(4, 4, 2), text);
                self.blame(now, lease, Signal::Site, reply);
            }
            LeaseEnd::Finished => {}
        }
    }

    /// A connection that was refused in words: rules are asked as for what would have gone out on it.
    fn turned_away(&mut self, now: Now, lease: &Lease, trouble: Trouble) {
        let at = (lease.site, lease.path);
        let source = self.sites[lease.site].path(lease.path).source;
        let course = self.next_from(lease.site, source).map(|id| self.entries[id].course);
        let is_ruled_throttle = course.is_some_and(|course| {
            self.count_answer(now, at, course);
            let ruling = self.rule_on(now, at, course, trouble.remote, &trouble.reply);
            ruling.asks_to_slow_down
        });
        if is_ruled_throttle || signal_for(trouble.cause) == Signal::Throttle {
            self.sites[lease.site].note_complaint(trouble.reply);
            let seen = Seen { signal: Signal::Throttle, ..connecting(lease) };
            self.learn(now, at, seen);
        } else {
            self.blame(now, lease, Signal::Site, trouble.reply);
        }
    }

    /// Nobody's fault but this machine's, or a limit of ours: a moment later.
    fn wait_for_ourselves(&mut self, now: Now, lease: &Lease, reply: Reply) {
        self.sites[lease.site].note_complaint(reply);
        let seen = Seen { signal: Signal::Local, ..connecting(lease) };
        self.learn(now, (lease.site, lease.path), seen);
    }

    /// The site does not do its work: what was to go out next pays one attempt, so that each failed
    /// connection moves one message's own clock and shows its reason. Not while the door is closed:
    /// what began before says nothing new.
    fn blame(&mut self, now: Now, lease: &Lease, signal: Signal, reply: Reply) {
        let at = (lease.site, lease.path);
        let path = self.sites[lease.site].path(lease.path);
        let source = path.source;
        let is_news = !matches!(path.control.door(), Door::Closed { .. });
        self.sites[lease.site].note_complaint(reply.clone());
        self.learn(now, at, Seen { signal, ..connecting(lease) });
        if is_news && let Some(id) = self.next_from(lease.site, source) {
            let flight = self.remove(id);
            self.charge(now, flight, reply);
        }
    }

    /// What would go out next from a source.
    fn next_from(&self, number: u32, source: u16) -> Option<u32> {
        let uses = |trunk: &&u32| {
            let pool = self.order.trunks[**trunk as usize].pool;
            self.roster.members(pool).iter().any(|member| member.source == source)
        };
        let mut trunks = self.sites[number].trunks.iter().filter(uses);
        let leaf = trunks.find_map(|trunk| self.order.next(*trunk))?;
        self.order.oldest(&self.entries, leaf).map(|(_, id)| id)
    }
}

/// A connection that was opened with its lease; the signal is to be filled in.
fn connecting(lease: &Lease) -> Seen {
    Seen { signal: Signal::Local, stage: Stage::Connect, started: lease.opened }
}
