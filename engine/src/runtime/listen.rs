//! Listening sockets: every address once per shard, so that the kernel deals out the connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::clock;

/// Connections the kernel finishes before we accept them; above it, it drops SYNs. Enough for
/// the burst of one busy accept turn; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A process that was killed is gone before its sockets are: its rings hold them until the kernel has
/// taken those down, which it does later, on threads of its own.
const LETS_GO_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One configured address with its sockets.
#[derive(Debug)]
pub(super) struct Listener {
    /// The address with its real port, where port 0 was asked for.
    pub address: SocketAddr,
    /// One listening socket per shard, non-blocking, closed on exec.
    pub sockets: Vec<OwnedFd>,
}

/// Why an address cannot be listened on: one line, with the way out.
#[derive(Debug)]
pub(super) struct ListenError {
    pub address: SocketAddr,
    pub cause: io::Error,
}

/// Listens on each address with `shards` sockets; the order of `addresses` is kept.
///
/// # Errors
/// The first address that failed; sockets made before it are closed again.
pub(super) fn listen(addresses: &[SocketAddr], shards: u16) -> Result<Vec<Listener>, ListenError> {
    addresses.iter().map(|address| listen_on(*address, shards)).collect()
}

fn listen_on(address: SocketAddr, shards: u16) -> Result<Listener, ListenError> {
    let refused = |cause| ListenError { address, cause };
    refuse_if_taken(address).map_err(refused)?;
    let first = open(address).map_err(refused)?;
    let actual = first.local_addr().map_err(refused)?.as_socket().unwrap_or(address);
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..shards {
        sockets.push(open(actual).map_err(refused)?.into());
    }
    Ok(Listener { address: actual, sockets })
}

/// With `SO_REUSEPORT` a second engine of the same user would silently take half of our
/// connections; a bind without it fails as everyone expects. A run that was killed is given the time
/// to let go.
fn refuse_if_taken(address: SocketAddr) -> io::Result<()> {
    let begin = clock::now().mono;
    loop {
        let socket = new_socket(address)?;
        match socket.bind(&address.into()) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && clock::now().mono.since(begin) < LETS_GO_WITHIN =>
            {
                wait_a_moment();
            }
            result => return result,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread that starts everything, before the shards"
)]
fn wait_a_moment() {
    std::thread::sleep(LOOK_AGAIN);
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket closed on exec, which takes an address with connections of a former run in TIME_WAIT.
fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that [::]:25 and 0.0.0.0:25 can both be configured.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "another process listens there; find it with `ss -ltnp`")
            }
            io::ErrorKind::PermissionDenied => write!(
                f,
                "ports below 1024 need CAP_NET_BIND_SERVICE, or a lower \
                 net.ipv4.ip_unprivileged_port_start"
            ),
            io::ErrorKind::AddrNotAvailable => write!(f, "this machine has no such address"),
            _ => write!(f, "{}", self.cause),
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn all_shards_share_the_port_the_first_one_got() {
        let listeners = listen(&[any_port()], 3).unwrap();
        let address = listeners[0].address;
        assert_ne!(address.port(), 0);
        for socket in &listeners[0].sockets {
            let socket = TcpListener::from(socket.try_clone().unwrap());
            assert_eq!(socket.local_addr().unwrap(), address);
        }
        assert_eq!(listeners[0].sockets.len(), 3);
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn accepting_never_blocks() {
        let listeners = listen(&[any_port()], 1).unwrap();
        let socket = TcpListener::from(listeners[0].sockets[0].try_clone().unwrap());
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_address_in_use_is_refused_by_name() {
        let first = listen(&[any_port()], 2).unwrap();
        let error = listen(&[first[0].address], 2).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&first[0].address.to_string()), "{text}");
        assert!(text.contains("another process"), "{text}");
    }

    #[test]
    fn an_address_that_is_let_go_in_time_is_taken() {
        let first = listen(&[any_port()], 1).unwrap();
        let address = first[0].address;
        let second = std::thread::spawn(move || listen(&[address], 2));
        drop(first);
        assert_eq!(second.join().unwrap().unwrap()[0].address, address);
    }

    #[test]
    fn a_foreign_address_is_refused_by_name() {
        let error = listen(&["192.0.2.1:0".parse().unwrap()], 1).unwrap_err();
        assert!(error.to_string().contains("this machine has no such address"));
    }
}
