//! What a site has to do with one source: its connections, and how much mail it takes from there.

use std::sync::Arc;

use smallvec::SmallVec;

use super::control::Control;
use super::list::List;
use super::rules::{Effects, RuleCounters};
use super::saved::Saved;
use super::session::SessionLimit;
use crate::base::cell::{Cell, CellId, Day};
use crate::base::gcra::Gcra;
use crate::base::time::Mono;
use crate::model::connection::ShardId;
use crate::model::note::Took;

/// Source × site. In the order in which they lie, as in [`Site`](super::site::Site).
#[derive(Debug)]
#[repr(C)]
pub(super) struct Path {
    pub(super) source: u16,
    /// Permits: leases from their opening until their end is known.
    pub(super) in_use: u32,
    /// Leases that still take work.
    pub(super) working: u32,
    /// Of these, not ready for work yet; counted only where mail is paced.
    pub(super) opening: u32,
    pub(super) in_flight: u32,
    /// Leases that gave work back unanswered. Their end may close the door, so nothing new is
    /// tried before it is known.
    pub(super) fruitless: u32,
    /// Deliveries it was given lately, for the choice among sources by weight: halved now and then.
    pub(super) given: u32,
    pub(super) effects: Effects,
    pub(super) counters: RuleCounters,
    /// Messages it takes on one connection.
    pub(super) session: SessionLimit,
    pub(super) control: Control,
    /// By shard; as many as were needed so far.
    lanes: SmallVec<[Lane; 1]>,
    /// Provider, source, source × provider: where a cap or a rate is set. In this order they are
    /// taken.
    pub(super) cells: Vec<Arc<Cell>>,
    /// What its source has sent to the receiver today, if it warms up; `None` then: nobody can count it.
    pub(super) day: Option<Arc<Day>>,
    /// How long it took to open a connection the last time.
    pub(super) opening_took: Took,
    /// Since its last delivery was given out: until when the next waits for a connection in use.
    pub(super) waits_until: Option<Mono>,
    /// When the alarm of its door, or of an effect that ends, rings.
    pub(super) armed: Mono,
    /// Paces by the rate that was learned, or that a rule sets.
    pub(super) pacer: Gcra,
    /// Until then no connection is opened: an address had all it may.
    pub(super) crowded_until: Mono,
    /// The shared cap it waits at.
    pub(super) parked: Option<CellId>,
    pub(super) saved: Saved,
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
    pub(super) fn new(source: u16, control: Control) -> Self {
        Self {
            source,
            in_use: 0,
            working: 0,
            opening: 0,
            in_flight: 0,
            fruitless: 0,
            given: 0,
            control,
            session: SessionLimit::default(),
            pacer: Gcra::default(),
            counters: RuleCounters::default(),
            effects: Effects::default(),
            crowded_until: Mono::default(),
            parked: None,
            cells: Vec::new(),
            day: None,
            opening_took: Took::NOT,
            waits_until: None,
            armed: Mono::NEVER,
            saved: Saved::default(),
            lanes: SmallVec::new(),
        }
    }

    pub(super) fn lane(&mut self, shard: ShardId) -> &mut Lane {
        let index = usize::from(shard.0);
        if index >= self.lanes.len() {
            self.lanes.resize(index + 1, Lane::EMPTY);
        }
        &mut self.lanes[index]
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Leases with work.
    pub(super) fn busy(&self) -> u32 {
        let idle: u32 = self.lanes.iter().map(|lane| lane.idle.len()).sum();
        self.working.saturating_sub(idle)
    }

    /// A lease from the lists that `list` names: on the shard `near` if possible, the last used one,
    /// so that surplus connections can fall idle.
    pub(super) fn pick(&self, near: ShardId, list: impl Fn(&Lane) -> List) -> Option<u32> {
        let there = self.lanes.get(usize::from(near.0)).and_then(|lane| list(lane).back());
        there.or_else(|| self.lanes.iter().find_map(|lane| list(lane).back()))
    }
}
