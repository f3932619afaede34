//! The question of the relay: how many durable messages a second, at what cost, against whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use postrider_loadgen::clock;
use postrider_loadgen::latency::Quantiles;
use postrider_loadgen::ledger::compare;
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Sink, SinkPlan};
use postrider_loadgen::source::{Domains, Phase, Source, SourcePlan};

use crate::Rival;
use crate::engine::{self, Postrider};
use crate::figures::Figures;
use crate::postfix::Postfix;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also run this one, taking turns.
    #[arg(long)]
    against: Option<Rival>,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of one run of postrider.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Messages of one run of the rival.
    #[arg(long, default_value_t = 6_000)]
    rival_messages: u64,
    /// Connections of the source.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// The source sends envelopes in one flight.
    #[arg(long)]
    pipelining: bool,
    /// Shards, as in the configuration: "auto" or a number.
    #[arg(long, default_value = "auto")]
    shards: String,
    /// Fail unless the median ratio of the end-to-end rates is at least this.
    #[arg(long)]
    require: Option<f64>,
}

/// One run: what went through, how fast, at what cost.
struct Run {
    rate: f64,
    cpu_per_1000: f64,
    dot_p99_ms: f64,
}

/// The runs of one engine.
#[derive(Default)]
struct Runs {
    rates: Figures,
    cpu: Figures,
    dot_p99: Figures,
}

impl Runs {
    fn add(&mut self, run: &Run) {
        self.rates.push(run.rate);
        self.cpu.push(run.cpu_per_1000);
        self.dot_p99.push(run.dot_p99_ms);
    }
}

/// Longest wait for mail that does not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let (mut ours, mut theirs, mut ratios) = (Runs::default(), Runs::default(), Figures::default());
    for round in 1..=options.rounds {
        let rival = options.against.map(|rival| run_rival(rival, options)).transpose()?;
        let own = run_own(&binary, options)?;
        println!("round {round}: postrider {:.0} messages/s", own.rate);
        if let Some(rival) = rival {
            println!("round {round}: rival     {:.0} messages/s", rival.rate);
            ratios.push(own.rate / rival.rate);
            theirs.add(&rival);
        }
        ours.add(&own);
    }
    print(options, &ours, &theirs, &ratios)?;
    judge(options, &ratios)
}

fn run_own(binary: &PathBuf, options: &Options) -> Result<Run> {
    measure(options, options.messages, |next_hop| {
        let shards = match options.shards.as_str() {
            "auto" => "\"auto\"",
            number => number,
        };
        let engine = Postrider::start(binary, next_hop, shards)?;
        let address = engine.address;
        Ok((Engine::Postrider(engine), address))
    })
}

fn run_rival(rival: Rival, options: &Options) -> Result<Run> {
    measure(options, options.rival_messages, |next_hop| match rival {
        Rival::Postfix => {
            let engine = Postfix::start(next_hop)?;
            let address = engine.address;
            Ok((Engine::Postfix(engine), address))
        }
    })
}

/// Whatever is measured.
enum Engine {
    Postrider(Postrider),
    Postfix(Postfix),
}

impl Engine {
    fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Self::Postrider(engine) => engine.cpu_seconds(),
            Self::Postfix(engine) => engine.cpu_seconds(),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Self::Postrider(engine) => engine.stop(),
            Self::Postfix(_) => Ok(()),
        }
    }
}

/// Source, engine and sink on the same cores; the clock runs to the last arrival.
fn measure(
    options: &Options,
    messages: u64,
    start: impl FnOnce(SocketAddr) -> Result<(Engine, SocketAddr)>,
) -> Result<Run> {
    let hosts = loopback_hosts(1)?;
    let next_hop = hosts[0].address;
    let sink = Sink::start(SinkPlan::new(hosts))?;
    let (engine, address) = start(next_hop)?;
    let cpu_before = engine.cpu_seconds()?;
    let started = clock::now_ns();
    let source = Source::start(plan(options, address, messages)?)?;
    let ended = wait_for_all(&source, &sink)?;
    let cpu = engine.cpu_seconds()? - cpu_before;
    let source = source.join();
    engine.stop()?;
    let sink = sink.stop();
    let verdict = compare(&source.acknowledged, &sink.arrivals);
    if !verdict.is_clean() || verdict.delivered != messages {
        bail!("the run does not count:\n{verdict}");
    }
    Ok(Run {
        rate: per(messages, clock::seconds(ended - started)),
        cpu_per_1000: cpu * 1000.0 / count(messages),
        dot_p99_ms: Quantiles::of(source.phase(Phase::Dot)).p99_ms,
    })
}

fn plan(options: &Options, to: SocketAddr, messages: u64) -> Result<SourcePlan> {
    let mut plan = SourcePlan::new(to, Domains::one("example.test"));
    plan.messages = Some(messages);
    plan.sessions = options.sessions;
    plan.size = options.size;
    plan.pipelining = options.pipelining;
    Ok(plan)
}

/// When the last message arrived.
fn wait_for_all(source: &Source, sink: &Sink) -> Result<u64> {
    let mut last_change = clock::now_ns();
    let mut seen = 0;
    loop {
        pause();
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

fn print(options: &Options, ours: &Runs, theirs: &Runs, ratios: &Figures) -> Result<()> {
    println!("\n{}", setting(options)?);
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "min / median / max",
        "messages/s end to end",
        "CPU ms per message",
        "dot to 250, p99 ms",
    ]);
    let mut row = |name: &str, runs: &Runs| {
        table.add_row([
            name.to_owned(),
            runs.rates.show(0),
            runs.cpu.show(3),
            runs.dot_p99.show(1),
        ]);
    };
    row("postrider", ours);
    if options.against.is_some() {
        row("postfix", theirs);
    }
    println!("{table}");
    if options.against.is_some() {
        let cpu = theirs.cpu.median() / ours.cpu.median();
        println!("ratio of the rates, pair by pair: {}", ratios.show(1));
        println!("ratio of CPU per message (medians): 1/{cpu:.1}");
    }
    Ok(())
}

fn setting(options: &Options) -> Result<String> {
    let Options { sessions, size, messages, rival_messages, rounds, .. } = options;
    let kind = if options.pipelining { "pipelining" } else { "no pipelining" };
    let mut text = format!(
        "relay: {size} bytes, {sessions} sessions, {kind}, one next hop, {rounds} rounds, \
         {messages} messages a round, every message synced before 250"
    );
    if options.against.is_some() {
        text += &format!("; Postfix {} with {rival_messages}", Postfix::version()?);
    }
    Ok(text)
}

fn judge(options: &Options, ratios: &Figures) -> Result<()> {
    match options.require {
        Some(least) if ratios.median().total_cmp(&least).is_lt() => {
            bail!("the median ratio {:.1} is below the required {least}", ratios.median())
        }
        _ => Ok(()),
    }
}

fn per(messages: u64, seconds: f64) -> f64 {
    count(messages) / seconds
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn count(messages: u64) -> f64 {
    messages as f64
}

#[expect(clippy::disallowed_methods, reason = "a benchmark looks at running threads now and then")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
