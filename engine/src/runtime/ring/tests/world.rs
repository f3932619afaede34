//! A small core that plays scripts, and the loop around it.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::super::secure::NoTls;
use super::super::{Core, Driver, DriverOptions, Eventfds, Handshakes};
use crate::base::slots::Slots;
use crate::base::time::Mono;
use crate::model::connection::{Close, Conn, ConnectError, End, TlsError};
use crate::model::message::Slice;
use crate::shard::{CommitId, DiskError, Effect, Effects, Event, ReadId};

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events with their bytes copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Accepted(Conn, u16),
    Connected(Conn, Result<(), ConnectError>),
    Received(Conn, Vec<u8>),
    Drained(Conn),
    Secured(Conn, Result<&'static str, TlsError>),
    Ended(Conn, End),
    Retired(Conn),
    Committed(CommitId, Result<(), DiskError>),
    Fetched(ReadId, Result<Vec<u8>, DiskError>),
}

pub(super) struct Script {
    pub seen: Vec<Seen>,
    pub effects: Effects,
    pub slots: Slots,
    /// Send back what is received.
    pub echo: bool,
}

impl Core for Script {
    fn prefetch(&self, _: impl Iterator<Item = u32> + Clone) {}

    fn take_slot(&mut self) -> Option<Conn> {
        self.slots.take().map(|(slot, generation)| Conn { slot, generation })
    }

    fn handle(&mut self, event: Event<'_>) {
        if let Event::Received { conn, bytes } = &event
            && self.echo
        {
            self.effects.send(*conn, bytes);
        }
        let seen = match event {
            Event::Accepted { conn, listener, .. } => Seen::Accepted(conn, listener),
            Event::Connected { conn, result } => Seen::Connected(conn, result),
            Event::Received { conn, bytes } => Seen::Received(conn, bytes.to_vec()),
            Event::Drained { conn } => Seen::Drained(conn),
            Event::Secured { conn, result } => {
                Seen::Secured(conn, result.map(|facts| facts.version))
            }
            Event::Ended { conn, how } => Seen::Ended(conn, how),
            Event::Retired { conn } => {
                self.slots.give_back(conn.slot, conn.generation);
                Seen::Retired(conn)
            }
            Event::Committed { commit, result } => Seen::Committed(commit, result),
            Event::Fetched { read, result } => {
                Seen::Fetched(read, result.map(|block| block.bytes().to_vec()))
            }
            other => panic!("not the driver's event: {other:?}"),
        };
        self.seen.push(seen);
    }
}

pub(super) struct World {
    pub driver: Driver,
    pub core: Script,
    pub address: SocketAddr,
    pub eventfd: OwnedFd,
    pub call: OwnedFd,
    performed: VecDeque<Effect>,
}

pub(super) fn small() -> DriverOptions {
    DriverOptions {
        connections_max: 4096,
        receive_buffers: 64,
        receive_buffer_bytes: 4096,
        sq_entries: 64,
        cq_entries: 512,
    }
}

impl World {
    pub(super) fn new(options: DriverOptions) -> Self {
        Self::secured(options, Box::new(NoTls::default()))
    }

    pub(super) fn secured(options: DriverOptions, handshakes: Box<dyn Handshakes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // SAFETY: a fresh descriptor.
        let fresh = || unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        let (eventfd, call) = (fresh(), fresh());
        let core = Script {
            seen: Vec::new(),
            effects: Effects::default(),
            slots: Slots::new(options.connections_max),
            echo: false,
        };
        let eventfds =
            Eventfds { wake: eventfd.try_clone().unwrap(), call: call.try_clone().unwrap() };
        let mut driver = Driver::new(options, eventfds, vec![listener.into()], handshakes).unwrap();
        driver.start_accepting();
        Self { driver, core, address, eventfd, call, performed: VecDeque::new() }
    }

    /// One turn, then the effects it asked for.
    pub(super) fn turn(&mut self) -> usize {
        self.driver.enter(now()).unwrap();
        let happened = self.driver.turn(&mut self.core, now()).unwrap();
        let effects = &mut self.core.effects;
        self.performed.extend(effects.list.drain(..));
        self.driver.prefetch(self.performed.iter());
        for effect in self.performed.drain(..) {
            assert!(self.driver.perform(effect, &effects.bytes, now()).is_none());
        }
        effects.clear();
        happened
    }

