//! The socket of one connection, in clear or secured: plain bytes in, plain bytes out.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;

use crate::outgoing::Outgoing;

pub(super) struct Wire {
    stream: TcpStream,
    security: Security,
}

enum Security {
    Clear,
    Secured(Box<ServerConnection>),
    /// Ends behind the first bytes of the client.
    Broken,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, security: Security::Clear }
    }

    pub(super) fn is_clear(&self) -> bool {
        matches!(self.security, Security::Clear)
    }

    /// From the next byte on there is TLS; without a way to secure it, an end in the handshake.
    pub(super) fn secure(&mut self, config: Option<&Arc<ServerConfig>>) -> io::Result<()> {
        self.security = match config {
            None => Security::Broken,
            Some(config) => {
                let session =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Security::Secured(Box::new(session))
            }
        };
        Ok(())
    }

    /// Reads plain bytes; zero is the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.security {
            Security::Clear => self.stream.read(into),
            Security::Secured(session) => read_secured(session, &mut self.stream, into),
            Security::Broken => self.stream.read(into).map(|_| 0),
        }
    }

    /// Writes until all is out or the socket is full; says whether all is out.
    pub(super) fn flush(&mut self, out: &mut Outgoing) -> io::Result<bool> {
        match &mut self.security {
            Security::Clear | Security::Broken => out.flush(&mut self.stream),
            Security::Secured(session) => {
                out.flush(&mut session.writer())?;
                write_secured(session, &mut self.stream)
            }
        }
    }

    /// Makes the end of this connection a reset.
    pub(super) fn reset_at_end(&self) {
        // A socket that is gone already needs no reset.
        SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).ok();
    }

    pub(super) fn shrink_window(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(&self.stream).set_recv_buffer_size(bytes)
    }
}

fn read_secured(
    session: &mut ServerConnection,
    stream: &mut TcpStream,
    into: &mut [u8],
) -> io::Result<usize> {
    loop {
        match session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if session.read_tls(stream)? == 0 {
            return Ok(0);
        }
        let processed = session.process_new_packets();
        // Handshake and alerts go out at once; what does not fit goes with the next flush.
        write_secured(session, stream)?;
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

fn write_secured(session: &mut ServerConnection, stream: &mut impl Write) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
