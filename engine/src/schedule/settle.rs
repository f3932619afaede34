//! What a reply means for a delivery, for its message and for its site.

use super::alarm::Kind;
use super::expiry::expired;
use super::gate::{Gate, Trouble};
use super::permit::{Flight, Lease};
use super::{Action, Scheduler};
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::note::{Attempt, Class, Done, LeaseEnd, RecipientResult, Settlement, Words};
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};
use crate::model::settings::OutcomeDurability;
use crate::shard::Fact;

/// Who waits for the settlement.
type Strict = Option<(ShardId, LeaseId)>;

impl Scheduler {
    /// What became of one delivery of a lease. Unknown names are of leases that have ended.
    pub fn handle_done(&mut self, now: Now, lease: LeaseId, done: Done) {
        let Some(slot) = self.leases.find(lease) else { return };
        let Some(flight) = self.leases[slot].take(done.message, done.first) else { return };
        let number = self.leases[slot].site;
        self.land(number);
        self.judge(now, slot, flight, done.result);
        self.review(now, slot);
        self.note_if_empty(now, number);
        self.dispatch(now, number);
    }

    /// The permit of a lease is free again.
    pub fn handle_ended(&mut self, now: Now, lease: LeaseId, why: LeaseEnd) {
        let Some(slot) = self.leases.find(lease) else { return };
        let number = self.leases[slot].site;
        self.end_willingness(slot);
        let Some(mut lease) = self.leases.end(slot) else { return };
        self.sites[number].fruitless -= u32::from(lease.is_fruitless());
        while let Some(flight) = lease.take_last() {
            self.land(number);
            lease.returned += 1;
            self.put_back(now, flight);
        }
        self.sites[number].in_use -= u32::from(!planted(Bug::PermitKept));
        self.judge_end(now, number, &lease, why);
        self.note_if_empty(now, number);
        self.dispatch(now, number);
    }

    fn judge(&mut self, now: Now, slot: u32, flight: Flight, result: Attempt) {
        let number = self.leases[slot].site;
        match result {
            Attempt::Delivered(reply) => {
                self.note_answer(slot);
                let attempts = flight.delivery.attempts.saturating_add(1);
                let outcome = whole(&flight.delivery, attempts, Outcome::Delivered { reply });
                let strict = self.strict(slot);
                if planted(Bug::DeliveredTwice) && flight.delivery.attempts == 0 {
                    let delivery = Delivery { attempts: 1, ..flight.delivery.clone() };
                    self.bearings.hold(flight.bearing);
                    self.put_back(now, Flight { delivery, bearing: flight.bearing });
                }
                if !planted(Bug::DeliveredNotSettled) {
                    self.settle(flight.delivery, vec![outcome], strict);
                }
                self.let_go(now, flight.bearing);
            }
            Attempt::Mixed(results) => {
                self.note_answer(slot);
                let strict = self.strict(slot);
                self.settle_mixed(now, flight, &results, strict);
            }
            // Its connection is gone or going: more work would only come back as well.
            Attempt::NotTried => {
                self.mark(slot, |lease| lease.returned += 1);
                self.end_willingness(slot);
                if planted(Bug::UntriedForgotten) {
                    return self.let_go(now, flight.bearing);
                }
                self.put_back(now, flight);
            }
            Attempt::Throttled(reply) => {
                self.mark(slot, |lease| lease.answered += 1);
                self.end_willingness(slot);
                self.put_back(now, flight);
                self.complain(now, number, Trouble::Throttled, reply);
            }
            Attempt::Unreadable => self.set_aside(now, flight),
        }
    }

    fn judge_end(&mut self, now: Now, number: u32, lease: &Lease, why: LeaseEnd) {
        match why {
            LeaseEnd::Unreachable(reply) => self.blame(now, number, reply),
            LeaseEnd::TurnedAway(reply) => {
                self.complain(now, number, Trouble::Throttled, reply);
            }
            LeaseEnd::Local(reply) => {
                self.complain(now, number, Trouble::Local, reply);
            }
            LeaseEnd::Finished if lease.is_fruitless() && !self.stopping => {
                let text = "connection ended before anything was delivered";
                self.blame(now, number, Reply::local(451, Enhanced(4, 4, 2), text));
            }
            LeaseEnd::Finished => {}
        }
    }

