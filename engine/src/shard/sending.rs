//! The egress sessions of a shard and the connections they run on.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::remotes::{Counted, Freed, Remotes};
use super::{Effect, Effects, Role, Shard, Timer, Way};
use crate::base::cell::{Cell, Grant};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::prefetch;
use crate::base::time::{Mono, Now};
use crate::egress::letter::{BodyPart, Letter};
use crate::egress::order::{Memory, Order};
use crate::egress::session::{EgressOptions, Session, WORK_AHEAD_MAX};
use crate::model::connection::{Conn, ConnectError, End, ShardId, TlsError, TlsFacts};
use crate::model::delivery::{Delivery, LeaseId, RecordInMemory};
use crate::model::message::{MessageId, Place, Slice};
use crate::model::note::{Attempt, Done, Note, Opening};
use crate::model::settings::Settings;
use crate::spool::ChunkRef;
use crate::spool::message::Part;
use crate::spool::record::{RECORD_HEADER_BYTES, piece_bytes};
use crate::wire::envelope::EnvelopeFlags;

use super::storage::opened;

/// All egress sessions, by key and by the lease they run under.
pub(super) struct Sending {
    sessions: Slab<Outgoing>,
    /// Lent to each session in its turn.
    memory: Memory,
    by_lease: Map<LeaseId, usize>,
    options: Arc<EgressOptions>,
    /// Slots in use for outgoing connections, until the driver has let go of them.
    connections: u32,
    remotes: Remotes,
}

/// One lease at work: its conversation and, between connects, its connection.
struct Outgoing {
    session: Session,
    lease: LeaseId,
    conn: Option<Conn>,
    counted: Counted,
    /// Deliveries given, whose record is being read again; the scheduler's work-ahead bounds them.
    fetching: VecDeque<Delivery>,
    /// Whose spool holds what was given and is not done.
    homes: SmallVec<[(MessageId, ShardId); WORK_AHEAD_MAX]>,
    /// When the timer that stands for this session fires.
    armed: Mono,
}

impl Sending {
    pub(super) fn new(settings: &Settings, remotes: Remotes) -> Self {
        Self {
            sessions: Slab::new(),
            memory: Memory::default(),
            by_lease: Map::default(),
            options: options(settings),
            connections: 0,
            remotes,
        }
    }

    /// Tells whose turn it is where a cap was raised.
    pub(super) fn handle_settings(&mut self, settings: &Settings) -> Vec<(Arc<Cell>, Grant)> {
        self.options = options(settings);
        self.remotes.handle_settings(settings)
    }

    /// Fetches a session into the cache.
    pub(super) fn prefetch(&self, key: usize) {
        self.sessions.get(key).map(prefetch::all);
    }

    /// The session that works under a lease.
    pub(super) fn key_of(&self, lease: LeaseId) -> Option<usize> {
        self.by_lease.get(&lease).copied()
    }

    pub(super) fn lease_of(&self, key: usize) -> Option<LeaseId> {
        self.sessions.get(key).map(|one| one.lease)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The slot of an outgoing connection is free again.
    pub(super) fn slot_freed(&mut self) {
        self.connections -= 1;
    }
}

fn options(settings: &Settings) -> Arc<EgressOptions> {
    Arc::new(EgressOptions {
        hostname: settings.hostname.clone(),
        tls: settings.egress.tls,
        outcomes: settings.spool.outcomes,
    })
}

impl Outgoing {
    /// The shard whose spool holds a message that this lease was given.
    fn home_of(&self, message: MessageId) -> Option<ShardId> {
        self.homes.iter().find(|(given, _)| *given == message).map(|(_, home)| *home)
    }
}

impl Outgoing {
    /// One delivery of a message is done; another of the same message may still be given.
    fn forget_home(&mut self, message: MessageId) {
        if let Some(at) = self.homes.iter().position(|(given, _)| *given == message) {
            self.homes.remove(at);
        }
    }
}

impl Shard {
    pub(super) fn open(&mut self, now: Now, opening: Opening, out: &mut Effects) {
        let lease = opening.lease;
        let session = Session::new(opening, Arc::clone(&self.sending.options), now);
        let outgoing = Outgoing {
            session,
            lease,
            conn: None,
            counted: Counted::default(),
            fetching: VecDeque::new(),
            homes: SmallVec::new(),
            armed: Mono::NEVER,
        };
        let key = self.sending.sessions.insert(outgoing);
        self.sending.by_lease.insert(lease, key);
        self.egress_orders(now, key, out);
    }

