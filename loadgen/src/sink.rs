//! Stands for the mail servers of the world: takes, checks, delays, refuses, and counts.

mod behaviour;
mod bucket;
mod certificates;
mod chance;
mod clerk;
mod command;
mod conversation;
mod driver;
mod faces;
mod host;
mod inspection;
mod personality;
mod plan;
mod report;
mod rulings;
mod standing;
mod text;
mod watch;
mod wire;
mod world;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{self, Sender};
use mio::Waker;

use crate::run::arrivals::Arrivals;
use crate::run::board::Board;
use crate::run::recorder::{Inbox, Side};
use crate::{clock, loopback};

pub use behaviour::{Behaviour, Stage};
pub use personality::{
    Beyond, Caps, ConnectionCap, Cut, CutAt, CutBy, Delay, Greylist, GreylistKey, Latencies, Limit,
    LimitKey, Personality, Rate, Reading, Refusal, Reply, Span, Tarpit, Tls, TlsKind,
};
pub use plan::{Capabilities, SinkHost, SinkPlan};
pub use report::{HostReport, SinkProgress, SinkReport};
pub use world::World;

use clerk::Clerk;
use driver::{Driver, Order};
use faces::Faces;
use host::HostCounters;
use report::ThreadReport;

/// A running sink: its hosts are dealt out to its threads, each host to one.
pub struct Sink {
    hosts: Vec<SinkHost>,
    counters: Arc<Vec<HostCounters>>,
    authority_pem: String,
    threads: Vec<SinkThread>,
}

struct SinkThread {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    handle: JoinHandle<io::Result<ThreadReport>>,
}

impl Sink {
    /// Binds every host, then starts the threads.
    pub fn start(plan: SinkPlan) -> io::Result<Self> {
        Self::start_with(plan, || None)
    }

    /// The same for a run that is recorded.
    pub(crate) fn start_recorded(
        plan: SinkPlan,
        board: &Arc<Board>,
        inbox: &mut Inbox,
    ) -> io::Result<Self> {
        Self::start_with(plan, || {
            Some(Arrivals::new(inbox.recorder(Side::Sink), Arc::clone(board)))
        })
    }

    fn start_with(
        plan: SinkPlan,
        mut arrivals: impl FnMut() -> Option<Arrivals>,
    ) -> io::Result<Self> {
        loopback::raise_open_files();
        for host in &plan.hosts {
            loopback::require_loopback(host.address)?;
        }
        let counters: Arc<Vec<_>> =
            Arc::new(plan.hosts.iter().map(|_| HostCounters::default()).collect());
        let count = plan.threads.clamp(1, plan.hosts.len().max(1));
        let faces = Faces::new(&plan, clock::now_ns())?;
        let authority_pem = faces.authority_pem();
        let mut drivers = Vec::new();
        for thread in 0..count {
            let (orders, inbox) = channel::unbounded();
            let clerk = Clerk::new(&plan, &counters, faces.clone());
            let mut driver = Driver::new(&plan, thread, count, clerk, inbox)?;
            if let Some(arrivals) = arrivals() {
                driver.record(arrivals);
            }
            drivers.push((orders, driver));
        }
        let mut threads = Vec::new();
        for (index, (orders, driver)) in drivers.into_iter().enumerate() {
            let waker = driver.waker();
            let name = format!("loadgen-sink-{index}");
            let handle = std::thread::Builder::new().name(name).spawn(move || driver.run())?;
            threads.push(SinkThread { orders, waker, handle });
        }
        Ok(Self { hosts: plan.hosts, counters, authority_pem, threads })
    }

    pub fn hosts(&self) -> &[SinkHost] {
        &self.hosts
    }

    /// The certificate that signs those of the hosts, in PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// Changes what a host does, for connections old and new; in force when this returns.
    pub fn set_behaviour(&self, host_index: usize, behaviour: Behaviour) -> io::Result<()> {
        self.set_personality(host_index, behaviour.into())
    }

    /// The same, in full. The host begins with an empty memory of its own: buckets are full, and
    /// nobody has been greylisted. Only its new connections see another TLS.
    pub fn set_personality(&self, host_index: usize, personality: Personality) -> io::Result<()> {
        assert!(host_index < self.hosts.len(), "a sink of {} hosts", self.hosts.len());
        personality.check().map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let host = self.hosts[host_index].clone();
        let personality = Box::new(personality);
        let (done, wait) = channel::bounded(1);
        let thread = &self.threads[host_index % self.threads.len()];
        thread.order(Order::Behave { host_index, host, personality, done })?;
        wait.recv().map_err(|_| thread_gone())?
    }

    /// Begins a new run of the engine: counts of concurrent connections and repetitions start
    /// anew. Returns the maximum of connections per host since the last.
    pub fn mark_run(&self) -> io::Result<Vec<u64>> {
        let mut maxima = vec![0; self.hosts.len()];
        for thread in &self.threads {
            let (done, wait) = channel::bounded(1);
            thread.order(Order::MarkRun { done })?;
            for (host_index, maximum) in wait.recv().map_err(|_| thread_gone())? {
                maxima[host_index] = maximum;
            }
        }
        Ok(maxima)
    }

    /// Asks the threads of a recorded run to hand over what they have.
    pub(crate) fn hand_over(&self) {
        for thread in &self.threads {
            // A thread that already ended handed over all.
            thread.order(Order::HandOver).ok();
        }
    }

    /// What has come so far, per host and in all.
    pub fn progress(&self) -> SinkProgress {
        SinkProgress::new(&self.hosts, &self.counters)
    }

    /// Closes everything and tells what came.
    pub fn stop(self) -> SinkReport {
        let mut total = ThreadReport::new();
        for thread in self.threads {
            // A thread that already ended has its report ready.
            thread.order(Order::Stop).ok();
            match thread.handle.join() {
                Ok(Ok(report)) => total.merge(report),
                Ok(Err(error)) => total.fail(format!("a sink thread failed: {error}")),
                Err(_) => total.fail("a sink thread panicked".to_owned()),
            }
        }
        SinkReport::new(total, SinkProgress::new(&self.hosts, &self.counters))
    }
}

impl SinkThread {
    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| thread_gone())?;
        self.waker.wake()
    }
}

fn thread_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the thread of this host has ended")
}
