//! `loadgen report`: a run as a page, a picture and a table.

mod compare;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postrider_loadgen::report::{self, Measured, PAGE_FILE};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder of the run, with run.json and run.hlog.
    #[arg(required = true)]
    run: Option<PathBuf>,
    /// Where the page goes, if not to run.html in the folder; the picture goes beside it, as .svg.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what changed from one folder of runs to another, and how sure that is.
    Compare(compare::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match (&arguments.command, &arguments.run) {
        (Some(Command::Compare(arguments)), _) => compare::run(arguments),
        (None, run) => {
            let folder = run.as_deref().context("name the folder of a run")?;
            let run = Measured::read(folder)?;
            let page = arguments.out.clone().unwrap_or_else(|| folder.join(PAGE_FILE));
            let picture = report::write_run(&run, &page)?;
            println!("{}", report::run_text(&run));
            println!("\n{}\n{}", page.display(), picture.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
