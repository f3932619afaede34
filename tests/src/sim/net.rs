//! TCP as the engine's driver shows it to a shard: bytes in any pieces, ends, refusals, silence.
//!
//! ```text
//! core ─Send─▶ outbox ─kernel─▶ down ─pieces─▶ far side
//! core ◀─Received─ arrived ◀─pieces─ up ◀──── far side
//! ```
//! The engine's side goes through the phases of `engine/src/runtime/ring/close.rs`, in the same
//! order and with the same bounds.

mod ours;
mod pipes;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use postrider_engine::model::connection::{Conn, ConnectError};

use super::agenda::{Agenda, Due};
use super::chance::Chance;
use super::clock::{MS, US};
pub use told::{Lent, Told, Word};

/// Names a connection of the world for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    Client(usize),
    /// A client that reads nothing, and never ends its connection.
    Rogue,
    Host(usize),
}

/// How far the engine's side is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Open,
    Draining,
    Lingering,
    Finishing,
    Closing,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PipeEnd {
    None,
    Fin,
    Reset,
}

/// One direction of the network.
#[derive(Debug)]
struct Pipe {
    bytes: VecDeque<u8>,
    end: PipeEnd,
    is_scheduled: bool,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Plain,
    Handshaking,
    Tls,
    Mute,
}

/// What reached the far side.
#[derive(Debug)]
pub enum Reached {
    Nothing,
    Bytes(Vec<u8>),
    End,
}

#[derive(Debug)]
pub struct Link {
    pub far: Far,
    pub shard: usize,
    pub run: u32,
    pub phase: Phase,
    /// The local address that the core asked for.
    pub from: Option<IpAddr>,
    /// Whether the far side counts it.
    pub is_open_far: bool,
    /// Bytes the far side has said so far.
    pub said: u64,
    /// Bytes the core was told so far.
    pub heard: u64,
    conn: Option<Conn>,
    is_reading: bool,
    outbox: VecDeque<u8>,
    owes_drained: bool,
    is_taking: bool,
    is_broken: bool,
    down: Pipe,
    up: Pipe,
    arrived: VecDeque<u8>,
    has_ended: bool,
    transport: Transport,
    latency: u64,
    linger_until: u64,
    outcome: Option<Result<(), ConnectError>>,
}

#[derive(Debug)]
pub struct Net {
    links: Vec<Link>,
    by_conn: BTreeMap<(usize, u32, u32), LinkId>,
    chance: Chance,
    pub resets: u32,
}

/// What the driver does at once for an effect, to be put into the shard's inbox.
pub type Words = Vec<Word>;

impl Net {
    #[must_use]
    pub fn new(chance: Chance) -> Self {
        Self { links: Vec::new(), by_conn: BTreeMap::new(), chance, resets: 0 }
    }

    #[must_use]
    pub fn link(&self, link: LinkId) -> &Link {
        &self.links[link.0]
    }

    pub fn of_conn(&self, shard: usize, conn: Conn) -> Option<LinkId> {
        self.by_conn.get(&(shard, conn.slot, conn.generation)).copied()
    }

    /// Links of the present run that the driver still holds.
    pub fn held(&self) -> impl Iterator<Item = &Link> {
        self.by_conn.values().map(|link| &self.links[link.0])
    }

    pub fn open_links(&self) -> usize {
        self.by_conn.len()
    }

    fn add(&mut self, far: Far, shard: usize, run: u32, phase: Phase) -> LinkId {
        let latency = self.chance.skewed(20 * US, 150 * MS);
        self.links.push(Link {
            far,
            shard,
            run,
            phase,
            from: None,
            is_open_far: false,
            said: 0,
            heard: 0,
            conn: None,
            is_reading: true,
            outbox: VecDeque::new(),
            owes_drained: false,
            is_taking: false,
            is_broken: false,
            down: Pipe::new(),
            up: Pipe::new(),
            arrived: VecDeque::new(),
            has_ended: false,
            transport: Transport::Plain,
            latency,
            linger_until: u64::MAX,
            outcome: None,
        });
        LinkId(self.links.len() - 1)
    }

    /// A client connects; the shard hears of it by the word.
    pub fn dial_in(&mut self, far: Far, shard: usize, run: u32) -> LinkId {
        let link = self.add(far, shard, run, Phase::Open);
        self.links[link.0].is_open_far = true;
        link
    }

    /// The core connects to a host. `fate`: accepted, refused, or silence until `by`.
    pub fn dial_out(
        &mut self,
        agenda: &mut Agenda,
        at: u64,
        to: (usize, Conn, usize),
        run: u32,
        fate: Result<(), ConnectError>,
        by: u64,
    ) -> LinkId {
        let (shard, conn, host) = to;
        let link = self.add(Far::Host(host), shard, run, Phase::Connecting);
        self.bind(link, conn);
        let answered = at + 2 * self.links[link.0].latency;
        let (end, outcome) = match fate {
            Ok(()) if answered < by => (answered, Ok(())),
            Err(ConnectError::Refused) if answered < by => (answered, fate),
            _ => (by, Err(ConnectError::TimedOut)),
        };
        self.links[link.0].outcome = Some(outcome);
        agenda.add(end, Due::Connected(link));
        link
    }

    pub fn set_from(&mut self, link: LinkId, from: Option<IpAddr>) {
        self.links[link.0].from = from;
    }

    /// The engine has no room for a connection: its machine resets it.
    pub fn refuse(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        state.phase = Phase::Gone;
        state.down.end = PipeEnd::Reset;
        self.move_down(agenda, at, link);
    }

    /// Gives a link the name by which the core calls it.
    pub fn bind(&mut self, link: LinkId, conn: Conn) {
        let shard = self.links[link.0].shard;
        self.links[link.0].conn = Some(conn);
        self.by_conn.insert((shard, conn.slot, conn.generation), link);
    }

    /// The attempt of `dial_out` came to its end. True: the host now has a connection.
    pub fn connected(&mut self, link: LinkId, words: &mut Words) -> bool {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Connecting {
            return false;
        }
        let outcome = state.outcome.take().unwrap_or(Err(ConnectError::TimedOut));
        state.is_open_far = outcome.is_ok();
        words.push(Word::Connected(link, outcome));
        outcome.is_ok()
    }

    /// Bytes that wait in the largest outbox of those who read nothing.
    #[must_use]
    pub fn unread(&self) -> usize {
        let rogues = self.held().filter(|link| link.far == Far::Rogue);
        rogues.map(|link| link.outbox.len()).max().unwrap_or(0)
    }

    /// Bytes that wait in the largest outbox, and in the largest heap of arrived ones.
    #[must_use]
    pub fn heaps(&self) -> (usize, usize) {
        let outbox = self.held().map(|link| link.outbox.len()).max().unwrap_or(0);
        let arrived = self.held().map(|link| link.arrived.len()).max().unwrap_or(0);
        (outbox, arrived)
    }
}
