//! A delivery: one message, one site, one range of its recipients. The unit of scheduling.

use std::sync::Arc;

use crate::base::block::Block;
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::message::{MessageId, Place};

/// What travels from the spool to the scheduler and on to a connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: MessageId,
    /// The shard whose spool holds the message.
    pub home: ShardId,
    /// The record with envelope and body.
    pub place: Place,
    /// Bytes of the body that lie in pieces elsewhere.
    pub in_pieces: u32,
    /// The recipients, as indices into the envelope: `first..first + count`.
    pub first: u16,
    pub count: u16,
    /// Failed attempts so far that were the message's own (a site's throttling counts none).
    pub attempts: u16,
    /// When it was accepted, by the steady clock of this run (`SteadyWall`); expiry counts from here.
    pub accepted: Wall,
    /// The record's block while it is in memory; dropped when memory is short, then read again.
    pub record: Option<RecordInMemory>,
}

/// A record inside a block that is still in memory.
#[derive(Clone, Debug)]
pub struct RecordInMemory {
    pub block: Arc<Block>,
    /// Where the record begins inside the block.
    pub at: u32,
}

impl RecordInMemory {
    /// The record in a block not much longer than itself. A commit block holds many messages: one
    /// that waits for a slow site would keep the memory of all of them.
    #[must_use]
    pub fn on_its_own(&self, bytes: u32) -> Self {
        let (at, len) = (self.at as usize, bytes as usize);
        if self.block.len() <= SHARED_BLOCK_SHARE * len {
            return self.clone();
        }
        Self { block: Block::copy_of(&self.block.bytes()[at..at + len]), at: 0 }
    }
}

/// A block may be this many times as long as the record in it before the record gets its own.
const SHARED_BLOCK_SHARE: usize = 2;

impl Delivery {
    /// The recipients as indices into the envelope.
    #[must_use]
    pub fn recipients(&self) -> std::ops::Range<u16> {
        self.first..self.first + self.count
    }
}

/// Names a permit lent to a connection, by the site's owner: (owner, slot, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    pub owner: ShardId,
    pub slot: u32,
    pub generation: u32,
}
