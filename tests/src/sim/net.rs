//! TCP as the engine's driver shows it to a shard: bytes in any pieces, ends, refusals, silence.
//!
//! ```text
//! core ─Send─▶ outbox ─kernel─▶ down ─pieces─▶ far side
//! core ◀─Received─ arrived ◀─pieces─ up ◀──── far side
//! ```
//! The engine's side goes through the phases of `engine/src/runtime/ring/close.rs`, in the same
//! order and with the same bounds.

use std::collections::{BTreeMap, VecDeque};

use postrider_engine::model::connection::{Close, Conn, ConnectError, End, TlsError, TlsFacts};
use postrider_engine::shard::Event;

use super::agenda::{Agenda, Due};
use super::chance::Chance;
use super::clock::{MS, SECOND, US};

const DRAIN_MAX: u64 = 10 * SECOND;
const LINGER: u64 = 2 * SECOND;
/// What a machine takes for a peer that does not read.
const WINDOW: usize = 100_000;
/// Receive buffers of the driver: what one `Received` may bring.
const RECEIVE_BYTES: usize = 8192;

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

/// What a shard will be told, to be worked out when it takes its turn.
#[derive(Debug)]
pub enum Word {
    Accept(LinkId),
    /// Something arrived.
    Look(LinkId),
    Connected(LinkId, Result<(), ConnectError>),
    Drained(LinkId),
    Secured(LinkId, Result<(), ()>),
    Ended(LinkId, End),
    Retired(LinkId),
    Whole(Event<'static>),
}

/// What a shard is told now.
#[derive(Debug)]
pub enum Lent {
    Bytes(Conn, Vec<u8>),
    Whole(Option<Event<'static>>),
}

impl Lent {
    pub fn event(&mut self) -> Option<Event<'_>> {
        match self {
            Self::Bytes(conn, bytes) => Some(Event::Received { conn: *conn, bytes }),
            Self::Whole(event) => event.take(),
        }
    }
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

impl Pipe {
    fn new() -> Self {
        Self { bytes: VecDeque::new(), end: PipeEnd::None, is_scheduled: false, is_over: false }
    }

    fn wants_moving(&self) -> bool {
        let something = !self.bytes.is_empty() || self.end != PipeEnd::None;
        something && !self.is_scheduled && !self.is_over
    }
}

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

    // The core's side.

    pub fn core_sends(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, bytes: &[u8]) {
        let state = &mut self.links[link.0];
        let may = matches!(state.phase, Phase::Open | Phase::Finishing);
        if !may || state.is_broken || state.transport == Transport::Mute || bytes.is_empty() {
            return;
        }
        assert!(state.transport != Transport::Handshaking, "nothing is sent during a handshake");
        state.outbox.extend(bytes);
        state.owes_drained = true;
        self.take_soon(agenda, at, link);
    }

    pub fn core_reads(&mut self, link: LinkId, is_on: bool, words: &mut Words) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open {
            return;
        }
        state.is_reading = is_on;
        if is_on && (!state.arrived.is_empty() || state.has_ended) {
            words.push(Word::Look(link));
        }
    }

    pub fn core_secures(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open {
            return;
        }
        assert!(state.transport == Transport::Plain, "a connection is secured once");
        state.transport = Transport::Handshaking;
        agenda.add(at + 2 * state.latency + MS, Due::Secured(link));
    }

    /// The handshake is over, one way or the other; `false`: nobody waits for it any more.
    pub fn secured(&mut self, link: LinkId, is_good: bool, words: &mut Words) -> bool {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Open || state.transport != Transport::Handshaking {
            return false;
        }
        if state.has_ended {
            // The peer is gone: its end is what will be told.
            return false;
        }
        state.transport = if is_good { Transport::Tls } else { Transport::Mute };
        words.push(Word::Secured(link, if is_good { Ok(()) } else { Err(()) }));
        is_good
    }

