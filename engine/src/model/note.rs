//! What one shard tells another: one way, nobody waits for an answer.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::block::Block;
use crate::base::cell::{Cell, Day, Grant};
use crate::base::time::Mono;
use crate::model::admin::Reach;
use crate::model::connection::ShardId;
use crate::model::delivery::{Delivery, LeaseId, RecordInMemory};
use crate::model::hold::{Hold, Scope};
use crate::model::message::{MessageId, Place};
use crate::model::outcome::{RangeOutcome, Reply};
use crate::model::route::{Bearing, Target};
use crate::model::settings::SiteSettings;
use crate::model::source::EgressSource;
use crate::model::state::StateItem;

pub use crate::model::signal::{Cause, Complaint, HostSet, Phases, Remote, Took, Trouble};

/// One note; boxed where the parts are large, so that a mailbox slot stays small.
#[derive(Debug)]
pub enum Note {
    /// To the owner of a site: queue this, for once `due` has come.
    Deliver { parcel: Box<Parcel>, due: Option<Mono> },
    /// Owner to executing shard: open a connection under this permit.
    Open(Box<Opening>),
    /// Owner to executing shard: deliver this on the connection of the lease.
    Work { lease: LeaseId, delivery: Box<Delivery> },
    /// Owner to executing shard: no more work comes; end the connection politely.
    Close { lease: LeaseId },
    /// Executing shard to owner: what became of one delivery of the lease.
    Done { lease: LeaseId, done: Box<Done> },
    /// Executing shard to owner: the peer's end is known (or was waited for long enough): the
    /// permit is free. Every delivery of the lease was reported done before.
    Ended { lease: LeaseId, why: LeaseEnd },
    /// Owner to home: durable facts about a message.
    Settle(Box<Settlement>),
    /// Executing shard to owner: the connection of the lease can take mail now.
    Ready { lease: LeaseId },
    /// Executing shard to owner: the connection of the lease came to nothing; may there be another?
    Another { lease: LeaseId },
    /// Owner to executing shard: it may connect again, now; or not soon, and the lease is to end.
    Leave { lease: LeaseId, may_connect: bool },
    /// To all shards: mail of this is stopped.
    Hold(Box<(Scope, Hold)>),
    /// A permit of a shared cap, for a shard that stands in line there.
    Grant { cell: Arc<Cell>, grant: Grant },
    /// To the keeper: an order to cancel was carried out.
    Cancelled(Box<Cancelled>),
    /// To the keeper: an order to cancel has reached all it was about.
    CancelOver { key: Box<[u8]>, order: u64 },
    /// To the shard that keeps what is to outlive the process.
    Remember(Box<StateItem>),
    /// To the shard that has it written down: the count of a source in its warm-up has grown.
    WriteDay(Arc<Day>),
    /// Home to executing shard (strict outcomes only): the settlement is on disk.
    Settled { lease: LeaseId },
    /// Any shard to home: read this record for me, a message's own or one of its chunks.
    Fetch { lease: LeaseId, message: MessageId, place: Place },
    /// Home's answer; `None`: it cannot be read.
    Fetched { lease: LeaseId, place: Place, record: Option<RecordInMemory> },
}

/// How far an order to cancel reaches on one shard.
#[derive(Debug)]
pub struct Cancelled {
    pub order: u64,
    pub reach: Reach,
    /// The newest message that the shard had accepted.
    pub newest: MessageId,
}

/// A delivery on its way to the owner of its site.
#[derive(Debug)]
pub struct Parcel {
    pub bearing: Bearing,
    pub delivery: Delivery,
    /// When it left the site it waited for before; `None`: it was at none in this run.
    pub left: Option<Mono>,
}

/// What an executing shard needs to open a connection for a site it does not own.
#[derive(Debug)]
pub struct Opening {
    pub lease: LeaseId,
    pub target: Arc<Target>,
    pub settings: Arc<SiteSettings>,
    /// Where the connection goes out from; none: the kernel's choice, under the engine's name.
    pub source: Option<Arc<EgressSource>>,
    /// Hosts of the target to pass over.
    pub skip: HostSet,
    /// Connections are paced: each after the first has to be asked for ([`Note::Another`]).
    pub is_paced: bool,
}

