//! Whose turn it is: start-time fair queueing (Goyal, Vin, Cheng 1996) among weighted flows.
//!
//! Each flow has a tag, what it was served divided by its weight; the lowest is next. Unlike a round
//! robin with deficits it never serves a flow twice in a row while an equal one waits, so shares are
//! even over any second and not only over many rounds; a flow that comes back is served at once, and
//! saves nothing up. Two flows never differ by more than one cost each.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

/// One unit of cost at weight 1. Weights divide it, so it is large; 2^40 units fit a tag.
const UNIT: u64 = 1 << 24;

/// Progress in virtual time, from one on: so that a place in line that may be empty takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(NonZeroU64);

impl Default for Tag {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

/// Whether a flow stands in line, and with which tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// Not in line; the tag it left with.
    Away(Tag),
    In(Tag),
}

/// The flows that wait, by number.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Kept apart, so that a lone flow, which is the rule, costs no tree.
    first: Option<(Tag, u32)>,
    others: BTreeSet<(Tag, u32)>,
    clock: Tag,
}

impl Default for Seat {
    fn default() -> Self {
        Self::Away(Tag::default())
    }
}

impl Turns {
    pub(super) fn first(&self) -> Option<u32> {
        self.first.map(|(_, flow)| flow)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Stands in line, not before what is served at present.
    pub(super) fn join(&mut self, flow: u32, seat: &mut Seat) {
        let Seat::Away(last) = *seat else { return };
        let tag = last.max(self.clock);
        *seat = Seat::In(tag);
        self.insert((tag, flow));
    }

    pub(super) fn leave(&mut self, flow: u32, seat: &mut Seat) {
        let Seat::In(tag) = *seat else { return };
        *seat = Seat::Away(tag);
        self.remove((tag, flow));
    }

    /// One that stands in line was served `cost`.
    pub(super) fn charge(&mut self, flow: u32, seat: &mut Seat, cost: u32, weight: u16) {
        let Seat::In(tag) = *seat else { return };
        self.remove((tag, flow));
        self.clock = self.clock.max(tag);
        let step = u64::from(cost) * UNIT / u64::from(weight.max(1));
        let next = Tag(tag.0.saturating_add(step.max(1)));
        *seat = Seat::In(next);
        self.insert((next, flow));
    }

    fn insert(&mut self, place: (Tag, u32)) {
        match self.first {
            None => self.first = Some(place),
            Some(first) if place < first => {
                self.others.insert(first);
                self.first = Some(place);
            }
            Some(_) => {
                self.others.insert(place);
            }
        }
    }

    fn remove(&mut self, place: (Tag, u32)) {
        if self.first == Some(place) {
            self.first = self.others.pop_first();
        } else {
            self.others.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `rounds` times; who was served, in order.
    fn serve(
        turns: &mut Turns,
        seats: &mut [Seat],
        flows: &[(u32, u16)],
        rounds: usize,
    ) -> Vec<u32> {
        let mut served = Vec::new();
        for _ in 0..rounds {
            let Some(flow) = turns.first() else { break };
            let (cost, weight) = flows[flow as usize];
            turns.charge(flow, &mut seats[flow as usize], cost, weight);
            served.push(flow);
        }
        served
    }

    fn seated(count: usize) -> (Turns, Vec<Seat>) {
        let (mut turns, mut seats) = (Turns::default(), vec![Seat::default(); count]);
        for (flow, seat) in (0..).zip(&mut seats) {
            turns.join(flow, seat);
        }
        (turns, seats)
    }

    #[test]
    fn equal_flows_take_turns_one_by_one() {
        let (mut turns, mut seats) = seated(3);
        let served = serve(&mut turns, &mut seats, &[(1, 1); 3], 9);
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn shares_follow_weights_and_costs() {
        let (mut turns, mut seats) = seated(3);
        // Weight 3 against 1, and one whose messages cost four times as much.
        let served = serve(&mut turns, &mut seats, &[(1, 3), (1, 1), (4, 1)], 1700);
        let count = |flow| served.iter().filter(|one| **one == flow).count();
        assert!(count(0).abs_diff(1200) <= 3, "{}", count(0));
        assert!(count(1).abs_diff(400) <= 2 && count(2).abs_diff(100) <= 2);
    }

    #[test]
    fn who_was_away_is_served_at_once_and_saved_nothing_up() {
        let (mut turns, mut seats) = seated(2);
        turns.leave(1, &mut seats[1]);
        serve(&mut turns, &mut seats, &[(1, 1); 2], 1000);
        turns.join(1, &mut seats[1]);
        let served = serve(&mut turns, &mut seats, &[(1, 1); 2], 8);
        assert!(served[..2].contains(&1));
        assert!(served.iter().filter(|one| **one == 1).count() <= 5, "{served:?}");
    }

    #[test]
    fn leaving_twice_and_joining_twice_change_nothing() {
        let (mut turns, mut seats) = seated(1);
        let before = seats[0];
        turns.join(0, &mut seats[0]);
        assert_eq!(seats[0], before);
        turns.leave(0, &mut seats[0]);
        turns.leave(0, &mut seats[0]);
        assert!(turns.is_empty() && matches!(seats[0], Seat::Away(_)));
    }
}