    pub fn core_closes(
        &mut self,
        agenda: &mut Agenda,
        at: u64,
        link: LinkId,
        how: Close,
        words: &mut Words,
    ) {
        match (self.links[link.0].phase, how) {
            (Phase::Connecting, _) => {
                words.push(Word::Connected(link, Err(ConnectError::TimedOut)));
                self.begin_closing(agenda, at, link, PipeEnd::Reset);
            }
            (Phase::Open, Close::Graceful) => self.close_gracefully(agenda, at, link, words),
            (Phase::Gone | Phase::Closing, _) => {}
            (_, Close::Abort) => self.break_off(agenda, at, link, words),
            _ => {}
        }
    }

    fn break_off(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &self.links[link.0];
        let how = if state.has_ended { End::ByPeer } else { End::Unknown };
        if matches!(state.phase, Phase::Open | Phase::Draining | Phase::Lingering) {
            words.push(Word::Ended(link, how));
        }
        self.begin_closing(agenda, at, link, PipeEnd::Reset);
    }

    fn close_gracefully(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.phase = Phase::Draining;
        state.arrived.clear();
        if state.transport == Transport::Handshaking {
            state.transport = Transport::Mute;
        }
        if state.has_ended {
            words.push(Word::Look(link));
            return;
        }
        state.linger_until = at + DRAIN_MAX;
        agenda.add(state.linger_until, Due::Lingered(link));
        if state.outbox.is_empty() {
            self.send_our_end(agenda, at, link);
        }
    }

    fn send_our_end(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        state.phase = Phase::Lingering;
        state.linger_until = at + LINGER;
        agenda.add(state.linger_until, Due::Lingered(link));
        state.down.end = PipeEnd::Fin;
        self.move_down(agenda, at, link);
    }

    fn begin_closing(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, end: PipeEnd) {
        let state = &mut self.links[link.0];
        if matches!(state.phase, Phase::Closing | Phase::Gone) {
            return;
        }
        state.phase = Phase::Closing;
        state.arrived.clear();
        state.outbox.clear();
        if state.down.end == PipeEnd::None || end == PipeEnd::Reset {
            state.down.end = end;
        }
        self.move_down(agenda, at, link);
        agenda.add(at + self.chance.between(1, MS), Due::Retired(link));
    }

    /// A closing connection has had its time, if it still waits.
    pub fn lingered(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &self.links[link.0];
        if at < state.linger_until {
            return;
        }
        match state.phase {
            Phase::Draining => self.break_off(agenda, at, link, words),
            Phase::Lingering => {
                words.push(Word::Ended(link, End::Unknown));
                self.begin_closing(agenda, at, link, PipeEnd::Fin);
            }
            Phase::Finishing => self.begin_closing(agenda, at, link, PipeEnd::Fin),
            _ => {}
        }
    }

    /// After a turn: connections whose end was told are closed once nothing is left to send.
    pub fn finish(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.phase != Phase::Finishing {
            return;
        }
        if state.outbox.is_empty() {
            self.begin_closing(agenda, at, link, PipeEnd::Fin);
        } else {
            state.linger_until = at + LINGER;
            agenda.add(state.linger_until, Due::Lingered(link));
        }
    }

    fn take_soon(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if !state.is_taking && !state.outbox.is_empty() {
            state.is_taking = true;
            agenda.add(at + self.chance.skewed(US, 2 * MS), Due::Taken(link));
        }
    }

    /// The kernel takes some of the outbox.
    pub fn taken(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.is_taking = false;
        if matches!(state.phase, Phase::Closing | Phase::Gone) || state.outbox.is_empty() {
            return;
        }
        let all = state.outbox.len();
        let some = if self.chance.one_in(4) { self.chance.length(all / 4 + 1, all) } else { all };
        // What nobody reads fills the window, and then nothing moves any more.
        let some = match state.far {
            Far::Rogue => some.min(WINDOW.saturating_sub(state.down.bytes.len())),
            _ => some,
        };
        if some == 0 {
            return;
        }
        let moved = state.outbox.drain(..some);
        state.down.bytes.extend(moved);
        self.move_down(agenda, at, link);
        if some < all {
            return self.take_soon(agenda, at, link);
        }
        let state = &mut self.links[link.0];
        match state.phase {
            Phase::Open if std::mem::take(&mut state.owes_drained) => {
                words.push(Word::Drained(link));
            }
            Phase::Draining => self.send_our_end(agenda, at, link),
            Phase::Finishing => self.begin_closing(agenda, at, link, PipeEnd::Fin),
            _ => {}
        }
    }

