//! One slot of the connection table: what the driver knows of one connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use io_uring::types::Timespec;
use socket2::{SockAddr, SockRef};

use super::outbox::Outbox;
use super::secure::TlsStream;
use crate::model::connection::{Conn, ConnectError, End};

/// Bytes one connection may have received beyond a `Reading { on: false }`. The kernel fills at most
/// 32 buffers in one go before a cancel reaches it (256 KiB of 8 KiB buffers); past four times that
/// the connection is aborted rather than the machine filled.
pub(super) const PARKED_BYTES_MAX: usize = 1 << 20;

pub(super) struct Socket {
    pub generation: u32,
    pub phase: Phase,
    pub receiving: Receiving,
    pub transport: Transport,
    pub outlet: Outlet,
    pub fd: Option<OwnedFd>,
    /// Operations of this connection whose last completion has not been seen.
    pub in_flight: u8,
    pub kept: Kept,
    /// None while there is nothing to send: its memory serves other connections then. Boxed, since the
    /// kernel reads it during a send.
    pub outbox: Option<Box<Outbox>>,
    pub lent: Box<Lent>,
}

/// How far a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    Connecting,
    Open,
    /// A graceful close was asked: what is queued goes out first.
    Draining,
    /// Our end was sent, the peer's is awaited.
    Lingering,
    /// The core knows the end. What it queued before may still reach a peer that closed one half.
    Finishing,
    /// Nothing goes any more: the last completions are awaited.
    Closing,
}

/// What the receiving half is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// A multishot receive is in flight, wanted.
    Armed,
    /// Wanted, but there were no buffers: in the queue for some.
    Parked,
    /// Not wanted; the cancel is under way.
    Stopping,
    /// Wanted again before the cancel came through.
    Resuming,
    /// Not wanted, nothing in flight.
    Off(Peer),
    /// Wanted; what was kept is told first.
    Replaying(Peer),
}

/// What was read behind the bytes that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Talking,
    Ended(End),
}

/// What the bytes on the wire are.
pub(super) enum Transport {
    Plain,
    Handshaking,
    Tls(Box<dyn TlsStream + Send>),
    /// The handshake failed, or our closing notice is queued: nothing can be said or understood.
    Mute,
}

/// Whether the sending half works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlet {
    Working,
    /// A send failed; the receiving half tells the end after the last bytes of the peer.
    Broken(End),
}

/// Plaintext received while reading was off, replayed in order.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    replayed: usize,
}

/// Memory the kernel reads while an operation is in flight: boxed, so that it never moves.
pub(super) struct Lent {
    pub connect_to: SockAddr,
    pub connect_limit: Timespec,
}

impl Socket {
    pub(super) fn free() -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            generation: 0,
            phase: Phase::Free,
            receiving: Receiving::Off(Peer::Talking),
            transport: Transport::Plain,
            outlet: Outlet::Working,
            fd: None,
            in_flight: 0,
            kept: Kept::default(),
            outbox: None,
            lent: Box::new(Lent { connect_to: nowhere.into(), connect_limit: Timespec::new() }),
        }
    }

    pub(super) fn is(&self, conn: Conn) -> bool {
        self.generation == conn.generation && self.phase != Phase::Free
    }

    /// Whether nothing is queued, and nothing in flight.
    pub(super) fn is_drained(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.is_drained())
    }

    /// The send in flight failed, and nothing that is queued will ever go out.
    pub(super) fn fail_outbox(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.failed();
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("a connection with operations has a descriptor").as_fd()
    }

    /// Calls that only change a socket's options or state; a peer that has gone makes them fail,
    /// and the receiving half tells that better.
    pub(super) fn tell_kernel(&self, call: impl FnOnce(SockRef<'_>) -> std::io::Result<()>) {
        if let Some(fd) = &self.fd {
            drop(call(SockRef::from(fd)));
        }
    }

    /// Whether what arrives is told now; otherwise it is kept.
    pub(super) fn tells_at_once(&self) -> bool {
        self.receiving == Receiving::Armed
    }

    /// Empties the slot for its next user.
    pub(super) fn reset(&mut self) {
        assert_eq!(self.in_flight, 0, "a slot is reused only after its last completion");
        self.fd = None;
        self.phase = Phase::Free;
        self.receiving = Receiving::Off(Peer::Talking);
        self.transport = Transport::Plain;
        self.outlet = Outlet::Working;
        self.kept = Kept::default();
        self.outbox = None;
    }
}

impl Kept {
    #[must_use]
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() - self.replayed <= PARKED_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.replayed
    }

    /// The next bytes to tell, at most `max`.
    pub(super) fn next(&mut self, max: usize) -> &[u8] {
        let end = self.bytes.len().min(self.replayed + max);
        let start = std::mem::replace(&mut self.replayed, end);
        &self.bytes[start..end]
    }

    pub(super) fn clear_told(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// How a failed operation says the connection ended.
pub(super) fn end_of(errno: i32) -> End {
    match errno {
        libc::ECONNRESET | libc::EPIPE => End::ByPeer,
        _ => End::Unknown,
    }
}

/// Why a connect failed. Cancelled means by its time-out.
pub(super) fn connect_error_of(errno: i32) -> ConnectError {
    match errno {
        libc::ECONNREFUSED | libc::ECONNRESET | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            ConnectError::Refused
        }
        libc::ECANCELED | libc::ETIMEDOUT => ConnectError::TimedOut,
        _ => ConnectError::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_bytes_come_back_in_order_and_are_bounded() {
        let mut kept = Kept::default();
        assert!(kept.push(b"hello ") && kept.push(b"world"));
        assert_eq!(kept.next(8), b"hello wo");
        assert_eq!(kept.next(8), b"rld");
        assert!(kept.is_empty());
        kept.clear_told();
        assert!(kept.push(&vec![0; PARKED_BYTES_MAX]));
        assert!(!kept.push(b"x"));
    }
}
