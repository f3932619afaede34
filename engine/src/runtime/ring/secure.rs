//! Where TLS plugs in: the driver moves wire bytes, whoever implements these makes them readable.
//!
//! ```text
//! Secure ──start──▶ handshake ◀──feed── received      while a handshake runs
//!                      └──poll──▶ Send … Done(stream)
//! received ──open──▶ plaintext,  plaintext ──seal──▶ sent      from then on
//! ```

use crate::model::connection::{Conn, TlsError, TlsFacts};

/// Runs handshakes, off the shard if it likes; what it has to say is polled each turn. When an
/// answer comes from another thread, that thread signals the shard's eventfd.
pub(crate) trait Handshakes {
    /// Begins a handshake as client, with this name for SNI.
    fn start(&mut self, conn: Conn, name: &str);

    /// Takes wire bytes of a running handshake, in order. What arrives while the handshake is away
    /// on another thread is collected here, bounded; what arrived behind its end goes into the
    /// stream before that is handed out.
    ///
    /// # Errors
    /// More bytes than any handshake has: it is over, nothing of it is to be polled any more.
    fn feed(&mut self, conn: Conn, wire: &[u8]) -> Result<(), TlsError>;

    /// Forgets a handshake whose connection is gone.
    fn cancel(&mut self, conn: Conn);

    /// The next thing a handshake has to say, in order per connection.
    fn poll(&mut self) -> Option<(Conn, Step)>;
}

/// What a handshake has to say.
pub(crate) enum Step {
    /// Wire bytes for the peer.
    Send(Vec<u8>),
    /// Both sides are satisfied.
    Done(Box<dyn TlsStream + Send>, TlsFacts),
    /// An alert worth sending was said by `Send` before.
    Failed(TlsError),
}

/// An established session: records in, plaintext out, and back.
pub(crate) trait TlsStream {
    /// Takes wire bytes; hands every run of plaintext to `plain`, and appends to `answer` what the
    /// protocol itself wants to send. Called once with nothing right after the handshake.
    ///
    /// # Errors
    /// The records do not open: the connection is of no use any more. An alert may be in `answer`.
    fn open(
        &mut self,
        wire: &[u8],
        plain: &mut dyn FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), TlsError>;

    /// Appends `plain` as records to `wire`.
    ///
    /// # Errors
    /// The session can seal no more: the connection is of no use any more.
    fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError>;

    /// Appends the notice that we close.
    fn close(&mut self, wire: &mut Vec<u8>);
}

/// For a driver without TLS: every handshake fails.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct NoTls {
    asked: Vec<Conn>,
}

#[cfg(test)]
impl Handshakes for NoTls {
    fn start(&mut self, conn: Conn, _name: &str) {
        self.asked.push(conn);
    }

    fn feed(&mut self, _conn: Conn, _wire: &[u8]) -> Result<(), TlsError> {
        Ok(())
    }

    fn cancel(&mut self, conn: Conn) {
        self.asked.retain(|asked| *asked != conn);
    }

    fn poll(&mut self) -> Option<(Conn, Step)> {
        let conn = self.asked.pop()?;
        Some((conn, Step::Failed(TlsError("TLS is not set up".into()))))
    }
}
