//! The event loop of the nameserver: datagrams, a few TCP connections, orders.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::channel::{Receiver, Sender};
use hashbrown::HashMap;
use hickory_proto::rr::RecordType;
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::Tallies;
use super::answer::{Answer, Question};
use super::zone::Zone;
use crate::outgoing::Outgoing;

const UDP: Token = Token(usize::MAX);
const TCP: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
const EVENTS_PER_TURN_MAX: usize = 256;
/// A question is far smaller; what is larger is none.
const QUESTION_BYTES_MAX: usize = 4096;
/// Names whose questions are counted one by one.
const NAMES_COUNTED_MAX: usize = 1 << 20;
/// Ports tried until one is free for UDP and TCP.
const PORTS_TRIED_MAX: usize = 16;

pub(super) enum Order {
    Update { change: Box<dyn FnOnce(&mut Zone) + Send>, done: Sender<()> },
    Asked { name: String, done: Sender<u64> },
    Stop,
}

pub(super) struct Driver {
    poll: Poll,
    waker: Arc<Waker>,
    udp: UdpSocket,
    tcp: TcpListener,
    clients: Slab<Client>,
    inbox: Receiver<Order>,
    zone: Zone,
    tallies: Arc<Tallies>,
    names: HashMap<String, u64>,
    stopping: bool,
}

/// A connection: each message behind its length in two bytes.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    out: Outgoing,
}

impl Driver {
    pub(super) fn new(
        bind: SocketAddr,
        zone: Zone,
        inbox: Receiver<Order>,
        tallies: Arc<Tallies>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (mut udp, mut tcp) = bind_both(bind)?;
        poll.registry().register(&mut udp, UDP, Interest::READABLE)?;
        poll.registry().register(&mut tcp, TCP, Interest::READABLE)?;
        Ok(Self {
            waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
            poll,
            udp,
            tcp,
            clients: Slab::new(),
            inbox,
            zone,
            tallies,
            names: HashMap::new(),
            stopping: false,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        while !self.stopping {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.obey();
            for event in &events {
                match event.token() {
                    UDP => self.answer_datagrams(),
                    TCP => self.accept()?,
                    WAKER => {}
                    Token(place) => self.serve_client(place),
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            // Whoever asked may have stopped waiting.
            match order {
                Order::Update { change, done } => {
                    change(&mut self.zone);
                    done.send(()).ok();
                }
                Order::Asked { name, done } => {
                    done.send(self.names.get(&name).copied().unwrap_or(0)).ok();
                }
                Order::Stop => self.stopping = true,
            }
        }
    }

    fn answer_datagrams(&mut self) {
        let mut bytes = [0; QUESTION_BYTES_MAX];
        loop {
            match self.udp.recv_from(&mut bytes) {
                Ok((count, from)) => {
                    if let Some(answer) = self.answer(&bytes[..count], true) {
                        // A full socket loses it, as a network does; the client asks again.
                        self.udp.send_to(&answer, from).ok();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier answer shows here, and concerns nobody else.
                Err(_) => {}
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let question = Question::read(bytes)?;
        self.count(&question);
        match question.answer(&self.zone) {
            Answer::Message(message) => {
                let whole = message.to_vec().ok()?;
                if is_datagram && whole.len() > question.udp_bytes_max() {
                    return message.truncate().to_vec().ok();
                }
                Some(whole)
            }
            Answer::Silence => {
                self.tallies.unanswered.fetch_add(1, Relaxed);
                None
            }
            Answer::NotAQuestion => None,
        }
    }

    fn count(&mut self, question: &Question) {
        let tally = match question.kind {
            RecordType::MX => &self.tallies.mx,
            RecordType::A => &self.tallies.a,
            RecordType::AAAA => &self.tallies.aaaa,
            _ => &self.tallies.other,
        };
        tally.fetch_add(1, Relaxed);
        if let Some(count) = self.names.get_mut(&question.name) {
            *count += 1;
        } else if self.names.len() < NAMES_COUNTED_MAX {
            self.names.insert(question.name.clone(), 1);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((mut stream, _)) = self.tcp.accept() {
            let place = self.clients.vacant_key();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place), both)?;
            let (received, out) = (Vec::new(), Outgoing::default());
            self.clients.insert(Client { stream, received, out });
        }
        Ok(())
    }

    fn serve_client(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let open = client.receive();
        let mut received = std::mem::take(&mut client.received);
        let mut at = 0;
        while let Some(question) = framed(&received[at..]) {
            at += 2 + question.len();
            if let Some(answer) = self.answer(question, false) {
                self.clients[place].send(&answer);
            }
        }
        received.drain(..at);
        let client = &mut self.clients[place];
        client.received = received;
        if client.out.flush(&mut client.stream).is_err() || !open {
            self.clients.remove(place);
        }
    }
}

impl Client {
    /// Reads what has come; says whether more can come.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; QUESTION_BYTES_MAX];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) if self.received.len() < 4 * QUESTION_BYTES_MAX => {
                    self.received.extend_from_slice(&bytes[..count]);
                }
                Ok(_) => return false,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn send(&mut self, answer: &[u8]) {
        let Ok(length) = u16::try_from(answer.len()) else { return };
        self.out.buffer().extend_from_slice(&length.to_be_bytes());
        self.out.buffer().extend_from_slice(answer);
    }
}

fn framed(received: &[u8]) -> Option<&[u8]> {
    let (length, rest) = received.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

fn bind_both(bind: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tried = 0;
    loop {
        let udp = UdpSocket::bind(bind)?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(_) if bind.port() == 0 && tried < PORTS_TRIED_MAX => tried += 1,
            Err(error) => return Err(error),
        }
    }
}