    fn move_down(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.down.wants_moving() && state.far != Far::Rogue {
            state.down.is_scheduled = true;
            agenda.add(at + state.latency, Due::Down(link));
        }
    }

    fn move_up(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) {
        let state = &mut self.links[link.0];
        if state.up.wants_moving() {
            state.up.is_scheduled = true;
            agenda.add(at + state.latency, Due::Up(link));
        }
    }

    // What arrives.

    /// The next piece, or the end, reaches the far side.
    pub fn down(&mut self, agenda: &mut Agenda, at: u64, link: LinkId) -> Reached {
        let state = &mut self.links[link.0];
        state.down.is_scheduled = false;
        if !state.is_open_far {
            state.down.is_over = true;
            return Reached::Nothing;
        }
        if state.down.end == PipeEnd::Reset && self.chance.one_in(2) {
            state.down.bytes.clear();
        }
        if state.down.bytes.is_empty() {
            state.down.is_over = true;
            return Reached::End;
        }
        let piece = self.chance.piece(&mut state.down.bytes);
        if state.down.wants_moving() {
            state.down.is_scheduled = true;
            agenda.add(at + self.chance.between(1, state.latency / 8 + 1), Due::Down(link));
        }
        Reached::Bytes(piece)
    }

    /// The next piece, or the end, reaches the core's machine.
    pub fn up(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, words: &mut Words) {
        let state = &mut self.links[link.0];
        state.up.is_scheduled = false;
        if matches!(state.phase, Phase::Closing | Phase::Gone) {
            state.up.is_over = true;
            return;
        }
        if state.up.end == PipeEnd::Reset && self.chance.one_in(2) {
            state.up.bytes.clear();
        }
        if state.up.bytes.is_empty() {
            state.up.is_over = true;
            state.has_ended = true;
        } else {
            let piece = self.chance.piece(&mut state.up.bytes);
            state.arrived.extend(piece);
        }
        words.push(Word::Look(link));
        if state.up.wants_moving() {
            state.up.is_scheduled = true;
            agenda.add(at + self.chance.between(1, state.latency / 8 + 1), Due::Up(link));
        }
    }

