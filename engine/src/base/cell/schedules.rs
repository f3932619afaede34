//! Many shards on one thread, as the simulator drives them: grants are delivered at any later step.

use proptest::prelude::*;

use crate::base::cell::{Answer, Grant, Permit, PermitsCell};

const SHARDS: u16 = 70;

#[derive(Clone, Debug)]
enum Step {
    Acquire(u16),
    Release(prop::sample::Index),
    Deliver(prop::sample::Index),
    Decline(prop::sample::Index),
    Cap(u32),
}

/// All shards as lists: who is parked, what is held, what is on its way.
struct Shards {
    cell: PermitsCell,
    parked: Vec<u16>,
    held: Vec<Permit>,
    under_way: Vec<Grant>,
    most: u32,
}

impl Shards {
    fn step(&mut self, step: Step) {
        match step {
            Step::Acquire(shard) if !self.parked.contains(&shard) => {
                let answer = self.cell.acquire(shard);
                self.settle(shard, answer);
            }
            Step::Release(at) if !self.held.is_empty() => {
                let permit = self.held.swap_remove(at.index(self.held.len()));
                self.under_way.extend(self.cell.release(permit));
            }
            Step::Deliver(at) if !self.under_way.is_empty() => {
                let grant = self.under_way.swap_remove(at.index(self.under_way.len()));
                self.parked.retain(|shard| *shard != grant.to);
                let to = grant.to;
                let answer = self.cell.accept(grant);
                self.settle(to, answer);
            }
            Step::Decline(at) if !self.under_way.is_empty() => {
                let grant = self.under_way.swap_remove(at.index(self.under_way.len()));
                self.parked.retain(|shard| *shard != grant.to);
                self.under_way.extend(self.cell.decline(grant));
            }
            Step::Cap(cap) => {
                self.under_way.extend(self.cell.set_cap(Some(cap)));
                self.most = cap.max(self.cell.in_use());
            }
            _ => (),
        }
    }

    fn settle(&mut self, shard: u16, answer: Answer) {
        match answer {
            Answer::Taken(permit) => self.held.push(permit),
            Answer::Parked => self.parked.push(shard),
        }
    }

    fn check(&mut self) {
        let counted = self.held.len() + self.under_way.len();
        assert_eq!(self.cell.in_use() as usize, counted);
        assert!(self.cell.in_use() <= self.most, "more than since the cap was last set");
        // What was above a cut may only become less.
        self.most = self.most.min(self.cell.in_use().max(self.cell.cap().unwrap_or(u32::MAX)));
        assert!(!self.cell.is_stuck());
        assert_eq!(self.cell.waiting() as usize + self.under_way.len(), self.parked.len());
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SHARDS).prop_map(Step::Acquire),
        3 => any::<prop::sample::Index>().prop_map(Step::Release),
        3 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        1 => any::<prop::sample::Index>().prop_map(Step::Decline),
        1 => (0..6_u32).prop_map(Step::Cap),
    ]
}

proptest! {
    #[test]
    fn no_order_of_steps_loses_a_permit_or_a_shard(
        steps in prop::collection::vec(any_step(), 1..400),
    ) {
        let cell = PermitsCell::new(SHARDS, Some(3));
        let (parked, held, under_way) = Default::default();
        let mut shards = Shards { cell, parked, held, under_way, most: 3 };
        for step in steps {
            shards.step(step);
            shards.check();
        }
    }
}
