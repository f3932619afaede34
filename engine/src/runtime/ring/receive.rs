//! Receiving: a multishot receive per connection, paused, starved, replayed, opened if sealed.

use super::buffers::Filled;
use super::driver::{Core, Driver};
use super::secure::Step;
use super::socket::{Outlet, Peer, Phase, Receiving, Socket, Transport, end_of};
use super::submit::Completion;
use super::token::{Op, Token};
use crate::model::connection::{Conn, End, TlsError, TlsFacts};
use crate::shard::Event;

/// Answers of handshakes taken in one turn; each is a few kilobytes and a send.
const HANDSHAKE_STEPS_PER_TURN_MAX: usize = 64;

pub(super) fn secured(conn: Conn, result: Result<TlsFacts, TlsError>) -> Event<'static> {
    Event::Secured { conn, result }
}

impl Driver {
    pub(super) fn start_reading(&mut self, conn: Conn) {
        let Some(socket) = self.socket(conn).filter(|socket| socket.phase == Phase::Open) else {
            return;
        };
        match socket.receiving {
            Receiving::Stopping => socket.receiving = Receiving::Resuming,
            Receiving::Off(peer) => self.resume(conn, peer),
            _ => {}
        }
    }

    pub(super) fn stop_reading(&mut self, conn: Conn) {
        let Some(socket) = self.socket(conn).filter(|socket| socket.phase == Phase::Open) else {
            return;
        };
        match socket.receiving {
            Receiving::Armed => self.cancel_receive(conn),
            Receiving::Parked => socket.receiving = Receiving::Off(Peer::Talking),
            Receiving::Resuming => socket.receiving = Receiving::Stopping,
            Receiving::Replaying(peer) => socket.receiving = Receiving::Off(peer),
            Receiving::Stopping | Receiving::Off(_) => {}
        }
    }

    pub(super) fn arm_receive(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        socket.receiving = Receiving::Armed;
        socket.in_flight += 1;
        self.ring.receive(socket.fd(), Token::of(Op::Receive, conn));
    }

    pub(super) fn cancel_receive(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        socket.receiving = Receiving::Stopping;
        socket.in_flight += 1;
        self.ring.cancel(Token::of(Op::Receive, conn), Token::of(Op::Cancel, conn));
    }

    /// Gives those that waited longest another try; by now every buffer that was seen is back, and where
    /// there were too few, more are there.
    pub(super) fn rearm_starved(&mut self) {
        self.ring.buffers.end_turn(!self.starved.is_empty());
        let tries = self.starved.len().min(usize::from(self.options.receive_buffers));
        for _ in 0..tries {
            let Some(conn) = self.starved.pop_front() else {
                return;
            };
            if self.socket(conn).is_some_and(|socket| socket.receiving == Receiving::Parked) {
                self.arm_receive(conn);
            }
        }
    }

    /// Tells kept bytes, one buffer's worth per connection and turn, so that the core can stop again.
    pub(super) fn replay(&mut self, core: &mut impl Core) -> usize {
        let waiting = self.replaying.len();
        for _ in 0..waiting {
            let Some(conn) = self.replaying.pop_front() else {
                break;
            };
            self.replay_one(core, conn);
        }
        waiting
    }

    pub(super) fn handle_received(&mut self, core: &mut impl Core, completion: &Completion) {
        let conn = completion.token.conn();
        if let Some(filled) = self.ring.buffers.take(completion.flags, completion.result) {
            if completion.result > 0 {
                self.handle_bytes(core, conn, &filled);
            }
            self.ring.buffers.give_back(filled);
        }
        if !completion.more() {
            self.handle_receive_over(conn, completion.result);
            self.operation_over(conn);
        }
    }

    /// Starts a handshake; from here on received bytes are its own.
    pub(super) fn secure(&mut self, conn: Conn, name: &str) {
        let Some(socket) = self.socket(conn).filter(|socket| socket.phase == Phase::Open) else {
            return;
        };
        assert!(matches!(socket.transport, Transport::Plain), "a connection is secured once");
        socket.transport = Transport::Handshaking;
        self.handshakes.start(conn, name);
    }

    pub(super) fn poll_handshakes(&mut self, core: &mut impl Core) -> usize {
        for steps in 0..HANDSHAKE_STEPS_PER_TURN_MAX {
            let Some((conn, step)) = self.handshakes.poll() else {
                return steps;
            };
            let handshaking = self
                .socket(conn)
                .is_some_and(|socket| matches!(socket.transport, Transport::Handshaking));
            if handshaking {
                self.take_step(core, conn, step);
            }
        }
        HANDSHAKE_STEPS_PER_TURN_MAX
    }

    fn take_step(&mut self, core: &mut impl Core, conn: Conn, step: Step) {
        match step {
            Step::Send(wire) => self.send_wire(conn, &wire),
            Step::Failed(error) => self.fail_handshake(conn, error),
            Step::Done(stream, facts) => {
                self.sockets[conn.slot as usize].transport = Transport::Tls(stream);
                self.ready.push_back(secured(conn, Ok(facts)));
                self.tell(core);
                // Plaintext that came right behind the handshake.
                let socket = &mut self.sockets[conn.slot as usize];
                let parked = &mut self.counters.parked_bytes;
                let opened = open(socket, core, conn, &[], (&mut self.scratch, parked));
                self.answer(conn, opened);
            }
        }
    }

