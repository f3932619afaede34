//! The event loop of one source thread: sockets in and out, sessions and the schedule in between.

use std::io;
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};

use super::channel::Channel;
use super::desk::{Desk, add};
use super::dial::{self, Dialer};
use super::report::ThreadReport;
use super::session::{Session, Standing};
use crate::alarm::Alarm;
use crate::clock::{self, SECOND_NS};

const ALARM: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const EVENTS_PER_TURN_MAX: usize = 1024;
const READ_BYTES: usize = 16 * 1024;
/// How often deadlines are looked at, whatever else happens.
const TICK_NS: u64 = SECOND_NS / 4;
/// A server that is silent for longer has lost the session.
const REPLY_WAIT_MAX_NS: u64 = 60 * SECOND_NS;
/// The first wait before connecting again; it doubles up to [`RETRY_MAX_NS`].
const RETRY_MIN_NS: u64 = SECOND_NS / 200;
const RETRY_MAX_NS: u64 = SECOND_NS / 4;
/// Failures in a row after which a session stays closed: about two and a half minutes.
const RETRIES_MAX: u32 = 600;

pub(super) struct Driver {
    poll: Poll,
    waker: Arc<Waker>,
    alarm: Alarm,
    desk: Desk,
    dialer: Dialer,
    seats: Vec<Seat>,
    /// Seats whose session waits for the schedule.
    idle: Vec<usize>,
    /// Seats that wait to connect.
    waiting: Vec<usize>,
    open_seats: usize,
    tick_ns: u64,
    scratch: Box<[u8; READ_BYTES]>,
    /// What sessions fill and send in one turn.
    spare: Vec<u8>,
}

/// The place of one session; the session in it may be replaced.
struct Seat {
    link: Link,
    failures: u32,
    is_idle: bool,
}

enum Link {
    Connecting { stream: TcpStream, since_ns: u64 },
    Open { channel: Channel, session: Box<Session> },
    Waiting { until_ns: u64 },
    Closed,
}

/// Why a link ends.
enum End {
    /// QUIT was said.
    Orderly,
    Lost,
    /// It never came about.
    Failed,
}

impl Driver {
    pub(super) fn new(desk: Desk, dialer: Dialer, seat_count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let waiting = |_| Seat { link: Link::Waiting { until_ns: 0 }, failures: 0, is_idle: false };
        Ok(Self {
            poll,
            waker,
            alarm,
            desk,
            dialer,
            seats: (0..seat_count).map(waiting).collect(),
            idle: Vec::with_capacity(seat_count),
            waiting: (0..seat_count).collect(),
            open_seats: seat_count,
            tick_ns: 0,
            scratch: Box::new([0; READ_BYTES]),
            spare: Vec::new(),
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Runs until every seat is closed.
    pub(super) fn run(mut self) -> io::Result<ThreadReport> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        loop {
            self.serve_clock(clock::now_ns())?;
            self.desk.end_turn(self.idle.len());
            if self.open_seats == 0 {
                break;
            }
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    ALARM => self.alarm.rang(),
                    WAKER => {}
                    Token(index) => self.handle_event(index, event),
                }
            }
        }
        Ok(self.desk.records.close())
    }

    /// Does what is due: connects, messages of the schedule, deadlines; then sets the alarm.
    fn serve_clock(&mut self, now: u64) -> io::Result<()> {
        let next_connect = self.connect_due(now);
        let next_message = self.offer_due(now);
        if now >= self.tick_ns {
            self.tick_ns = now + TICK_NS;
            self.close_overdue(now);
        }
        self.alarm.set(self.tick_ns.min(next_connect).min(next_message))
    }

    fn connect_due(&mut self, now: u64) -> u64 {
        let mut next = u64::MAX;
        let mut at = 0;
        while at < self.waiting.len() {
            let index = self.waiting[at];
            match self.seats[index].link {
                Link::Waiting { until_ns } if until_ns > now && !self.desk.shared.is_over(now) => {
                    next = next.min(until_ns);
                    at += 1;
                }
                Link::Waiting { .. } => {
                    self.waiting.swap_remove(at);
                    self.connect(index, now);
                }
                _ => {
                    self.waiting.swap_remove(at);
                }
            }
        }
        next
    }

    fn connect(&mut self, index: usize, now: u64) {
        if self.desk.shared.is_over(now) {
            self.close(index);
            return;
        }
        match self.dialer.dial(self.poll.registry(), Token(index)) {
            Ok(stream) => self.seats[index].link = Link::Connecting { stream, since_ns: now },
            Err(error) => {
                self.desk.records.note_error(&format!("(connect: {error})"));
                self.end(index, End::Failed, now);
            }
        }
    }

    /// Gives messages that are due to idle sessions; says when the next is due.
    fn offer_due(&mut self, now: u64) -> u64 {
        while let Some(index) = self.idle.pop() {
            self.seats[index].is_idle = false;
            let Link::Open { session, .. } = &mut self.seats[index].link else { continue };
            session.out.borrow(&mut self.spare);
            session.proceed(now, &mut self.desk);
            let standing = session.standing();
            self.settle_turn(index, now);
            if let Standing::Idle { until_ns, .. } = standing {
                return until_ns.min(self.desk.shared.end_ns());
            }
        }
        u64::MAX
    }

