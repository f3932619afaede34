//! Opens the connections of a source thread, each from the address whose turn it is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::loopback;

/// Where to connect, and from where.
#[derive(Clone)]
pub(super) struct Dialer {
    to: SocketAddr,
    /// Zero leaves the choice to the system.
    source_addresses: usize,
    /// Connections tried so far, by all threads.
    tried: Arc<AtomicUsize>,
    pub(super) tls: Arc<ClientConfig>,
}

impl Dialer {
    pub(super) fn new(to: SocketAddr, source_addresses: usize, tls: Arc<ClientConfig>) -> Self {
        Self { to, source_addresses, tried: Arc::default(), tls }
    }

    /// Begins to connect; the end shows as an event of `token`.
    pub(super) fn dial(&self, registry: &Registry, token: Token) -> io::Result<TcpStream> {
        let mut stream = match self.source_addresses {
            0 => TcpStream::connect(self.to)?,
            count => self.dial_from(self.tried.fetch_add(1, Relaxed) % count)?,
        };
        loopback::send_unpaced(&stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn dial_from(&self, index: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        choose_port_late(&socket)?;
        socket.bind(&SocketAddr::new(loopback::source_address(index), 0).into())?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}

/// Leaves the port to the connect: then each target has all ports of an address for itself.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Says whether a connect has come to its end; an error is how it failed.
pub(super) fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => stream.set_nodelay(true).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