    fn fail_handshake(&mut self, conn: Conn, error: TlsError) {
        self.sockets[conn.slot as usize].transport = Transport::Mute;
        self.ready.push_back(secured(conn, Err(error)));
    }

    fn resume(&mut self, conn: Conn, peer: Peer) {
        let socket = &mut self.sockets[conn.slot as usize];
        if socket.kept.is_empty() && peer == Peer::Talking {
            self.arm_receive(conn);
        } else {
            socket.receiving = Receiving::Replaying(peer);
            self.replaying.push_back(conn);
        }
    }

    fn replay_one(&mut self, core: &mut impl Core, conn: Conn) {
        let bytes_max = self.options.receive_buffer_bytes as usize;
        let Some(socket) = self.socket(conn) else {
            return;
        };
        let Receiving::Replaying(peer) = socket.receiving else {
            return;
        };
        let bytes = socket.kept.next(bytes_max);
        if !bytes.is_empty() {
            core.handle(Event::Received { conn, bytes });
        }
        if !socket.kept.is_empty() {
            self.replaying.push_back(conn);
            return;
        }
        socket.kept.clear_told();
        match peer {
            Peer::Talking => self.arm_receive(conn),
            Peer::Ended(how) => self.end(conn, how),
        }
    }

    fn handle_bytes(&mut self, core: &mut impl Core, conn: Conn, filled: &Filled) {
        let Some(socket) =
            self.sockets.get_mut(conn.slot as usize).filter(|socket| socket.is(conn))
        else {
            return;
        };
        if socket.phase != Phase::Open {
            return;
        }
        let bytes = self.ring.buffers.bytes(filled);
        let at_once = socket.tells_at_once();
        match &mut socket.transport {
            Transport::Plain if at_once => core.handle(Event::Received { conn, bytes }),
            Transport::Plain => {
                self.counters.parked_bytes += bytes.len() as u64;
                if !socket.kept.push(bytes) {
                    self.break_off(conn);
                }
            }
            Transport::Handshaking => {
                if let Err(error) = self.handshakes.feed(conn, bytes) {
                    self.fail_handshake(conn, error);
                }
            }
            Transport::Tls(_) => {
                let parked = &mut self.counters.parked_bytes;
                let opened = open(socket, core, conn, bytes, (&mut self.scratch, parked));
                self.answer(conn, opened);
            }
            Transport::Mute => {}
        }
    }

    /// Sends what the protocol answers by itself.
    fn answer(&mut self, conn: Conn, opened: Opened) {
        let mut answer = std::mem::take(&mut self.scratch);
        self.send_wire(conn, &answer);
        answer.clear();
        self.scratch = answer;
        if opened == Opened::Broken {
            self.break_off(conn);
        }
    }

    fn handle_receive_over(&mut self, conn: Conn, result: i32) {
        let Some(socket) = self.socket(conn) else {
            return;
        };
        match -result {
            0 => self.handle_peer_end(conn, End::ByPeer),
            libc::ENOBUFS if socket.receiving == Receiving::Armed => {
                socket.receiving = Receiving::Parked;
                self.counters.starved += 1;
                self.starved.push_back(conn);
            }
            // Stopped without an end: by our cancel, for want of buffers, or by the kernel's own
            // bounds, which may come with bytes.
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN | i32::MIN..0 => {
                self.handle_stopped(conn);
            }
            errno => self.handle_peer_end(conn, end_of(errno)),
        }
    }

    fn handle_stopped(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        match socket.receiving {
            Receiving::Stopping => socket.receiving = Receiving::Off(Peer::Talking),
            Receiving::Resuming => self.resume(conn, Peer::Talking),
            _ if socket.phase == Phase::Closing => socket.receiving = Receiving::Off(Peer::Talking),
            _ => self.arm_receive(conn),
        }
    }

    /// The end is told behind the bytes before it; if those are kept, it waits with them.
    fn handle_peer_end(&mut self, conn: Conn, read: End) {
        let socket = &mut self.sockets[conn.slot as usize];
        let how = match socket.outlet {
            Outlet::Working => read,
            Outlet::Broken(how) => how,
        };
        let wanted = socket.receiving != Receiving::Stopping;
        socket.receiving = Receiving::Off(Peer::Ended(how));
        if socket.phase != Phase::Open || socket.kept.is_empty() {
            self.end(conn, how);
        } else if wanted {
            self.resume(conn, Peer::Ended(how));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Whole,
    /// The records do not open, or the plaintext is more than may be kept.
    Broken,
}

/// Opens records and tells, or keeps, their plaintext; what the protocol answers goes to `answer`.
fn open(
    socket: &mut Socket,
    core: &mut impl Core,
    conn: Conn,
    wire: &[u8],
    (answer, parked): (&mut Vec<u8>, &mut u64),
) -> Opened {
    let at_once = socket.tells_at_once();
    let Transport::Tls(stream) = &mut socket.transport else {
        return Opened::Whole;
    };
    let mut fits = true;
    let mut plain = |bytes: &[u8]| {
        if at_once {
            core.handle(Event::Received { conn, bytes });
        } else {
            *parked += bytes.len() as u64;
            fits &= socket.kept.push(bytes);
        }
    };
    let opened = stream.open(wire, &mut plain, answer);
    if opened.is_ok() && fits { Opened::Whole } else { Opened::Broken }
}