    pub(super) fn work(&mut self, now: Now, lease: LeaseId, delivery: Delivery, out: &mut Effects) {
        let Some(key) = self.sending.key_of(lease) else {
            return self.refuse_work(lease, &delivery, out);
        };
        self.sending.sessions[key].homes.push((delivery.message, delivery.home));
        if let Some(record) = delivery.record.clone() {
            return self.work_with(now, key, delivery, &record, out);
        }
        let Delivery { message, home, place, .. } = delivery;
        self.sending.sessions[key].fetching.push_back(delivery);
        self.tell(home, Note::Fetch { lease, message, place }, out);
    }

    /// Work that crossed with the end of its lease goes back untried.
    fn refuse_work(&mut self, lease: LeaseId, delivery: &Delivery, out: &mut Effects) {
        let done = Done::new(delivery, Attempt::NotTried);
        self.tell(lease.owner, Note::Done { lease, done: Box::new(done) }, out);
    }

    fn work_with(
        &mut self,
        now: Now,
        key: usize,
        delivery: Delivery,
        record: &RecordInMemory,
        out: &mut Effects,
    ) {
        self.with_session(now, key, out, |session| match letter(&delivery, record) {
            Some(letter) => session.handle_work(now, letter),
            None => session.handle_unreadable(now, &delivery),
        });
    }

    /// A record, or a chunk of one, was read again, or could not be.
    pub(super) fn fetched_for(
        &mut self,
        now: Now,
        lease: LeaseId,
        place: Place,
        record: Option<RecordInMemory>,
        out: &mut Effects,
    ) {
        let Some(key) = self.sending.key_of(lease) else { return };
        let fetching = &mut self.sending.sessions[key].fetching;
        let Some(index) = fetching.iter().position(|waiting| waiting.place == place) else {
            return self.chunk_fetched(now, key, place, record, out);
        };
        let Some(mut delivery) = fetching.remove(index) else { return };
        delivery.record.clone_from(&record);
        match record {
            Some(record) => self.work_with(now, key, delivery, &record, out),
            None => self.with_session(now, key, out, |session| {
                session.handle_unreadable(now, &delivery);
            }),
        }
    }

    fn chunk_fetched(
        &mut self,
        now: Now,
        key: usize,
        place: Place,
        record: Option<RecordInMemory>,
        out: &mut Effects,
    ) {
        let chunk = record.as_ref().and_then(chunk_content);
        self.with_session(now, key, out, |session| {
            session.handle_chunk(now, place, chunk.as_ref());
        });
    }

    pub(super) fn close_lease(&mut self, now: Now, lease: LeaseId, out: &mut Effects) {
        self.with_lease(now, lease, out, |session| session.handle_close(now));
    }

    pub(super) fn lease_settled(&mut self, now: Now, lease: LeaseId, out: &mut Effects) {
        self.with_lease(now, lease, out, |session| session.handle_settled(now));
    }

    pub(super) fn lease_left(
        &mut self,
        now: Now,
        lease: LeaseId,
        may_connect: bool,
        out: &mut Effects,
    ) {
        self.with_lease(now, lease, out, |session| session.handle_leave(now, may_connect));
    }

    pub(super) fn egress_time(&mut self, now: Now, lease: LeaseId, out: &mut Effects) {
        if let Some(key) = self.sending.key_of(lease) {
            self.sending.sessions[key].armed = Mono::NEVER;
        }
        self.with_lease(now, lease, out, |session| session.handle_time(now));
    }

    fn with_lease(
        &mut self,
        now: Now,
        lease: LeaseId,
        out: &mut Effects,
        act: impl FnOnce(&mut Session),
    ) {
        let Some(key) = self.sending.key_of(lease) else { return };
        self.with_session(now, key, out, act);
    }

    fn with_conn(
        &mut self,
        now: Now,
        conn: Conn,
        out: &mut Effects,
        act: impl FnOnce(&mut Session),
    ) {
        let Some(Role::Egress(key)) = self.role(conn) else { return };
        let key = *key;
        self.with_session(now, key, out, act);
    }

