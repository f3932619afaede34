//! The transactions of one connection, one behind the other, with as few round trips as the host
//! allows (RFC 2920).
//!
//! ```text
//! us    MAIL RCPT DATA |     | body . MAIL RCPT DATA |            | body . MAIL RCPT DATA
//! host                 | 354 |                       | 250 .. 354 |
//! ```
//! Commands are written in order and replies come in order, so one queue of expected replies is
//! the whole mechanism: a host without PIPELINING is one where that queue holds at most one. All
//! expected replies up to and including the first [`Expect::Dot`] or [`Expect::Chunk`] are the front
//! transaction's.
//!
//! Where the host offers CHUNKING as well (RFC 3030), a small message is one flight, and nothing
//! follows it before it is answered: what a host does with its transaction after a refused chunk is not
//! told.
//! ```text
//! us    MAIL RCPT BDAT content |             | MAIL RCPT BDAT content |
//! host                         | 250 250 250 |                        | 250 250 250
//! ```

mod finishing;
mod reading;
mod writing;

use smallvec::SmallVec;

use super::letter::Letter;
use super::transaction::{Step, Transaction, Word};
use crate::base::time::{Mono, Now};
use crate::model::delivery::Delivery;
use crate::model::note::{Attempt, Done, Phases, Remote};
use crate::model::outcome::Reply;
use crate::model::settings::OutcomeDurability;
use crate::wire::smtp::reply::Capabilities;

/// Deliveries a session holds at once: the one under way, one to share its last flight, and one
/// more where the owner is another shard and its next word takes a turn.
pub const WORK_AHEAD_MAX: usize = 3;
/// Replies outstanding at once: bounds what one flight of commands may take in memory.
const EXPECTED_MAX: usize = 128;

/// A reply that is owed to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Rset,
    Mail,
    Rcpt(u16),
    Data,
    Dot,
    /// The word on a chunk that was the whole message.
    Chunk,
}

/// What the host's side holds between our transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ground {
    Clear,
    /// A transaction was opened and never ended: RSET goes before the next.
    Littered,
}

/// What the exchange waits for, which decides the deadline. Two equal values in a row are one
/// wait: `heard` counts replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) what: Await,
    heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Await {
    Nothing,
    Command,
    Data,
    /// The kernel, or a chunk, or a settlement: until the final dot is out.
    Body,
    Dot,
}

/// Why the connection cannot go on.
#[derive(Debug)]
pub(super) enum Break {
    /// 421: the host closes. The word of [`super::verdict::judge`] on it.
    TurnedDown(Word),
    /// A reply that answers nothing we asked.
    OutOfStep(Reply),
    /// A chunk of the front message cannot be read, and its transaction not be taken back.
    Unreadable,
}

#[derive(Debug)]
pub(super) struct Exchange {
    outcomes: OutcomeDurability,
    messages_max: u32,
    capabilities: Capabilities,
    /// Oldest first; more than lie here are owed to mail for many recipients alone.
    expected: SmallVec<[Expect; 4]>,
    /// Apart, so that a connection without mail keeps no memory for it.
    work: SmallVec<[Box<Transaction>; WORK_AHEAD_MAX]>,
    ground: Ground,
    /// Transactions begun on this connection.
    opened: u32,
    /// Transactions the host has answered to the end.
    completed: u32,
    /// Outcomes reported and not yet on disk.
    unsettled: u32,
    heard: u64,
    /// When the last reply came, or the command went out on which the next one depends.
    since: Mono,
    connection: Connection,
}

/// What is told of the connection with each delivery.
#[derive(Debug, Default)]
struct Connection {
    remote: Option<Remote>,
    /// How long it took to open, until that is told.
    untold: Phases,
}

impl Connection {
    fn done(&mut self, delivery: &Delivery, result: Attempt) -> Done {
        let phases = std::mem::take(&mut self.untold);
        Done { remote: self.remote, phases, ..Done::new(delivery, result) }
    }
}

impl Exchange {
    pub(super) fn new(outcomes: OutcomeDurability, messages_max: u32) -> Self {
        Self {
            outcomes,
            messages_max: messages_max.max(1),
            capabilities: Capabilities::default(),
            expected: SmallVec::new(),
            work: SmallVec::new(),
            ground: Ground::Clear,
            opened: 0,
            completed: 0,
            unsettled: 0,
            heard: 0,
            since: Mono(0),
            connection: Connection::default(),
        }
    }

    /// The host is ready, and can do this.
    pub(super) fn open(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// A connection to this host took so long to open.
    pub(super) fn begin(&mut self, remote: Option<Remote>, phases: Phases) {
        self.connection = Connection { remote, untold: phases };
    }

    /// How long the connection took to open, if that was not told with a delivery.
    pub(super) fn take_untold(&mut self) -> Phases {
        std::mem::take(&mut self.connection.untold)
    }

    /// Takes a letter, or hands it back if it holds enough.
    pub(super) fn add(&mut self, letter: Letter) -> Result<(), Letter> {
        if self.work.len() >= WORK_AHEAD_MAX {
            return Err(letter);
        }
        self.work.push(Box::new(Transaction::new(letter)));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// How many replies are owed to us.
    pub(super) fn expected_count(&self) -> usize {
        self.expected.len()
    }

    /// Whether nothing is under way: work may wait, but none was begun.
    pub(super) fn is_at_rest(&self) -> bool {
        self.expected.is_empty() && !self.work.iter().any(|one| one.is_started())
    }

    /// Whether this connection has carried as many messages as it may.
    pub(super) fn is_spent(&self) -> bool {
        self.opened >= self.messages_max
    }

    /// Whether the host ever answered a whole transaction.
    pub(super) fn has_completed(&self) -> bool {
        self.completed > 0
    }

    /// Whether we ourselves keep back the final dot, until an earlier outcome is on disk.
    pub(super) fn is_held_by_us(&self) -> bool {
        self.unsettled > 0 && matches!(self.front_step(), Some(Step::Dot(_)))
    }

    pub(super) fn awaited(&self) -> Awaited {
        let what = match (self.expected.first(), self.front_step()) {
            (Some(Expect::Dot | Expect::Chunk), Some(Step::Flushing)) => Await::Body,
            (Some(Expect::Dot | Expect::Chunk), _) => Await::Dot,
            (Some(Expect::Data), _) => Await::Data,
            (Some(_), _) => Await::Command,
            (None, Some(Step::Body(_) | Step::Dot(_))) => Await::Body,
            (None, _) => Await::Nothing,
        };
        Awaited { what, heard: self.heard }
    }

    /// A reply will be owed for what is written now.
    fn expect(&mut self, what: Expect, now: Now) {
        if self.expected.is_empty() {
            self.since = now.mono;
        }
        self.expected.push(what);
    }

    fn front(&self) -> Option<&Transaction> {
        self.work.first().map(|front| &**front)
    }

    fn front_mut(&mut self) -> Option<&mut Transaction> {
        self.work.first_mut().map(|front| &mut **front)
    }

    fn front_step(&self) -> Option<&Step> {
        self.front().map(|transaction| &transaction.step)
    }

    fn take(&mut self, at: usize) -> Option<Box<Transaction>> {
        (at < self.work.len()).then(|| self.work.remove(at))
    }
}
