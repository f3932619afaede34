//! The page of a comparison: what differs besides, what changed, and the runs that say so.

use askama::Template;

use super::{Figure as Shown, Notice, STYLE};
use crate::report::compare::{
    Delta, Difference, Figure, P_MAX, REPEATS_MIN, Repeat, Standing, Verdict,
};
use crate::report::picture::{self, canvas};
use crate::report::{Comparison, ReportError, words};

#[derive(Template)]
#[template(path = "compare.html")]
pub(super) struct ComparisonPage<'a> {
    title: String,
    style: &'static str,
    dark: String,
    before: &'a str,
    after: &'a str,
    notices: Vec<Notice>,
    differences: &'a [Difference],
    deltas: Vec<DeltaRow>,
    method: String,
    figures: Vec<Shown>,
    runs: Vec<RunRow>,
    program: &'static str,
}

struct DeltaRow {
    name: &'static str,
    before: String,
    after: String,
    change: String,
    interval: String,
    p: String,
    class: &'static str,
    verdict: String,
}

struct RunRow {
    side: String,
    started: String,
    figures: Vec<String>,
}

impl<'a> ComparisonPage<'a> {
    pub(super) fn new(of: &'a Comparison) -> Result<Self, ReportError> {
        let figure = |drawing: canvas::Drawing| Shown {
            svg: drawing.inline(),
            caption: "Thin lines are single runs, thick ones all runs of a side together. \
                      Where the thin lines of both sides mix, there is no difference to see.",
        };
        Ok(Self {
            title: format!("{} against {}", of.after.name, of.before.name),
            style: STYLE,
            dark: canvas::style(".picture "),
            before: &of.before.name,
            after: &of.after.name,
            notices: notices(of),
            differences: &of.differences,
            deltas: of.deltas.iter().map(DeltaRow::of).collect(),
            method: method(),
            figures: picture::overlay(of)?.into_iter().map(figure).collect(),
            runs: runs(of),
            program: env!("CARGO_PKG_VERSION"),
        })
    }
}

fn method() -> String {
    format!(
        "Medians over runs. The interval is a percentile bootstrap of the ratio of medians, p a permutation \
         test on ranks, both seeded. A verdict needs {REPEATS_MIN} valid runs a side that took turns, an \
         interval without zero, and p of at most {P_MAX}. No difference seen is no proof that there is none."
    )
}

fn notices(of: &Comparison) -> Vec<Notice> {
    let (class, head) = match of.standing {
        Standing::Sound => ("good", "The runs can be compared."),
        _ => ("bad", "No verdict."),
    };
    let text = match of.standing {
        Standing::Sound => of.standing_text(),
        standing => standing.to_string(),
    };
    let mut notices = vec![Notice { class, head, text, lines: Vec::new() }];
    if of.is_saturation() {
        let head = "Saturation: latencies are not comparable.";
        notices.push(Notice { class: "warn", head, text: String::new(), lines: Vec::new() });
    }
    let left_out = of.before.left_out.iter().chain(&of.after.left_out);
    let lines: Vec<_> =
        left_out.map(|(run, reason)| format!("{run}: {}", super::shown(reason))).collect();
    if !lines.is_empty() {
        let head = "Invalid runs are left out.";
        notices.push(Notice { class: "warn", head, text: String::new(), lines });
    }
    notices
}

impl DeltaRow {
    fn of(delta: &Delta) -> Self {
        let interval = delta
            .interval
            .map(|(low, high)| format!("{} to {}", words::change(low), words::change(high)));
        Self {
            name: delta.figure.title(),
            before: value(delta.figure, delta.before),
            after: value(delta.figure, delta.after),
            change: words::change(delta.ratio),
            interval: interval.unwrap_or_default(),
            p: delta.p.map(|p| format!("{p:.3}")).unwrap_or_default(),
            class: match delta.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::NoDifferenceSeen | Verdict::None(_) => "none",
            },
            verdict: delta.verdict.to_string(),
        }
    }
}

/// A figure in its unit.
fn value(figure: Figure, value: f64) -> String {
    if figure == Figure::Rate { words::rate(value) } else { words::latency(value) }
}

/// All runs in the order of their starts, as they took turns.
fn runs(of: &Comparison) -> Vec<RunRow> {
    let sides = [&of.before, &of.after];
    let all = sides
        .into_iter()
        .flat_map(|side| side.repeats.iter().map(move |repeat| (side.name.as_str(), repeat)));
    let mut all: Vec<(&str, &Repeat)> = all.collect();
    all.sort_by(|one, other| one.1.manifest.started.total_cmp(&other.1.manifest.started));
    let row = |(side, repeat): (&str, &Repeat)| RunRow {
        side: side.to_owned(),
        started: words::moment(repeat.manifest.started),
        figures: Figure::ALL
            .map(|figure| figure.of(&repeat.manifest).map(|number| value(figure, number)))
            .map(Option::unwrap_or_default)
            .to_vec(),
    };
    all.into_iter().map(row).collect()
}
