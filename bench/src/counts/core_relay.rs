//! The engine's core alone, relaying: a driver in memory, whose disk, clients and mail host answer at once.
//!
//! All that a message costs in user space but for the runtime: SMTP in, spool, scheduler, SMTP out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::config;
use postrider_engine::model::connection::{Conn, End, ShardId};
use postrider_engine::model::settings::Settings;
use postrider_engine::shard::{
    EVENTS_PER_TURN_MAX, Effect, Effects, Event, Shard, ShardOptions, turn,
};
use postrider_engine::spool::files::{FileId, SpareSegment};
use postrider_engine::spool::plan::plan;

use super::peers::{Client, Host};

/// Connections of clients, and the most to the mail host.
pub(crate) const SESSIONS: u64 = 50;
/// Between two turns: about what fifty busy sessions leave a shard.
const TURN_NS: u64 = 50_000;
/// A turn for each message is far more than a relay takes; beyond, it hangs.
const IDLE_TURNS_MAX: u32 = 10_000;
/// From a message's domain to the next one's: a prime, so that all have their turn.
const STRIDE: u64 = 618_033_989;
/// Any day will do.
const EPOCH: u64 = 1_700_000_000_000_000_000;

/// Relays so many messages of `size` bytes to so many domains, and says how many turns it took.
pub(crate) fn run(messages: u64, size: usize, domains: u64) -> Result<u64> {
    let mut world = World::new(messages, size, domains)?;
    let mut idle = 0;
    while world.delivered < messages {
        let before = world.delivered;
        world.turn()?;
        idle = if world.delivered == before { idle + 1 } else { 0 };
        if idle > IDLE_TURNS_MAX {
            bail!("{} of {messages} messages came through, then none any more", world.delivered);
        }
    }
    Ok(world.turns)
}

/// Each domain has a host of its own.
fn configuration(domains: u64) -> String {
    let common = "hostname = \"mta.bench.test\"\n[spool]\npath = \"/spool\"\n\
                  [[listen]]\naddress = \"127.0.0.1:25\"\nrelay_from = [\"127.0.0.0/8\"]\n\
                  [limits]\nconnections_in = 1000\nconnections_out = 20000\n[egress]\ntls = \"off\"\n\
                  [site.default]\nconnections = 50\nmessages_per_connection = 100000\n";
    let route = |number| {
        let [.., high, low] = u64::to_be_bytes(number);
        let domain = format!("d{number}.example.test");
        format!("[[route]]\ndomain = \"{domain}\"\nvia = \"127.2.{high}.{low}:25\"\n")
    };
    common.to_owned() + &(0..domains).map(route).collect::<String>()
}

/// What the shard is told next.
enum Word {
    Whole(Option<Event<'static>>),
    Bytes(Conn, Vec<u8>),
}

impl Word {
    fn whole(event: Event<'static>) -> Self {
        Self::Whole(Some(event))
    }
}

/// Who is at the other end of a connection.
enum Peer {
    Client(Client),
    Host(Host),
}

struct World {
    shard: Shard,
    settings: Arc<Settings>,
    now: Now,
    turns: u64,
    words: Vec<Word>,
    effects: Effects,
    /// By slot.
    peers: Vec<Option<Peer>>,
    files: u32,
    offered: u64,
    messages: u64,
    domains: u64,
    delivered: u64,
}

impl World {
    fn new(messages: u64, size: usize, domains: u64) -> Result<Self> {
        let settings = config::parse(&configuration(domains), "core.toml", "mta.bench.test")
            .map_err(|problems| anyhow!("unsound settings: {problems:?}"))?;
        let settings = Arc::new(settings);
        let now = Now { mono: Mono(1), wall: Wall(EPOCH) };
        let mut recovered = plan(Vec::new(), 1);
        let mut spool = recovered.shards.remove(0);
        let shard = Shard::new(ShardOptions {
            id: ShardId(0),
            shards: 1,
            settings: Arc::clone(&settings),
            spares: spool.take_spares(),
            next_sequence: recovered.next_sequence,
            commits_in_flight_max: 4,
            record_memory: Arc::new(Budget::new(settings.limits.body_memory_bytes)),
            cells: Arc::new(CellTable::new(1)),
            seed: 1,
            now,
        });
        let event = Event::Recovered {
            spool: Box::new(spool),
            backlog: Vec::new(),
            states: recovered.states.into(),
        };
        let mut world = Self {
            shard,
            settings,
            now,
            turns: 0,
            words: vec![Word::whole(event)],
            effects: Effects::default(),
            peers: Vec::new(),
            files: 0,
            offered: 0,
            messages,
            domains,
            delivered: 0,
        };
        // Its spares are made, and a turn with them has opened the door.
        while !world.shard.is_ready() || !world.words.is_empty() {
            world.turn()?;
        }
        world.turn()?;
        (0..SESSIONS).try_for_each(|_| world.accept(size))?;
        Ok(world)
    }

