//! `postrider run`: an engine in the foreground, until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::Context as _;
use postrider_engine::runtime::{Engine, StopRequest, watch_signals};

use crate::flags::RunFlags;
use crate::settings;

/// Runs until stopped. Prints one line per listener on standard output once mail can come in.
pub(crate) fn run(flags: &RunFlags) -> anyhow::Result<ExitCode> {
    let settings = settings::load_to_run(&flags.config)?;
    let engine = Engine::start(settings)?;
    let stopper = engine.stopper();
    let watch = watch_signals(move |request| match request {
        StopRequest::Orderly => stopper.stop(),
        StopRequest::Now => stopper.stop_now(),
    })
    .context("cannot watch for signals")?;
    for address in engine.addresses() {
        println!("listening smtp {address}");
    }
    let summary = engine.wait().context("the engine did not end well")?;
    drop(watch);
    for (shard, counters) in summary.shards.iter().enumerate() {
        tracing::info!(
            shard,
            accepted = counters.messages_accepted,
            delivered = counters.recipients_delivered,
            deferred = counters.recipients_deferred,
            failed = counters.recipients_failed,
            "stopped"
        );
    }
    Ok(ExitCode::SUCCESS)
}
