//! What a shard asks of the world, gathered in one reused buffer that the driver empties in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::event::{AskedId, CommitId, QuestionId, ReadId};
use crate::base::block::Block;
use crate::base::time::Mono;
use crate::model::admin::Answer;
use crate::model::connection::{Close, Conn, ShardId};
use crate::model::message::Slice;
use crate::model::note::Note;
use crate::model::route::Question;
use crate::spool::files::FileId;

/// Bytes inside [`Effects::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub at: u32,
    pub bytes: u32,
}

#[derive(Debug)]
pub enum Effect {
    /// Queue bytes of the arena for sending, behind what is already queued.
    Send {
        conn: Conn,
        span: Span,
    },
    /// Queue bytes of a block for sending: no copy is made.
    SendSlice {
        conn: Conn,
        slice: Slice,
    },
    /// Turn receiving on or off; connections start with it on.
    Reading {
        conn: Conn,
        on: bool,
    },
    /// Connect `conn` (a slot this shard took) within `by`, from the local address `from` if one
    /// is given (boxed only so that an effect stays small).
    Connect {
        conn: Conn,
        to: SocketAddr,
        from: Option<Box<IpAddr>>,
        by: Mono,
    },
    /// Start a TLS handshake as client, with this name for SNI.
    Secure {
        conn: Conn,
        name: Box<str>,
    },
    Close {
        conn: Conn,
        how: Close,
    },
    /// Write the whole block, `O_DIRECT` with `RWF_DSYNC`. Offsets and lengths are multiples of 4096.
    Commit {
        commit: CommitId,
        file: FileId,
        offset: u64,
        block: Arc<Block>,
    },
    /// Read `bytes` at `offset`; any alignment, the driver rounds.
    Fetch {
        read: ReadId,
        file: FileId,
        offset: u64,
        bytes: u32,
    },
    /// Make one more written-once segment file.
    PrepareSegment,
    Resolve {
        question: QuestionId,
        what: Box<Question>,
    },
    Tell {
        to: ShardId,
        note: Note,
    },
    /// The answer to [`super::Event::Asked`].
    Answer {
        asked: AskedId,
        answer: Box<Answer>,
    },
    /// For the operator's log.
    Report(Box<Fact>),
    /// Everything is done that a stop asks for: the driver may end.
    Stopped,
}

/// Something an operator may have to act on; never one per message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A sync failed: the segment takes no more commits.
    SegmentFenced {
        file: FileId,
        cause: Box<str>,
    },
    /// All that this shard took over from an earlier run is with the owners of its sites again.
    ScheduledAgain {
        deliveries: u64,
    },
    /// No room for new segments; mail is refused with 452 until there is.
    SpoolFull,
    /// Room again.
    SpoolFree,
    /// Damage found while reading: the message is set aside.
    MessageSetAside {
        message: Box<str>,
        cause: Box<str>,
    },
    /// A site was put on hold or taken up again.
    SiteClosed {
        site: Box<str>,
        cause: Box<str>,
        seconds: u64,
    },
    SiteOpened {
        site: Box<str>,
    },
    /// The control loop, or a rule, changed how much a site gets from a source.
    SitePaced {
        site: Box<str>,
        /// Empty: the kernel's choice.
        source: Box<str>,
        change: Box<str>,
    },
    /// A source begins a day of its warm-up at a provider, or at a site, or has none before it.
    WarmUp {
        source: Box<str>,
        receiver: Box<str>,
        change: Box<str>,
    },
    /// At the end of a run, or of a site's life in memory: deliveries that each shard executed for
    /// a site whose permits were lent to others.
    SiteLent {
        site: Box<str>,
        executed: Box<[u64]>,
    },
    /// An operator held, released, flushed, cancelled or rerouted mail. One shard's share of it.
    Steered {
        verb: &'static str,
        reach: Box<str>,
        deliveries: u64,
        reason: Box<str>,
    },
    /// A null-sender message could not be delivered and, by RFC 5321 §4.5.5, is not bounced.
    DoubleBounce {
        message: Box<str>,
        cause: Box<str>,
    },
}

/// Effects and the bytes they speak of. Emptied each turn, never shrunk.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    pub bytes: Vec<u8>,
}

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Queues a copy of `bytes` for sending; joins the previous send if it was to the same connection.
    pub fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let at = u32::try_from(self.bytes.len()).expect("an arena of one turn is below 4 GiB");
        let added = u32::try_from(bytes.len()).expect("a send is below 4 GiB");
        self.bytes.extend_from_slice(bytes);
        if let Some(Effect::Send { conn: last, span }) = self.list.last_mut()
            && *last == conn
            && span.at + span.bytes == at
        {
            span.bytes += added;
            return;
        }
        self.list.push(Effect::Send { conn, span: Span { at, bytes: added } });
    }

    #[must_use]
    pub fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.at as usize..(span.at + span.bytes) as usize]
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

const _: () = assert!(size_of::<Effect>() <= 64, "an effect fits a cache line");
