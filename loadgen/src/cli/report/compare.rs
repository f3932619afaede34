//! `loadgen report compare`: two folders of runs, a table of what changed, and an exit code for gates.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use postrider_loadgen::report::compare::{Limit, Outcome, Side};
use postrider_loadgen::report::{self, COMPARISON_FILE, Comparison};

/// What a script hears when a limit cannot be judged: neither held nor passed.
const UNKNOWN: u8 = 2;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The runs before the change: a folder of runs, or one run.
    before: PathBuf,
    /// The runs after it.
    after: PathBuf,
    /// A change to fail at, like 'p99>+5%' or 'rate<-3%', of rate, p50, p99, p99.9 or cpu; may be given
    /// again. Ends with 1 if one is passed, and with 2 if the runs allow no verdict on it.
    #[arg(long, value_name = "CHANGE")]
    fail_if: Vec<Limit>,
    /// Where the page goes, if not to compare.html in the later folder; the picture goes beside it,
    /// as .svg.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let comparison = Comparison::new(Side::read(&arguments.before)?, Side::read(&arguments.after)?);
    let page = arguments.out.clone().unwrap_or_else(|| arguments.after.join(COMPARISON_FILE));
    let picture = report::write_comparison(&comparison, &page)?;
    println!("{}", report::comparison_text(&comparison));
    let outcomes: Vec<_> = arguments.fail_if.iter().map(|limit| limit.check(&comparison)).collect();
    for outcome in &outcomes {
        match outcome {
            Outcome::Held(text) => println!("held     {text}"),
            Outcome::Passed(text) => println!("FAILED   {text}"),
            Outcome::Unknown(text) => println!("UNKNOWN  {text}"),
        }
    }
    println!("{}\n{}", page.display(), picture.display());
    Ok(exit_code(&outcomes))
}

fn exit_code(outcomes: &[Outcome]) -> ExitCode {
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Passed(_))) {
        ExitCode::FAILURE
    } else if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_))) {
        ExitCode::from(UNKNOWN)
    } else {
        ExitCode::SUCCESS
    }
}