    fn close_overdue(&mut self, now: u64) {
        let grace_is_over = self.desk.shared.grace_is_over(now);
        for index in 0..self.seats.len() {
            let since_ns = match &self.seats[index].link {
                Link::Connecting { since_ns, .. } => Some(*since_ns),
                Link::Open { session, .. } => session.waiting_since(),
                Link::Waiting { .. } | Link::Closed => None,
            };
            let overdue =
                since_ns.is_some_and(|since| now.saturating_sub(since) > REPLY_WAIT_MAX_NS);
            if overdue || (grace_is_over && since_ns.is_some()) {
                self.desk.records.note_error("(no reply in time)");
                self.end(index, End::Lost, now);
            }
        }
    }

    fn handle_event(&mut self, index: usize, event: &Event) {
        let now = clock::now_ns();
        if matches!(self.seats[index].link, Link::Connecting { .. }) {
            self.finish_connect(index, now);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(index, event.is_read_closed(), now);
        }
        self.settle_turn(index, now);
    }

    fn finish_connect(&mut self, index: usize, now: u64) {
        let Link::Connecting { stream, since_ns } =
            std::mem::replace(&mut self.seats[index].link, Link::Closed)
        else {
            return;
        };
        match dial::connected(&stream) {
            Ok(true) => {
                self.desk.records.record(super::Phase::Connect, now.saturating_sub(since_ns));
                add(&self.desk.shared.counters.connections);
                let mut session = Box::new(Session::new());
                session.handle_connected(now);
                self.seats[index].link = Link::Open { channel: Channel::plain(stream), session };
            }
            Ok(false) => self.seats[index].link = Link::Connecting { stream, since_ns },
            Err(error) => {
                self.desk.records.note_error(&format!("(connect: {error})"));
                self.end(index, End::Failed, now);
            }
        }
    }

    /// Reads what has come. Edge-triggered: a short read says that nothing is left, unless the
    /// end of the stream was announced with it.
    fn receive(&mut self, index: usize, announced_end: bool, now: u64) {
        let seat = &mut self.seats[index];
        let Link::Open { channel, session } = &mut seat.link else { return };
        session.out.borrow(&mut self.spare);
        loop {
            let received = channel.receive(&mut self.scratch[..]);
            if session.standing() == Standing::Securing && channel.is_secured() {
                session.handle_secured(now, &mut self.desk);
            }
            match received {
                Ok(0) => break,
                Ok(count) => {
                    session.handle_bytes(&self.scratch[..count], now, &mut self.desk);
                    // A 421 for a banner is no success: the wait must go on growing.
                    if session.has_begun() {
                        seat.failures = 0;
                    }
                    if count < READ_BYTES && !announced_end && channel.is_plain() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.desk.records.note_error(&format!("(receive: {error})"));
                    break;
                }
            }
        }
        let end = match session.standing() {
            Standing::Done => End::Orderly,
            _ if session.has_said_quit() => End::Orderly,
            _ => End::Lost,
        };
        self.end(index, end, now);
    }

    /// After a turn of a session: sends its flight, and closes or parks it as it stands.
    fn settle_turn(&mut self, index: usize, now: u64) {
        let seat = &mut self.seats[index];
        let Link::Open { channel, session } = &mut seat.link else { return };
        let mut flushed = Ok(());
        if session.standing() == Standing::Securing && channel.is_plain() {
            flushed = channel.secure(&self.dialer.tls);
        }
        flushed = flushed.and_then(|()| channel.flush(&mut session.out));
        session.out.give_back(&mut self.spare);
        match session.standing() {
            Standing::Done => self.end(index, End::Orderly, now),
            Standing::Broken => self.end(index, End::Lost, now),
            Standing::Idle { .. } if !seat.is_idle => {
                seat.is_idle = true;
                self.idle.push(index);
            }
            _ => {
                if let Err(error) = flushed {
                    self.desk.records.note_error(&format!("(send: {error})"));
                    self.end(index, End::Lost, now);
                }
            }
        }
    }

    fn end(&mut self, index: usize, end: End, now: u64) {
        let seat = &mut self.seats[index];
        if let Link::Open { session, .. } = &mut seat.link {
            session.handle_loss(&mut self.desk);
        }
        seat.link = Link::Closed;
        let counters = &self.desk.shared.counters;
        let again = match end {
            End::Orderly => true,
            End::Lost => {
                add(&counters.connection_losses);
                self.desk.plan.reconnect
            }
            End::Failed => {
                add(&counters.connect_failures);
                self.desk.plan.reconnect
            }
        };
        if !again || seat.failures >= RETRIES_MAX || self.desk.shared.is_over(now) {
            self.close(index);
            return;
        }
        let until_ns =
            if matches!(end, End::Orderly) { now } else { now + retry_wait(seat.failures) };
        seat.failures += 1;
        seat.link = Link::Waiting { until_ns };
        self.waiting.push(index);
    }

    fn close(&mut self, index: usize) {
        self.seats[index].link = Link::Closed;
        self.open_seats -= 1;
    }
}

fn retry_wait(failures: u32) -> u64 {
    (RETRY_MIN_NS << failures.min(16)).min(RETRY_MAX_NS)
}
