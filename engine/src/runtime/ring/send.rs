//! Sending: one send in flight per connection, started once per turn.

use super::driver::Driver;
use super::outbox::{Outbox, Sent};
use super::receive::secured;
use super::socket::{Outlet, Phase, Receiving, Transport, end_of};
use super::token::{Op, Token};
use crate::model::connection::{Conn, End, TlsError};
use crate::model::message::Slice;
use crate::shard::Event;

/// Outboxes kept while no connection needs them; the last one put back is used first.
const SPARE_OUTBOXES_MAX: usize = 128;

impl Driver {
    pub(super) fn send_text(&mut self, conn: Conn, bytes: &[u8]) {
        if !self.may_queue(conn) {
            return;
        }
        if self.outbox(conn).push_text(bytes) {
            self.to_send.push(conn);
        } else {
            self.break_off(conn);
        }
    }

    pub(super) fn send_slice(&mut self, conn: Conn, slice: Slice) {
        if self.may_queue(conn) {
            self.outbox(conn).push_slice(slice);
            self.to_send.push(conn);
        }
    }

    /// Queues bytes in wire form.
    pub(super) fn send_wire(&mut self, conn: Conn, wire: &[u8]) {
        let Some(socket) = self.socket(conn) else {
            return;
        };
        if socket.outlet != Outlet::Working || wire.is_empty() {
            return;
        }
        if self.outbox(conn).push_wire(wire) {
            self.to_send.push(conn);
        } else {
            self.break_off(conn);
        }
    }

    /// Starts a send on every connection that has something to say and none in flight.
    pub(super) fn launch_sends(&mut self) {
        let mut to_send = std::mem::take(&mut self.to_send);
        for conn in to_send.drain(..) {
            if self.launch_send(conn).is_err() {
                self.break_off(conn);
            }
        }
        // Breaking off may have queued a last alert.
        to_send.append(&mut self.to_send);
        self.to_send = to_send;
    }

    pub(super) fn handle_sent(&mut self, conn: Conn, result: i32) {
        let socket = &mut self.sockets[conn.slot as usize];
        assert!(socket.is(conn), "a slot outlives its sends");
        if socket.phase == Phase::Closing || socket.outlet != Outlet::Working {
            socket.fail_outbox();
            self.operation_over(conn);
            return;
        }
        match usize::try_from(result) {
            Ok(bytes) => self.advance(conn, bytes),
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => self.advance(conn, 0),
            Err(_) => self.fail_send(conn, end_of(-result)),
        }
        self.operation_over(conn);
    }

    /// Whether the core may add to what is queued. While a handshake runs nothing may: it would go
    /// out in the clear.
    fn may_queue(&mut self, conn: Conn) -> bool {
        let Some(socket) = self.socket(conn) else {
            return false;
        };
        if matches!(socket.transport, Transport::Handshaking) {
            let premature = TlsError("sent before the handshake was done".into());
            self.ready.push_back(secured(conn, Err(premature)));
            self.break_off(conn);
            return false;
        }
        let talks = !matches!(socket.transport, Transport::Mute);
        let open = matches!(socket.phase, Phase::Open | Phase::Finishing);
        open && talks && socket.outlet == Outlet::Working
    }

    fn launch_send(&mut self, conn: Conn) -> Result<(), TlsError> {
        let Some(socket) =
            self.sockets.get_mut(conn.slot as usize).filter(|socket| socket.is(conn))
        else {
            return Ok(());
        };
        let Some(outbox) = &mut socket.outbox else { return Ok(()) };
        if !outbox.wants_to_send() || socket.phase == Phase::Closing {
            return Ok(());
        }
        let tls = match &mut socket.transport {
            Transport::Tls(tls) => Some(&mut **tls),
            _ => None,
        };
        let wanted = outbox.launch(tls)?;
        socket.in_flight += 1;
        // SAFETY: message, iovecs and text lie in the boxed outbox, which touches none of them
        // until `sent` or `failed`, called at the completion; slices are held by its flight. The box
        // leaves its socket only when it is drained, or the slot is reset, both of which happen only
        // when no send is in flight; the table is leaked if that never comes.
        unsafe { self.ring.send(socket.fd(), wanted, Token::of(Op::Send, conn)) };
        Ok(())
    }

    /// Where a connection queues what it has to send.
    fn outbox(&mut self, conn: Conn) -> &mut Outbox {
        let Self { sockets, spare_outboxes, .. } = self;
        let outbox = &mut sockets[conn.slot as usize].outbox;
        outbox.get_or_insert_with(|| spare_outboxes.pop().unwrap_or_else(Outbox::boxed))
    }

    /// A connection has nothing to send: others may use the memory. Whether the core is to hear of it.
    fn put_back_outbox(&mut self, conn: Conn) -> bool {
        let Some(mut outbox) = self.sockets[conn.slot as usize].outbox.take() else { return false };
        let is_owed = outbox.take_drained();
        outbox.drop_queued();
        if self.spare_outboxes.len() < SPARE_OUTBOXES_MAX {
            self.spare_outboxes.push(outbox);
        }
        is_owed
    }

    fn advance(&mut self, conn: Conn, bytes: usize) {
        let Some(outbox) = &mut self.sockets[conn.slot as usize].outbox else { return };
        self.counters.short_sends += u64::from(bytes < outbox.in_flight_bytes());
        match outbox.sent(bytes) {
            Sent::More => self.to_send.push(conn),
            Sent::All => self.handle_drained(conn),
        }
    }

    fn handle_drained(&mut self, conn: Conn) {
        let is_owed = self.put_back_outbox(conn);
        match self.sockets[conn.slot as usize].phase {
            Phase::Open if is_owed => self.ready.push_back(Event::Drained { conn }),
            Phase::Draining => self.send_our_end(conn),
            Phase::Finishing => self.begin_closing(conn),
            _ => {}
        }
    }

    /// The peer's last words may still lie in the receive queue, behind them its end: if somebody
    /// reads, that tells the end. The shutdown makes sure that there is one to read.
    fn fail_send(&mut self, conn: Conn, how: End) {
        let socket = &mut self.sockets[conn.slot as usize];
        socket.fail_outbox();
        socket.outlet = Outlet::Broken(how);
        socket.tell_kernel(|socket| socket.shutdown(std::net::Shutdown::Both));
        match socket.receiving {
            Receiving::Armed | Receiving::Parked | Receiving::Resuming => {}
            _ => self.end(conn, how),
        }
    }
}
