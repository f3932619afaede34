//! The question of a restart: how soon a full spool takes mail again, how soon all of it is scheduled
//! again, and what a deferred delivery costs in memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use postrider_loadgen::clock;
use postrider_loadgen::ledger::Outcome;
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Behaviour, Sink, SinkPlan};
use postrider_loadgen::source::{Domains, Source, SourcePlan};
use serde_json::Value;
use tempfile::TempDir;

use crate::engine;
use crate::figures::Figures;
use crate::memory::Memory;
use crate::started::Started;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Deferred messages in the spool, each with one recipient.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Domains among the recipients.
    #[arg(long, default_value_t = 1000)]
    domains: usize,
    /// Gives each domain a site of its own in the starts that are measured.
    #[arg(long)]
    own_sites: bool,
    /// Seconds of idleness after each start, of which the engine's CPU is told.
    #[arg(long, default_value_t = 0)]
    idle: u64,
    /// Starts of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Shards of the engine: a number, or `auto`.
    #[arg(long, default_value = "auto")]
    shards: String,
    /// Keeps the filled spool in this folder, and uses the one that is there already.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Measures this one, as for a comparison, instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Fails unless the worst cold start and the worst warm one are within the figures of the design.
    #[arg(long)]
    require: bool,
}

/// From exec to the first 220, cold or warm.
const FIRST_220_MAX: f64 = 0.5;
/// From exec until everything is scheduled, after the caches were dropped.
const COLD_MAX: f64 = 5.0;
const WARM_MAX: f64 = 2.5;
/// Resident bytes a deferred delivery may cost.
const BYTES_MAX: f64 = 128.0;
/// Of one core, in percent, while nothing is due.
const IDLE_PERCENT_MAX: f64 = 3.0;

/// The first wait after a failed attempt; the engine spreads it by an eighth to either side.
const RETRY: Duration = Duration::from_hours(24);
/// Deliveries whose attempts and next try are compared before and after.
const SAMPLE: usize = 1000;
/// An engine that uses less than this much CPU a look has nothing left to do.
const QUIET_CPU_SECONDS: f64 = 0.02;
const QUIET_LOOKS: u32 = 3;
/// The longest that filling may take.
const FILL_MAX: Duration = Duration::from_secs(1800);
/// Between the last delivery scheduled and the look at memory: freed memory goes back meanwhile.
const REST: Duration = Duration::from_secs(2);

/// What the starts of one kind took.
#[derive(Default)]
struct Starts {
    first_220: Figures,
    scheduled: Figures,
    resident: Figures,
    private: Figures,
    peak: Figures,
    /// Percent of one core.
    idle: Figures,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = options.binary.clone().map_or_else(engine::build, Ok)?;
    let scratch = TempDir::with_prefix("postrider-restart-")?;
    let home = options.keep.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&home)?;
    let place = Place { binary, home, options };
    let spool = place.home.join("spool");
    if !spool.exists() {
        let filling = place.home.join("filling");
        place.fill(&filling)?;
        std::fs::rename(filling, &spool)?;
    }
    let before = place.check(&spool)?;
    let empty = place.empty()?;
    println!("an empty engine: {}", empty.show());
    let (mut cold, mut warm) = (Starts::default(), Starts::default());
    for round in 1..=options.rounds {
        drop_caches()?;
        place.measure(&spool, &empty, &mut cold).with_context(|| format!("cold round {round}"))?;
        place.measure(&spool, &empty, &mut warm).with_context(|| format!("warm round {round}"))?;
    }
    if place.check(&spool)? != before {
        bail!("attempts or next tries are not what they were before the restarts");
    }
    print(options, &cold, &warm);
    judge(options, &cold, &warm)
}

/// Where everything of one answer lies.
struct Place<'a> {
    binary: PathBuf,
    home: PathBuf,
    options: &'a Options,
}

