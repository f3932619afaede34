//! `loadgen run`: a source and a sink in one process, with the target that the user started between.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use clap::Args;
use postrider_loadgen::run::{Assignment, conduct};

use super::live::Live;
use super::load::LoadFlags;
use super::measured::{self, MeasureFlags, SettleFlags};
use super::sink::HostFlags;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    hosts: HostFlags,
    /// Threads of the sink.
    #[arg(long, default_value_t = 1)]
    sink_threads: usize,
    #[command(flatten)]
    settle: SettleFlags,
    #[command(flatten)]
    measure: MeasureFlags,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let measure = &arguments.measure;
    let hosts = &arguments.hosts;
    let assignment = Assignment {
        source: arguments.load.plan()?,
        sink: Some(hosts.plan(arguments.sink_threads, Some(arguments.load.run))?),
        folder: measure.out.clone(),
        settle: arguments.settle.settle,
        knee_p99: arguments.load.knee_p99,
        thresholds: measure.require.clone(),
        command: std::env::args().collect(),
    };
    let on_screen = stdout().is_terminal() && !measure.json;
    let live = if on_screen { Live::screen() } else { Live::Lines };
    let interrupted = super::signals()?;
    let findings = conduct(assignment, |sink| hosts.prepare(sink), |m| live.show(m), interrupted)?;
    live.finish();
    if let Some(path) = &measure.ledger {
        findings.source.acknowledged.write_to(&mut super::create(path)?)?;
    }
    if on_screen {
        measured::print_report(&findings);
    } else {
        println!("{}", serde_json::to_string(&findings.manifest)?);
    }
    Ok(measured::exit_code(&findings.manifest))
}
