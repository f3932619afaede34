//! Leases: permits of a site lent to connections, wherever those are executed.

use smallvec::SmallVec;

use super::caps::Held;
use super::list::{Linked, Links};
use super::warm_up::Counted;
use crate::base::planted::{Bug, planted};
use crate::base::slots::Slots;
use crate::base::time::Mono;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::message::MessageId;

/// Deliveries a lease may have at once on the owner's shard: one under way, one ready to share its
/// flight.
const WORK_HERE_MAX: usize = 2;
/// The same on another shard, which must not run dry until the owner's next turn.
const WORK_LENT_MAX: usize = 3;
/// More connections than one machine has ports for.
const LEASES_MAX: u32 = 1 << 20;

/// A delivery out of the queue; it holds on to its course.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) delivery: Delivery,
    pub(super) course: u32,
    /// When it was given to its lease.
    pub(super) given: Mono,
    /// What it takes of its tenant's cap while it is under way.
    pub(super) held: Held,
    /// The warm-up day of its path that it is counted in.
    pub(super) counted: Counted,
}

impl Flight {
    pub(super) fn new(delivery: Delivery, course: u32) -> Self {
        let (given, held, counted) = (Mono::default(), Held::default(), Counted::default());
        Self { delivery, course, given, held, counted }
    }
}

/// Whether a lease gets more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// It takes work once it says that it is ready.
    Awaited,
    /// It takes work.
    Willing,
    /// It had its share or lost its connection: no more work, told to close once it has none.
    Spent,
    /// Told to close, its end is expected.
    Closing,
}

/// Which list of its lane a lease is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    No,
    Idle,
    Busy,
}

/// One permit of one site.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) site: u32,
    /// The number of its path among those of its site.
    pub(super) path: u16,
    /// The shard that executes it.
    pub(super) shard: ShardId,
    pub(super) mood: Mood,
    pub(super) listed: Listed,
    links: Links,
    /// In the order given.
    flights: SmallVec<[Flight; WORK_LENT_MAX]>,
    pub(super) given: u32,
    /// What it is given at most: the executing side ends by itself after so many.
    pub(super) share: u32,
    /// Deliveries the site had a word to say about.
    pub(super) answered: u32,
    /// Deliveries it gave back untried.
    pub(super) returned: u32,
    pub(super) idle_since: Mono,
    pub(super) opened: Mono,
    /// What it holds of shared caps.
    pub(super) held: Held,
}

impl Lease {
    /// The path it is a permit of.
    pub(super) fn at(&self) -> (u32, u16) {
        (self.site, self.path)
    }

    /// Whether it can take one more delivery ahead.
    pub(super) fn has_room(&self) -> bool {
        let is_lent = self.shard != self.id.owner;
        self.outstanding() < if is_lent { WORK_LENT_MAX } else { WORK_HERE_MAX }
    }

    pub(super) fn outstanding(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn give(&mut self, flight: Flight) {
        assert!(self.flights.len() < WORK_LENT_MAX, "work is given within its bound");
        self.flights.push(flight);
        self.given += 1;
    }

    /// Gave work back, and has not seen one answer: a server that hangs up on everyone must not be
    /// called again at once.
    pub(super) fn is_fruitless(&self) -> bool {
        self.returned > 0 && self.answered == 0
    }

    /// Its deliveries.
    pub(super) fn flights(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.flights.iter_mut()
    }

    /// The earliest given delivery of this message.
    pub(super) fn take(&mut self, message: MessageId, first: u16) -> Option<Flight> {
        let is_it = |flight: &Flight| {
            (flight.delivery.message, flight.delivery.first) == (message, first)
                || planted(Bug::OutcomeOfAnother) && flight.delivery.message == message
        };
        let at = self.flights.iter().position(is_it)?;
        Some(self.flights.remove(at))
    }

    /// What was given last and not reported done.
    pub(super) fn take_last(&mut self) -> Option<Flight> {
        self.flights.pop()
    }
}

/// All leases of one owner, by slot.
#[derive(Debug)]
pub(super) struct Leases {
    owner: ShardId,
    names: Slots,
    slots: Vec<Option<Lease>>,
}

impl Leases {
    pub(super) fn new(owner: ShardId) -> Self {
        Self { owner, names: Slots::new(LEASES_MAX), slots: Vec::new() }
    }

    /// A new lease, if there is a name left for it.
    pub(super) fn open(
        &mut self,
        (site, path): (u32, u16),
        shard: ShardId,
        share: u32,
        now: Mono,
    ) -> Option<u32> {
        let (slot, generation) = self.names.take()?;
        let lease = Lease {
            id: LeaseId { owner: self.owner, slot, generation },
            site,
            path,
            shard,
            mood: Mood::Willing,
            listed: Listed::No,
            links: Links::ALONE,
            flights: SmallVec::new(),
            given: 0,
            share,
            answered: 0,
            returned: 0,
            idle_since: now,
            opened: now,
            held: Held::default(),
        };
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(lease);
        Some(slot)
    }

    pub(super) fn len(&self) -> usize {
        self.names.taken()
    }

    /// The slots of all leases.
    pub(super) fn slots(&self) -> Vec<u32> {
        (0..).zip(&self.slots).filter_map(|(slot, lease)| lease.as_ref().map(|_| slot)).collect()
    }

    /// Whether some lease has a delivery of this message. Looks at all leases.
    pub(super) fn carry(&self, message: MessageId) -> bool {
        let of_it = |flight: &Flight| flight.delivery.message == message;
        self.slots.iter().flatten().any(|lease| lease.flights.iter().any(of_it))
    }

    /// The slot behind a name, if the lease has not ended.
    pub(super) fn find(&self, id: LeaseId) -> Option<u32> {
        let current = id.owner == self.owner
            && self.names.is_current(id.slot, id.generation)
            && self.slots[id.slot as usize].is_some();
        current.then_some(id.slot)
    }

    pub(super) fn end(&mut self, slot: u32) -> Option<Lease> {
        let lease = self.slots[slot as usize].take()?;
        self.names.give_back(slot, lease.id.generation);
        Some(lease)
    }
}

impl std::ops::Index<u32> for Leases {
    type Output = Lease;

    fn index(&self, slot: u32) -> &Lease {
        self.slots[slot as usize].as_ref().expect("only live leases are listed")
    }
}

impl std::ops::IndexMut<u32> for Leases {
    fn index_mut(&mut self, slot: u32) -> &mut Lease {
        self.slots[slot as usize].as_mut().expect("only live leases are listed")
    }
}

impl Linked for Leases {
    fn links(&mut self, slot: u32) -> &mut Links {
        &mut self[slot].links
    }
}
