//! `loadgen compare`: two ledgers, one verdict, and an exit code for scripts.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use postrider_loadgen::ledger::{AckLedger, ArrivalLedger, compare};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger of the source.
    acknowledged: PathBuf,
    /// The ledger of the sink.
    arrived: PathBuf,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (acknowledged, arrived) = (&arguments.acknowledged, &arguments.arrived);
    let verdict = compare(
        &AckLedger::read_from(open(acknowledged)?).with_context(|| name(acknowledged))?,
        &ArrivalLedger::read_from(open(arrived)?).with_context(|| name(arrived))?,
    );
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| name(path))?))
}

fn name(path: &Path) -> String {
    format!("cannot read {}", path.display())
}
