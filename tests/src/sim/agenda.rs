//! What happens next, in order of time; what is due at the same moment, in an order of chance.

use std::collections::BTreeMap;

use super::chance::Chance;
use super::net::LinkId;

/// One thing that will happen. A `run` that is over makes it nothing.
#[derive(Debug)]
pub enum Due {
    /// A shard takes its turn, if this is still when it wants it.
    Turn { run: u32, shard: usize },
    /// The next note of a pair of shards arrives.
    Note { run: u32, from: usize, to: usize },
    /// A write to the disk ends.
    Written { run: u32, shard: usize, write: u64 },
    /// A read ends.
    Read { run: u32, shard: usize, read: u64 },
    /// A new segment file is there, or cannot be made.
    Segment { run: u32, shard: usize },
    /// A shard gets what the spool held when the run began.
    Recovered { run: u32, shard: usize },
    /// The resolver answers.
    Answer { run: u32, shard: usize, question: u32, domain: Box<str> },
    /// The next piece of what the core sent reaches the far side.
    Down(LinkId),
    /// The next piece of what the far side sent reaches the core.
    Up(LinkId),
    /// The kernel takes some of what the core queued.
    Taken(LinkId),
    /// A connection attempt comes to its end.
    Connected(LinkId),
    /// A TLS handshake comes to its end.
    Secured(LinkId),
    /// The driver's last completion of a connection was seen.
    Retired(LinkId),
    /// The driver looks whether a closing connection has taken too long.
    Lingered(LinkId),
    /// A host says the next thing it has to say.
    Say(LinkId),
    /// A client begins, or loses patience.
    Client { client: usize, epoch: u32 },
    /// A shard is told of new settings.
    Settings { run: u32, shard: usize },
    /// A shard is told of a hold.
    Hold { run: u32, shard: usize, hold: usize },
    /// A shard is told of an operator's order.
    Order { run: u32, shard: usize, order: usize },
    /// An operator asks something.
    Ask,
    /// His question reaches a shard.
    Asked { run: u32, shard: usize, question: usize },
    /// Something goes wrong, or is done to the engine.
    Fault(Fault),
    /// The engine starts again.
    Start,
    /// The faults end.
    Calm,
    /// The engine starts once more, for what the last run set aside.
    LastStop,
    /// Look whether the world has come to rest.
    Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    PowerCut,
    Stop,
    /// The mail hosts of a group change.
    Move {
        group: usize,
    },
    /// One bit on the disk flips.
    Rot,
    /// The operator gives new settings.
    Reload,
    /// The operator stops some mail.
    Hold,
    /// He holds, releases or cancels some, and waits for the answer.
    Order,
    /// Somebody sets the wall clock.
    WallStep,
    /// A client connects that will read nothing and never go.
    Rogue,
    /// One bit inside a message on the disk flips.
    RotBody,
    /// The disk has no room for a while, or has again.
    Full(bool),
}

/// Everything that is due, by time.
#[derive(Debug)]
pub struct Agenda {
    entries: BTreeMap<(u64, u64, u64), Due>,
    serial: u64,
    chance: Chance,
}

impl Agenda {
    #[must_use]
    pub fn new(chance: Chance) -> Self {
        Self { entries: BTreeMap::new(), serial: 0, chance }
    }

    pub fn add(&mut self, at: u64, due: Due) {
        self.serial += 1;
        let tie = self.chance.number();
        self.entries.insert((at, tie, self.serial), due);
    }

    /// Takes out what is due first, and when.
    pub fn take_next(&mut self) -> Option<(u64, Due)> {
        self.entries.pop_first().map(|((at, ..), due)| (at, due))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
