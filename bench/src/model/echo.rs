//! What a round trip on the loopback costs each end, by a ring: processor time, not time.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use postrider_loadgen::clock;

use crate::run::number;

/// Connections at once, as the relay has.
const CONNECTIONS: usize = 50;
/// Round trips of a try, over all connections.
const ROUND_TRIPS: u64 = 50_000;
const TRIES: u32 = 3;
/// Two entries of each connection.
const ENTRIES: u32 = 128;
/// Set in the number of an entry that sends.
const SENDS: u64 = 1 << 32;

/// Microseconds on a processor for one round trip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Of who receives the request and answers.
    pub(super) server: f64,
    /// Of who sends the request and receives the answer.
    pub(super) client: f64,
}

/// Requests and answers of so many bytes: the best of a few, for what else runs only adds.
pub(super) fn measure(request: usize, answer: usize) -> Result<Cost> {
    let mut best = measure_once(request, answer)?;
    for _ in 1..TRIES {
        let Cost { server, client } = measure_once(request, answer)?;
        best = Cost { server: best.server.min(server), client: best.client.min(client) };
    }
    Ok(best)
}

fn measure_once(request: usize, answer: usize) -> Result<Cost> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        pairs.push((client, server));
    }
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let server = std::thread::spawn(move || run(&End::new(servers, request, answer), 0));
    let first = u64::try_from(CONNECTIONS)?;
    let client = run(&End::new(clients, answer, request), first)?;
    let server = server.join().ok().context("the server of the probe panicked")??;
    Ok(Cost { server, client })
}

/// One end of all connections.
struct End {
    streams: Vec<TcpStream>,
    /// Bytes to be received before each send.
    takes: usize,
    gives: Vec<u8>,
}

impl End {
    fn new(streams: Vec<TcpStream>, takes: usize, gives: usize) -> Self {
        Self { streams, takes, gives: vec![b'x'; gives] }
    }

    fn receive(&self, index: usize, buffer: &mut [u8]) -> squeue::Entry {
        let len = u32::try_from(self.takes).unwrap_or(u32::MAX);
        opcode::Recv::new(Fd(self.streams[index].as_raw_fd()), buffer.as_mut_ptr(), len)
            .flags(libc::MSG_WAITALL)
            .build()
            .user_data(index as u64)
    }

    fn send(&self, index: usize) -> squeue::Entry {
        let len = u32::try_from(self.gives.len()).unwrap_or(u32::MAX);
        opcode::Send::new(Fd(self.streams[index].as_raw_fd()), self.gives.as_ptr(), len)
            .flags(libc::MSG_WAITALL)
            .build()
            .user_data(SENDS | index as u64)
    }
}

/// Microseconds a round trip, of this thread. The end that begins sends the first requests.
fn run(end: &End, begins: u64) -> Result<f64> {
    let mut ring = IoUring::new(ENTRIES)?;
    let mut buffers = vec![vec![0; end.takes]; end.streams.len()];
    let (mut round_trips, mut open) = (0, end.streams.len());
    let mut next = Vec::new();
    for (index, buffer) in buffers.iter_mut().enumerate() {
        next.push(end.receive(index, buffer));
        if begins > 0 {
            next.push(end.send(index));
        }
    }
    let before = clock::thread_cpu_ns();
    while open > 0 {
        // SAFETY: sockets, buffers and what is sent live until all connections are over, and each
        // buffer has one receive at a time; the queue is larger than what can be under way.
        unsafe { ring.submission().push_multiple(&next) }.context("a full queue")?;
        next.clear();
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let (sends, index) = (completion.user_data() & SENDS, completion.user_data() & !SENDS);
            let index = usize::try_from(index)?;
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()).into());
            }
            if sends > 0 {
                continue;
            }
            if completion.result() == 0 {
                open -= 1;
                continue;
            }
            round_trips += 1;
            if begins > 0 && round_trips + begins > ROUND_TRIPS {
                end.streams[index].shutdown(std::net::Shutdown::Both)?;
                open -= 1;
                continue;
            }
            next.push(end.receive(index, &mut buffers[index]));
            next.push(end.send(index));
        }
    }
    Ok(number(clock::thread_cpu_ns() - before) / 1000.0 / number(round_trips))
}
