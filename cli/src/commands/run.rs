//! `postrider run`: an engine in the foreground, until SIGTERM or SIGINT.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use postrider_engine::runtime::{Engine, Remote, Request, watch_signals};

use crate::flags::RunFlags;
use crate::settings;

/// Runs until stopped. Prints one line per listener on standard output once mail can come in.
pub(crate) fn run(flags: &RunFlags) -> anyhow::Result<ExitCode> {
    let settings = settings::load_to_run(&flags.config)?;
    let engine = Engine::start(settings)?;
    let (remote, config) = (engine.remote(), flags.config.clone());
    let watch = watch_signals(move |request| match request {
        Request::Stop => remote.stop(),
        Request::StopNow => remote.stop_now(),
        Request::Reload => reload(&remote, &config),
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

/// Takes new settings if all of them are good; keeps the old ones otherwise.
fn reload(remote: &Remote, config: &Path) {
    match settings::load_to_run(config) {
        Ok(settings) => {
            remote.reload(settings);
            tracing::info!("settings read again");
        }
        Err(error) => tracing::error!("the settings stay as they were:\n{error:#}"),
    }
}
