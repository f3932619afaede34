//! Talking: letters go out and replies come in, each within its deadline.

use super::{Next, Owner, Phase, Session};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::egress::exchange::{Await, Break};
use crate::egress::transaction::Word;
use crate::egress::verdict::{Stage, Verdict, judge};
use crate::model::connection::Close;
use crate::model::note::LeaseEnd;

impl Session {
    pub(super) fn is_talking(&self) -> bool {
        matches!(self.phase, Phase::Opening(_) | Phase::Open | Phase::Quitting)
    }

    pub(super) fn replies_owed(&self) -> usize {
        match self.phase {
            Phase::Opening(_) | Phase::Quitting => 1,
            Phase::Open => self.exchange.expected_count(),
            _ => 0,
        }
    }

    pub(super) fn handle_reply(&mut self, is_last: bool, now: Now) {
        match self.phase {
            Phase::Opening(opener) => self.handle_opener(opener, is_last, now),
            Phase::Open => match self.exchange.handle_reply(&self.reader, now, &mut self.out) {
                Ok(()) => self.carry_on(now),
                Err(why) => self.handle_break(why, now),
            },
            Phase::Quitting => {
                self.close(Close::Graceful, Next::Finish(LeaseEnd::Finished), now);
            }
            _ => {}
        }
    }

    /// A reply to nothing we said: a parting 421 is in order, anything else is not.
    pub(super) fn handle_unasked(&mut self, now: Now) {
        if self.reader.code() != 421 {
            return self.break_off(self.out_of_step("a reply to nothing we said"), now);
        }
        match self.phase {
            Phase::Opening(opener) => self.handle_turned_away(opener, now),
            Phase::Open => {
                let reply = self.reader.to_reply();
                let (_, cause) = judge(Stage::Mail, &reply);
                let word = Word { verdict: Verdict::Throttled, cause, reply };
                self.handle_break(Break::TurnedDown(word), now);
            }
            _ => self.close(Close::Graceful, Next::Finish(LeaseEnd::Finished), now),
        }
    }

    /// Writes what can be written, and parts when there is nothing left to do.
    pub(super) fn carry_on(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if self.exchange.is_at_rest() && self.reader.is_mid_reply() && !self.exchange.is_empty() {
            return self.break_off(self.out_of_step("input before a command"), now);
        }
        self.exchange.pump(now, &mut self.out);
        let is_done = self.owner == Owner::IsDone && self.exchange.is_empty();
        if self.exchange.is_at_rest() && (is_done || self.exchange.is_spent()) {
            return self.quit(now);
        }
        self.set_deadline(now);
    }

    /// A total deadline for each thing awaited: bytes that trickle in do not move it.
    fn set_deadline(&mut self, now: Now) {
        let awaited = self.exchange.awaited();
        if awaited == self.awaited {
            return;
        }
        self.awaited = awaited;
        let timeouts = self.timeouts();
        self.deadline = match awaited.what {
            _ if planted(Bug::NoDeadline) => Mono::NEVER,
            Await::Nothing => Mono::NEVER,
            Await::Command => now.mono.plus(timeouts.command),
            Await::Data => now.mono.plus(timeouts.data),
            Await::Body => now.mono.plus(timeouts.body),
            Await::Dot => now.mono.plus(timeouts.dot),
        };
    }

    /// A deadline passed while mail was under way.
    pub(super) fn handle_late(&mut self, now: Now) {
        if self.exchange.is_held_by_us() {
            self.exchange.give_back(&mut self.out);
            return self.close(Close::Abort, Next::Finish(LeaseEnd::Finished), now);
        }
        let what = match self.awaited.what {
            Await::Nothing | Await::Command => "no reply to a command in time",
            Await::Data => "no reply to DATA in time",
            Await::Body => "the message was not taken in time",
            Await::Dot => "no reply to the message in time",
        };
        self.break_off(self.unanswered(what), now);
    }
}
