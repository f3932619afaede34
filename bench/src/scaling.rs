//! The question of scaling: two shards against one, half of the mail for one hot site; and large bodies
//! against a source that speaks to the sink itself.

use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Result, bail};
use postrider_loadgen::source::Domains;

use crate::engine;
use crate::pairs::{Pairs, Side};
use crate::run::{Direct, Run, Scenario, measure};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of one run of the shards.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Messages of one run with large bodies.
    #[arg(long, default_value_t = 20_000)]
    large_messages: u64,
    /// Bytes of a large message.
    #[arg(long, default_value_t = 65_536)]
    large: usize,
    /// Connections of the source to the shards.
    #[arg(long, default_value_t = 200)]
    sessions: usize,
    /// Fail unless two shards take at most 1.1 times the CPU, and large bodies have 0.2 of the rate
    /// without an engine; with six cores, unless two shards have 1.8 times the rate.
    #[arg(long)]
    require: bool,
}

/// Connections of the source with large bodies.
const LARGE_SESSIONS: usize = 50;
/// Destinations beside the hot one.
const COLD: u32 = 50;
/// Source and sink have two cores each, and the shards one each.
const CORES_FOR_RATES: usize = 6;

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let shards = Pairs::take(options.rounds, ["1 shard", "2 shards"], |side| {
        run_shards(&binary, options, side)
    })?;
    println!(
        "\nscaling: half of {} messages of 4096 bytes for one site, the rest for {COLD}",
        options.messages
    );
    shards.print();
    let large = Pairs::take(options.rounds, ["no engine", "postrider"], |side| {
        run_large(&binary, options, side)
    })?;
    println!("\nlarge bodies: {} messages of {} bytes", options.large_messages, options.large);
    large.print();
    if options.require { judge(&shards, &large) } else { Ok(()) }
}

fn judge(shards: &Pairs, large: &Pairs) -> Result<()> {
    let cores = available_parallelism().map_or(1, usize::from);
    if shards.cpu.median() > 1.1 {
        bail!("two shards take more than 1.1 times the CPU of one");
    }
    if cores >= CORES_FOR_RATES && shards.rate.median() < 1.8 {
        bail!("two shards have less than 1.8 times the rate of one");
    }
    if large.rate.median() < 0.2 {
        bail!("large bodies have less than 0.2 of the rate without an engine");
    }
    Ok(())
}

fn run_shards(binary: &Path, options: &Options, side: Side) -> Result<Run> {
    let cold = (0..COLD).map(|number| (format!("cold{number}.test"), 1));
    let domains = Domains::weighted([("hot.test".to_owned(), COLD)].into_iter().chain(cold))?;
    let hosts = domains.names().len();
    let relay = Scenario::relay(options.messages, options.sessions, 4096);
    let scenario = Scenario { domains, hosts, ..relay };
    let shards = if side == Side::Base { "1" } else { "2" };
    engine::run(binary, shards, false, &scenario)
}

fn run_large(binary: &Path, options: &Options, side: Side) -> Result<Run> {
    let scenario = Scenario::relay(options.large_messages, LARGE_SESSIONS, options.large);
    match side {
        Side::Base => measure(&scenario, |hosts| Ok(Direct::to(hosts))),
        Side::Other => engine::run(binary, "auto", false, &scenario),
    }
}
