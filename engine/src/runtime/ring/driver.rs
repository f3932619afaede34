//! The driver: one turn after another, and what it is made of.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use io_uring::types::Timespec;

use super::disk::{Commit, Disk, FileMode, Wanted};
use super::listen::Listener;
use super::outbox::Outbox;
use super::secure::Handshakes;
use super::socket::{Phase, Socket};
use super::submit::{Completion, Ring};
use super::token::{Op, Token};
use crate::base::prefetch;
use crate::base::time::Mono;
use crate::model::connection::Conn;
use crate::shard::{AHEAD_MAX, Effect, Event};
use crate::spool::files::FileId;

/// Completions taken in one turn, so that a flood starves neither timers nor replies: at one or two
/// microseconds each, a turn stays below a millisecond.
const COMPLETIONS_PER_TURN_MAX: usize = 512;

/// Further enters of one turn. The kernel runs ~20 deferred works per enter, so this many fill a turn;
/// works that bring no completion cannot hold us.
const ENTERS_PER_TURN_MAX: usize = 32;

/// What the driver is driven for: a shard and the buffer of its effects.
pub(crate) trait Core {
    /// A slot for an accepted connection; `None` over the bound, and the driver closes it unsaid.
    fn take_slot(&mut self) -> Option<Conn>;

    fn handle(&mut self, event: Event<'_>);

    /// Bytes have come for these slots and are handed in next.
    fn prefetch(&self, slots: impl Iterator<Item = u32> + Clone);
}

#[derive(Clone, Debug)]
pub(crate) struct DriverOptions {
    /// Slots of the connection table, in and out; no name beyond is ever used.
    pub connections_max: u32,
    /// Receive buffers of the shard, a power of two up to 32768.
    pub receive_buffers: u16,
    pub receive_buffer_bytes: u32,
    pub sq_entries: u32,
    /// 4 to 8 times `sq_entries`: one submission may complete many times.
    pub cq_entries: u32,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            connections_max: 16 << 10,
            receive_buffers: 1024,
            receive_buffer_bytes: 8 << 10,
            sq_entries: 1024,
            cq_entries: 8 << 10,
        }
    }
}

/// The eventfds of a shard.
pub(crate) struct Eventfds {
    /// Signalled by the kernel on completions.
    pub wake: OwnedFd,
    /// Watched by the ring, so that others can end a doze.
    pub call: OwnedFd,
}

/// What the driver did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub turns: u64,
    pub enters: u64,
    pub submissions: u64,
    pub completions: u64,
    /// Turns that found the completion queue overflown.
    pub overflows: u64,
    pub accepted: u64,
    /// Connections closed at once because no slot was free.
    pub refused: u64,
    /// Times accepting paused for want of descriptors or memory.
    pub accept_pauses: u64,
    /// Times a connection waited for a receive buffer.
    pub starved: u64,
    pub short_sends: u64,
    /// Bytes that arrived while reading was off.
    pub parked_bytes: u64,
}

/// Belongs to the thread that made it: the ring has a single issuer.
pub(crate) struct Driver {
    pub(super) ring: Ring,
    pub(super) options: DriverOptions,
    pub(super) sockets: Vec<Socket>,
    pub(super) listeners: Vec<Listener>,
    pub(super) handshakes: Box<dyn Handshakes>,
    pub(super) counters: Counters,
    /// The time of the present turn.
    pub(super) now: Mono,
    /// Events to tell before anything else happens. Bounded by a few per slot.
    pub(super) ready: VecDeque<Event<'static>>,
    /// Connections with something to send. Bounded by the effects and completions of a turn.
    pub(super) to_send: Vec<Conn>,
    /// Connections waiting for receive buffers, longest first; at most one entry per parking.
    pub(super) starved: VecDeque<Conn>,
    /// Connections with kept bytes to tell.
    pub(super) replaying: VecDeque<Conn>,
    /// Connections whose end was told in the last turn.
    pub(super) finishing: Vec<Conn>,
    /// Of connections with nothing to send.
    #[expect(
        clippy::vec_box,
        reason = "they are handed on, and not moved: the kernel reads in them"
    )]
    pub(super) spare_outboxes: Vec<Box<Outbox>>,
    pub(super) draining_until: VecDeque<(Mono, Conn)>,
    pub(super) lingering_until: VecDeque<(Mono, Conn)>,
    /// Wire bytes on their way from a TLS stream to an outbox.
    pub(super) scratch: Vec<u8>,
    disk: Disk,
    batch: Vec<Completion>,
    alarm: Alarm,
    call: Call,
}