    /// One event of a session, and what it asks for.
    fn with_session(
        &mut self,
        now: Now,
        key: usize,
        out: &mut Effects,
        act: impl FnOnce(&mut Session),
    ) {
        let session = &mut self.sending.sessions[key].session;
        session.lend(std::mem::take(&mut self.sending.memory));
        act(session);
        self.egress_orders(now, key, out);
    }

    pub(super) fn connected(
        &mut self,
        now: Now,
        conn: Conn,
        result: Result<(), ConnectError>,
        out: &mut Effects,
    ) {
        if result.is_err() {
            return self.connect_failed(now, conn, result, out);
        }
        self.counters.connections_out += 1;
        self.with_conn(now, conn, out, |session| session.handle_connected(now, result));
    }

    /// The slot of a failed connect retires by itself; the session may ask for another.
    fn connect_failed(
        &mut self,
        now: Now,
        conn: Conn,
        result: Result<(), ConnectError>,
        out: &mut Effects,
    ) {
        let Some(role) = self.role(conn) else { return };
        let Role::Egress(key) = std::mem::replace(role, Role::Retiring(Way::Out)) else { return };
        self.sending.sessions[key].conn = None;
        self.with_session(now, key, out, |session| session.handle_connected(now, result));
    }

    pub(super) fn egress_received(
        &mut self,
        now: Now,
        key: usize,
        bytes: &[u8],
        out: &mut Effects,
    ) {
        self.with_session(now, key, out, |session| session.handle_bytes(now, bytes));
    }

    pub(super) fn drained(&mut self, now: Now, conn: Conn, out: &mut Effects) {
        match self.role(conn) {
            Some(Role::Egress(_)) => {
                self.with_conn(now, conn, out, |session| session.handle_drained(now));
            }
            Some(Role::Intake(_)) => self.intake_drained(conn, out),
            _ => {}
        }
    }

    pub(super) fn secured(
        &mut self,
        now: Now,
        conn: Conn,
        result: Result<TlsFacts, TlsError>,
        out: &mut Effects,
    ) {
        self.with_conn(now, conn, out, |session| session.handle_secured(now, result));
    }

    pub(super) fn egress_ended(&mut self, now: Now, key: usize, how: End, out: &mut Effects) {
        let outgoing = &mut self.sending.sessions[key];
        if let Some(conn) = outgoing.conn.take() {
            self.roles[conn.slot as usize] = Role::Retiring(Way::Out);
        }
        self.with_session(now, key, out, |session| session.handle_ended(now, how));
    }

    /// Carries out what a session asks for, until it waits for the world again.
    fn egress_orders(&mut self, now: Now, key: usize, out: &mut Effects) {
        while let Some(order) = self.sending.sessions[key].session.poll() {
            if let Order::Ended(why) = order {
                let mut outgoing = self.sending.sessions.remove(key);
                self.sending.memory = outgoing.session.take_back();
                self.sending.by_lease.remove(&outgoing.lease);
                self.leave_conn(outgoing.conn);
                let freed = outgoing.counted.leave();
                self.pass_on(freed, out);
                let lease = outgoing.lease;
                return self.tell(lease.owner, Note::Ended { lease, why }, out);
            }
            self.egress_order(now, key, order, out);
        }
        self.sending.memory = self.sending.sessions[key].session.take_back();
        self.arm_egress(key);
    }

    fn leave_conn(&mut self, conn: Option<Conn>) {
        if let Some(conn) = conn {
            self.roles[conn.slot as usize] = Role::Retiring(Way::Out);
        }
    }

