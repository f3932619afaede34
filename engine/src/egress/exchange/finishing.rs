//! Finishing: what is reported of a transaction, by whatever way it ended.

use super::Exchange;
use crate::base::planted::{Bug, planted};
use crate::egress::order::{Order, Outbox};
use crate::egress::transaction::{Transaction, Word};
use crate::egress::verdict::Verdict;
use crate::model::note::{Attempt, Cause, Done, Phases};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::settings::OutcomeDurability;

impl Exchange {
    /// The host asked to slow down and closes. What it had said about recipients stands; nothing
    /// else is an attempt of any message.
    pub(in crate::egress) fn turn_down(&mut self, word: Word, out: &mut Outbox) {
        self.expected.clear();
        if self.front().is_some_and(Transaction::is_started) {
            self.finish(0, word, out);
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
        if planted(Bug::LossTakenForDelivery) && self.front().is_some_and(Transaction::is_sent) {
            let word = Word { verdict: Verdict::Accepted, cause: Cause::None, reply };
            return self.finish_front(word, out);
        }
        if self.front().is_some_and(had_its_turn) {
            self.finish_front(Word::of_trouble(reply), out);
        } else if self.front().is_some_and(Transaction::is_sent) {
            // As one chunk, with no word before it.
            self.give_back_front(Attempt::Unheard, out);
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
            let delivery = &transaction.letter.delivery;
            out.push(Order::Done(self.connection.done(delivery, Attempt::NotTried)));
        }
    }

    fn give_back_front(&mut self, result: Attempt, out: &mut Outbox) {
        if let Some(front) = self.take(0) {
            out.push(Order::Done(self.connection.done(&front.letter.delivery, result)));
        }
    }

    pub(super) fn set_aside(&mut self, at: usize, out: &mut Outbox) {
        if let Some(transaction) = self.take(at) {
            let delivery = &transaction.letter.delivery;
            out.push(Order::Done(self.connection.done(delivery, Attempt::Unreadable)));
        }
    }

    pub(super) fn finish_front(&mut self, word: Word, out: &mut Outbox) {
        if word.verdict != Verdict::SiteTrouble {
            self.completed += 1;
        }
        self.finish(0, word, out);
    }

    /// Every recipient has its own refusal already; the reply given here is never used.
    pub(super) fn finish_refused(&mut self, at: usize, out: &mut Outbox) {
        self.completed += 1;
        let reply = Reply::local(554, Enhanced(5, 5, 1), "no recipient was accepted");
        self.finish(at, Word { verdict: Verdict::Failed, cause: Cause::Recipient, reply }, out);
    }

    pub(super) fn finish(&mut self, at: usize, word: Word, out: &mut Outbox) {
        let Some(transaction) = self.take(at) else { return };
        let done = self.connection.done(&transaction.letter.delivery, Attempt::NotTried);
        let Phases { mail, rcpt, data, dot, .. } = transaction.phases;
        let accepted_first = transaction.accepted_first;
        let result = transaction.conclude(word);
        let is_outcome = matches!(result, Attempt::Delivered(_) | Attempt::Mixed { .. });
        if is_outcome && self.outcomes == OutcomeDurability::Strict {
            self.unsettled += 1;
        }
        let phases = Phases { mail, rcpt, data, dot, ..done.phases };
        out.push(Order::Done(Done { result, phases, accepted_first, ..done }));
    }
}