/// The eventfd by which others end a doze.
struct Call {
    fd: OwnedFd,
    is_watched: bool,
    /// Written by the kernel while it is watched.
    count: Box<[u8; 8]>,
}

/// The one timer of the ring.
struct Alarm {
    /// When the caller wants to be woken.
    wanted: Mono,
    /// When the timer in flight goes off.
    set: Option<Mono>,
    /// Read by the kernel while it takes the submission.
    wait: Box<Timespec>,
}

impl Driver {
    /// Sets up the ring; `listeners` are bound and listening, and named by their place.
    ///
    /// # Errors
    /// The kernel is too old, forbids io_uring, or lacks the memory: the shard cannot run.
    pub(crate) fn new(
        options: DriverOptions,
        eventfds: Eventfds,
        listeners: Vec<OwnedFd>,
        handshakes: Box<dyn Handshakes>,
    ) -> io::Result<Self> {
        let Eventfds { wake, call } = eventfds;
        let ring = Ring::new(&options, wake)?;
        Ok(Self {
            ring,
            options,
            sockets: Vec::new(),
            listeners: listeners.into_iter().map(Listener::new).collect::<io::Result<_>>()?,
            handshakes,
            counters: Counters::default(),
            now: Mono::default(),
            ready: VecDeque::new(),
            to_send: Vec::new(),
            starved: VecDeque::new(),
            replaying: VecDeque::new(),
            finishing: Vec::new(),
            spare_outboxes: Vec::new(),
            draining_until: VecDeque::new(),
            lingering_until: VecDeque::new(),
            scratch: Vec::new(),
            disk: Disk::default(),
            batch: Vec::with_capacity(COMPLETIONS_PER_TURN_MAX),
            alarm: Alarm { wanted: Mono::NEVER, set: None, wait: Box::default() },
            call: Call { fd: call, is_watched: false, count: Box::default() },
        })
    }

    /// Makes a segment file known. `Direct` means it was opened with `O_DIRECT`, for both ways.
    pub(crate) fn register_file(&mut self, id: FileId, file: OwnedFd, mode: FileMode) {
        self.disk.register(id, file, mode);
    }

