//! The event loop of one sink thread: accepts, receives, replies, and counts exactly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use super::SinkPlan;
use super::behaviour::Behaviour;
use super::clerk::Clerk;
use super::conversation::{Conversation, Ending};
use super::host::HostCounters;
use super::report::ThreadReport;
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

/// What another thread asks of this one; answered when it is in force.
pub(super) enum Order {
    Behave {
        host_index: usize,
        behaviour: Behaviour,
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
    /// Connections whose replies are held back: due, place, generation.
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
    stream: TcpStream,
    conversation: Conversation,
    /// Tells this connection from an earlier one in the same place.
    generation: u64,
    hold_until_ns: u64,
}

impl Driver {
    /// Binds the hosts whose turn it is: `thread`, `thread + threads` and so on.
    pub(super) fn new(
        plan: &SinkPlan,
        thread: usize,
        threads: usize,
        counters: &Arc<Vec<HostCounters>>,
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
            clerk: Clerk::new(plan, counters),
            scratch: Box::new([0; READ_BYTES]),
            stopping: false,
        };
        for (host, place) in plan.hosts.iter().enumerate().skip(thread).step_by(threads) {
            driver.doors.push(Door { host, address: place.address, listener: None });
            driver.open_door(driver.doors.len() - 1)?;
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
            self.clerk.hosts[connection.conversation.host].closing();
        }
        self.clerk.records.cpu_ns = clock::thread_cpu_ns();
        if let Some(arrivals) = self.clerk.records.arrivals.take() {
            arrivals.recorder.finish();
        }
        Ok(self.clerk.records)
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

    /// Reads what has come. Edge-triggered: a short read says that nothing is left, unless the
    /// end of the stream was announced with it.
    fn receive(&mut self, place: usize, announced_end: bool) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let now = clock::now_ns();
        loop {
            match connection.stream.read(&mut self.scratch[..]) {
                Ok(0) => return self.close(place),
                Ok(count) => {
                    let bytes = &self.scratch[..count];
                    connection.conversation.handle_bytes(bytes, now, &mut self.clerk);
                    if count < READ_BYTES && !announced_end {
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

    /// After a turn: sends the replies, or holds them back, and closes if it is over.
    fn settle_turn(&mut self, place: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        let replies = connection.conversation.take_replies();
        if connection.conversation.ending() == Ending::Now {
            return self.close(place);
        }
        if let Behaviour::Slow(wait) = self.clerk.behaviour(connection.conversation.host)
            && replies > 0
        {
            let wait_ns = clock::nanos(wait).saturating_mul(u64::from(replies));
            connection.hold_until_ns = connection.hold_until_ns.max(now).saturating_add(wait_ns);
            self.held.push(Reverse((connection.hold_until_ns, place, connection.generation)));
        }
        if connection.hold_until_ns > now {
            return;
        }
        match connection.conversation.out.flush(&mut connection.stream) {
            Ok(true) if connection.conversation.ending() == Ending::AfterReplies => {
                self.close(place)
            }
            Ok(_) => {}
            Err(_) => self.close(place),
        }
    }

    /// Counts before it closes: once the peer sees our end it may open the next connection.
    fn close(&mut self, place: usize) {
        if let Some(connection) = self.connections.try_remove(place) {
            self.clerk.hosts[connection.conversation.host].closing();
            drop(connection.stream);
        }
    }

    fn accept(&mut self, now: u64) {
        if self.accept_again_ns.is_some_and(|again| again <= now) {
            self.accept_again_ns = None;
            self.ringing.extend(0..self.doors.len());
        }
        while let Some(door) = self.ringing.pop() {
            while let Some(stream) = self.accept_one(door) {
                self.begin(door, stream, now);
            }
        }
    }

    fn accept_one(&mut self, door: usize) -> Option<TcpStream> {
        loop {
            match self.doors[door].listener.as_ref()?.accept() {
                Ok((stream, _)) => return Some(stream),
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

    fn begin(&mut self, door: usize, mut stream: TcpStream, now: u64) {
        let host = self.doors[door].host;
        let nth = self.clerk.hosts[host].opened();
        let place = self.connections.vacant_key();
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(place), both).is_err() {
            self.clerk.hosts[host].closing();
            return;
        }
        self.generation += 1;
        self.connections.insert(Connection {
            stream,
            conversation: Conversation::begin(host, nth, &self.clerk),
            generation: self.generation,
            hold_until_ns: 0,
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
            if self.connections.get(place).is_some_and(is_same) {
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
                Order::Behave { host_index, behaviour, done } => {
                    let result = self.behave(host_index, behaviour);
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

    fn behave(&mut self, host: usize, behaviour: Behaviour) -> io::Result<()> {
        self.clerk.behave(host, behaviour);
        let Some(door) = self.doors.iter().position(|door| door.host == host) else {
            return Ok(());
        };
        match behaviour {
            Behaviour::Refuse => {
                self.doors[door].listener = None;
                Ok(())
            }
            _ if self.doors[door].listener.is_none() => self.open_door(door),
            _ => Ok(()),
        }
    }

    fn open_door(&mut self, index: usize) -> io::Result<()> {
        let door = &mut self.doors[index];
        let mut listener = listen(door.address)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", door.address)))?;
        let token = Token(DOORS_FROM + index);
        self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
        door.listener = Some(listener);
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    loopback::send_unpaced(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}
