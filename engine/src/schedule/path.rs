//! What a site has to do with one source: its connections, and whether it takes mail from there.

use super::gate::Gate;
use super::list::List;
use crate::base::time::Mono;
use crate::model::connection::ShardId;

/// Source × site.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) source: u16,
    /// Permits: leases from their opening until their end is known.
    pub(super) in_use: u32,
    /// Leases that still take work.
    pub(super) working: u32,
    pub(super) in_flight: u32,
    /// Deliveries it was given lately, for the choice among sources by weight: halved now and then.
    pub(super) given: u32,
    /// Leases that gave work back unanswered. Their end may close the gate, so nothing new is
    /// tried before it is known.
    pub(super) fruitless: u32,
    pub(super) gate: Gate,
    /// When the alarm of its gate rings.
    pub(super) armed: Mono,
    /// By shard; as many as were needed so far.
    lanes: Vec<Lane>,
}

/// Leases of a path on one shard that could take work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Without work, longest idle first.
    pub(super) idle: List,
    /// With room for one more delivery ahead.
    pub(super) busy: List,
}

impl Lane {
    const EMPTY: Self = Self { idle: List::EMPTY, busy: List::EMPTY };
}

impl Path {
    pub(super) fn new(source: u16) -> Self {
        Self {
            source,
            in_use: 0,
            working: 0,
            in_flight: 0,
            given: 0,
            fruitless: 0,
            gate: Gate::Open,
            armed: Mono::NEVER,
            lanes: Vec::new(),
        }
    }

    pub(super) fn lane(&mut self, shard: ShardId) -> &mut Lane {
        let index = usize::from(shard.0);
        if index >= self.lanes.len() {
            self.lanes.resize(index + 1, Lane::EMPTY);
        }
        &mut self.lanes[index]
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// A lease from the lists that `list` names: on the shard `near` if possible, the last used one,
    /// so that surplus connections can fall idle.
    pub(super) fn pick(&self, near: ShardId, list: impl Fn(&Lane) -> List) -> Option<u32> {
        let there = self.lanes.get(usize::from(near.0)).and_then(|lane| list(lane).back());
        there.or_else(|| self.lanes.iter().find_map(|lane| list(lane).back()))
    }
}