    /// The site does not do its work: it is left alone for a while, and the delivery in front pays
    /// one attempt, so that each probe moves one message's own clock and shows its reason.
    fn blame(&mut self, now: Now, number: u32, reply: Reply) {
        if !self.complain(now, number, Trouble::Unreachable, reply.clone()) {
            return;
        }
        let site = &self.sites[number];
        let front = self.oldest_lane(site).and_then(|lane| site.peek(lane).ready.front());
        if let Some(id) = front {
            let flight = self.remove(now, id);
            self.charge(now, flight, reply);
        }
    }

    /// Closes the gate; `false` if it was closed already.
    fn complain(&mut self, now: Now, number: u32, cause: Trouble, reply: Reply) -> bool {
        let site = &mut self.sites[number];
        let Some(closed) = site.gate.close(now.mono, cause, &site.pace.settings) else {
            site.last_reply = Some(reply);
            return false;
        };
        let Gate::Closed { until, .. } = closed else { return false };
        if site.gate == Gate::Open && cause != Trouble::Local {
            self.actions.push_back(Action::Report(Fact::SiteClosed {
                site: site.key.name().into(),
                cause: reply.to_string().into(),
                seconds: until.since(now.mono).as_secs(),
            }));
        }
        site.gate = closed;
        site.last_reply = Some(reply);
        self.arm(number, Kind::Gate, until);
        true
    }

    pub(super) fn open_gate(&mut self, number: u32) {
        let site = &mut self.sites[number];
        site.gate = site.gate.after_wait();
    }

    /// The site said something about a delivery. While the gate is closed that proves nothing: it
    /// belongs to the time before.
    fn note_answer(&mut self, slot: u32) {
        self.mark(slot, |lease| lease.answered += 1);
        let lease = &self.leases[slot];
        let site = &mut self.sites[lease.site];
        site.lane(lease.shard).executed += 1;
        if let Gate::Probing { .. } = site.gate {
            site.gate = Gate::Open;
            let site = site.key.name().into();
            self.actions.push_back(Action::Report(Fact::SiteOpened { site }));
        }
    }

    /// One attempt of the message's own has failed for all its recipients here.
    pub(super) fn charge(&mut self, now: Now, mut flight: Flight, reply: Reply) {
        flight.delivery.attempts = flight.delivery.attempts.saturating_add(1);
        let delivery = flight.delivery.clone();
        let outcome = self.try_later(now, flight, reply);
        let outcome = whole(&delivery, delivery.attempts, outcome);
        self.settle(delivery, vec![outcome], None);
    }

    /// Defers, or fails what has no time left. Lets go of the bearing in the latter case.
    fn try_later(&mut self, now: Now, mut flight: Flight, reply: Reply) -> Outcome {
        let expires = self.expires_at(&flight.delivery, flight.bearing);
        if expires <= now.wall {
            self.let_go(now, flight.bearing);
            return Outcome::Failed { reply: expired(Some(&reply)) };
        }
        flight.delivery.record = None;
        let due = self.defer(now, flight);
        Outcome::Deferred { reply, next: now.wall_at(due).min(expires) }
    }

    fn settle_mixed(
        &mut self,
        now: Now,
        flight: Flight,
        results: &[RecipientResult],
        strict: Strict,
    ) {
        let Flight { mut delivery, bearing } = flight;
        let told = results.iter().map(|result| result.recipient);
        assert!(told.eq(delivery.recipients()), "a mixed result covers its delivery, in order");
        delivery.attempts = delivery.attempts.saturating_add(1);
        let mut outcomes = Vec::with_capacity(1);
        for run in results.chunk_by(|one, other| one.class == other.class) {
            match run[0].class {
                Class::Delivered => {
                    each_reply(&delivery, run, &mut outcomes, |reply| Outcome::Delivered { reply })
                }
                Class::Failed => {
                    each_reply(&delivery, run, &mut outcomes, |reply| Outcome::Failed { reply });
                }
                Class::Deferred => self.defer_run(now, (&delivery, bearing), run, &mut outcomes),
            }
        }
        self.settle(delivery, outcomes, strict);
        self.let_go(now, bearing);
    }