    fn egress_order(&mut self, now: Now, key: usize, order: Order, out: &mut Effects) {
        let outgoing = &mut self.sending.sessions[key];
        let lease = outgoing.lease;
        match (order, outgoing.conn) {
            (Order::Connect { to, from, by }, _) => self.connect(now, key, (to, from, by), out),
            (Order::Send(range), Some(conn)) => out.send(conn, outgoing.session.text(range)),
            (Order::SendSlice(slice), Some(conn)) => out.push(Effect::SendSlice { conn, slice }),
            (Order::Secure { name }, Some(conn)) => out.push(Effect::Secure { conn, name }),
            (Order::Close(how), Some(conn)) => out.push(Effect::Close { conn, how }),
            (Order::Done(done), _) => {
                outgoing.forget_home(done.message);
                self.tell(lease.owner, Note::Done { lease, done: Box::new(done) }, out);
            }
            (Order::Another, _) => self.tell(lease.owner, Note::Another { lease }, out),
            (Order::Ready, _) => self.tell(lease.owner, Note::Ready { lease }, out),
            (Order::FetchChunk { message, place }, _) => match outgoing.home_of(message) {
                Some(home) => self.tell(home, Note::Fetch { lease, message, place }, out),
                None => outgoing.session.handle_chunk(now, place, None),
            },
            // Between connections there is nobody to send to.
            _ => {}
        }
    }

    fn connect(
        &mut self,
        now: Now,
        key: usize,
        (to, from, by): (SocketAddr, Option<IpAddr>, Mono),
        out: &mut Effects,
    ) {
        let Sending { sessions, remotes, connections, .. } = &mut self.sending;
        let has_room = *connections < self.settings.limits.connections_out;
        if has_room {
            let Outgoing { session, counted, .. } = &mut sessions[key];
            let wanted = (to.ip(), session.connections_per_ip());
            let (is_admitted, freed) = counted.may_connect(now, wanted, remotes);
            if !is_admitted {
                session.handle_busy(now);
            }
            self.pass_on(freed, out);
            if !is_admitted {
                return;
            }
        }
        let Some(conn) = has_room.then(|| self.take_slot()).flatten() else {
            let session = &mut self.sending.sessions[key].session;
            return session.handle_connected(now, Err(ConnectError::Local));
        };
        self.sending.connections += 1;
        self.roles[conn.slot as usize] = Role::Egress(key);
        self.sending.sessions[key].conn = Some(conn);
        out.push(Effect::Connect { conn, to, from: from.map(Box::new), by });
    }

    /// A permit of a remote address goes to who stands in line for it.
    fn pass_on(&mut self, freed: Freed, out: &mut Effects) {
        if let Some((cell, grant)) = freed {
            self.tell(ShardId(grant.to), Note::Grant { cell, grant }, out);
        }
    }

    fn arm_egress(&mut self, key: usize) {
        let outgoing = &mut self.sending.sessions[key];
        let at = outgoing.session.next_wakeup();
        if at < outgoing.armed {
            outgoing.armed = at;
            self.timers.insert(at, Timer::Egress(outgoing.lease));
        }
    }
}

/// What a session needs of a record; `None` if its bytes make no sense.
fn letter(delivery: &Delivery, record: &RecordInMemory) -> Option<Letter> {
    let bytes = &record.block.bytes()[record.at as usize..];
    let (view, envelope) = opened(bytes)?;
    let flags = envelope.flags();
    let inline = |part: Part| BodyPart::Inline(slice(record, part));
    let chunk = |chunk: ChunkRef| BodyPart::Chunk { place: chunk.place(), bytes: chunk.bytes };
    let mut parts = vec![inline(view.trace)];
    let skipped = usize::from(planted(Bug::PieceSkipped));
    parts.extend(view.chunks(bytes).skip(skipped).map(chunk));
    parts.push(inline(view.body));
    parts.retain(|part| !matches!(part, BodyPart::Inline(slice) if slice.bytes == 0));
    Some(Letter {
        delivery: delivery.clone(),
        envelope: slice(record, view.envelope),
        parts,
        bytes: view.body_bytes + u64::from(view.trace.bytes),
        eight_bit: flags.has(EnvelopeFlags::HAS_8BIT),
        dot_lines: flags.has(EnvelopeFlags::LEADING_DOTS),
    })
}

fn slice(record: &RecordInMemory, part: Part) -> Slice {
    Slice { block: Arc::clone(&record.block), at: record.at + part.at, bytes: part.bytes }
}

/// The piece of a body that a record holds. `None`: it is another record, as where the place asked for
/// is so old that the spool no longer knows what lay there.
fn chunk_content(record: &RecordInMemory) -> Option<Slice> {
    let bytes = piece_bytes(&record.block.bytes()[record.at as usize..])?;
    let at = u32::try_from(RECORD_HEADER_BYTES).unwrap_or(0);
    Some(slice(record, Part { at, bytes }))
}