    /// Works a word out for a shard whose turn it is. `ended`: links to be finished afterwards.
    pub fn tell(&mut self, agenda: &mut Agenda, at: u64, word: Word, told: &mut Told) {
        match word {
            Word::Accept(_) => unreachable!("accepting needs a slot first"),
            Word::Look(link) => self.look(agenda, at, link, told),
            Word::Connected(link, result) => {
                let state = &mut self.links[link.0];
                let Some(conn) = state.conn else { return };
                let was_connecting = state.phase == Phase::Connecting;
                told.events.push(Lent::Whole(Some(Event::Connected { conn, result })));
                if was_connecting && result.is_ok() {
                    state.phase = Phase::Open;
                    self.look(agenda, at, link, told);
                } else if was_connecting {
                    self.begin_closing(agenda, at, link, PipeEnd::Reset);
                }
            }
            Word::Drained(link) => {
                let state = &self.links[link.0];
                if let (Phase::Open, Some(conn)) = (state.phase, state.conn) {
                    told.events.push(Lent::Whole(Some(Event::Drained { conn })));
                }
            }
            Word::Secured(link, result) => {
                let Some(conn) = self.links[link.0].conn else { return };
                let facts = TlsFacts { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384" };
                let result = result.map(|()| facts).map_err(|()| TlsError("bad record".into()));
                told.events.push(Lent::Whole(Some(Event::Secured { conn, result })));
            }
            Word::Ended(link, how) => {
                let Some(conn) = self.links[link.0].conn else { return };
                told.events.push(Lent::Whole(Some(Event::Ended { conn, how })));
            }
            Word::Retired(link) => self.retire(link, told),
            Word::Whole(event) => told.events.push(Lent::Whole(Some(event))),
        }
    }

    fn retire(&mut self, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn.take() else { return };
        state.phase = Phase::Gone;
        state.up.bytes = VecDeque::new();
        self.by_conn.remove(&(state.shard, conn.slot, conn.generation));
        told.events.push(Lent::Whole(Some(Event::Retired { conn })));
    }

    fn look(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn else { return };
        match state.phase {
            Phase::Open if !state.is_reading && state.arrived.is_empty() && state.has_ended => {
                self.end(agenda, at, link, told);
            }
            Phase::Open if !state.is_reading => {}
            Phase::Open => {
                while !state.arrived.is_empty() {
                    let len = state.arrived.len().min(RECEIVE_BYTES);
                    let bytes: Vec<u8> = state.arrived.drain(..len).collect();
                    state.heard += bytes.len() as u64;
                    if matches!(state.transport, Transport::Plain | Transport::Tls) {
                        told.heard.push(link);
                        told.events.push(Lent::Bytes(conn, bytes));
                    }
                }
                if state.has_ended {
                    self.end(agenda, at, link, told);
                }
            }
            Phase::Draining | Phase::Lingering => {
                state.arrived.clear();
                if state.has_ended {
                    self.end(agenda, at, link, told);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn else { return };
        let how = End::ByPeer;
        told.events.push(Lent::Whole(Some(Event::Ended { conn, how })));
        if state.phase != Phase::Lingering && !state.is_broken {
            state.phase = Phase::Finishing;
            told.finishing.push(link);
        } else {
            self.begin_closing(agenda, at, link, PipeEnd::Fin);
        }
    }

    // The far side.

    /// The far side says something. False: something in between resets the connection, for both.
    #[must_use]
    pub fn far_sends(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, bytes: &[u8]) -> bool {
        let state = &mut self.links[link.0];
        if !state.is_open_far || state.up.end != PipeEnd::None {
            return true;
        }
        state.said += bytes.len() as u64;
        state.up.bytes.extend(bytes);
        self.move_up(agenda, at, link);
        !self.chance.permille(self.resets)
    }

    /// The far side closes: in order, or with a reset that may overtake what it said.
    pub fn far_closes(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, is_reset: bool) {
        let state = &mut self.links[link.0];
        state.is_open_far = false;
        if state.up.end == PipeEnd::None {
            state.up.end = if is_reset { PipeEnd::Reset } else { PipeEnd::Fin };
        }
        self.move_up(agenda, at, link);
    }

    /// The engine's process is gone. With its machine, nobody is told; else the kernel closes.
    pub fn abandon(&mut self, agenda: &mut Agenda, at: u64, is_machine_gone: bool) -> Vec<LinkId> {
        let all: Vec<LinkId> = std::mem::take(&mut self.by_conn).into_values().collect();
        for link in &all {
            let state = &mut self.links[link.0];
            state.conn = None;
            state.phase = Phase::Gone;
            state.outbox.clear();
            state.up.bytes.clear();
            state.up.is_over = true;
            if is_machine_gone {
                state.down.bytes.clear();
                state.down.end = PipeEnd::Reset;
                state.latency += self.chance.between(SECOND, 60 * SECOND);
            } else {
                state.down.end = if self.chance.one_in(2) { PipeEnd::Reset } else { PipeEnd::Fin };
            }
            self.move_down(agenda, at, *link);
        }
        all
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

/// What a turn told a shard, and what is to be done after it.
#[derive(Debug, Default)]
pub struct Told {
    pub events: Vec<Lent>,
    pub finishing: Vec<LinkId>,
    /// Links of which bytes were told.
    pub heard: Vec<LinkId>,
}

impl Chance {
    /// The next piece of a stream: all of it, or at least an eighth.
    fn piece(&mut self, bytes: &mut VecDeque<u8>) -> Vec<u8> {
        let all = bytes.len();
        let some = if self.one_in(3) { self.length(all / 8 + 1, all) } else { all };
        bytes.drain(..some).collect()
    }
}
