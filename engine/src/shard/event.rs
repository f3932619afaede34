//! What the world tells a shard. Bytes are lent for the call only.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::block::Block;
use crate::base::time::Mono;
use crate::model::admin::Query;
use crate::model::connection::{Conn, ConnectError, End, ShardId, TlsError, TlsFacts};
use crate::model::note::Note;
use crate::model::route::Answer;
use crate::model::settings::Settings;
use crate::model::state::StateItem;
use crate::spool::files::SpareSegment;
pub use crate::spool::files::{CommitId, DiskError};
use crate::spool::plan::{RecoveredDelivery, RecoveredShard};

/// Names one read in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadId(pub u32);

/// Names one question to the resolver in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestionId(pub u32);

/// Names one question of an operator in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskedId(pub u32);

#[derive(Debug)]
pub enum Event<'a> {
    /// A client connected. `conn` was taken from [`super::Shard::take_client_slot`].
    Accepted { conn: Conn, listener: u16, peer: SocketAddr },
    /// The answer to [`super::Effect::Connect`].
    Connected { conn: Conn, result: Result<(), ConnectError> },
    /// Plaintext arrived.
    Received { conn: Conn, bytes: &'a [u8] },
    /// All that was asked to be sent has been taken by the kernel, and its memory is free again.
    Drained { conn: Conn },
    /// The answer to [`super::Effect::Secure`].
    Secured { conn: Conn, result: Result<TlsFacts, TlsError> },
    /// No more bytes will come, none can be sent.
    Ended { conn: Conn, how: End },
    /// The last completion was seen: the slot may be taken again.
    Retired { conn: Conn },
    /// The answer to [`super::Effect::Commit`].
    Committed { commit: CommitId, result: Result<(), DiskError> },
    /// The answer to [`super::Effect::Fetch`]: a block whose first byte is the one asked for.
    Fetched { read: ReadId, result: Result<Arc<Block>, DiskError> },
    /// The answer to [`super::Effect::Resolve`].
    Resolved { question: QuestionId, answer: Arc<Answer> },
    /// Another shard, or this one, has something to say.
    Noted { from: ShardId, note: Note },
    /// The answer to [`super::Effect::PrepareSegment`]: a written-once file, ready for use, or why not.
    SegmentReady(Result<SpareSegment, DiskError>),
    /// What the spool held when the process started, of the segments that fall to this shard, and
    /// the deliveries found in them, to be scheduled a few a turn; before these, what was kept beside
    /// the mail, the same for all shards. Comes once, mail or not.
    Recovered {
        spool: Box<RecoveredShard>,
        backlog: Vec<RecoveredDelivery>,
        states: Arc<[StateItem]>,
    },
    /// An operator wants to know, or to change, something.
    Asked { asked: AskedId, query: Box<Query> },
    /// New settings.
    Settings(Arc<Settings>),
    /// Stop in order; at `by` whatever still waits is cut short.
    Stop { by: Mono },
}