impl Place<'_> {
    /// Sends the messages through the engine to a sink that defers every recipient.
    fn fill(&self, spool: &Path) -> Result<()> {
        let hosts = loopback_hosts(1)?;
        let next_hop = hosts[0].address;
        let sink = Sink::start(SinkPlan::new(hosts))?;
        sink.set_behaviour(0, Behaviour::TempfailRcpt)?;
        let engine = self.start(spool, next_hop)?;
        engine.wait_for_220()?;
        pause(REST);
        let before = engine.memory()?;
        let mut plan =
            SourcePlan::new(engine.address, Domains::numbered(self.options.domains, "bench.test")?);
        plan.messages = Some(self.options.messages);
        plan.size = self.options.size;
        plan.pipelining = true;
        let started = clock::now_ns();
        let source = Source::start(plan)?;
        while !source.is_finished() {
            pause(Duration::from_millis(100));
            if clock::now_ns() - started > clock::nanos(FILL_MAX) {
                bail!(
                    "{} messages were taken, then it took too long",
                    source.progress().acknowledged
                );
            }
        }
        wait_until_quiet(&engine)?;
        println!(
            "filled in {:.0} s; then {:.0} resident bytes a delivery, private {:.0}",
            clock::seconds(clock::now_ns() - started),
            engine.memory()?.resident_above(&before, self.options.messages),
            engine.memory()?.private_above(&before, self.options.messages),
        );
        let acknowledged = source.join().acknowledged.count(Outcome::Acknowledged);
        let deferred = engine.stop()?;
        drop(sink.stop());
        if (deferred, acknowledged) != (self.options.messages, self.options.messages) {
            bail!("{acknowledged} messages were taken and {deferred} deferred");
        }
        Ok(())
    }

    /// What the spool holds, by its own checker: everything deferred once, and a sample of it.
    fn check(&self, spool: &Path) -> Result<Value> {
        let output = Command::new(&self.binary)
            .args(["spool", "check", "--json", "--sample", &SAMPLE.to_string()])
            .arg(spool)
            .output()?;
        if !output.status.success() {
            bail!("the spool is not sound:\n{}", String::from_utf8_lossy(&output.stdout));
        }
        let mut report: Value = serde_json::from_slice(&output.stdout)?;
        let held = [&report["messages"], &report["deferred"]].map(Value::as_u64);
        if held != [Some(self.options.messages); 2] {
            bail!(
                "the spool holds {} messages, {} deferred",
                report["messages"],
                report["deferred"]
            );
        }
        let sample = report["sample"].take();
        let entries = sample.as_array().context("no sample")?;
        if entries.iter().any(|entry| entry["attempts"] != 1 || entry["next_try"].is_null()) {
            bail!("a delivery was not deferred exactly once: {sample}");
        }
        Ok(sample)
    }

    /// An engine like the measured ones, without anything queued.
    fn empty(&self) -> Result<Memory> {
        let spool = TempDir::with_prefix_in("empty-", &self.home)?;
        let engine = self.start_idle(&spool.path().join("spool"))?;
        engine.wait_for_220()?;
        pause(REST);
        engine.memory()
    }

    fn measure(&self, spool: &Path, empty: &Memory, starts: &mut Starts) -> Result<()> {
        let messages = self.options.messages;
        let engine = self.start_idle(spool)?;
        let first_220 = engine.wait_for_220()?;
        let scheduled = engine.wait_for_scheduled(messages)?;
        pause(REST);
        let memory = engine.memory()?;
        if self.options.idle > 0 {
            let before = engine.cpu_seconds()?;
            pause(Duration::from_secs(self.options.idle));
            let used = engine.cpu_seconds()? - before;
            starts.idle.push(used * 100.0 / Duration::from_secs(self.options.idle).as_secs_f64());
        }
        println!("220 after {first_220:.3} s, all after {scheduled:.3} s, {}", memory.show());
        starts.first_220.push(first_220);
        starts.scheduled.push(scheduled);
        starts.resident.push(memory.resident_above(empty, messages));
        starts.private.push(memory.private_above(empty, messages));
        starts.peak.push(memory.peak_mib());
        // It ends as a crash would: what it leaves is what the next one meets.
        drop(engine);
        Ok(())
    }

    /// Nothing is due before it ends, and nobody would listen.
    fn start_idle(&self, spool: &Path) -> Result<Started> {
        let address = free_address()?;
        let own = if self.options.own_sites { self.options.domains.saturating_sub(1) } else { 0 };
        let routes: String = (0..own).map(own_route).collect();
        self.start_with(&self.settings(spool, address, (&routes, nowhere())), address)
    }

    fn start(&self, spool: &Path, next_hop: SocketAddr) -> Result<Started> {
        let address = free_address()?;
        self.start_with(&self.settings(spool, address, ("", next_hop)), address)
    }

    fn start_with(&self, settings: &str, address: SocketAddr) -> Result<Started> {
        let config = self.home.join("postrider.toml");
        std::fs::write(&config, settings)?;
        Started::start(&self.binary, &config, address)
    }

    /// What no route of its own has goes to the last one: the first match wins.
    fn settings(
        &self,
        spool: &Path,
        address: SocketAddr,
        (routes, next_hop): (&str, SocketAddr),
    ) -> String {
        let shards = match self.options.shards.as_str() {
            "auto" => "\"auto\"",
            number => number,
        };
        format!(
            r#"
hostname = "mta.bench.test"
[engine]
shards = {shards}
[spool]
path = "{}"
[[listen]]
address = "{address}"
relay_from = ["127.0.0.0/8"]
[egress]
tls = "off"
{routes}
[[route]]
domain = "*"
via = "{next_hop}"
[site.default]
connections = 50
messages_per_connection = 100000
retry = ["{}h"]
"#,
            spool.display(),
            RETRY.as_secs() / 3600,
        )
    }
}