    /// One new delivery for a run of deferred recipients.
    fn defer_run(
        &mut self,
        now: Now,
        (delivery, bearing): (&Delivery, u32),
        run: &[RecipientResult],
        outcomes: &mut Vec<RangeOutcome>,
    ) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let count = last.recipient - first.recipient + 1;
        let part = Delivery { first: first.recipient, count, record: None, ..delivery.clone() };
        let number = self.bearings[bearing].site;
        self.sites[number].last_reply = Some(last.reply.clone());
        self.bearings.hold(bearing);
        let outcome = self.try_later(now, Flight { delivery: part, bearing }, last.reply.clone());
        each_reply(delivery, run, outcomes, |reply| match &outcome {
            Outcome::Deferred { next, .. } => Outcome::Deferred { reply, next: *next },
            _ => Outcome::Failed { reply: expired(Some(&reply)) },
        });
    }

    /// The record cannot be read: nothing is said about its recipients, it stays in the spool.
    fn set_aside(&mut self, now: Now, flight: Flight) {
        self.actions.push_back(Action::Report(Fact::MessageSetAside {
            message: flight.delivery.message.to_string().into(),
            cause: "its record could not be read for delivery".into(),
        }));
        self.let_go(now, flight.bearing);
    }

    /// Sends outcomes home; failures take the record along, a DSN may have to quote it.
    pub(super) fn settle(
        &mut self,
        delivery: Delivery,
        outcomes: Vec<RangeOutcome>,
        strict: Strict,
    ) {
        self.settle_in(Words::Given, delivery, outcomes, strict);
    }

    pub(super) fn settle_in(
        &mut self,
        words: Words,
        delivery: Delivery,
        outcomes: Vec<RangeOutcome>,
        strict: Strict,
    ) {
        let failed = |one: &RangeOutcome| matches!(one.outcome, Outcome::Failed { .. });
        let record = delivery.record.filter(|_| outcomes.iter().any(failed));
        let settlement = Settlement {
            message: delivery.message,
            place: delivery.place,
            outcomes,
            strict,
            record: record.map(|record| (record.block, record.at)),
            words,
        };
        self.actions.push_back(Action::Settle { home: delivery.home, settlement });
    }

    /// Notes something about a lease; its site knows how many are fruitless.
    fn mark(&mut self, slot: u32, change: impl FnOnce(&mut Lease)) {
        let lease = &mut self.leases[slot];
        let site = &mut self.sites[lease.site];
        site.fruitless -= u32::from(lease.is_fruitless());
        change(lease);
        site.fruitless += u32::from(lease.is_fruitless());
    }

    fn land(&mut self, number: u32) {
        self.sites[number].in_flight -= 1;
        self.in_flight -= 1;
    }

    fn strict(&self, slot: u32) -> Strict {
        let lease = &self.leases[slot];
        (self.durability == OutcomeDurability::Strict).then_some((lease.shard, lease.id))
    }
}

/// An outcome of all recipients of a delivery.
pub(super) fn whole(delivery: &Delivery, attempts: u16, outcome: Outcome) -> RangeOutcome {
    RangeOutcome { first: delivery.first, count: delivery.count, attempts, outcome }
}

/// One outcome for each run of equal replies.
fn each_reply(
    delivery: &Delivery,
    run: &[RecipientResult],
    outcomes: &mut Vec<RangeOutcome>,
    outcome: impl Fn(Reply) -> Outcome,
) {
    for same in run.chunk_by(|one, other| one.reply == other.reply) {
        let (first, last) = (same[0].recipient, same[same.len() - 1].recipient);
        outcomes.push(RangeOutcome {
            first,
            count: last - first + 1,
            attempts: delivery.attempts,
            outcome: outcome(same[0].reply.clone()),
        });
    }
}
