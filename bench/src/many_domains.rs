//! The question of many domains: does a thousand destinations cost more than one?

use std::path::Path;

use anyhow::{Result, bail};
use postrider_loadgen::source::Domains;

use crate::engine::{self, Postrider, Wiring};
use crate::pairs::{Pairs, Side};
use crate::run::{Run, Scenario, measure};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Destinations, each a next hop at an address of its own.
    #[arg(long, default_value_t = 1000)]
    domains: usize,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of one run.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Connections of the source.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Shards, as in the configuration: "auto" or a number.
    #[arg(long, default_value = "auto")]
    shards: String,
    /// Fail unless the median ratio of the rates is at least this.
    #[arg(long)]
    require: Option<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let pairs = Pairs::take(options.rounds, ["one domain", "many domains"], |side| {
        run_side(&binary, options, side)
    })?;
    let Options { domains, messages, sessions, size, .. } = options;
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
    let relay = Scenario::relay(options.messages, options.sessions, options.size);
    let scenario = Scenario { domains, hosts: options.domains, ..relay };
    measure(&scenario, |hosts| {
        let Scenario { domains, .. } = &scenario;
        let wiring = Wiring { shards: &options.shards, tls: false, domains, hosts };
        Ok(Box::new(Postrider::start(binary, &wiring)?))
    })
}
