//! An operator at work: orders on their way to the shards, and the answers.

use postrider_engine::model::admin::{Answer, Query, Reach, Steer, Verb};
use postrider_engine::shard::{AskedId, Event};

use super::World;
use crate::sim::agenda::{Due, Fault};
use crate::sim::checkers::{Seen, Violation};
use crate::sim::clock::{MS, SECOND};
use crate::sim::net::Word;
use crate::sim::orders::{Course, Order};

impl World {
    pub(super) fn plan_orders(&mut self, begin: u64) {
        for _ in 0..self.options.orders {
            let chance = &mut self.orders.chance;
            let trouble_for = self.options.trouble_for;
            let soon = chance.one_in(2);
            let after =
                if soon { chance.skewed(MS, trouble_for) } else { chance.between(MS, trouble_for) };
            let at = begin + after;
            self.agenda.add(at, Due::Fault(Fault::Order));
        }
    }

    /// An operator orders something.
    pub(super) fn order(&mut self) -> Result<(), Violation> {
        let (verb, reach, lasts) = self.orders.draw();
        self.give_order(verb, reach, lasts)
    }

    fn give_order(
        &mut self,
        verb: Verb,
        reach: Reach,
        lasts: Option<std::time::Duration>,
    ) -> Result<(), Violation> {
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.stop_by.is_none()) else {
            return Ok(());
        };
        let (run, shards) = (engine.run, engine.cores.len());
        // Two orders about the same at once would come to shards in any order.
        if self.orders.is_about(run, &reach) {
            return Ok(());
        }
        let number = self.orders.given.len();
        let order = number as u64 + 1;
        self.trace.say(self.clock.at, || format!("order {order}: {verb:?} {reach} {lasts:?}"));
        let reason = Box::default();
        let steer = Steer { verb, reach: reach.clone(), dry_run: false, order, lasts, reason };
        let at = self.clock.at;
        self.orders.given.push(Order { run, at, steer, course: Course::Given { answered: 0 } });
        for shard in 0..shards {
            let soon = self.clock.at + self.orders.chance.skewed(1, 20 * MS);
            self.agenda.add(soon, Due::Order { run, shard, order: number });
        }
        if verb == Verb::Hold && lasts.is_none() && !self.orders.held.contains(&reach) {
            self.orders.held.push(reach);
        }
        let Self { checkers, ledger, orders, .. } = self;
        checkers.see(ledger, &Seen::Ordered { order: &orders.given[number] })
    }

    pub(super) fn order_arrives(&mut self, run: u32, shard: usize, order: usize) {
        let asked = AskedId(u32::try_from(order).unwrap_or(u32::MAX));
        let query = Box::new(Query::Steer(self.orders.given[order].steer.clone()));
        self.tell(run, shard, Word::Whole(Event::Asked { asked, query }));
    }

    /// A shard answers.
    pub(super) fn order_answered(
        &mut self,
        asked: AskedId,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let shards = engine.cores.len();
        let number = usize::try_from(asked.0).unwrap_or(usize::MAX);
        let Some(order) = self.orders.given.get_mut(number) else { return Ok(()) };
        let (Answer::Steered(steered), Course::Given { answered }) = (answer, order.course) else {
            return Ok(());
        };
        let is_good = steered.refused.is_none() && steered.not_kept.is_none();
        order.course = match answered + 1 {
            _ if !is_good => Course::Void,
            all if all == shards => Course::Kept,
            answered => Course::Given { answered },
        };
        self.trace.say(self.clock.at, || format!("order {}: {steered:?}", number + 1));
        self.order_ended(number)
    }

    fn order_ended(&mut self, number: usize) -> Result<(), Violation> {
        let order = &self.orders.given[number];
        if matches!(order.course, Course::Given { .. }) {
            return Ok(());
        }
        let Steer { verb, reach, .. } = &order.steer;
        if order.course == Course::Kept && *verb == Verb::Release {
            let reach = reach.clone();
            self.orders.held.retain(|held| *held != reach);
        }
        let Self { checkers, ledger, orders, clock, .. } = self;
        let (order, at) = (&orders.given[number], clock.at);
        checkers.see(ledger, &Seen::OrderEnded { order, at })
    }

    /// The run is over: what was not answered by then never will be.
    pub(super) fn void_orders(&mut self) -> Result<(), Violation> {
        for number in 0..self.orders.given.len() {
            if matches!(self.orders.given[number].course, Course::Given { .. }) {
                self.orders.given[number].course = Course::Void;
                self.order_ended(number)?;
            }
        }
        Ok(())
    }

    /// In the calm, all that is held is let go; whether nothing is.
    pub(super) fn release_all(&mut self) -> Result<bool, Violation> {
        if self.orders.is_under_way(self.run) {
            return Ok(false);
        }
        let held = self.orders.held.clone();
        let is_free = held.is_empty();
        for reach in held {
            self.give_order(Verb::Release, reach, None)?;
        }
        if !is_free {
            self.look_every = self.look_every.min(10 * SECOND);
        }
        Ok(is_free)
    }
}