/// A next hop of its own for the domain of this number: what has its own is a site of its own.
fn own_route(number: usize) -> String {
    let [low, high] = [number % 250, number / 250].map(|part| part + 1);
    format!("[[route]]\ndomain = \"d{number}.bench.test\"\nvia = \"127.1.{high}.{low}:9\"\n")
}

fn wait_until_quiet(engine: &Started) -> Result<()> {
    let (mut used, mut quiet) = (engine.cpu_seconds()?, 0);
    while quiet < QUIET_LOOKS {
        pause(Duration::from_secs(1));
        let now = engine.cpu_seconds()?;
        quiet = if now - used < QUIET_CPU_SECONDS { quiet + 1 } else { 0 };
        used = now;
    }
    Ok(())
}

/// Everything clean that the kernel holds of files goes; what is dirty is written first.
fn drop_caches() -> Result<()> {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::sync() };
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("a cold start needs root")
}

/// Nobody listens there, and nothing is due before the measurement ends.
fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn print(options: &Options, cold: &Starts, warm: &Starts) {
    let Options { messages, size, domains, rounds, .. } = options;
    println!(
        "\nrestart: {messages} deferred messages of {size} bytes, one recipient each, {domains} \
         domains, {rounds} rounds"
    );
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "min / median / max",
        "first 220, s",
        "all scheduled, s",
        "resident B a delivery",
        "private B a delivery",
        "peak MiB",
        "idle, % of a core",
    ]);
    for (name, starts) in [("cold", cold), ("warm", warm)] {
        table.add_row([
            name.to_owned(),
            starts.first_220.show(3),
            starts.scheduled.show(3),
            starts.resident.show(0),
            starts.private.show(0),
            starts.peak.show(0),
            starts.idle.show(3),
        ]);
    }
    println!("{table}");
}

fn judge(options: &Options, cold: &Starts, warm: &Starts) -> Result<()> {
    let figures = [
        ("first 220, cold, s", &cold.first_220, FIRST_220_MAX),
        ("first 220, warm, s", &warm.first_220, FIRST_220_MAX),
        ("all scheduled, cold, s", &cold.scheduled, COLD_MAX),
        ("all scheduled, warm, s", &warm.scheduled, WARM_MAX),
        ("resident bytes a delivery, cold", &cold.resident, BYTES_MAX),
        ("idle, cold, % of a core", &cold.idle, IDLE_PERCENT_MAX),
        ("idle, warm, % of a core", &warm.idle, IDLE_PERCENT_MAX),
        ("resident bytes a delivery, warm", &warm.resident, BYTES_MAX),
    ];
    let missed: Vec<String> = figures
        .iter()
        .filter(|(_, figures, most)| figures.most() > *most)
        .map(|(name, figures, most)| format!("{name}: {:.3}, at most {most}", figures.most()))
        .collect();
    missed.iter().for_each(|line| println!("missed: {line}"));
    if options.require && !missed.is_empty() {
        bail!("{} figures are missed", missed.len());
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark waits for another program")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