/// What became of one delivery.
#[derive(Debug)]
pub struct Done {
    /// Message and first recipient: together they name the delivery among those of a lease.
    pub message: MessageId,
    pub first: u16,
    pub result: Attempt,
    /// The host it was tried on; none: it did not come to a conversation.
    pub remote: Option<Remote>,
    pub phases: Phases,
    /// The host took so many recipients, and refused the next as one too many: to be known where
    /// messages are split.
    pub accepted_first: Option<u16>,
}

impl Done {
    /// What became of a delivery that no host had a part in.
    #[must_use]
    pub fn new(delivery: &Delivery, result: Attempt) -> Self {
        Self {
            message: delivery.message,
            first: delivery.first,
            result,
            remote: None,
            phases: Phases::default(),
            accepted_first: None,
        }
    }
}

/// The result of one attempt at one delivery.
#[derive(Debug)]
pub enum Attempt {
    /// All recipients were delivered with this reply.
    Delivered(Reply),
    /// Recipients fared differently, or not all well.
    Mixed {
        /// Indices into the envelope, in order, together covering the delivery's range.
        recipients: Vec<RecipientResult>,
        /// What the site, besides, said or did that is not about a recipient: it asked to slow
        /// down, or the conversation broke off.
        complaint: Option<Complaint>,
    },
    /// Never tried, or cut off before its final dot was answered without the site's word:
    /// goes back to the front of the queue, costs the message no attempt.
    NotTried,
    /// The same, but all of it was sent, and the connection lost without a word: the host may have taken
    /// it, so it counts where messages are counted.
    Unheard,
    /// The site asked to slow down (421, 4.7.x and the like), and said nothing else that counts:
    /// back to the queue, costs the message no attempt; the site waits. The cause is
    /// [`Cause::Throttle`], or [`Cause::Greylist`] where it named that together with a 421.
    Throttled(Complaint),
    /// The record could not be read: the message is set aside.
    Unreadable,
}

impl Attempt {
    /// What the site said or did that is not about a recipient.
    #[must_use]
    pub fn complaint(&self) -> Option<&Complaint> {
        match self {
            Self::Throttled(complaint) => Some(complaint),
            Self::Mixed { complaint, .. } => complaint.as_ref(),
            Self::Delivered(_) | Self::NotTried | Self::Unheard | Self::Unreadable => None,
        }
    }
}

/// One recipient's reply, classified. A deferral with [`Cause::Throttle`] is the site's wish, not a
/// word about the recipient.
#[derive(Clone, Debug)]
pub struct RecipientResult {
    pub recipient: u16,
    pub class: Class,
    pub cause: Cause,
    pub reply: Reply,
}

/// What a reply says about the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Delivered,
    /// Try again later, on the message's own clock.
    Deferred,
    /// For good.
    Failed,
}

/// Why a lease ended.
#[derive(Debug)]
pub enum LeaseEnd {
    /// Closed after work, by either side, without complaint.
    Finished,
    /// No host of the site could be connected or greeted us properly.
    Unreachable(Box<Trouble>),
    /// The site turned us away (a 421, 4xx or 5xx before any transaction).
    TurnedAway(Box<Trouble>),
    /// This machine could not open a connection.
    Local(Reply),
    /// Nothing was tried: this remote address, and every other that could have been, has as many
    /// connections as it may. No fault of the site: try again when told of room.
    Busy { ip: IpAddr },
    /// Nothing was tried: every host of the target was to be passed over.
    Skipped,
}

/// Outcomes of a message, on their way to its home's spool.
#[derive(Debug)]
pub struct Settlement {
    pub message: MessageId,
    pub place: Place,
    pub outcomes: Vec<RangeOutcome>,
    /// The lease whose next final dot waits for this (strict outcomes).
    pub strict: Option<(ShardId, LeaseId)>,
    /// The record, where a DSN may have to quote it.
    pub record: Option<(Arc<Block>, u32)>,
    pub words: Words,
}

/// Where the words of a failure come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// They are in the outcomes.
    Given,
    /// Time was over: those of the last reply, which its home has on disk; where there is none, what
    /// the outcomes say.
    OnRecord,
}