    /// Turns, sleeping on the eventfd as a shard does, until `done`.
    pub(super) fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = now().plus(PATIENCE);
        while !done(self) {
            assert!(now() < end, "waited in vain; the last events:\n{}", self.last_seen());
            if self.turn() == 0 && self.driver.rest(now()).unwrap() {
                // No timer of the test's own: a lost signal is a failure.
                assert!(self.sleep(8_000), "the eventfd was not signalled");
            }
        }
    }

    /// Turns for a while.
    pub(super) fn run_for(&mut self, wait: Duration) {
        let end = now().plus(wait);
        self.driver.wake_at(Some(end));
        self.until(|_| now() >= end);
    }

    /// Waits for the eventfd and clears it.
    pub(super) fn sleep(&self, wait_ms: i32) -> bool {
        let mut poll =
            libc::pollfd { fd: self.eventfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that outlives the call.
        let woken = unsafe { libc::poll(&raw mut poll, 1, wait_ms) } == 1;
        if woken {
            let mut count = 0u64;
            // SAFETY: eight bytes to read into.
            unsafe { libc::read(self.eventfd.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
        woken
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        self.driver.prefetch(std::iter::once(&effect));
        assert!(self.driver.perform(effect, &[], now()).is_none());
    }

    pub(super) fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let mut effects = Effects::default();
        effects.send(conn, bytes);
        for effect in effects.list.drain(..) {
            assert!(self.driver.perform(effect, &effects.bytes, now()).is_none());
        }
    }

    pub(super) fn send_slice(&mut self, conn: Conn, slice: Slice) {
        self.perform(Effect::SendSlice { conn, slice });
    }

    pub(super) fn close(&mut self, conn: Conn, how: Close) {
        self.perform(Effect::Close { conn, how });
    }

    pub(super) fn read(&mut self, conn: Conn, on: bool) {
        self.perform(Effect::Reading { conn, on });
    }

    pub(super) fn connect(&mut self, to: SocketAddr, within: Duration) -> Conn {
        self.connect_from(None, to, within)
    }

    pub(super) fn connect_from(
        &mut self,
        from: Option<&str>,
        to: SocketAddr,
        within: Duration,
    ) -> Conn {
        let conn = self.core.take_slot().unwrap();
        let from = from.map(|ip| Box::new(ip.parse().unwrap()));
        self.perform(Effect::Connect { conn, to, from, by: now().plus(within) });
        conn
    }

    /// Waits for the next accepted connection.
    pub(super) fn accept(&mut self) -> Conn {
        let before = self.accepted().len();
        self.until(|world| world.accepted().len() > before);
        self.accepted()[before]
    }

    pub(super) fn accepted(&self) -> Vec<Conn> {
        let accepted = |seen: &Seen| match seen {
            Seen::Accepted(conn, _) => Some(*conn),
            _ => None,
        };
        self.core.seen.iter().filter_map(accepted).collect()
    }

    pub(super) fn saw(&self, wanted: &Seen) -> bool {
        self.core.seen.contains(wanted)
    }

    pub(super) fn count(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.core.seen.iter().filter(|seen| wanted(seen)).count()
    }

    pub(super) fn retired(&self) -> usize {
        self.count(|seen| matches!(seen, Seen::Retired(_)))
    }

    /// All bytes received on a connection.
    pub(super) fn bytes_of(&self, conn: Conn) -> Vec<u8> {
        let mut all = Vec::new();
        for seen in &self.core.seen {
            if let Seen::Received(of, bytes) = seen
                && *of == conn
            {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    /// For every connection: at most one end, before its retirement, and nothing after that.
    pub(super) fn check_order(&self) {
        for (at, seen) in self.core.seen.iter().enumerate() {
            let Seen::Retired(conn) = seen else { continue };
            let names = |seen: &Seen| match seen {
                Seen::Received(of, _)
                | Seen::Drained(of)
                | Seen::Ended(of, _)
                | Seen::Retired(of) => of == conn,
                _ => false,
            };
            assert!(!self.core.seen[at + 1..].iter().any(names), "{conn:?} spoke after it retired");
            let failed = |seen: &Seen| matches!(seen, Seen::Connected(of, Err(_)) if of == conn);
            let expected = usize::from(!self.core.seen[..at].iter().any(failed));
            let ends = self.count(|seen| matches!(seen, Seen::Ended(of, _) if of == conn));
            assert_eq!(ends, expected, "{conn:?} ends once");
        }
    }

    /// Nothing is in flight but the accepts, the timer and the watch for calls, and every buffer is back.
    pub(super) fn check_at_rest(&self, buffers: u16) {
        self.check_order();
        assert_eq!(self.driver.buffers_free(), usize::from(buffers), "every buffer came back");
        let most = 2 + usize::from(self.driver.is_watching());
        assert!(self.driver.in_flight() <= most, "{} in flight", self.driver.in_flight());
    }

    /// The last events, without most of their bytes.
    fn last_seen(&self) -> String {
        let seen = self.core.seen.iter().rev().take(4).map(|seen| format!("{seen:.80?}"));
        seen.map(|text| text.chars().take(120).collect::<String>()).collect::<Vec<_>>().join("\n")
    }
}

pub(super) fn now() -> Mono {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec to write into.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap(), u64::try_from(time.tv_nsec).unwrap());
    Mono(seconds * 1_000_000_000 + nanos)
}

/// Bytes that show any loss, repetition or disorder.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(4))
        .flat_map(|word| u32::try_from(word).unwrap().to_be_bytes())
        .take(bytes)
        .collect()
}

pub(super) fn invalid() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}
