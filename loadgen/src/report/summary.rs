//! A report in the terminal: a dozen lines, the verdict first.

use super::compare::{Delta, Figure};
use super::{Comparison, Measured, words};
use crate::latency::Quantiles;
use crate::run::manifest::{LoadKind, Manifest};
use crate::run::read::PHASES;

/// Characters of a foreign text in a line.
const CHARS_MAX: usize = 100;
/// Errors, requirements and reasons that are printed; the page has more.
const LINES_MAX: usize = 8;

/// A run in short.
pub fn run_text(run: &Measured) -> String {
    let manifest = &run.manifest;
    let mut lines = verdict(manifest);
    let totals = &manifest.totals;
    lines.push(format!(
        "{}: {} of {} acknowledged in {}, {}",
        words::printable(&manifest.load.schedule, CHARS_MAX),
        words::count(totals.acknowledged),
        words::count(totals.offered),
        words::span(totals.elapsed_s),
        words::rate(totals.rate_per_s)
    ));
    lines.push(String::new());
    lines.push(latency_heading());
    lines.extend(PHASES.iter().filter_map(|phase| {
        run.phase(phase).map(|values| latency_row(phase, &Quantiles::of(values)))
    }));
    lines.extend(errors(manifest));
    lines.join("\n")
}

fn verdict(manifest: &Manifest) -> Vec<String> {
    let shown = |text: &String| format!("  {}", words::printable(text, CHARS_MAX));
    let mut lines = Vec::new();
    let reasons = &manifest.honesty.invalid;
    if reasons.is_empty() {
        lines.push("valid".to_owned());
    } else {
        lines.push("INVALID: the generator was the limit".to_owned());
        lines.extend(reasons.iter().take(LINES_MAX).map(shown));
    }
    if manifest.load.kind == LoadKind::Saturation {
        lines.push("saturation: latencies are not comparable".to_owned());
    }
    if let Some(ledger) = &manifest.ledger {
        lines.push(format!(
            "lost {}, duplicated {}, corrupted {}, invented {}, smuggled {}, caps passed {}",
            ledger.lost,
            ledger.duplicated,
            ledger.corrupted,
            ledger.invented,
            ledger.smuggled,
            ledger.caps_broken.len()
        ));
    }
    for asked in manifest.requirements.iter().take(LINES_MAX) {
        let (text, seen) =
            (words::printable(&asked.text, CHARS_MAX), words::printable(&asked.seen, CHARS_MAX));
        lines.push(format!("{} {text} ({seen})", if asked.held { "held  " } else { "FAILED" }));
    }
    lines
}

fn latency_heading() -> String {
    let columns = ["count", "p50", "p90", "p99", "p99.9", "max"];
    columns.iter().fold(format!("{:<10}", "phase"), |line, column| line + &format!("{column:>11}"))
}

fn latency_row(name: &str, q: &Quantiles) -> String {
    let latencies = [q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms].map(words::latency);
    let head = format!("{name:<10}{:>11}", words::count(q.count));
    latencies.iter().fold(head, |line, latency| line + &format!("{latency:>11}"))
}

fn errors(manifest: &Manifest) -> Vec<String> {
    let line = |(text, count): &(String, u64)| {
        format!("{:>10}  {}", words::count(*count), words::printable(text, CHARS_MAX))
    };
    let mut lines: Vec<_> = manifest.errors.iter().take(LINES_MAX).map(line).collect();
    if !lines.is_empty() {
        lines.splice(0..0, [String::new(), "    errors".to_owned()]);
    }
    lines
}

/// A comparison in short; what differs besides comes first.
pub fn comparison_text(of: &Comparison) -> String {
    let mut lines = Vec::new();
    if !of.differences.is_empty() {
        lines.push("what differs besides:".to_owned());
    }
    for difference in &of.differences {
        let (before, after) = (&difference.before, &difference.after);
        lines.push(format!("  {}: {before} -> {after}", difference.what));
    }
    for (run, reason) in of.before.left_out.iter().chain(&of.after.left_out) {
        let reason = words::printable(reason, CHARS_MAX);
        lines.push(format!("left out, invalid: {run} ({reason})"));
    }
    lines.push(of.standing_text());
    lines.push(format!(
        "\n{:<24}{:>12}{:>12}{:>10}{:>22}{:>8}  verdict",
        "median of runs", "before", "after", "change", "95 % interval", "p"
    ));
    lines.extend(of.deltas.iter().map(delta_row));
    lines.join("\n") + "\n"
}

fn delta_row(delta: &Delta) -> String {
    let value = |number| match delta.figure {
        Figure::Rate => words::rate(number),
        _ => words::latency(number),
    };
    let interval = delta
        .interval
        .map(|(low, high)| format!("{} to {}", words::change(low), words::change(high)));
    let p = delta.p.map(|p| format!("{p:.3}"));
    format!(
        "{:<24}{:>12}{:>12}{:>10}{:>22}{:>8}  {}",
        delta.figure.title(),
        value(delta.before),
        value(delta.after),
        words::change(delta.ratio),
        interval.unwrap_or_default(),
        p.unwrap_or_default(),
        delta.verdict
    )
}
