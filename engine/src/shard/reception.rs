//! The clients of a shard: their sessions, what they order of the spool, and what they are told.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Effect, Effects, Role, Shard, Timer, Way};
use crate::base::time::{Mono, Now};
use crate::intake::{
    Admission, Client, IntakeSettings, Message, Order, Session, Stored, relay_allowed,
};
use crate::model::connection::{Close, Conn};
use crate::model::message::MessageId;
use crate::model::settings::Settings;
use crate::spool::{ChunkRef, DomainRange, MessageParts, Spool, SpoolFull};
use crate::wire::envelope::EnvelopeView;

/// Deliveries a shard queues before it takes no more mail: at about 100 bytes each, half a gigabyte.
const DELIVERIES_MAX: usize = 5_000_000;

/// Clients that may hold a slot while they are told 421; beyond, they are closed unsaid, so that a
/// flood takes no slot of those that deliver.
pub const TURNED_AWAY_MAX: u32 = 256;

/// Replies a client may leave unread before we stop listening to it.
const UNREAD_REPLY_BYTES_MAX: usize = 64 * 1024;

/// Bytes waiting for the disk beyond which clients that send large bodies are held ...
const STALL_ABOVE_BYTES: usize = 8 << 20;
/// ... and below which they may go on.
const RESUME_BELOW_BYTES: usize = 4 << 20;

/// Pieces of one body: a record counts them in 16 bits, and a body of the largest size in whole
/// pieces has far fewer. Only want of memory makes them small enough to get here.
const CHUNKS_MAX: usize = 32 * 1024;

/// What our Received field has beside the names of both hosts, counted generously.
const TRACE_FIXED_BYTES: usize = 256;

/// The token of a client's message names its connection.
const GENERATION_BITS: u32 = 32;

/// The clients' side of a shard.
pub(super) struct Reception {
    settings: Arc<IntakeSettings>,
    admission: Admission,
    /// Slots in use for clients, until the driver has let go of them.
    connections: u32,
    connections_max: u32,
    /// Clients that were told 421 and still hold a slot.
    turned_away: u32,
    /// Sessions between MAIL and the final dot.
    receiving: usize,
    /// Clients held until the disk has caught up.
    stalled: Vec<Conn>,
    envelope: Vec<u8>,
    trace: Vec<u8>,
}

/// A client's connection.
pub(super) struct Incoming {
    session: Session,
    chunks: Vec<ChunkRef>,
    /// A piece of the present message found no room: the message is refused at its end.
    is_cut: bool,
    holds: Holds,
    unread_replies: usize,
    /// When the timer that stands for this session fires.
    armed: Mono,
}

/// Why nothing is read from a client at present.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Holds {
    by_session: bool,
    by_disk: bool,
    by_replies: bool,
}

impl Holds {
    fn any(self) -> bool {
        self != Self::default()
    }
}

impl Reception {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: Arc::new(settings.into()),
            admission: Admission::new(settings.limits.intake_memory_bytes),
            connections: 0,
            turned_away: 0,
            connections_max: settings.limits.connections_in,
            receiving: 0,
            stalled: Vec::new(),
            envelope: Vec::new(),
            trace: Vec::new(),
        }
    }

    pub(super) fn handle_settings(&mut self, settings: &Settings) {
        self.settings = Arc::new(settings.into());
        self.admission.set_limit(settings.limits.intake_memory_bytes);
        self.connections_max = settings.limits.connections_in;
    }

    /// Whether one more connection may be looked at, be it to tell it 421.
    pub(super) fn may_accept(&self) -> bool {
        self.turned_away < TURNED_AWAY_MAX
    }

    pub(super) fn slot_freed(&mut self, way: Way) {
        match way {
            Way::TurnedAway => self.turned_away -= 1,
            Way::In | Way::Out => self.connections -= 1,
        }
    }

    pub(super) fn receiving(&self) -> usize {
        self.receiving
    }

    /// Writes a message into the open commit group.
    fn store(
        &mut self,
        now: Now,
        token: u64,
        message: Message<'_>,
        chunks: &[ChunkRef],
        spool: &mut Spool,
    ) -> Result<(), SpoolFull> {
        self.envelope.clear();
        message.write_envelope(now.wall, &mut self.envelope);
        let host = &self.settings.hostname;
        let trace_bytes = message.trace.helo.len() + host.len() + TRACE_FIXED_BYTES;
        let mut parts = MessageParts {
            envelope: &self.envelope,
            recipients: u16::try_from(message.envelope.count()).unwrap_or(u16::MAX),
            groups: &[],
            trace: &[],
            chunks,
            body: message.body,
        };
        let id = spool.begin_message(now, parts.payload_bytes() + trace_bytes)?;
        self.trace.clear();
        message.write_received(host, id, now.wall, &mut self.trace);
        let groups = domain_ranges(&self.envelope);
        (parts.groups, parts.trace) = (&groups, &self.trace);
        // Refused or durable: either is told under the token.
        spool.append_message(now, id, parts, token);
        Ok(())
    }
}

