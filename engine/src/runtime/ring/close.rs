//! Closing: gracefully, at once, or because the peer did; and the retiring of the slot behind it.
//!
//! ```text
//! Open ──Graceful──▶ Draining ──drained──▶ Lingering ──peer's end, or LINGER──▶ Closing ──▶ Free
//!   ├──peer's end──▶ Finishing ──drained, or LINGER──▶ Closing
//!   └──Abort───────▶ Closing ──last completion──▶ Free, Retired
//! ```

use std::time::Duration;

use super::driver::Driver;
use super::socket::{Outlet, Peer, Phase, Receiving, Transport};
use super::token::{Op, Token};
use crate::model::connection::{Close, Conn, ConnectError, End};
use crate::shard::Event;

/// How long a peer may take to read what was queued before a graceful close.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long we wait for the peer's end after ours, or for the last reply to a half-closed peer.
/// Decent peers answer a FIN within a round trip.
const LINGER: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn close(&mut self, conn: Conn, how: Close) {
        let Some(socket) = self.socket(conn) else {
            return;
        };
        match (socket.phase, how) {
            (Phase::Connecting, _) => self.give_up_connecting(conn),
            (Phase::Open, Close::Graceful) => self.close_gracefully(conn),
            (_, Close::Abort) => self.break_off(conn),
            _ => {}
        }
    }

    /// Ends a connection at once, with a reset, so that the peer's side ends too.
    pub(super) fn break_off(&mut self, conn: Conn) {
        let Some(socket) = self.socket(conn) else {
            return;
        };
        let how = match socket.receiving {
            Receiving::Off(Peer::Ended(how)) | Receiving::Replaying(Peer::Ended(how)) => how,
            _ => End::Unknown,
        };
        match socket.phase {
            Phase::Open | Phase::Draining | Phase::Lingering => {
                self.ready.push_back(Event::Ended { conn, how });
            }
            Phase::Finishing => {}
            Phase::Connecting | Phase::Closing | Phase::Free => return,
        }
        let socket = &self.sockets[conn.slot as usize];
        socket.tell_kernel(|socket| socket.set_linger(Some(Duration::ZERO)));
        self.begin_closing(conn);
    }

    /// The end of the connection was learned: tells it once. A peer that only closed its own half
    /// still gets what this turn queues for it.
    pub(super) fn end(&mut self, conn: Conn, how: End) {
        let Some(socket) = self.socket(conn) else {
            return;
        };
        let phase = socket.phase;
        if matches!(phase, Phase::Open | Phase::Draining | Phase::Lingering) {
            let listens = how == End::ByPeer && socket.outlet == Outlet::Working;
            let finishes = listens && phase != Phase::Lingering;
            self.ready.push_back(Event::Ended { conn, how });
            if finishes {
                self.sockets[conn.slot as usize].phase = Phase::Finishing;
                self.finishing.push(conn);
                self.lingering_until.push_back((self.now.plus(LINGER), conn));
                return;
            }
        }
        if phase != Phase::Closing {
            self.begin_closing(conn);
        }
    }

    /// Everything queued is sent: says our end, under TLS in its own words first.
    pub(super) fn send_our_end(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        if let Transport::Tls(mut stream) =
            std::mem::replace(&mut socket.transport, Transport::Mute)
            && socket.outlet == Outlet::Working
        {
            let mut notice = Vec::new();
            stream.close(&mut notice);
            if !notice.is_empty() {
                self.send_wire(conn, &notice);
                return;
            }
        }
        socket.tell_kernel(|socket| socket.shutdown(std::net::Shutdown::Write));
        socket.phase = Phase::Lingering;
        self.lingering_until.push_back((self.now.plus(LINGER), conn));
    }

    /// Nothing goes any more; cancels what is in flight and waits for its last completion.
    pub(super) fn begin_closing(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        socket.phase = Phase::Closing;
        socket.kept = super::socket::Kept::default();
        let sending = socket.outbox.as_mut().is_some_and(|outbox| {
            outbox.drop_queued();
            outbox.is_sending()
        });
        let transport = std::mem::replace(&mut socket.transport, Transport::Mute);
        match socket.receiving {
            Receiving::Armed => self.cancel_receive(conn),
            Receiving::Resuming => socket.receiving = Receiving::Stopping,
            Receiving::Parked | Receiving::Replaying(_) => {
                socket.receiving = Receiving::Off(Peer::Talking);
            }
            Receiving::Stopping | Receiving::Off(_) => {}
        }
        if sending {
            self.cancel(conn, Op::Send);
        }
        if matches!(transport, Transport::Handshaking) {
            self.handshakes.cancel(conn);
        }
        self.retire_if_over(conn);
    }

    /// One operation of the connection has had its last completion.
    pub(super) fn operation_over(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        assert!(socket.is(conn), "a slot outlives its operations");
        socket.in_flight -= 1;
        self.retire_if_over(conn);
    }

    /// Closes connections whose end was told in an earlier turn and that have nothing to send;
    /// those that have are closed when it is sent.
    pub(super) fn finish_ended(&mut self) {
        while let Some(conn) = self.finishing.pop() {
            let over = self
                .socket(conn)
                .is_some_and(|socket| socket.phase == Phase::Finishing && socket.is_drained());
            if over {
                self.begin_closing(conn);
            }
        }
    }

    pub(super) fn expire(&mut self) {
        while let Some(&(until, conn)) = self.draining_until.front() {
            let waits = self.socket(conn).is_some_and(|socket| socket.phase == Phase::Draining);
            if waits && until > self.now {
                break;
            }
            self.draining_until.pop_front();
            if waits {
                self.break_off(conn);
            }
        }
        while let Some(&(until, conn)) = self.lingering_until.front() {
            let phase = self.socket(conn).map_or(Phase::Free, |socket| socket.phase);
            let waits = matches!(phase, Phase::Lingering | Phase::Finishing);
            if waits && until > self.now {
                break;
            }
            self.lingering_until.pop_front();
            if waits {
                self.stop_lingering(conn);
            }
        }
    }

    pub(super) fn cancel(&mut self, conn: Conn, op: Op) {
        self.sockets[conn.slot as usize].in_flight += 1;
        self.ring.cancel(Token::of(op, conn), Token::of(Op::Cancel, conn));
    }

    fn close_gracefully(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        socket.phase = Phase::Draining;
        socket.kept = super::socket::Kept::default();
        if matches!(socket.transport, Transport::Handshaking) {
            socket.transport = Transport::Mute;
            self.handshakes.cancel(conn);
        }
        match socket.receiving {
            Receiving::Off(Peer::Ended(how)) | Receiving::Replaying(Peer::Ended(how)) => {
                return self.end(conn, how);
            }
            // The peer's end is to be seen, so somebody must read; the bytes are dropped.
            Receiving::Off(Peer::Talking) | Receiving::Replaying(Peer::Talking) => {
                self.arm_receive(conn)
            }
            Receiving::Stopping => socket.receiving = Receiving::Resuming,
            Receiving::Armed | Receiving::Parked | Receiving::Resuming => {}
        }
        if self.sockets[conn.slot as usize].is_drained() {
            self.send_our_end(conn);
        }
        if self.sockets[conn.slot as usize].phase == Phase::Draining {
            self.draining_until.push_back((self.now.plus(DRAIN_MAX), conn));
        }
    }

    /// The peer may yet see the attempt, so it counts as unanswered.
    fn give_up_connecting(&mut self, conn: Conn) {
        self.cancel(conn, Op::Connect);
        self.ready.push_back(Event::Connected { conn, result: Err(ConnectError::TimedOut) });
        self.begin_closing(conn);
    }

    /// Without a reset: what the kernel still holds may arrive.
    fn stop_lingering(&mut self, conn: Conn) {
        if self.sockets[conn.slot as usize].phase == Phase::Lingering {
            self.ready.push_back(Event::Ended { conn, how: End::Unknown });
        }
        self.begin_closing(conn);
    }

    fn retire_if_over(&mut self, conn: Conn) {
        let socket = &mut self.sockets[conn.slot as usize];
        if socket.phase == Phase::Closing && socket.in_flight == 0 {
            socket.reset();
            self.ready.push_back(Event::Retired { conn });
        }
    }
}
