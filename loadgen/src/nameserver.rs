//! Answers questions for made-up domains, right or wrong as its zone says.

mod answer;
mod driver;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use crossbeam::channel::{self, Sender};
use mio::Waker;
use serde::Serialize;

use crate::loopback;

pub use zone::{Mail, Zone};

use driver::{Driver, Order};

/// A running nameserver: UDP and TCP on one address, on a thread of its own.
pub struct Nameserver {
    address: SocketAddr,
    orders: Sender<Order>,
    waker: Arc<Waker>,
    tallies: Arc<Tallies>,
    handle: JoinHandle<io::Result<()>>,
}

/// Questions so far, by type.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuestionCounts {
    pub mx: u64,
    pub a: u64,
    pub aaaa: u64,
    /// Of any other type.
    pub other: u64,
    /// Those left without an answer on purpose, counted above as well.
    pub unanswered: u64,
}

#[derive(Default)]
struct Tallies {
    mx: AtomicU64,
    a: AtomicU64,
    aaaa: AtomicU64,
    other: AtomicU64,
    unanswered: AtomicU64,
}

impl Nameserver {
    /// Binds `bind` (port 0 takes a free one) and starts answering.
    pub fn start(bind: SocketAddr, zone: Zone) -> io::Result<Self> {
        loopback::require_loopback(bind)?;
        let tallies = Arc::new(Tallies::default());
        let (orders, inbox) = channel::unbounded();
        let driver = Driver::new(bind, zone, inbox, Arc::clone(&tallies))?;
        let (address, waker) = (driver.address()?, driver.waker());
        let thread = std::thread::Builder::new().name("loadgen-nameserver".to_owned());
        let handle = thread.spawn(move || driver.run())?;
        Ok(Self { address, orders, waker, tallies, handle })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the zone; in force when this returns.
    pub fn update(&self, change: impl FnOnce(&mut Zone) + Send + 'static) -> io::Result<()> {
        let (done, wait) = channel::bounded(1);
        self.order(Order::Update { change: Box::new(change), done })?;
        wait.recv().map_err(|_| thread_gone())
    }

    pub fn questions(&self) -> QuestionCounts {
        let tallies = &self.tallies;
        QuestionCounts {
            mx: tallies.mx.load(Relaxed),
            a: tallies.a.load(Relaxed),
            aaaa: tallies.aaaa.load(Relaxed),
            other: tallies.other.load(Relaxed),
            unanswered: tallies.unanswered.load(Relaxed),
        }
    }

    /// How often this name was asked for, under any type.
    pub fn asked(&self, name: &str) -> io::Result<u64> {
        let (done, wait) = channel::bounded(1);
        self.order(Order::Asked { name: zone::canonical(name), done })?;
        wait.recv().map_err(|_| thread_gone())
    }

    /// Stops answering; says how often it was asked.
    pub fn stop(self) -> io::Result<QuestionCounts> {
        self.order(Order::Stop)?;
        let counts = self.questions();
        self.handle.join().map_err(|_| thread_gone())??;
        Ok(counts)
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| thread_gone())?;
        self.waker.wake()
    }
}

impl QuestionCounts {
    pub fn total(&self) -> u64 {
        self.mx + self.a + self.aaaa + self.other
    }
}

fn thread_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the thread of the nameserver has ended")
}