/// The domains of an envelope that was just encoded.
pub(super) fn domain_ranges(envelope: &[u8]) -> Vec<DomainRange<'_>> {
    let Ok((view, _)) = EnvelopeView::parse(envelope) else {
        unreachable!("what was just encoded reads");
    };
    view.groups()
        .map(|group| DomainRange { domain: group.domain, first: group.first, count: group.count })
        .collect()
}

impl Shard {
    pub(super) fn accepted(
        &mut self,
        now: Now,
        conn: Conn,
        listener: u16,
        peer: SocketAddr,
        out: &mut Effects,
    ) {
        if self.phase.is_stopping() || self.reception.connections >= self.reception.connections_max
        {
            return self.turn_away(conn, out);
        }
        self.counters.connections_in += 1;
        self.reception.connections += 1;
        let came_by = self.settings.listeners.get(usize::from(listener));
        let is_in = |networks: &[IpNet]| relay_allowed(peer.ip(), networks);
        let client = Client {
            peer,
            listener,
            relay_allowed: came_by.is_some_and(|one| is_in(&one.relay_from)),
            labels_trusted: came_by.is_some_and(|one| is_in(&one.trust_headers_from)),
        };
        let incoming = Incoming {
            session: Session::new(Arc::clone(&self.reception.settings), client, now),
            chunks: Vec::new(),
            is_cut: false,
            holds: Holds::default(),
            unread_replies: 0,
            armed: Mono::NEVER,
        };
        self.roles[conn.slot as usize] = Role::Intake(Box::new(incoming));
        self.intake_orders(now, conn, out);
    }

    fn turn_away(&mut self, conn: Conn, out: &mut Effects) {
        self.counters.connections_in_refused += 1;
        self.reception.turned_away += 1;
        self.roles[conn.slot as usize] = Role::Retiring(Way::TurnedAway);
        out.send(conn, b"421 4.3.2 Service not available now, try again later\r\n");
        out.push(Effect::Close { conn, how: Close::Graceful });
    }

    pub(super) fn intake_received(
        &mut self,
        now: Now,
        conn: Conn,
        bytes: &[u8],
        out: &mut Effects,
    ) {
        self.with_client(now, conn, out, |session, admission| {
            session.handle_bytes(now, bytes, admission);
        });
    }

    pub(super) fn intake_time(&mut self, now: Now, conn: Conn, out: &mut Effects) {
        if let Some(Role::Intake(incoming)) = self.role(conn) {
            incoming.armed = Mono::NEVER;
        }
        self.with_client(now, conn, out, |session, admission| session.handle_time(now, admission));
    }

    pub(super) fn intake_stop(&mut self, now: Now, conn: Conn, out: &mut Effects) {
        self.with_client(now, conn, out, |session, admission| session.handle_stop(now, admission));
    }

    /// All replies have left: a client that was held for not reading them may go on.
    pub(super) fn intake_drained(&mut self, conn: Conn, out: &mut Effects) {
        if let Some(Role::Intake(incoming)) = self.role(conn) {
            incoming.unread_replies = 0;
            incoming.hold(conn, out, |holds| holds.by_replies = false);
        }
    }

    /// The message of this token is on disk: the client is told.
    pub(super) fn message_stored(
        &mut self,
        now: Now,
        token: u64,
        id: MessageId,
        out: &mut Effects,
    ) {
        self.with_client(now, conn_of(token), out, |session, admission| {
            session.handle_stored(now, Stored::Durable(id), admission);
        });
    }

    pub(super) fn message_not_stored(&mut self, now: Now, token: u64, out: &mut Effects) {
        self.with_client(now, conn_of(token), out, |session, admission| {
            session.handle_stored(now, Stored::Failed, admission);
        });
    }

    /// The connection is gone; a message that is being stored stays.
    pub(super) fn intake_ended(&mut self, conn: Conn, out: &mut Effects) {
        let role = std::mem::replace(&mut self.roles[conn.slot as usize], Role::Retiring(Way::In));
        let Role::Intake(mut incoming) = role else { return };
        self.counters.connections_in_ended += 1;
        let reception = &mut self.reception;
        reception.receiving -= usize::from(incoming.session.is_receiving());
        incoming.session.handle_ended(&mut reception.admission);
        self.spool.drop_chunks(&incoming.chunks);
        // Its own end may still be open: the driver closes what is left.
        out.push(Effect::Close { conn, how: Close::Graceful });
    }

    /// Lets a client's session take something in, then carries out what it orders.
    fn with_client(
        &mut self,
        now: Now,
        conn: Conn,
        out: &mut Effects,
        act: impl FnOnce(&mut Session, &mut Admission),
    ) {
        if !self.slots.is_current(conn.slot, conn.generation) {
            return;
        }
        let Role::Intake(incoming) = &mut self.roles[conn.slot as usize] else { return };
        let before = incoming.session.is_receiving();
        act(&mut incoming.session, &mut self.reception.admission);
        let after = incoming.session.is_receiving();
        self.reception.receiving += usize::from(after);
        self.reception.receiving -= usize::from(before);
        self.intake_orders(now, conn, out);
    }

