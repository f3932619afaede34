//! The question of the relay: how many durable messages a second, at what cost, against whom.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::engine;
use crate::figures::Figures;
use crate::rivals::Rival;
use crate::run::{Load, Run, Runs, Scenario, measure};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also run these, taking turns.
    #[arg(long, value_delimiter = ',')]
    against: Vec<Rival>,
    /// The program for `--against kumod`, which no distribution has.
    #[arg(long)]
    kumod: Option<PathBuf>,
    #[command(flatten)]
    load: Load,
    /// Messages of one run of a rival.
    #[arg(long, default_value_t = 6_000)]
    rival_messages: u64,
    /// The source sends envelopes in one flight.
    #[arg(long)]
    pipelining: bool,
    /// Fail unless the median ratio of the end-to-end rates is at least this, against each.
    #[arg(long)]
    require: Option<f64>,
}

/// What the rounds have shown of one rival.
struct Compared {
    rival: Rival,
    runs: Runs,
    /// Our rate by theirs, pair by pair.
    rates: Figures,
    /// Their CPU per message by ours, pair by pair.
    cpu: Figures,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let mut ours = Runs::default();
    let mut compared: Vec<_> = options.against.iter().copied().map(Compared::new).collect();
    for round in 1..=options.load.rounds {
        let own = run_own(&binary, options)?;
        println!("round {round}: {:12} {:.0} messages/s", "postrider", own.rate);
        ours.add(&own);
        for one in &mut compared {
            let rival = run_rival(one.rival, options)?;
            println!("round {round}: {:12} {:.0} messages/s", one.rival.name(), rival.rate);
            one.add(&own, &rival);
        }
    }
    print(options, &ours, &compared)?;
    compared.iter().try_for_each(|one| one.judge(options.require))
}

impl Compared {
    fn new(rival: Rival) -> Self {
        let (rates, cpu) = (Figures::default(), Figures::default());
        Self { rival, runs: Runs::default(), rates, cpu }
    }

    fn add(&mut self, own: &Run, rival: &Run) {
        self.runs.add(rival);
        self.rates.push(own.rate / rival.rate);
        self.cpu.push(rival.cpu_ms / own.cpu_ms);
    }

    fn judge(&self, require: Option<f64>) -> Result<()> {
        let (median, name) = (self.rates.median(), self.rival.name());
        match require {
            Some(least) if median.total_cmp(&least).is_lt() => {
                bail!("the median ratio {median:.1} to {name} is below the required {least}")
            }
            _ => Ok(()),
        }
    }
}

fn scenario(options: &Options, messages: u64) -> Scenario {
    Scenario { messages, pipelining: options.pipelining, ..options.load.relay() }
}

fn run_own(binary: &Path, options: &Options) -> Result<Run> {
    let scenario = scenario(options, options.load.messages);
    engine::run(binary, &options.load.shards, false, &scenario)
}

fn run_rival(rival: Rival, options: &Options) -> Result<Run> {
    let scenario = scenario(options, options.rival_messages);
    measure(&scenario, |hosts| rival.start(hosts[0].address, options.kumod.as_deref()))
}

fn print(options: &Options, ours: &Runs, compared: &[Compared]) -> Result<()> {
    println!("\n{}", setting(options));
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "min / median / max",
        "messages/s end to end",
        "CPU ms per message",
        "dot to 250, p99 ms",
    ]);
    let mut row = |name: &str, runs: &Runs| {
        let figures = [runs.rates.show(0), runs.cpu_ms.show(3), runs.dot_p99_ms.show(1)];
        table.add_row([name.to_owned()].into_iter().chain(figures));
    };
    row("postrider", ours);
    for one in compared {
        row(one.rival.name(), &one.runs);
    }
    println!("{table}");
    for one in compared {
        let version = one.rival.version(options.kumod.as_deref())?;
        println!("against {} {version}, pair by pair:", one.rival.name());
        println!("  rate, ours by theirs: {}", one.rates.show(1));
        println!("  CPU per message, theirs by ours: {}", one.cpu.show(1));
    }
    Ok(())
}

fn setting(options: &Options) -> String {
    let Load { sessions, size, messages, rounds, .. } = &options.load;
    let kind = if options.pipelining { "pipelining" } else { "no pipelining" };
    let mut text = format!(
        "relay: {size} bytes, {sessions} sessions, {kind}, one next hop, {rounds} rounds, \
         {messages} messages a round, postrider's synced before 250"
    );
    if !options.against.is_empty() {
        text += &format!("; {} a round of each rival", options.rival_messages);
    }
    text
}
