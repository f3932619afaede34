//! The question of TLS: what STARTTLS to the next hop costs beside sending in clear.
//!
//! Listeners of the engine have no certificates, so clients come in clear in both.

use std::path::Path;

use anyhow::Result;
use postrider_loadgen::sink::{Personality, TlsKind, World};

use crate::engine;
use crate::pairs::{Pairs, Side};
use crate::run::{Load, Run, Scenario};

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let pairs = Pairs::take(options.load.rounds, ["clear", "TLS out"], |side| {
        run_side(&binary, options, side)
    })?;
    let Load { messages, sessions, size, .. } = &options.load;
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
    let scenario = Scenario { world: World::of(personality), ..options.load.relay() };
    engine::run(binary, &options.load.shards, side == Side::Other, &scenario)
}
