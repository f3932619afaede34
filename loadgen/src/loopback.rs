//! Keeps load on the loopback, and finds addresses there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sink::SinkHost;

/// Ports tried before giving up: each is free on the first address, and seldom taken on the others.
const PORTS_TRIED_MAX: usize = 32;

/// How many hosts fit in the lower two octets of one `127.x`.
pub const HOSTS_MAX: usize = 250 * 250;

/// Source addresses that can be told apart: 127.251 to 127.254, where no host is.
pub const SOURCE_ADDRESSES_MAX: usize = 4 * HOSTS_MAX;

/// Refuses every address that is not on the loopback: load must not leave the machine.
pub fn require_loopback(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let text = format!("{address} is not a loopback address; load stays on 127.0.0.0/8 and ::1");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Finds one port that is free on `count` addresses of the loopback.
///
/// The second octet follows from the process and the call, so that several runs can go on at once.
pub fn loopback_hosts(count: usize) -> io::Result<Vec<SinkHost>> {
    if count == 0 || count > HOSTS_MAX {
        let text = format!("{count} hosts: between 1 and {HOSTS_MAX} can be made");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let second = second_octet();
    for _ in 0..PORTS_TRIED_MAX {
        let port = TcpListener::bind((host_address(second, 0), 0))?.local_addr()?.port();
        if (0..count).all(|index| TcpListener::bind((host_address(second, index), port)).is_ok()) {
            return Ok(hosts_on(second, port, count));
        }
    }
    let text = format!("no port is free on all of {count} loopback addresses");
    Err(io::Error::new(io::ErrorKind::AddrInUse, text))
}

/// `count` hosts from 127.0.0.1 upwards, all on `port`.
pub fn hosts_at_port(count: usize, port: u16) -> Vec<SinkHost> {
    hosts_on(0, port, count.min(HOSTS_MAX))
}

/// The `index`-th address to connect from.
pub(crate) fn source_address(index: usize) -> IpAddr {
    let second = u8::try_from(251 + index / HOSTS_MAX % 4).unwrap_or(251);
    host_address(second, index % HOSTS_MAX)
}

/// Takes the plainest congestion control, where the system lets us: one that paces its sends
/// (BBR) would put timers of its own between the messages of a loopback that has no congestion.
pub(crate) fn send_unpaced(socket: &impl AsRawFd) {
    let name = b"reno";
    // SAFETY: the descriptor is open, and the name outlives the call. A refusal leaves the
    // congestion control of the system in force.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            libc::socklen_t::try_from(name.len()).unwrap_or(0),
        );
    }
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for both calls. A refusal leaves the old limit in force,
    // and the first connection over it reports the error.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn second_octet() -> u8 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let spread = std::process::id().wrapping_mul(31).wrapping_add(call.wrapping_mul(7));
    // 1 to 250: 127.0.x.y stays free for those who choose addresses by hand.
    u8::try_from(spread % 250 + 1).unwrap_or(1)
}

fn hosts_on(second: u8, port: u16, count: usize) -> Vec<SinkHost> {
    (0..count)
        .map(|index| SinkHost {
            name: format!("mx{index}"),
            address: SocketAddr::new(host_address(second, index), port),
        })
        .collect()
}

fn host_address(second: u8, index: usize) -> IpAddr {
    let octet = |number: usize| u8::try_from(number % 250).unwrap_or(0);
    IpAddr::V4(Ipv4Addr::new(127, second, octet(index / 250), octet(index) + 1))
}
