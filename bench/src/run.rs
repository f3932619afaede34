//! One run: a source into an engine into the sink, on the same cores, which counts only if nothing was lost.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use postrider_loadgen::clock;
use postrider_loadgen::latency::Quantiles;
use postrider_loadgen::ledger::compare;
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Sink, SinkHost, SinkPlan, World};
use postrider_loadgen::source::{Domains, Phase, Source, SourcePlan};

use crate::figures::Figures;

/// Longest wait for mail that does not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Outcomes are on disk 5 ms after the last delivery; a little more for a busy machine.
const SETTLE: Duration = Duration::from_millis(100);

/// How much is sent in how many runs, as asked for.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Messages of one run of postrider.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) messages: u64,
    /// Connections of the source.
    #[arg(long, default_value_t = 50)]
    pub(crate) sessions: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    pub(crate) size: usize,
    /// Shards, as in the configuration: "auto" or a number.
    #[arg(long, default_value = "auto")]
    pub(crate) shards: String,
}

impl Load {
    /// A relay of it to one next hop.
    pub(crate) fn relay(&self) -> Scenario {
        Scenario::relay(self.messages, self.sessions, self.size)
    }
}

/// What is sent, and to whom.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) messages: u64,
    /// Connections of the source.
    pub(crate) sessions: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// The source sends envelopes in one flight.
    pub(crate) pipelining: bool,
    pub(crate) domains: Domains,
    /// Mail hosts of the sink: one for all domains, or one for each.
    pub(crate) hosts: usize,
    /// How the hosts behave.
    pub(crate) world: World,
}

impl Scenario {
    /// One next hop that takes everything, a source without pipelining.
    pub(crate) fn relay(messages: u64, sessions: usize, size: usize) -> Self {
        Self {
            messages,
            sessions,
            size,
            pipelining: false,
            domains: Domains::one("example.test"),
            hosts: 1,
            world: World::default(),
        }
    }
}

/// Whatever is measured, while it runs.
pub(crate) trait Subject {
    /// Where it takes mail.
    fn address(&self) -> SocketAddr;
    /// Of its own processes, so far.
    fn cpu_seconds(&self) -> Result<f64>;
    /// An orderly end; an error where it did not end well.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// No engine at all: the source speaks to the first host of the sink.
pub(crate) struct Direct(SocketAddr);

impl Direct {
    pub(crate) fn to(hosts: &[SinkHost]) -> Box<dyn Subject> {
        Box::new(Self(hosts[0].address))
    }
}

impl Subject for Direct {
    fn address(&self) -> SocketAddr {
        self.0
    }

    fn cpu_seconds(&self) -> Result<f64> {
        Ok(0.0)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What went through, how fast, at what cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Messages a second from the start of the source to the last arrival.
    pub(crate) rate: f64,
    /// CPU milliseconds of the engine's own processes for each message.
    pub(crate) cpu_ms: f64,
    /// Final dot to 250 at the source.
    pub(crate) dot_p99_ms: f64,
}

/// The runs of one engine in one scenario.
#[derive(Default)]
pub(crate) struct Runs {
    pub(crate) rates: Figures,
    pub(crate) cpu_ms: Figures,
    pub(crate) dot_p99_ms: Figures,
}

impl Runs {
    pub(crate) fn add(&mut self, run: &Run) {
        self.rates.push(run.rate);
        self.cpu_ms.push(run.cpu_ms);
        self.dot_p99_ms.push(run.dot_p99_ms);
    }
}

/// Sink and engine stand, nothing has been sent.
pub(crate) struct Stand<'a> {
    scenario: &'a Scenario,
    sink: Sink,
    pub(crate) subject: Box<dyn Subject>,
}

/// All has arrived; the engine still runs.
pub(crate) struct Sent {
    source: Source,
    seconds: f64,
    cpu_seconds: f64,
}

impl<'a> Stand<'a> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        start: impl FnOnce(&[SinkHost]) -> Result<Box<dyn Subject>>,
    ) -> Result<Self> {
        let hosts = loopback_hosts(scenario.hosts)?;
        let mut plan = SinkPlan::new(hosts.clone());
        plan.world = scenario.world.clone();
        let sink = Sink::start(plan)?;
        Ok(Self { scenario, sink, subject: start(&hosts)? })
    }

    /// The clock runs from the start of the source to the last arrival, the CPU until outcomes are
    /// on disk, too.
    pub(crate) fn send(&self) -> Result<Sent> {
        let cpu_before = self.subject.cpu_seconds()?;
        let started = clock::now_ns();
        let source = Source::start(self.plan())?;
        let ended = wait_for_all(&source, &self.sink)?;
        pause(SETTLE);
        let cpu_seconds = self.subject.cpu_seconds()? - cpu_before;
        Ok(Sent { source, seconds: clock::seconds(ended - started), cpu_seconds })
    }

    /// Ends everything, and holds what was acknowledged against what arrived.
    pub(crate) fn finish(self, sent: Sent) -> Result<Run> {
        let source = sent.source.join();
        self.subject.stop()?;
        let sink = self.sink.stop();
        let verdict = compare(&source.acknowledged, &sink.arrivals);
        let messages = self.scenario.messages;
        if !verdict.is_clean() || verdict.delivered != messages || !sink.is_clean() {
            bail!("the run does not count:\n{verdict}\n{:?}", sink.failures);
        }
        Ok(Run {
            rate: number(messages) / sent.seconds,
            cpu_ms: sent.cpu_seconds * 1000.0 / number(messages),
            dot_p99_ms: Quantiles::of(source.phase(Phase::Dot)).p99_ms,
        })
    }

    fn plan(&self) -> SourcePlan {
        let Scenario { messages, sessions, size, pipelining, domains, .. } = self.scenario;
        let mut plan = SourcePlan::new(self.subject.address(), domains.clone());
        plan.messages = Some(*messages);
        plan.sessions = *sessions;
        plan.size = *size;
        plan.pipelining = *pipelining;
        plan
    }
}

/// A whole run, with nothing to be looked at meanwhile.
pub(crate) fn measure(
    scenario: &Scenario,
    start: impl FnOnce(&[SinkHost]) -> Result<Box<dyn Subject>>,
) -> Result<Run> {
    let stand = Stand::new(scenario, start)?;
    let sent = stand.send()?;
    stand.finish(sent)
}

/// When the last message arrived.
fn wait_for_all(source: &Source, sink: &Sink) -> Result<u64> {
    let mut last_change = clock::now_ns();
    let mut seen = 0;
    loop {
        pause(Duration::from_millis(10));
        let (sent, arrived) = (source.progress(), sink.progress());
        if source.is_finished() && arrived.recipients >= sent.acknowledged {
            let idle = arrived.idle_for.unwrap_or_default();
            return Ok(clock::now_ns().saturating_sub(clock::nanos(idle)));
        }
        if arrived.recipients != seen {
            (seen, last_change) = (arrived.recipients, clock::now_ns());
        }
        if clock::now_ns() - last_change > clock::nanos(SILENCE_MAX) {
            bail!("{seen} of {} messages arrived, then none any more", sent.acknowledged);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::disallowed_methods, reason = "a benchmark looks at running threads now and then")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
