//! `loadgen source`: flags to a plan, a run, a report.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::run::{Assignment, Findings, conduct};

use super::live::Live;
use super::load::LoadFlags;
use super::measured::{self, MeasureFlags};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    measure: MeasureFlags,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let measure = &arguments.measure;
    let assignment = Assignment {
        source: arguments.load.plan()?,
        sink: None,
        folder: measure.out.clone(),
        settle: Duration::ZERO,
        knee_p99: arguments.load.knee_p99,
        thresholds: measure.require.clone(),
        command: std::env::args().collect(),
    };
    // Where nothing is kept, a script gets the report and nothing else.
    let live = match (stdout().is_terminal() && !measure.json, measure.out.is_some()) {
        (true, _) => Live::screen(),
        (false, true) => Live::Lines,
        (false, false) => Live::Nothing,
    };
    let interrupted = super::signals()?;
    let findings = conduct(assignment, |_| Ok(()), |m| live.show(m), interrupted)?;
    let lines = matches!(live, Live::Lines);
    live.finish();
    if let Some(path) = &measure.ledger {
        findings.source.acknowledged.write_to(&mut super::create(path)?)?;
    }
    tell(&findings, measure.json, lines)?;
    Ok(measured::exit_code(&findings.manifest))
}

fn tell(findings: &Findings, json: bool, lines: bool) -> anyhow::Result<()> {
    if lines {
        println!("{}", serde_json::to_string(&findings.manifest)?);
    } else if json {
        println!("{:#}", findings.source.to_json());
    } else {
        measured::print_report(findings);
    }
    Ok(())
}
