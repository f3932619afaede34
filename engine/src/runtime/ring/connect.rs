//! Connecting: from a source address if one is set, with a time-out that the kernel keeps.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use io_uring::types::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

use super::driver::Driver;
use super::socket::{Phase, connect_error_of};
use super::submit::bind_late;
use super::token::{Op, Token};
use crate::model::connection::{Conn, ConnectError};
use crate::shard::Event;

impl Driver {
    pub(super) fn connect(
        &mut self,
        conn: Conn,
        to: SocketAddr,
        from: Option<IpAddr>,
        within: Duration,
    ) {
        match outgoing(to, from) {
            Ok(fd) => self.submit_connect(conn, fd, to, within),
            Err(error) => {
                self.take_up(conn, Phase::Connecting, None);
                self.fail_connect(conn, error);
            }
        }
    }

    /// The time-out may have come first or not: the connect's own completion decides.
    pub(super) fn handle_connected(&mut self, conn: Conn, result: i32) {
        let connecting = self.socket(conn).is_some_and(|socket| socket.phase == Phase::Connecting);
        if connecting && result == 0 {
            self.sockets[conn.slot as usize].phase = Phase::Open;
            self.arm_receive(conn);
            self.ready.push_back(Event::Connected { conn, result: Ok(()) });
        } else if connecting {
            self.fail_connect(conn, connect_error_of(-result));
        }
        self.operation_over(conn);
    }

    fn submit_connect(&mut self, conn: Conn, fd: OwnedFd, to: SocketAddr, within: Duration) {
        self.take_up(conn, Phase::Connecting, Some(fd));
        let socket = &mut self.sockets[conn.slot as usize];
        socket.lent.connect_to = to.into();
        socket.lent.connect_limit = Timespec::from(within);
        socket.in_flight += 2;
        let address = (socket.lent.connect_to.as_ptr().cast(), socket.lent.connect_to.len());
        let limit = &raw const socket.lent.connect_limit;
        let tokens = (Token::of(Op::Connect, conn), Token::of(Op::ConnectLimit, conn));
        // SAFETY: address and limit lie in the boxed part of the slot and are written only here;
        // the slot is taken up again only when nothing is in flight.
        unsafe { self.ring.connect(socket.fd(), address, limit, tokens) };
    }

    fn fail_connect(&mut self, conn: Conn, error: ConnectError) {
        self.ready.push_back(Event::Connected { conn, result: Err(error) });
        self.begin_closing(conn);
    }
}

/// A socket ready to connect. It stays in blocking mode: the ring never blocks on it, and
/// non-blocking mode would have it fail instead of wait.
fn outgoing(to: SocketAddr, from: Option<IpAddr>) -> Result<OwnedFd, ConnectError> {
    let socket = plain(to).map_err(|_| ConnectError::Local)?;
    if let Some(from) = from {
        bind_late(socket.as_fd()).map_err(|_| ConnectError::Local)?;
        let own = SocketAddr::new(from, 0).into();
        socket.bind(&own).map_err(|error| bind_error(&error))?;
    }
    Ok(socket.into())
}

fn plain(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Ports are not chosen yet, so what is not available can only be the address.
fn bind_error(error: &io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EINVAL) => ConnectError::Source,
        _ => ConnectError::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that is chosen with the address is taken whole; one chosen when the peer is known is
    /// shared by all connections whose peers differ.
    #[test]
    fn a_source_takes_no_port_before_the_peer_is_known() {
        for (to, from) in [("127.0.0.1:25", "127.0.0.2"), ("[::1]:25", "::1")] {
            let from: IpAddr = from.parse().unwrap();
            let socket = Socket::from(outgoing(to.parse().unwrap(), Some(from)).unwrap());
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!((own.ip(), own.port()), (from, 0));
        }
    }
}
