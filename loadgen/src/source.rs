//! Submits marked messages over many sessions, and keeps what was acknowledged.

mod desk;
mod domains;
mod driver;
mod feed;
mod plan;
mod reply;
mod report;
mod session;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Waker;

use crate::{clock, loopback};

pub use domains::Domains;
pub use plan::SourcePlan;
pub use report::{Phase, SourceProgress, SourceReport};

use driver::Driver;
use feed::Shared;
use report::ThreadReport;

/// A running source: one event loop per thread, many sessions in each.
pub struct Source {
    shared: Arc<Shared>,
    wakers: Vec<Arc<Waker>>,
    threads: Vec<JoinHandle<io::Result<ThreadReport>>>,
}

impl Source {
    /// Checks the plan and starts its threads; the schedule of an open loop begins now.
    pub fn start(plan: SourcePlan) -> io::Result<Self> {
        plan.check()?;
        loopback::raise_open_files();
        let shared = Arc::new(Shared::new(&plan, clock::now_ns()));
        let threads = plan.threads.clamp(1, plan.sessions);
        let plan = Arc::new(plan);
        let mut source = Self { shared, wakers: Vec::new(), threads: Vec::new() };
        for index in 0..threads {
            let seats = plan.sessions / threads + usize::from(index < plan.sessions % threads);
            let driver = Driver::new(&plan, &source.shared, seats)?;
            source.wakers.push(driver.waker());
            let name = format!("loadgen-source-{index}");
            let run = move || driver.run();
            source.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(source)
    }

    pub fn progress(&self) -> SourceProgress {
        self.shared.progress()
    }

    /// Offers nothing more; what is under way gets a few seconds for its reply.
    pub fn stop(&self) {
        self.shared.stop(clock::now_ns());
        for waker in &self.wakers {
            // A loop that already ended has nothing to hear.
            waker.wake().ok();
        }
    }

    /// Says whether every thread has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all is offered and answered.
    pub fn join(self) -> SourceReport {
        let mut total = ThreadReport::new();
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(report)) => total.merge(report),
                Ok(Err(error)) => total.note_error(&format!("a source thread failed: {error}")),
                Err(_) => total.note_error("a source thread panicked"),
            }
        }
        SourceReport::new(total, self.shared.progress(), self.shared.start_ns())
    }
}
