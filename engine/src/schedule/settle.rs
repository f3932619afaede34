//! What a reply means for a delivery and for its message: outcomes on their way to the spool.

use std::sync::Arc;

use super::expiry::expired;
use super::permit::Flight;
use super::sweep::cancelled;
use super::{Action, Scheduler};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::note::{Cause, Class, RecipientResult, Settlement, Words};
use crate::model::outcome::{Outcome, RangeOutcome, Reply};
use crate::model::settings::OutcomeDurability;
use crate::shard::Fact;

/// Who waits for the settlement.
type Strict = Option<(ShardId, LeaseId)>;

impl Scheduler {
    /// One attempt of the message's own has failed for all its recipients here.
    pub(super) fn charge(&mut self, now: Now, mut flight: Flight, reply: Reply) {
        flight.delivery.attempts = flight.delivery.attempts.saturating_add(1);
        let delivery = flight.delivery.clone();
        let outcome = self.try_later(now, flight, reply);
        let outcome = whole(&delivery, delivery.attempts, outcome);
        self.settle(delivery, vec![outcome], None);
    }

    /// Defers, or fails what has no time left. Lets go of the course in the latter case.
    fn try_later(&mut self, now: Now, mut flight: Flight, reply: Reply) -> Outcome {
        if self.courses[flight.course].is_cancelled {
            self.let_go(now, flight.course);
            return cancelled();
        }
        let expires = self.expires_at(&flight.delivery, flight.course);
        if expires <= now.wall {
            self.let_go(now, flight.course);
            return Outcome::Failed { reply: expired(Some(&reply)) };
        }
        flight.delivery.record = None;
        let due = self.defer(now, flight);
        Outcome::Deferred { reply, next: now.wall_at(due).min(expires) }
    }

    pub(super) fn settle_mixed(
        &mut self,
        now: Now,
        flight: Flight,
        results: &[RecipientResult],
        strict: Strict,
    ) {
        let Flight { mut delivery, course, .. } = flight;
        let told = results.iter().map(|result| result.recipient);
        assert!(told.eq(delivery.recipients()), "a mixed result covers its delivery, in order");
        delivery.attempts = delivery.attempts.saturating_add(1);
        let mut outcomes = Vec::with_capacity(1);
        let is_throttled = |result: &RecipientResult| {
            result.class == Class::Deferred && result.cause == Cause::Throttle
        };
        let fate = |result: &RecipientResult| (result.class, is_throttled(result));
        for run in results.chunk_by(|one, other| fate(one) == fate(other)) {
            match run[0].class {
                _ if is_throttled(&run[0]) => self.put_run_back(now, (&delivery, course), run),
                Class::Delivered => {
                    each_reply(&delivery, run, &mut outcomes, |reply| Outcome::Delivered { reply })
                }
                Class::Failed => {
                    each_reply(&delivery, run, &mut outcomes, |reply| Outcome::Failed { reply });
                }
                Class::Deferred => self.defer_run(now, (&delivery, course), run, &mut outcomes),
            }
        }
        self.settle(delivery, outcomes, strict);
        self.let_go(now, course);
    }

    /// One new delivery for a run of recipients that the site had no time for: no attempt.
    fn put_run_back(
        &mut self,
        now: Now,
        (delivery, course): (&Delivery, u32),
        run: &[RecipientResult],
    ) {
        let (first, last) = (run[0].recipient, run[run.len() - 1].recipient);
        let attempts = delivery.attempts.saturating_sub(1);
        let part = Delivery { first, count: last - first + 1, attempts, ..delivery.clone() };
        self.courses.hold(course);
        self.put_back(now, Flight::new(part, course));
    }

    /// One new delivery for a run of deferred recipients.
    fn defer_run(
        &mut self,
        now: Now,
        (delivery, course): (&Delivery, u32),
        run: &[RecipientResult],
        outcomes: &mut Vec<RangeOutcome>,
    ) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let count = last.recipient - first.recipient + 1;
        let part = Delivery { first: first.recipient, count, record: None, ..delivery.clone() };
        let number = self.courses[course].site;
        self.sites[number].last_reply = Some(Arc::new(last.reply.clone()));
        self.courses.hold(course);
        let outcome = self.try_later(now, Flight::new(part, course), last.reply.clone());
        each_reply(delivery, run, outcomes, |reply| match &outcome {
            Outcome::Deferred { next, .. } => Outcome::Deferred { reply, next: *next },
            Outcome::Cancelled { .. } => cancelled(),
            _ => Outcome::Failed { reply: expired(Some(&reply)) },
        });
    }

    /// The record cannot be read: nothing is said about its recipients, it stays in the spool.
    pub(super) fn set_aside(&mut self, now: Now, flight: Flight) {
        self.actions.push_back(Action::Report(Fact::MessageSetAside {
            message: flight.delivery.message.to_string().into(),
            cause: "its record could not be read for delivery".into(),
        }));
        self.let_go(now, flight.course);
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

    pub(super) fn strict(&self, slot: u32) -> Strict {
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
