//! Parting: politely or at once, and what must be waited for before the permit is free.

use std::time::Duration;

use super::{Next, PERMIT_QUARANTINE, Phase, Security, Session};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::egress::exchange::Break;
use crate::egress::order::Order;
use crate::model::connection::Close;
use crate::model::note::{Cause, LeaseEnd, Trouble};
use crate::model::outcome::Reply;

impl Session {
    pub(super) fn quit(&mut self, now: Now) {
        self.exchange.give_back(&mut self.out);
        self.out.send(b"QUIT\r\n");
        self.phase = Phase::Quitting;
        self.deadline = now.mono.plus(self.timeouts().quit);
    }

    pub(super) fn handle_break(&mut self, why: Break, now: Now) {
        match why {
            Break::OutOfStep(reply) => {
                self.break_off(self.out_of_step(&format!("unexpected reply: {reply}")), now);
            }
            Break::TurnedDown(word) => {
                let is_first_word = self.exchange.is_at_rest() && !self.exchange.has_completed();
                let (cause, reply) = (word.cause, word.reply.clone());
                self.exchange.turn_down(word, &mut self.out);
                let end = if is_first_word {
                    LeaseEnd::TurnedAway(self.open_trouble(cause, reply))
                } else {
                    LeaseEnd::Finished
                };
                self.close(Close::Graceful, Next::Finish(end), now);
            }
            Break::Unreadable => {
                self.exchange.set_front_aside(&mut self.out);
                self.close(Close::Abort, Next::Finish(LeaseEnd::Finished), now);
            }
        }
    }

    /// The conversation cannot go on: closes at once.
    pub(super) fn break_off(&mut self, reply: Reply, now: Now) {
        let next = match self.phase {
            Phase::Opening(_) | Phase::Securing => {
                let trouble = self.site_trouble(reply);
                self.remember(LeaseEnd::Unreachable(trouble));
                self.itinerary.skip_host();
                Next::Another
            }
            Phase::Open => Next::Finish(self.fail_work(reply)),
            Phase::Quitting => Next::Finish(LeaseEnd::Finished),
            _ => return,
        };
        self.close(Close::Abort, next, now);
    }

    /// What became of the work, and what to tell of the site: a host that never answered a whole
    /// transaction is as good as unreachable.
    pub(super) fn fail_work(&mut self, reply: Reply) -> LeaseEnd {
        if self.exchange.is_at_rest() || self.exchange.has_completed() {
            self.exchange.fail(reply, &mut self.out);
            return LeaseEnd::Finished;
        }
        self.exchange.fail(reply.clone(), &mut self.out);
        LeaseEnd::Unreachable(self.open_trouble(Cause::Site, reply))
    }

    /// Trouble on an open connection: its deliveries were reported before.
    fn open_trouble(&mut self, cause: Cause, reply: Reply) -> Box<Trouble> {
        self.phases = self.exchange.take_untold();
        self.trouble(cause, reply)
    }

    pub(super) fn close(&mut self, how: Close, next: Next, now: Now) {
        self.out.push(Order::Close(how));
        if planted(Bug::PermitFreeEarly) {
            return self.go_on(next, now);
        }
        self.phase = Phase::Closing(next);
        self.deadline = match how {
            Close::Graceful => now.mono.plus(self.timeouts().quit),
            Close::Abort => Mono::NEVER,
        };
    }

    pub(super) fn rest(&mut self, next: Next, now: Now) {
        self.phase = Phase::Resting(next);
        let quarantine =
            if planted(Bug::NoQuarantine) { Duration::ZERO } else { PERMIT_QUARANTINE };
        self.deadline = now.mono.plus(quarantine);
    }

    /// The peer no longer counts a connection of ours.
    pub(super) fn go_on(&mut self, next: Next, now: Now) {
        self.deadline = Mono::NEVER;
        match (next, self.itinerary.current()) {
            (Next::InClear, Some(hop)) => {
                self.security = Security::Failed;
                self.connect(hop, now);
            }
            (Next::Another | Next::InClear, _) => self.try_another(now),
            (Next::Finish(end), _) => {
                self.phase = Phase::Over;
                self.exchange.give_back(&mut self.out);
                self.out.push(Order::Ended(end));
            }
        }
    }
}