    /// Takes up an effect, or hands it back if it is not the driver's. `bytes` is the arena its
    /// spans speak of. Effects for connections that are gone do nothing.
    pub(crate) fn perform(&mut self, effect: Effect, bytes: &[u8], now: Mono) -> Option<Effect> {
        self.now = now;
        match effect {
            Effect::Send { conn, span } => {
                let at = span.at as usize;
                self.send_text(conn, &bytes[at..at + span.bytes as usize]);
            }
            Effect::SendSlice { conn, slice } => self.send_slice(conn, slice),
            Effect::Reading { conn, on: true } => self.start_reading(conn),
            Effect::Reading { conn, on: false } => self.stop_reading(conn),
            Effect::Connect { conn, to, from, by } => {
                self.connect(conn, to, from.as_deref().copied(), by.since(now));
            }
            Effect::Secure { conn, name } => self.secure(conn, &name),
            Effect::Close { conn, how } => self.close(conn, how),
            Effect::Commit { commit, file, offset, block } => {
                self.disk.commit(&mut self.ring, Commit { commit, file, offset, block });
            }
            Effect::Fetch { read, file, offset, bytes } => {
                let wanted = Wanted { read, file, offset, bytes };
                if let Err(refused) = self.disk.fetch(&mut self.ring, wanted) {
                    self.ready.push_back(refused);
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Takes what has completed (bounded) and tells the core; submits nothing. Returns how many events
    /// and completions there were; none means that everything waits for the kernel.
    ///
    /// # Errors
    /// The ring itself is broken; there is no going on.
    pub(crate) fn turn(&mut self, core: &mut impl Core, now: Mono) -> io::Result<usize> {
        self.now = now;
        self.counters.turns += 1;
        let mut happened = self.replay(core);
        self.expire();
        self.finish_ended();
        happened += self.poll_handshakes(core);
        self.resume_accepting();
        self.rearm_starved();
        happened += self.tell(core);
        self.collect()?;
        happened += self.complete_batch(core);
        for event in self.disk.take_committed() {
            core.handle(event);
            happened += 1;
        }
        Ok(happened)
    }

    /// Submits what is queued.
    ///
    /// # Errors
    /// As for [`Driver::turn`].
    pub(crate) fn enter(&mut self, now: Mono) -> io::Result<()> {
        self.now = now;
        self.launch_sends();
        self.ring.enter()
    }

    /// Submits what is queued and stays in the ring until something happens, `call` is signalled, or
    /// it is `until`: one system call for all that. Turn again then.
    ///
    /// # Errors
    /// As for [`Driver::turn`].
    pub(crate) fn doze(&mut self, now: Mono, until: Mono) -> io::Result<()> {
        self.now = now;
        self.launch_sends();
        if !self.is_idle() {
            return self.ring.enter();
        }
        self.watch_call();
        self.ring.wait(until.min(self.next_deadline()).since(now))
    }

    /// Has the eventfd signalled at `at`, once; replaces the time asked for before. It may be signalled
    /// earlier too.
    pub(crate) fn wake_at(&mut self, at: Option<Mono>) {
        self.alarm.wanted = at.unwrap_or(Mono::NEVER);
    }

    /// Submits what is queued, the wake-up too. True: nothing will happen before the eventfd is
    /// signalled. False: turn again.
    ///
    /// # Errors
    /// As for [`Driver::turn`].
    pub(crate) fn rest(&mut self, now: Mono) -> io::Result<bool> {
        self.now = now;
        if !self.is_idle() {
            return Ok(false);
        }
        self.launch_sends();
        self.set_alarm();
        self.ring.enter()?;
        Ok(self.is_idle() && self.ring.is_quiet())
    }

    /// Operations whose last completion has not been taken.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }

    /// Whether the eventfd of calls is being read.
    #[cfg(test)]
    pub(crate) fn is_watching(&self) -> bool {
        self.call.is_watched
    }

    /// Receive buffers that are not in our hands.
    #[cfg(test)]
    pub(crate) fn buffers_free(&self) -> usize {
        self.ring.buffers.free()
    }

    #[must_use]
    pub(crate) fn counters(&self) -> Counters {
        let ring = self.ring.counters;
        Counters {
            enters: ring.enters,
            submissions: ring.submissions,
            completions: ring.completions,
            overflows: ring.overflows,
            ..self.counters
        }
    }

    /// Fetches what these effects will need, of connections that may have ended.
    pub(crate) fn prefetch<'a>(&self, effects: impl Iterator<Item = &'a Effect> + Clone) {
        self.prefetch_sockets(effects.filter_map(|effect| match effect {
            Effect::Send { conn, .. } | Effect::SendSlice { conn, .. } => Some(conn.slot),
            _ => None,
        }));
    }

    fn prefetch_sockets(&self, slots: impl Iterator<Item = u32> + Clone) {
        let sockets = || slots.clone().filter_map(|slot| self.sockets.get(slot as usize));
        sockets().for_each(prefetch::all);
        sockets().filter_map(|socket| socket.outbox.as_deref()).for_each(prefetch::all);
    }

    /// The slot of a connection, unless the name is of an older user of it.
    pub(super) fn socket(&mut self, conn: Conn) -> Option<&mut Socket> {
        self.sockets.get_mut(conn.slot as usize).filter(|socket| socket.is(conn))
    }

    /// Gives a free slot to `conn`.
    pub(super) fn take_up(&mut self, conn: Conn, phase: Phase, fd: Option<OwnedFd>) -> &mut Socket {
        assert!(conn.slot < self.options.connections_max, "slots are below connections_max");
        let slot = conn.slot as usize;
        if slot >= self.sockets.len() {
            self.sockets.resize_with(slot + 1, Socket::free);
        }
        let socket = &mut self.sockets[slot];
        assert!(socket.phase == Phase::Free, "a slot is taken only after it retired");
        socket.generation = conn.generation;
        socket.phase = phase;
        socket.fd = fd;
        socket
    }

    /// No work of our own is left for the next turn.
    fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.replaying.is_empty()
            && self.finishing.is_empty()
            && self.starved.is_empty()
            && self.disk.is_quiet()
    }

    fn collect(&mut self) -> io::Result<()> {
        for _ in 0..ENTERS_PER_TURN_MAX {
            self.ring.take(&mut self.batch, COMPLETIONS_PER_TURN_MAX);
            if self.batch.len() >= COMPLETIONS_PER_TURN_MAX || !self.ring.has_deferred() {
                break;
            }
            self.ring.enter()?;
        }
        Ok(())
    }

    fn watch_call(&mut self) {
        if self.call.is_watched {
            return;
        }
        self.call.is_watched = true;
        let (count, token) = (&raw mut *self.call.count, Token::new(Op::Call, 0));
        // SAFETY: the box lives as long as the driver, never moves, and nobody reads it.
        unsafe { self.ring.read(self.call.fd.as_fd(), count, 0, token) };
    }

    fn complete_batch(&mut self, core: &mut impl Core) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        let taken = batch.len();
        let mut left = batch.drain(..);
        while !left.as_slice().is_empty() {
            let next = left.as_slice().iter().take(AHEAD_MAX).map(|one| one.token);
            let of = |op| next.clone().filter(move |token| token.op == op).map(|token| token.slot);
            self.prefetch_sockets(of(Op::Receive).chain(of(Op::Send)));
            core.prefetch(of(Op::Receive));
            for completion in left.by_ref().take(AHEAD_MAX) {
                self.complete(core, completion);
                self.tell(core);
            }
        }
        drop(left);
        self.batch = batch;
        taken
    }

    fn complete(&mut self, core: &mut impl Core, completion: Completion) {
        let Completion { token, result, .. } = completion;
        match token.op {
            Op::Accept => self.handle_accepted(core, completion),
            Op::Receive => self.handle_received(core, &completion),
            Op::Send => self.handle_sent(token.conn(), result),
            Op::Connect => self.handle_connected(token.conn(), result),
            Op::ConnectLimit | Op::Cancel => self.operation_over(token.conn()),
            Op::Commit => self.disk.handle_committed(&mut self.ring, token.slot, result),
            Op::Fetch => {
                let event = self.disk.handle_fetched(token.slot, result);
                self.ready.push_back(event);
            }
            Op::Wake => self.handle_alarm(),
            Op::Call => self.call.is_watched = false,
            Op::Aside => {}
        }
    }

    pub(super) fn tell(&mut self, core: &mut impl Core) -> usize {
        let mut told = 0;
        while let Some(event) = self.ready.pop_front() {
            core.handle(event);
            told += 1;
        }
        told
    }

    fn handle_alarm(&mut self) {
        self.alarm.set = None;
        if self.alarm.wanted <= self.now {
            self.alarm.wanted = Mono::NEVER;
        }
    }

    /// Only ever moves the timer earlier: one that goes off too early costs less than a move.
    fn set_alarm(&mut self) {
        let wanted = self.alarm.wanted.min(self.next_deadline());
        if wanted == Mono::NEVER || self.alarm.set.is_some_and(|set| set <= wanted) {
            return;
        }
        *self.alarm.wait = Timespec::from(wanted.since(self.now));
        let wait = &raw const *self.alarm.wait;
        let timer = Token::new(Op::Wake, 0);
        // SAFETY: the box lives as long as the driver and never moves.
        unsafe {
            match self.alarm.set {
                None => self.ring.wake_after(wait, timer),
                Some(_) => self.ring.move_wake(timer, wait, Token::new(Op::Aside, 0)),
            }
        }
        self.alarm.set = Some(wanted);
    }

    fn next_deadline(&self) -> Mono {
        let firsts = [self.draining_until.front(), self.lingering_until.front()];
        let closing = firsts.into_iter().flatten().map(|(until, _)| *until);
        closing
            .chain(self.listeners.iter().filter_map(Listener::paused_until))
            .min()
            .unwrap_or(Mono::NEVER)
    }
}

/// The kernel may still read and write memory of operations in flight: it lets go first, or the
/// memory stays for ever.
impl Drop for Driver {
    fn drop(&mut self) {
        if !self.ring.let_go() {
            std::mem::take(&mut self.sockets).leak();
            Box::leak(Box::new(std::mem::take(&mut self.disk)));
            Box::leak(std::mem::take(&mut self.call.count));
            self.ring.leak_buffers();
        }
    }
}
