//! What became of an attempt, and what it says about the path it went by.

use std::sync::Arc;
use std::time::Duration;

use super::Scheduler;
use super::control::{Door, Seen, Signal, Stage};
use super::feedback::At;
use super::permit::{Flight, Lease};
use super::settle::whole;
use super::warm_up::{is_bad, is_unsent};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::note::{
    Attempt, Cause, Class, Complaint, Done, LeaseEnd, RecipientResult, Remote, Trouble,
};
use crate::model::outcome::{Enhanced, Outcome, Reply};
use crate::model::route::Way;
use crate::model::settings::Action as RuleAction;

/// When an address has all the connections it may, the next is tried after so long.
const CROWDED_WAIT: Duration = Duration::from_millis(200);

impl Scheduler {
    /// What became of one delivery of a lease. Unknown names are of leases that have ended.
    pub fn handle_done(&mut self, now: Now, lease: LeaseId, done: Done) {
        let Some(slot) = self.leases.find(lease) else { return };
        let taken = self.leases[slot].take(done.message, done.first);
        let Some(mut flight) = taken.map(|flight| self.landed(flight)) else { return };
        let Lease { site: number, path, .. } = self.leases[slot];
        if is_unsent(&done) {
            self.uncount((number, path), &mut flight);
        }
        self.land(number, path);
        self.learn_phases(now, (number, path), &done.phases);
        self.judge(now, slot, flight, done);
        self.review(now, slot);
        self.note_if_empty(now, number);
        self.dispatch(now, number);
    }

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
        self.note_if_empty(now, number);
        self.dispatch(now, number);
    }

    /// A delivery that is under way no more: its tenant has room for another.
    fn landed(&mut self, mut flight: Flight) -> Flight {
        let held = std::mem::take(&mut flight.held);
        self.release(held);
        flight
    }

    fn judge(&mut self, now: Now, slot: u32, flight: Flight, done: Done) {
        let Lease { site: number, path, .. } = self.leases[slot];
        let Done { result, remote, .. } = done;
        match result {
            Attempt::Delivered(reply) => {
                self.note_answer(now, slot, &flight, Some(Signal::Delivered));
                self.note_day_answer((number, path), &flight, false);
                let attempts = flight.delivery.attempts.saturating_add(1);
                let outcome = whole(&flight.delivery, attempts, Outcome::Delivered { reply });
                let strict = self.strict(slot);
                if planted(Bug::DeliveredTwice) && flight.delivery.attempts == 0 {
                    let delivery = Delivery { attempts: 1, ..flight.delivery.clone() };
                    self.courses.hold(flight.course);
                    self.put_back(now, Flight::new(delivery, flight.course));
                }
                if !planted(Bug::DeliveredNotSettled) {
                    self.settle(flight.delivery, vec![outcome], strict);
                }
                self.let_go(now, flight.course);
            }
            Attempt::Mixed { mut recipients, complaint } => {
                let said = complaint.as_ref().map(|complaint| signal_for(complaint.cause));
                let signal = Some(signal_of(&recipients)).filter(|signal| Some(*signal) != said);
                // Who refuses a message for a reason of its own is there, and answers.
                let signal =
                    signal.map(|one| if one == Signal::Site { Signal::Content } else { one });
                self.note_answer(now, slot, &flight, signal);
                let spared = self.rule_on(now, (number, path), &flight, remote, &mut recipients);
                let is_bad = is_bad(&recipients, complaint.as_ref());
                self.note_day_answer((number, path), &flight, is_bad);
                if let Some(complaint) = complaint {
                    self.hear(now, slot, flight.given, complaint);
                }
                // Only from a path that a rule has stopped: it must not come back by this one.
                let is_stopped = self.sites[number].path(path).effects.stop(now.mono).is_some();
                match spared {
                    Spared::ForAnotherSource if is_stopped => self.put_back(now, flight),
                    Spared::ForAnotherSource | Spared::No => {
                        let strict = self.strict(slot);
                        self.settle_mixed(now, flight, &recipients, strict);
                    }
                }
            }
            // Its connection is gone or going: more work would only come back as well.
            Attempt::NotTried => {
                self.mark(slot, |lease| lease.returned += 1);
                self.end_willingness(slot);
                if planted(Bug::UntriedForgotten) {
                    return self.let_go(now, flight.course);
                }
                self.put_back(now, flight);
            }
            Attempt::Throttled(complaint) => {
                let Lease { opened, answered, .. } = self.leases[slot];
                self.mark(slot, |lease| lease.answered += 1);
                self.rule_on_complaint(now, (number, path), &flight, remote, &complaint.reply);
                self.note_day_answer((number, path), &flight, is_bad(&[], Some(&complaint)));
                let given = flight.given;
                self.put_back(now, flight);
                let session = &mut self.sites[number].path(path).session;
                if session.handle_goodbye(now.mono, opened, answered) {
                    return self.end_willingness(slot);
                }
                self.hear(now, slot, given, complaint);
            }
            Attempt::Unreadable => self.set_aside(now, flight),
        }
    }

    /// The site asked to slow down, or broke off, besides what it said about a message.
    fn hear(&mut self, now: Now, slot: u32, given: Mono, complaint: Complaint) {
        let Lease { site: number, path, .. } = self.leases[slot];
        let signal = signal_for(complaint.cause);
        self.sites[number].last_reply = Some(complaint.reply);
        self.end_willingness(slot);
        let seen = Seen { signal, stage: Stage::Message, started: given };
        self.learn(now, (number, path), seen);
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

    fn turned_away(&mut self, now: Now, lease: &Lease, trouble: Trouble) {
        let at = (lease.site, lease.path);
        let source = self.sites[lease.site].path(lease.path).source;
        let front = self.next_from(lease.site, source);
        if let Some(id) = front {
            let course = self.entries[id].course;
            let domain = Arc::clone(&self.courses[course].domain);
            let host = self.host_of(lease.site, trouble.remote);
            for fired in self.judge_reply(now, at, &domain, &trouble.reply) {
                self.apply(now, at, course, &host, &fired);
            }
        }
        match signal_for(trouble.cause) {
            Signal::Throttle => {
                self.sites[lease.site].last_reply = Some(trouble.reply);
                let seen = Seen { signal: Signal::Throttle, ..connecting(lease) };
                self.learn(now, at, seen);
            }
            _ => self.blame(now, lease, Signal::Site, trouble.reply),
        }
    }

    /// Nobody's fault but this machine's, or a limit of ours: a moment later.
    fn wait_for_ourselves(&mut self, now: Now, lease: &Lease, reply: Reply) {
        self.sites[lease.site].last_reply = Some(reply);
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
        self.sites[lease.site].last_reply = Some(reply.clone());
        self.learn(now, at, Seen { signal, ..connecting(lease) });
        if is_news && let Some(id) = self.next_from(lease.site, source) {
            let flight = self.remove(now, id);
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

    /// The site said something about a delivery. While the door is closed that proves nothing: it
    /// belongs to the time before.
    /// `signal`: unless a complaint says the same.
    fn note_answer(&mut self, now: Now, slot: u32, flight: &Flight, signal: Option<Signal>) {
        self.mark(slot, |lease| lease.answered += 1);
        let Lease { site: number, path, shard, answered, .. } = self.leases[slot];
        self.sites[number].path(path).session.handle_answer(answered);
        self.sites[number].lane(shard).executed += 1;
        self.count_answer(now, (number, path), flight.course);
        if let Some(signal) = signal {
            let seen = Seen { signal, stage: Stage::Message, started: flight.given };
            self.learn(now, (number, path), seen);
        }
    }

    /// What the operator's rules make of the replies of a delivery.
    fn rule_on(
        &mut self,
        now: Now,
        at: At,
        flight: &Flight,
        remote: Option<Remote>,
        recipients: &mut [RecipientResult],
    ) -> Spared {
        if self.rules.is_empty() {
            return Spared::No;
        }
        let domain = Arc::clone(&self.courses[flight.course].domain);
        let host = self.host_of(at.0, remote);
        let mut spared = Spared::No;
        for one in recipients.iter_mut().filter(|one| one.class != Class::Delivered) {
            for fired in self.judge_reply(now, at, &domain, &one.reply) {
                match fired.action {
                    RuleAction::Bounce => one.class = Class::Failed,
                    RuleAction::Defer => one.class = Class::Deferred,
                    RuleAction::OtherSource => {
                        one.class = Class::Deferred;
                        spared = Spared::ForAnotherSource;
                    }
                    RuleAction::Throttle => one.cause = Cause::Throttle,
                    _ => self.apply(now, at, flight.course, &host, &fired),
                }
            }
        }
        spared
    }

    fn rule_on_complaint(
        &mut self,
        now: Now,
        at: At,
        flight: &Flight,
        remote: Option<Remote>,
        reply: &Reply,
    ) {
        let domain = Arc::clone(&self.courses[flight.course].domain);
        let host = self.host_of(at.0, remote);
        for fired in self.judge_reply(now, at, &domain, reply) {
            self.apply(now, at, flight.course, &host, &fired);
        }
    }

    fn host_of(&self, number: u32, remote: Option<Remote>) -> Box<str> {
        let Way::Hosts(hosts) = &self.sites[number].target.way else { return Box::default() };
        let host = remote.and_then(|remote| hosts.get(usize::from(remote.host)));
        host.map(|host| host.name.clone()).unwrap_or_default()
    }

    /// Notes something about a lease; its path knows how many are fruitless.
    fn mark(&mut self, slot: u32, change: impl FnOnce(&mut Lease)) {
        let lease = &mut self.leases[slot];
        let path = self.sites[lease.site].path(lease.path);
        path.fruitless -= u32::from(lease.is_fruitless());
        change(lease);
        path.fruitless += u32::from(lease.is_fruitless());
    }

    fn land(&mut self, number: u32, path: u16) {
        self.sites[number].in_flight -= 1;
        self.sites[number].path(path).in_flight -= 1;
        self.in_flight -= 1;
    }
}

/// Whether a rule keeps a delivery from being settled by what was said.
enum Spared {
    No,
    ForAnotherSource,
}

/// What a delivery's replies say about the path: a wish to slow down before all else; that it works,
/// as soon as one recipient was taken.
fn signal_of(recipients: &[RecipientResult]) -> Signal {
    let is_throttled =
        |one: &RecipientResult| one.class == Class::Deferred && one.cause == Cause::Throttle;
    if recipients.iter().any(is_throttled) {
        return Signal::Throttle;
    }
    let delivered = recipients.iter().any(|one| one.class == Class::Delivered);
    let first = recipients.first().filter(|_| !delivered);
    first.map_or(Signal::Delivered, |one| signal_for(one.cause))
}

fn signal_for(cause: Cause) -> Signal {
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

/// A connection that was opened with its lease; the signal is to be filled in.
fn connecting(lease: &Lease) -> Seen {
    Seen { signal: Signal::Local, stage: Stage::Connect, started: lease.opened }
}
