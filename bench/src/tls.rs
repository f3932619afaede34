//! The question of TLS: what STARTTLS to the next hop costs beside sending in clear.
//!
//! Listeners of the engine have no certificates, so clients come in clear in both.

use std::path::Path;

use anyhow::Result;
use postrider_loadgen::sink::{Personality, TlsKind, World};

use crate::engine::{self, Postrider, Wiring};
use crate::pairs::{Pairs, Side};
use crate::run::{Run, Scenario, measure};

#[derive(clap::Args)]
pub(crate) struct Options {
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
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let pairs =
        Pairs::take(options.rounds, ["clear", "TLS out"], |side| run_side(&binary, options, side))?;
    let Options { messages, sessions, size, .. } = options;
    println!(
        "\ntls: STARTTLS required by the next hop against none offered, {messages} messages of \
         {size} bytes, {sessions} sessions in clear"
    );
    pairs.print();
    Ok(())
}

fn run_side(binary: &Path, options: &Options, side: Side) -> Result<Run> {
    let mut personality = Personality::default();
    if side == Side::Other {
        personality.tls.kind = TlsKind::Valid;
        personality.tls.required = true;
    }
    let relay = Scenario::relay(options.messages, options.sessions, options.size);
    let scenario = Scenario { world: World::of(personality), ..relay };
    measure(&scenario, |hosts| {
        let (domains, tls) = (&scenario.domains, side == Side::Other);
        let wiring = Wiring { shards: &options.shards, tls, domains, hosts };
        Ok(Box::new(Postrider::start(binary, &wiring)?))
    })
}
