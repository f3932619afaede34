//! What became of an attempt, and what it says about the path it went by.

use std::sync::Arc;

use super::Scheduler;
use super::control::{Seen, Signal, Stage};
use super::feedback::{At, signal_for};
use super::permit::{Flight, Lease};
use super::ruling::Fate;
use super::settle::whole;
use super::warm_up::{is_bad, is_unsent};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::note::{Attempt, Cause, Class, Complaint, Done, RecipientResult, Remote};
use crate::model::outcome::{Outcome, Reply};

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

    /// A delivery that is under way no more: its tenant has room for another.
    pub(super) fn landed(&mut self, mut flight: Flight) -> Flight {
        let held = std::mem::take(&mut flight.held);
        self.release(held);
        flight
    }

    fn judge(&mut self, now: Now, slot: u32, flight: Flight, done: Done) {
        let Done { result, remote, .. } = done;
        match result {
            Attempt::Delivered(reply) => self.judge_delivered(now, slot, flight, reply),
            Attempt::Mixed { recipients, complaint } => {
                self.judge_mixed(now, slot, flight, remote, recipients, complaint);
            }
            Attempt::NotTried | Attempt::Unheard => self.judge_untried(now, slot, flight),
            Attempt::Throttled(complaint) => {
                self.judge_throttled(now, slot, flight, remote, complaint);
            }
            Attempt::Unreadable => self.set_aside(now, flight),
        }
    }

    fn judge_delivered(&mut self, now: Now, slot: u32, flight: Flight, reply: Reply) {
        self.note_answer(now, slot, &flight);
        self.hear(now, slot, flight.given, Signal::Delivered);
        self.note_day_answer(self.leases[slot].at(), &flight, false);
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

    fn judge_mixed(
        &mut self,
        now: Now,
        slot: u32,
        flight: Flight,
        remote: Option<Remote>,
        mut recipients: Vec<RecipientResult>,
        complaint: Option<Complaint>,
    ) {
        self.note_answer(now, slot, &flight);
        let at = self.leases[slot].at();
        let ruling = self.rule_on_recipients(now, at, &flight, remote, &mut recipients);
        self.note_day_answer(at, &flight, is_bad(&recipients, complaint.as_ref()));
        let telling = telling(&recipients);
        let signal = match telling.map_or(Signal::Delivered, |one| signal_for(one.cause)) {
            _ if ruling.asks_to_slow_down => Signal::Throttle,
            // Who refuses a message for a reason of its own is there, and answers.
            Signal::Site => Signal::Content,
            signal => signal,
        };
        if let Some(deferred) = telling.filter(|one| one.class == Class::Deferred) {
            self.sites[at.0].last_reply = Some(Arc::new(deferred.reply.clone()));
        }
        // What a complaint says as well is heard once.
        if complaint.as_ref().is_none_or(|complaint| signal_for(complaint.cause) != signal) {
            self.hear(now, slot, flight.given, signal);
        }
        if let Some(complaint) = complaint {
            self.complain(now, slot, flight.given, complaint);
        }
        if ruling.fate == Some(Fate::OtherSource) && self.is_stopped(now, at) {
            return self.put_back(now, flight);
        }
        let strict = self.strict(slot);
        self.settle_mixed(now, flight, &recipients, strict);
    }

    /// Its connection is gone or going: more work would only come back as well.
    fn judge_untried(&mut self, now: Now, slot: u32, flight: Flight) {
        self.mark(slot, |lease| lease.returned += 1);
        self.end_willingness(slot);
        if planted(Bug::UntriedForgotten) {
            return self.let_go(now, flight.course);
        }
        self.put_back(now, flight);
    }

    fn judge_throttled(
        &mut self,
        now: Now,
        slot: u32,
        flight: Flight,
        remote: Option<Remote>,
        complaint: Complaint,
    ) {
        let Lease { opened, answered, .. } = self.leases[slot];
        let at = self.leases[slot].at();
        self.mark(slot, |lease| lease.answered += 1);
        self.count_answer(now, at, flight.course);
        let ruling = self.rule_on(now, at, flight.course, remote, &complaint.reply);
        self.note_day_answer(at, &flight, is_bad(&[], Some(&complaint)));
        let given = flight.given;
        // An operator may know that such a reply is about the message, and not about the site.
        if let Some(fate @ (Fate::Bounce | Fate::Defer)) = ruling.fate {
            self.end_willingness(slot);
            self.settle_as(now, slot, flight, fate, &complaint.reply);
            if ruling.asks_to_slow_down {
                self.complain(now, slot, given, complaint);
            }
            return;
        }
        self.put_back(now, flight);
        let session = &mut self.sites[at.0].path(at.1).session;
        if session.handle_goodbye(now.mono, opened, answered) {
            return self.end_willingness(slot);
        }
        self.complain(now, slot, given, complaint);
    }

    /// Settles all recipients with a reply that was not about any of them.
    fn settle_as(&mut self, now: Now, slot: u32, flight: Flight, fate: Fate, reply: &Reply) {
        let result = |recipient| RecipientResult {
            recipient,
            class: fate.class(),
            cause: Cause::Recipient,
            reply: reply.clone(),
        };
        let recipients: Vec<_> = flight.delivery.recipients().map(result).collect();
        let strict = self.strict(slot);
        self.settle_mixed(now, flight, &recipients, strict);
    }

    /// Whether a rule stops the path: what is to go by another must not come back by this one.
    fn is_stopped(&mut self, now: Now, at: At) -> bool {
        self.sites[at.0].path(at.1).effects.stop(now.mono).is_some()
    }

    /// The site asked to slow down, or broke off, besides what it said about a message.
    fn complain(&mut self, now: Now, slot: u32, given: Mono, complaint: Complaint) {
        let (number, _) = self.leases[slot].at();
        let signal = signal_for(complaint.cause);
        self.sites[number].note_complaint_about(complaint.reply);
        self.end_willingness(slot);
        self.hear(now, slot, given, signal);
    }

    /// What the site said in answer to a delivery that was given then.
    fn hear(&mut self, now: Now, slot: u32, given: Mono, signal: Signal) {
        let seen = Seen { signal, stage: Stage::Message, started: given };
        self.learn(now, self.leases[slot].at(), seen);
    }

    /// The site had a word to say about a delivery.
    fn note_answer(&mut self, now: Now, slot: u32, flight: &Flight) {
        self.mark(slot, |lease| lease.answered += 1);
        let Lease { site: number, path, shard, answered, .. } = self.leases[slot];
        self.sites[number].path(path).session.handle_answer(answered);
        self.sites[number].lane(shard).executed += 1;
        self.count_answer(now, (number, path), flight.course);
    }

    /// Notes something about a lease; its path knows how many are fruitless.
    fn mark(&mut self, slot: u32, change: impl FnOnce(&mut Lease)) {
        let lease = &mut self.leases[slot];
        let path = self.sites[lease.site].path(lease.path);
        path.fruitless -= u32::from(lease.is_fruitless());
        change(lease);
        path.fruitless += u32::from(lease.is_fruitless());
    }

    pub(super) fn land(&mut self, number: u32, path: u16) {
        self.sites[number].in_flight -= 1;
        self.sites[number].path(path).in_flight -= 1;
        self.in_flight -= 1;
    }
}

/// The recipient whose reply says most about the path: a wish to slow down before all else. `None`:
/// one recipient was taken, it works.
fn telling(recipients: &[RecipientResult]) -> Option<&RecipientResult> {
    let is_throttled =
        |one: &&RecipientResult| one.class == Class::Deferred && one.cause == Cause::Throttle;
    let is_delivered = |one: &RecipientResult| one.class == Class::Delivered;
    let throttled = recipients.iter().find(is_throttled);
    throttled.or_else(|| recipients.first().filter(|_| !recipients.iter().any(is_delivered)))
}
