//! What operators order in a world: holds, releases, cancels, and which of them were answered.

use std::time::Duration;

use postrider_engine::model::admin::{Reach, Steer, Verb};

use super::chance::{Chance, Stream};
use super::clock::{MINUTE, SECOND};

/// Seeds below have none, so that they stay the worlds they were when recorded.
pub const ORDERS_FROM: u64 = 500_000;

/// Whose mail clients say theirs is.
const TENANTS: [&str; 4] = ["", "acme", "small", "a b"];

/// How many orders there are in a world.
#[must_use]
pub fn draw(seed: u64) -> u64 {
    if seed < ORDERS_FROM {
        return 0;
    }
    let chance = &mut Chance::new(seed, Stream::Orders);
    if chance.one_in(2) { 0 } else { chance.skewed(1, 8) }
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Under way, answered by so many shards.
    Given { answered: usize },
    /// Every shard has answered, and it is on disk.
    Kept,
    /// Refused, or not written down, or the run ended before it was answered.
    Void,
}

/// One order.
#[derive(Debug)]
pub struct Order {
    pub run: u32,
    /// When it was given.
    pub at: u64,
    pub steer: Steer,
    pub course: Course,
}

/// All of a world.
#[derive(Debug)]
pub struct Orders {
    pub given: Vec<Order>,
    pub chance: Chance,
    /// Holds without an end that may be in force.
    pub held: Vec<Reach>,
}

impl Orders {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            given: Vec::new(),
            chance: Chance::new(seed, Stream::OrdersCourse),
            held: Vec::new(),
        }
    }

    /// Something that an operator may order.
    pub fn draw(&mut self) -> (Verb, Reach, Option<Duration>) {
        let chance = &mut self.chance;
        let tenant: Box<str> = (*chance.pick(&TENANTS)).into();
        match chance.below(6) {
            // Reports are of no campaign, so it is tenants whose mail is cancelled.
            0 => (Verb::Cancel, Reach::Tenant(tenant), None),
            1 => (Verb::Cancel, Reach::All, None),
            2 if !self.held.is_empty() => {
                let reach = chance.pick(&self.held).clone();
                (Verb::Release, reach, None)
            }
            kind => {
                let reach = match chance.below(2) {
                    0 => Reach::Tenant(tenant),
                    _ => {
                        let campaign = (*chance.pick(&["", "spring"])).into();
                        Reach::Campaign { tenant, campaign }
                    }
                };
                let lasts = Duration::from_nanos(chance.skewed(SECOND, 10 * MINUTE));
                (Verb::Hold, reach, (kind == 3).then_some(lasts))
            }
        }
    }

    /// Whether one about this is under way.
    #[must_use]
    pub fn is_about(&self, run: u32, reach: &Reach) -> bool {
        let is_open =
            |order: &&Order| order.run == run && matches!(order.course, Course::Given { .. });
        self.given.iter().filter(is_open).any(|order| order.steer.reach == *reach)
    }

    /// Whether it may be that one is being carried out.
    #[must_use]
    pub fn is_under_way(&self, run: u32) -> bool {
        let is_open =
            |order: &Order| order.run == run && matches!(order.course, Course::Given { .. });
        self.given.iter().any(is_open)
    }
}
