//! The event loop of one sink thread: accepts, receives, replies, and counts exactly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::channel::{Receiver, Sender};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use super::clerk::Clerk;
use super::conversation::{Conversation, Ending};
use super::personality::{Personality, Reading};
use super::report::ThreadReport;
use super::wire::Wire;
use super::{SinkHost, SinkPlan};
use crate::alarm::Alarm;
use crate::clock::{self, SECOND_NS};
use crate::loopback;
use crate::run::arrivals::Arrivals;

const ALARM: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Tokens from here on are listeners, by their place in [`Driver::doors`].
const DOORS_FROM: usize = usize::MAX / 2;
const EVENTS_PER_POLL_MAX: usize = 1024;
const READ_BYTES: usize = 64 * 1024;
/// As many as the system allows (net.core.somaxconn cuts it): a burst of connects must not be
/// turned into time-outs by the judge.
const BACKLOG: i32 = 65_535;
/// When no descriptor is free, accepting waits so long.
const ACCEPT_RETRY_NS: u64 = SECOND_NS / 100;
/// A slow reader takes what a 20th of a second allows, then waits until it may go on.
const SIPS_PER_SECOND: u32 = 20;

/// What another thread asks of this one; answered when it is in force.
pub(super) enum Order {
    Behave {
        host_index: usize,
        host: SinkHost,
        personality: Box<Personality>,
        done: Sender<io::Result<()>>,
    },
    MarkRun {
        done: Sender<Vec<(usize, u64)>>,
    },
    /// Hand over what was recorded in the second that ended.
    HandOver,
    Stop,
}

pub(super) struct Driver {
    poll: Poll,
    waker: Arc<Waker>,
    alarm: Alarm,
    inbox: Receiver<Order>,
    doors: Vec<Door>,
    /// Doors with connections to accept.
    ringing: Vec<usize>,
    accept_again_ns: Option<u64>,
    connections: Slab<Connection>,
    /// Connections whose replies are held back, or that read slowly: due, place, generation.
    held: BinaryHeap<Reverse<(u64, usize, u64)>>,
    generation: u64,
    clerk: Clerk,
    scratch: Box<[u8; READ_BYTES]>,
    stopping: bool,
}

/// The listener of one host, open or closed.
struct Door {
    host: usize,
    address: SocketAddr,
    listener: Option<TcpListener>,
}

struct Connection {
    wire: Wire,
    conversation: Conversation,
    /// Tells this connection from an earlier one in the same place.
    generation: u64,
    hold_until_ns: u64,
    /// When a slow reader may read again.
    read_from_ns: u64,
}

impl Driver {
    /// Binds the hosts whose turn it is: `thread`, `thread + threads` and so on.
    pub(super) fn new(
        plan: &SinkPlan,
        thread: usize,
        threads: usize,
        clerk: Clerk,
        inbox: Receiver<Order>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut driver = Self {
            waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            inbox,
            doors: Vec::new(),
            ringing: Vec::new(),
            accept_again_ns: None,
            connections: Slab::new(),
            held: BinaryHeap::new(),
            generation: 0,
            clerk,
            scratch: Box::new([0; READ_BYTES]),
            stopping: false,
        };
        for (host, place) in plan.hosts.iter().enumerate().skip(thread).step_by(threads) {
            driver.doors.push(Door { host, address: place.address, listener: None });
            if !driver.clerk.faces.hosts[host].personality.refuses_connects {
                driver.open_door(driver.doors.len() - 1)?;
            }
        }
        Ok(driver)
    }

