//! What `source` and `run` share: the flags of a measured run, its live figures, its report and its
//! exit code.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::latency::{Phase, Quantiles};
use postrider_loadgen::quantity::parse_span;
use postrider_loadgen::run::manifest::{LoadKind, Manifest, Step};
use postrider_loadgen::run::{Findings, Threshold};

/// Error texts shown in a report: the most frequent first.
const ERRORS_SHOWN_MAX: usize = 20;
/// The exit code of a run that says nothing of its target.
const INVALID: u8 = 2;

#[derive(Args)]
pub(crate) struct MeasureFlags {
    /// Keep the run in this folder: run.json and run.hlog, for `loadgen report`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// End with 1 unless this holds; may be given again: 'p99.9<50ms', 'e2e.max<1s', 'lost=0',
    /// 'rate>=2000/s'. Latencies are those of `message` (intended start to 250) unless a phase
    /// stands before them. A run that the generator limited ends with 2.
    #[arg(long, value_name = "DEMAND")]
    pub(crate) require: Vec<Threshold>,
    /// Write what became of each recipient to this file, for `loadgen compare`.
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// JSON lines instead of a screen: one a second, then the manifest. The rule where stdout is no
    /// terminal.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How long `run` waits for stragglers, unless told.
pub(crate) const SETTLE: &str = "60s";

#[derive(Args)]
pub(crate) struct SettleFlags {
    /// Wait so long for what was acknowledged and has not arrived: `60s`, or a number of seconds.
    #[arg(long, value_name = "SPAN", value_parser = parse_seconds, default_value = SETTLE)]
    pub(crate) settle: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => parse_span(text),
    }
}

/// 0 if all holds, 1 if a requirement does not, 2 if the run says nothing of its target.
pub(crate) fn exit_code(manifest: &Manifest) -> ExitCode {
    if !manifest.honesty.invalid.is_empty() {
        ExitCode::from(INVALID)
    } else if manifest.requirements.iter().any(|requirement| !requirement.held) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The end of a run, for people.
pub(crate) fn print_report(findings: &Findings) {
    let manifest = &findings.manifest;
    print_totals(manifest);
    println!();
    println!("{}", super::latency_heading());
    for phase in Phase::ALL {
        let name = phase.name();
        if let Some(quantiles) = manifest.phases.get(name) {
            println!("{}", super::quantiles_row(name, quantiles));
        }
    }
    if manifest.load.kind == LoadKind::Saturation {
        println!("(saturation: latencies are not comparable)");
    }
    if manifest.steps.len() > 1 {
        print_steps(&manifest.steps);
    }
    for (text, count) in manifest.errors.iter().take(ERRORS_SHOWN_MAX) {
        println!("{count:>10} × {text}");
    }
    if let Some((sink, verdict)) = &findings.sink {
        println!("\n{verdict}");
        sink.failures.iter().for_each(|text| println!("{text}"));
    }
    print_verdicts(manifest);
}

fn print_totals(manifest: &Manifest) {
    let (load, totals) = (&manifest.load, &manifest.totals);
    println!("{}, {} sessions, seed {}", load.schedule, load.sessions, load.seed);
    println!("offered          {:>12}", totals.offered);
    println!("acknowledged     {:>12}", totals.acknowledged);
    println!("tempfailed       {:>12}", totals.tempfailed);
    println!("refused          {:>12}", totals.refused);
    println!("unacknowledged   {:>12}", totals.unacknowledged);
    if manifest.ledger.is_some() {
        println!("delivered        {:>12}", totals.delivered);
    }
    println!("connections      {:>12}", totals.connections);
    println!("  lost           {:>12}", totals.connection_losses);
    println!("  failed         {:>12}", totals.connect_failures);
    println!("elapsed s        {:>12.3}", totals.elapsed_s);
    println!("rate per s       {:>12.1}", totals.rate_per_s);
    let honesty = &manifest.honesty;
    println!("source threads   {:>12}", percents(&honesty.source_load));
    if !honesty.sink_load.is_empty() {
        println!("sink threads     {:>12}", percents(&honesty.sink_load));
    }
    println!("pauses p99 ms    {:>12.3}", honesty.pauses.p99_ms);
}

fn percents(loads: &[f64]) -> String {
    let words: Vec<_> = loads.iter().map(|load| format!("{:.0} %", load * 100.0)).collect();
    words.join(", ")
}

fn print_steps(steps: &[Step]) {
    println!(
        "\n{:>10}{:>12}{:>12}{:>11}{:>11}",
        "from s", "offered/s", "achieved/s", "p50 ms", "p99 ms"
    );
    for step in steps {
        let Quantiles { p50_ms, p99_ms, .. } = step.message;
        let knee = if step.is_knee { "  the knee" } else { "" };
        let (offered, achieved) = (step.offered_per_s, step.achieved_per_s);
        let from = step.from_s;
        println!("{from:>10.1}{offered:>12.1}{achieved:>12.1}{p50_ms:>11.3}{p99_ms:>11.3}{knee}");
    }
}

fn print_verdicts(manifest: &Manifest) {
    for requirement in &manifest.requirements {
        let word = if requirement.held { "held  " } else { "BROKEN" };
        println!("{word} {} ({})", requirement.text, requirement.seen);
    }
    for reason in &manifest.honesty.invalid {
        println!("INVALID: {reason}");
    }
}
