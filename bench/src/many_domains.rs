//! The question of many domains: does a thousand destinations cost more than one?

use std::path::Path;

use anyhow::{Result, bail};
use postrider_loadgen::source::Domains;

use crate::engine;
use crate::pairs::{Pairs, Side};
use crate::run::{Load, Run, Scenario};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Destinations, each a next hop at an address of its own.
    #[arg(long, default_value_t = 1000)]
    domains: usize,
    #[command(flatten)]
    load: Load,
    /// Fail unless the median ratio of the rates is at least this.
    #[arg(long)]
    require: Option<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let pairs = Pairs::take(options.load.rounds, ["one domain", "many domains"], |side| {
        run_side(&binary, options, side)
    })?;
    let Load { messages, sessions, size, .. } = &options.load;
    let domains = options.domains;
    println!(
        "\nmany-domains: {domains} next hops against one, {messages} messages of {size} bytes, \
         {sessions} sessions"
    );
    pairs.print();
    match options.require {
        Some(least) if pairs.rate.median().total_cmp(&least).is_lt() => {
            bail!("the median ratio is below the required {least}")
        }
        _ => Ok(()),
    }
}

/// The sink is the same in both: as many listeners, of which one run uses the first alone.
fn run_side(binary: &Path, options: &Options, side: Side) -> Result<Run> {
    let domains = match side {
        Side::Base => Domains::one("d0.many.test"),
        Side::Other => Domains::numbered(options.domains, "many.test")?,
    };
    let scenario = Scenario { domains, hosts: options.domains, ..options.load.relay() };
    engine::run(binary, &options.load.shards, false, &scenario)
}