    /// Records what arrives for the run that this process measures.
    pub(super) fn record(&mut self, arrivals: Arrivals) {
        self.clerk.records.arrivals = Some(arrivals);
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) -> io::Result<ThreadReport> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL_MAX);
        while !self.stopping {
            self.wait_and_receive(&mut events, None)?;
            // What closed before a connect must be seen before its accept.
            while events.iter().count() == EVENTS_PER_POLL_MAX {
                self.wait_and_receive(&mut events, Some(std::time::Duration::ZERO))?;
            }
            self.obey();
            let now = clock::now_ns();
            self.accept(now);
            self.release(now);
            self.set_alarm()?;
        }
        for (_, connection) in std::mem::take(&mut self.connections) {
            self.clerk.closing(connection.conversation.host());
        }
        if let Some(arrivals) = self.clerk.records.arrivals.take() {
            arrivals.recorder.finish();
        }
        Ok(self.clerk.finish(clock::thread_cpu_ns()))
    }

    fn wait_and_receive(
        &mut self,
        events: &mut Events,
        wait: Option<std::time::Duration>,
    ) -> io::Result<()> {
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &*events {
            match event.token() {
                ALARM => self.alarm.rang(),
                WAKER => {}
                Token(place) if place >= DOORS_FROM => self.ringing.push(place - DOORS_FROM),
                Token(place) => self.handle_event(place, event),
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, place: usize, event: &Event) {
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(place, event.is_read_closed());
        } else {
            self.settle_turn(place, clock::now_ns());
        }
    }

    /// Reads what has come. Edge-triggered: a short read in clear says that nothing is left,
    /// unless the end of the stream was announced with it.
    fn receive(&mut self, place: usize, announced_end: bool) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let now = clock::now_ns();
        let host = connection.conversation.host();
        if let Some(reading) = self.clerk.faces.hosts[host].personality.reading {
            return self.sip(place, reading, now);
        }
        loop {
            match connection.wire.read(&mut self.scratch[..]) {
                Ok(0) => return self.close(place),
                Ok(count) => {
                    let bytes = &self.scratch[..count];
                    connection.conversation.handle_bytes(bytes, now, &mut self.clerk);
                    if count < READ_BYTES && !announced_end && connection.wire.is_clear() {
                        return self.settle_turn(place, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.settle_turn(place, now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(place),
            }
        }
    }

    /// Reads a little, and comes back when the pace allows more; what is left stays in the kernel.
    fn sip(&mut self, place: usize, reading: Reading, now: u64) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        if connection.read_from_ns > now {
            return self.settle_turn(place, now);
        }
        let rate = reading.bytes_per_second.get();
        let sip = usize::try_from(rate.div_ceil(SIPS_PER_SECOND)).unwrap_or(READ_BYTES);
        match connection.wire.read(&mut self.scratch[..sip.min(READ_BYTES)]) {
            Ok(0) => return self.close(place),
            Ok(count) => {
                let bytes = &self.scratch[..count];
                connection.conversation.handle_bytes(bytes, now, &mut self.clerk);
                connection.read_from_ns = now + count as u64 * SECOND_NS / u64::from(rate);
                let due = connection.read_from_ns;
                self.held.push(Reverse((due, place, connection.generation)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.held.push(Reverse((now, place, connection.generation)));
            }
            Err(_) => return self.close(place),
        }
        self.settle_turn(place, now);
    }

    /// After a turn: sends the replies, or holds them back, and closes if it is over.
    fn settle_turn(&mut self, place: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let wait_ns = connection.conversation.take_wait();
        if wait_ns > 0 {
            connection.hold_until_ns = connection.hold_until_ns.max(now).saturating_add(wait_ns);
            self.held.push(Reverse((connection.hold_until_ns, place, connection.generation)));
        }
        if connection.hold_until_ns > now {
            return;
        }
        let flushed = connection.wire.flush(&mut connection.conversation.out);
        let is_done = match (flushed, connection.conversation.ending()) {
            (Ok(true), Ending::No) => self.begin_tls(place).is_err(),
            (Ok(true), Ending::Close) | (Err(_), _) => true,
            (Ok(true), Ending::Reset) => {
                connection.wire.reset_at_end();
                true
            }
            (Ok(false), _) => false,
        };
        if is_done {
            self.close(place);
        }
    }

    /// Once the reply to STARTTLS is out in clear, everything else comes secured.
    fn begin_tls(&mut self, place: usize) -> io::Result<()> {
        let connection = &mut self.connections[place];
        if !connection.conversation.awaits_handshake() {
            return Ok(());
        }
        let face = &self.clerk.faces.hosts[connection.conversation.host()];
        connection.wire.secure(face.tls.as_ref())?;
        connection.conversation.secured();
        Ok(())
    }

    /// Counts before it closes: once the peer sees our end it may open the next connection.
    fn close(&mut self, place: usize) {
        if let Some(connection) = self.connections.try_remove(place) {
            self.clerk.closing(connection.conversation.host());
            drop(connection.wire);
        }
    }

    fn accept(&mut self, now: u64) {
        if self.accept_again_ns.is_some_and(|again| again <= now) {
            self.accept_again_ns = None;
            self.ringing.extend(0..self.doors.len());
        }
        while let Some(door) = self.ringing.pop() {
            while let Some((stream, client)) = self.accept_one(door) {
                self.begin(door, stream, client, now);
            }
        }
    }

    fn accept_one(&mut self, door: usize) -> Option<(TcpStream, IpAddr)> {
        loop {
            match self.doors[door].listener.as_ref()?.accept() {
                Ok((stream, client)) => return Some((stream, client.ip())),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.accept_again_ns = Some(clock::now_ns() + ACCEPT_RETRY_NS);
                        return None;
                    }
                },
            }
        }
    }

    fn begin(&mut self, door: usize, mut stream: TcpStream, client: IpAddr, now: u64) {
        let host = self.doors[door].host;
        let number = self.clerk.hosts[host].opened();
        let conversation = Conversation::begin(host, number, client, now, &self.clerk);
        let place = self.connections.vacant_key();
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(place), both).is_err() {
            self.clerk.closing(host);
            return;
        }
        let wire = Wire::new(stream);
        let window = self.clerk.faces.hosts[host].personality.reading.and_then(|r| r.window);
        if let Some(window) = window {
            // A window that could not be set only makes this reader less slow.
            wire.shrink_window(bytes(window)).ok();
        }
        self.generation += 1;
        self.connections.insert(Connection {
            wire,
            conversation,
            generation: self.generation,
            hold_until_ns: 0,
            read_from_ns: 0,
        });
        self.settle_turn(place, now);
    }

    /// Sends the replies whose time has come.
    fn release(&mut self, now: u64) {
        while let Some(Reverse((due, place, generation))) = self.held.peek().copied() {
            if due > now {
                break;
            }
            self.held.pop();
            let is_same = |connection: &Connection| connection.generation == generation;
            let Some(connection) = self.connections.get(place).filter(|one| is_same(one)) else {
                continue;
            };
            if connection.read_from_ns == due {
                self.receive(place, false);
            } else {
                self.settle_turn(place, now);
            }
        }
    }

    fn set_alarm(&mut self) -> io::Result<()> {
        let held = self.held.peek().map(|Reverse((due, ..))| *due);
        match held.into_iter().chain(self.accept_again_ns).min() {
            Some(due) => self.alarm.set(due),
            None => Ok(()),
        }
    }

    fn obey(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Behave { host_index, host, personality, done } => {
                    let result = self.behave(host_index, &host, *personality);
                    // Whoever asked may have stopped waiting.
                    done.send(result).ok();
                }
                Order::MarkRun { done } => {
                    self.clerk.records.repeats.begin_run();
                    let hosts = &self.clerk.hosts;
                    let mark = |door: &Door| (door.host, hosts[door.host].mark_run());
                    done.send(self.doors.iter().map(mark).collect()).ok();
                }
                Order::HandOver => {
                    if let Some(arrivals) = &mut self.clerk.records.arrivals {
                        arrivals.recorder.hand_over();
                    }
                }
                Order::Stop => self.stopping = true,
            }
        }
    }

    fn behave(
        &mut self,
        index: usize,
        host: &SinkHost,
        personality: Personality,
    ) -> io::Result<()> {
        let refuses_connects = personality.refuses_connects;
        let connections = self.clerk.hosts[index].concurrent.load(Relaxed);
        let old = self.clerk.faces.change(index, host, personality, connections)?;
        self.clerk.records.standings.push(old);
        let Some(door) = self.doors.iter().position(|door| door.host == index) else {
            return Ok(());
        };
        if refuses_connects {
            self.doors[door].listener = None;
        } else if self.doors[door].listener.is_none() {
            self.open_door(door)?;
        }
        Ok(())
    }

    fn open_door(&mut self, index: usize) -> io::Result<()> {
        let door = &mut self.doors[index];
        let reading = self.clerk.faces.hosts[door.host].personality.reading;
        let window = reading.and_then(|reading| reading.window);
        let mut listener = listen(door.address, window)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", door.address)))?;
        let token = Token(DOORS_FROM + index);
        self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
        door.listener = Some(listener);
        Ok(())
    }
}

fn listen(address: SocketAddr, window: Option<NonZeroU32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    if let Some(window) = window {
        socket.set_recv_buffer_size(bytes(window))?;
    }
    loopback::send_unpaced(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn bytes(window: NonZeroU32) -> usize {
    usize::try_from(window.get()).unwrap_or(usize::MAX)
}