    fn accept(&mut self, size: usize) -> Result<()> {
        let Some(conn) = self.shard.take_client_slot() else { bail!("no slot for a client") };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1025));
        self.seat(conn, Peer::Client(Client::new(size)));
        self.words.push(Word::whole(Event::Accepted { conn, listener: 0, peer }));
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let mut words = std::mem::take(&mut self.words);
        let count = words.len().min(EVENTS_PER_TURN_MAX);
        let wake = tell(&mut self.shard, self.now, &mut words[..count], &mut self.effects);
        self.words.extend(words.drain(count..));
        self.turns += 1;
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects.list {
            self.carry_out(effect, &effects)?;
        }
        self.effects = effects;
        self.effects.clear();
        let next = self.now.mono.0 + TURN_NS;
        // Nothing happens before its next timer.
        let next =
            if self.words.is_empty() && wake != Mono::NEVER { next.max(wake.0) } else { next };
        let gone = next - self.now.mono.0;
        self.now = Now { mono: Mono(next), wall: Wall(self.now.wall.0 + gone) };
        Ok(())
    }

    fn carry_out(&mut self, effect: &Effect, effects: &Effects) -> Result<()> {
        match effect {
            Effect::Send { conn, span } => self.sent(*conn, effects.span(*span)),
            Effect::SendSlice { conn, slice } => self.sent(*conn, slice.bytes()),
            Effect::Connect { conn, .. } => {
                self.seat(*conn, Peer::Host(Host::default()));
                self.words.push(Word::whole(Event::Connected { conn: *conn, result: Ok(()) }));
                self.words.push(Word::Bytes(*conn, b"220 mx.example.test ESMTP\r\n".to_vec()));
            }
            Effect::Commit { commit, .. } => {
                let event = Event::Committed { commit: *commit, result: Ok(()) };
                self.words.push(Word::whole(event));
            }
            Effect::PrepareSegment => {
                let event = Event::SegmentReady(Ok(self.new_segment()));
                self.words.push(Word::whole(event));
            }
            Effect::Close { conn, .. } => {
                self.words.push(Word::whole(Event::Ended { conn: *conn, how: End::ByPeer }));
                self.words.push(Word::whole(Event::Retired { conn: *conn }));
            }
            Effect::Reading { .. } | Effect::Report(_) => {}
            other => bail!("a relay in memory asks for no {other:?}"),
        }
        Ok(())
    }

    /// Bytes of the shard for a peer, and what that says to them.
    fn sent(&mut self, conn: Conn, bytes: &[u8]) {
        let slot = conn.slot as usize;
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut answer = Vec::new();
        match peer {
            Peer::Client(client) => {
                for _ in 0..client.hear(bytes, &mut answer) {
                    if self.offered == self.messages {
                        break;
                    }
                    self.offered += 1;
                    let domain = self.offered.wrapping_mul(STRIDE) % self.domains;
                    client.offer(self.offered, domain, &mut answer);
                }
            }
            Peer::Host(host) => self.delivered += host.hear(bytes, &mut answer),
        }
        self.words.push(Word::whole(Event::Drained { conn }));
        if !answer.is_empty() {
            self.words.push(Word::Bytes(conn, answer));
        }
    }

    fn seat(&mut self, conn: Conn, peer: Peer) {
        let slot = conn.slot as usize;
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot] = Some(peer);
    }

    fn new_segment(&mut self) -> SpareSegment {
        self.files += 1;
        let bytes = self.settings.spool.segment_bytes;
        SpareSegment { file: FileId(self.files), bytes, generation: 1, header_writes: 2 }
    }
}

/// Tells it all; bytes are lent for the call only.
fn tell(shard: &mut Shard, now: Now, words: &mut [Word], effects: &mut Effects) -> Mono {
    let events = words.iter_mut().map(|word| match word {
        Word::Bytes(conn, bytes) => Event::Received { conn: *conn, bytes },
        Word::Whole(event) => event.take().expect("told once"),
    });
    counted_turn(shard, now, events, effects)
}

/// The one function whose instructions are counted, with all that it calls.
#[inline(never)]
fn counted_turn<'a>(
    shard: &mut Shard,
    now: Now,
    events: impl Iterator<Item = Event<'a>>,
    effects: &mut Effects,
) -> Mono {
    turn(shard, now, events, effects)
}