    fn intake_orders(&mut self, now: Now, conn: Conn, out: &mut Effects) {
        let Self { roles, reception, spool, timers, .. } = self;
        let Role::Intake(incoming) = &mut roles[conn.slot as usize] else { return };
        let before = incoming.session.is_receiving();
        while incoming.carry_out(now, conn, reception, spool, out) {}
        // A refused store goes on with what was kept, which may begin the next message.
        reception.receiving += usize::from(incoming.session.is_receiving());
        reception.receiving -= usize::from(before);
        let at = incoming.session.next_wakeup();
        if at < incoming.armed {
            incoming.armed = at;
            timers.insert(at, Timer::Intake(conn));
        }
    }

    /// Once a turn: says whether mail may be taken, and lets held clients go on.
    pub(super) fn settle_reception(&mut self, out: &mut Effects) {
        let room = self.spool.room();
        let queued = self.scheduler.counts().queued;
        self.reception.admission.set_spool_open(room.messages.is_ok());
        self.reception.admission.set_backlog_full(queued >= DELIVERIES_MAX);
        if room.waiting_bytes > RESUME_BELOW_BYTES {
            return;
        }
        for conn in std::mem::take(&mut self.reception.stalled) {
            if let Some(Role::Intake(incoming)) = self.role(conn) {
                incoming.hold(conn, out, |holds| holds.by_disk = false);
            }
        }
    }
}

impl Incoming {
    /// Carries out the session's next order; false if there was none.
    fn carry_out(
        &mut self,
        now: Now,
        conn: Conn,
        reception: &mut Reception,
        spool: &mut Spool,
        out: &mut Effects,
    ) -> bool {
        let Some(order) = self.session.poll() else { return false };
        match order {
            Order::Reply(bytes) => {
                out.send(conn, bytes);
                self.unread_replies += bytes.len();
                let is_deaf = self.unread_replies > UNREAD_REPLY_BYTES_MAX;
                self.hold(conn, out, |holds| holds.by_replies = is_deaf);
            }
            Order::Chunk(bytes) => {
                self.is_cut = self.is_cut || !append_chunk(now, bytes, &mut self.chunks, spool);
                self.stall(conn, reception, spool, out);
            }
            Order::Abandon => self.drop_chunks(spool),
            Order::Store(message) => {
                let stored = if self.is_cut {
                    Err(SpoolFull::NoSegment)
                } else {
                    reception.store(now, token_of(conn), message, &self.chunks, spool)
                };
                self.ordered(now, stored, reception, spool);
            }
            Order::Reading(on) => self.hold(conn, out, |holds| holds.by_session = !on),
            Order::Close => out.push(Effect::Close { conn, how: Close::Graceful }),
        }
        true
    }

    /// The message is with the spool now, and its chunks with it; or it is refused at once.
    fn ordered(
        &mut self,
        now: Now,
        stored: Result<(), SpoolFull>,
        reception: &mut Reception,
        spool: &mut Spool,
    ) {
        match stored {
            Ok(()) => self.chunks.clear(),
            Err(_) => {
                self.drop_chunks(spool);
                self.session.handle_stored(now, Stored::Full, &mut reception.admission);
            }
        }
    }

    fn drop_chunks(&mut self, spool: &mut Spool) {
        spool.drop_chunks(&self.chunks);
        self.chunks.clear();
        self.is_cut = false;
    }

    /// Holds a client whose large body comes faster than the disk takes it.
    fn stall(&mut self, conn: Conn, reception: &mut Reception, spool: &Spool, out: &mut Effects) {
        if !self.holds.by_disk && spool.room().waiting_bytes > STALL_ABOVE_BYTES {
            reception.stalled.push(conn);
            self.hold(conn, out, |holds| holds.by_disk = true);
        }
    }

    /// Changes a reason to hold, and tells the driver if that makes a difference.
    fn hold(&mut self, conn: Conn, out: &mut Effects, change: impl FnOnce(&mut Holds)) {
        let before = self.holds.any();
        change(&mut self.holds);
        if self.holds.any() != before {
            out.push(Effect::Reading { conn, on: before });
        }
    }
}

/// Writes a piece of a body; false if the message cannot be taken any more.
fn append_chunk(now: Now, bytes: &[u8], chunks: &mut Vec<ChunkRef>, spool: &mut Spool) -> bool {
    if chunks.len() >= CHUNKS_MAX {
        return false;
    }
    let appended = spool.append_chunk(now, bytes);
    chunks.extend(appended.ok());
    appended.is_ok()
}

fn token_of(conn: Conn) -> u64 {
    u64::from(conn.slot) << GENERATION_BITS | u64::from(conn.generation)
}

fn conn_of(token: u64) -> Conn {
    let part = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX);
    Conn { slot: part(token >> GENERATION_BITS), generation: part(token & u64::from(u32::MAX)) }
}
