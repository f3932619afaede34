//! Finishing: what is reported of a transaction, by whatever way it ended.

use super::Exchange;
use crate::base::planted::{Bug, planted};
use crate::egress::letter::Letter;
use crate::egress::order::{Order, Outbox};
use crate::egress::transaction::Transaction;
use crate::egress::verdict::Verdict;
use crate::model::delivery::Delivery;
use crate::model::note::{Attempt, Done};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::settings::OutcomeDurability;

impl Exchange {
    /// The host asked to slow down: no attempt of any message.
    pub(in crate::egress) fn turn_down(&mut self, reply: Reply, out: &mut Outbox) {
        self.expected.clear();
        if self.work.front().is_some_and(Transaction::is_started)
            && let Some(front) = self.work.pop_front()
        {
            done(&front.letter, Attempt::Throttled(reply), out);
        }
        self.give_back(out);
    }

    /// The connection is lost. The front transaction had its attempt, since the host may even
    /// have taken it; except where a connection that served before ended without a word about
    /// this one: hosts close idle connections while we begin to write.
    pub(in crate::egress) fn fail(&mut self, reply: Reply, out: &mut Outbox) {
        self.expected.clear();
        let had_its_turn =
            |front: &Transaction| front.is_started() && (front.heard > 0 || self.completed == 0);
        if planted(Bug::LossTakenForDelivery) && self.work.front().is_some_and(Transaction::is_sent)
        {
            return self.finish_front(Verdict::Accepted, reply, out);
        }
        if self.work.front().is_some_and(had_its_turn) {
            self.finish_front(Verdict::SiteTrouble, reply, out);
        }
        self.give_back(out);
    }

    /// The front message cannot be read to its end.
    pub(in crate::egress) fn set_front_aside(&mut self, out: &mut Outbox) {
        self.expected.clear();
        self.set_aside(0, out);
        self.give_back(out);
    }

    /// Hands everything back untried.
    pub(in crate::egress) fn give_back(&mut self, out: &mut Outbox) {
        for transaction in self.work.drain(..) {
            done(&transaction.letter, Attempt::NotTried, out);
        }
    }

    pub(super) fn set_aside(&mut self, at: usize, out: &mut Outbox) {
        if let Some(transaction) = self.work.remove(at) {
            done(&transaction.letter, Attempt::Unreadable, out);
        }
    }

    pub(super) fn finish_front(&mut self, verdict: Verdict, reply: Reply, out: &mut Outbox) {
        if verdict != Verdict::SiteTrouble {
            self.completed += 1;
        }
        self.finish(0, verdict, reply, out);
    }

    /// Every recipient has its own refusal already; the reply given here is never used.
    pub(super) fn finish_refused(&mut self, at: usize, out: &mut Outbox) {
        self.completed += 1;
        let reply = Reply::local(554, Enhanced(5, 5, 1), "no recipient was accepted");
        self.finish(at, Verdict::Failed, reply, out);
    }

    pub(super) fn finish(&mut self, at: usize, verdict: Verdict, reply: Reply, out: &mut Outbox) {
        let Some(transaction) = self.work.remove(at) else { return };
        let Delivery { message, first, .. } = transaction.letter.delivery;
        let result = transaction.conclude(verdict, reply);
        let is_outcome = matches!(result, Attempt::Delivered(_) | Attempt::Mixed(_));
        if is_outcome && self.outcomes == OutcomeDurability::Strict {
            self.unsettled += 1;
        }
        out.push(Order::Done(Done { message, first, result }));
    }
}

fn done(letter: &Letter, result: Attempt, out: &mut Outbox) {
    out.push(Order::Done(Done::new(&letter.delivery, result)));
}
