//! Submits marked messages over many sessions, and keeps what was acknowledged.

mod channel;
mod desk;
mod dial;
mod domains;
mod driver;
mod feed;
mod greeting;
mod plan;
mod recipients;
mod reply;
mod report;
mod schedule;
mod session;
mod sizes;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Waker;

use crate::message::Composer;
use crate::run::board::Board;
use crate::run::recorder::{Inbox, Recorder, Side};
use crate::{clock, loopback};

pub use crate::latency::Phase;
pub use domains::Domains;
pub use greeting::Credentials;
pub use plan::SourcePlan;
pub use recipients::Recipients;
pub use report::{SourceProgress, SourceReport};
pub use schedule::{LEVELS_MAX, Schedule, Shape, Spacing, Steps};
pub use sizes::{SIZE_BYTES_MAX, SIZE_BYTES_MIN, Sizes};

use desk::{Desk, Supplies};
use dial::Dialer;
use driver::Driver;
use feed::Shared;
use report::{ThreadReport, Total};

/// A running source: one event loop per thread, many sessions in each.
pub struct Source {
    shared: Arc<Shared>,
    wakers: Vec<Arc<Waker>>,
    threads: Vec<JoinHandle<io::Result<ThreadReport>>>,
}

impl Source {
    /// Checks the plan and starts its threads; the schedule of an open loop begins now.
    pub fn start(plan: SourcePlan) -> io::Result<Self> {
        Self::start_with(plan, None, |_| Recorder::alone())
    }

    /// The same for a run that is recorded.
    pub(crate) fn start_recorded(
        plan: SourcePlan,
        board: &Arc<Board>,
        inbox: &mut Inbox,
    ) -> io::Result<Self> {
        let steps = plan.open_loop().map_or(Steps::ONE, |schedule| schedule.steps());
        Self::start_with(plan, Some(Arc::clone(board)), |start_ns| {
            let mut recorder = inbox.recorder(Side::Source);
            recorder.begin(steps, start_ns);
            recorder
        })
    }

    fn start_with(
        plan: SourcePlan,
        board: Option<Arc<Board>>,
        mut recorder: impl FnMut(u64) -> Recorder,
    ) -> io::Result<Self> {
        plan.check()?;
        loopback::raise_open_files();
        let supplies = Arc::new(Supplies::new(&plan, board)?);
        let dialer = Dialer::new(plan.to, plan.source_addresses, channel::client_config()?);
        // Only now: what a source prepares is no delay of its messages.
        let start_ns = clock::now_ns();
        let shared = Arc::new(Shared::new(&plan, start_ns));
        let plan = Arc::new(plan);
        let threads = plan.thread_count();
        let mut source = Self { shared, wakers: Vec::new(), threads: Vec::new() };
        for index in 0..threads {
            let seats = plan.sessions / threads + usize::from(index < plan.sessions % threads);
            let desk = Desk::new(&plan, &source.shared, &supplies, index, recorder(start_ns));
            let driver = Driver::new(desk, dialer.clone(), seats)?;
            source.wakers.push(driver.waker());
            let name = format!("loadgen-source-{index}");
            let run = move || driver.run();
            source.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(source)
    }

    /// When the schedule began.
    pub(crate) fn start_ns(&self) -> u64 {
        self.shared.start_ns()
    }

    /// Asks the threads of a recorded run to hand over what they have.
    pub(crate) fn hand_over(&self) {
        self.shared.end_second();
        self.wake();
    }

    pub fn progress(&self) -> SourceProgress {
        self.shared.progress()
    }

    /// Offers nothing more; what is under way gets a few seconds for its reply.
    pub fn stop(&self) {
        self.shared.stop(clock::now_ns());
        self.wake();
    }

    /// Says whether every thread has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all is offered and answered.
    pub fn join(self) -> SourceReport {
        let mut total = Total::default();
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(report)) => total.add(report),
                Ok(Err(error)) => total.note_error(&format!("a source thread failed: {error}")),
                Err(_) => total.note_error("a source thread panicked"),
            }
        }
        SourceReport::new(total, self.shared.progress(), self.shared.start_ns())
    }

    fn wake(&self) {
        for waker in &self.wakers {
            // A loop that already ended has nothing to hear.
            waker.wake().ok();
        }
    }
}

impl Supplies {
    fn new(plan: &SourcePlan, board: Option<Arc<Board>>) -> io::Result<Self> {
        let composer =
            Composer::without_texts(plan.run, plan.seed, &plan.sender).with_chunking(plan.chunking);
        let composer = plan.message_sizes().prepare(composer, plan.seed)?;
        let recipients = plan
            .message_recipients()
            .map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
        Ok(Self { composer, recipients, board })
    }
}
