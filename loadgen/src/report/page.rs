//! Pages for the browser: what stands on them, in the order in which it is read; the look is in `templates/`.
//!
//! The templates escape whatever they are given, pictures excepted, which [`super::picture`] has escaped.

mod comparison;
mod rows;

use askama::Template;

use self::rows::{PhaseRow, RequirementRow, Table};
use super::picture::{self, canvas};
use super::{Comparison, Measured, ReportError, words};
use crate::run::manifest::{LoadKind, Manifest};

const STYLE: &str = include_str!("../../templates/style.css");
/// Different texts of errors on the page; the manifest has all.
const ERRORS_MAX: usize = 60;
/// Characters of a reply, a reason or a setting on the page.
const TEXT_CHARS_MAX: usize = 400;
/// Reasons, caps and requirements on the page.
const LINES_MAX: usize = 40;

pub(super) fn of_run(run: &Measured) -> Result<String, ReportError> {
    Ok(RunPage::new(run)?.render()?)
}

pub(super) fn of_comparison(of: &Comparison) -> Result<String, ReportError> {
    Ok(comparison::ComparisonPage::new(of)?.render()?)
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    title: String,
    style: &'static str,
    dark: String,
    when: String,
    notices: Vec<Notice>,
    tiles: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
    phases: Vec<PhaseRow>,
    requirements: Vec<RequirementRow>,
    errors: Vec<(String, String)>,
    errors_left_out: usize,
    tables: Vec<Table>,
    command: String,
    program: &'static str,
}

/// A coloured box at the head of a page.
struct Notice {
    class: &'static str,
    head: &'static str,
    text: String,
    lines: Vec<String>,
}

/// A picture with a sentence on how to read it.
struct Figure {
    svg: String,
    caption: &'static str,
}

impl RunPage {
    fn new(run: &Measured) -> Result<Self, ReportError> {
        let manifest = &run.manifest;
        let figure = |drawing: canvas::Drawing| Figure {
            caption: caption(drawing.picture.id),
            svg: drawing.inline(),
        };
        Ok(Self {
            title: shown(&manifest.load.schedule),
            style: STYLE,
            dark: canvas::style(".picture "),
            when: words::moment(manifest.started),
            notices: notices(manifest),
            tiles: rows::tiles(run),
            figures: picture::gallery(run)?.into_iter().map(figure).collect(),
            phases: rows::phases(run),
            requirements: rows::requirements(manifest),
            errors: errors(manifest),
            errors_left_out: manifest.errors.len().saturating_sub(ERRORS_MAX),
            tables: rows::tables(manifest),
            command: words::printable(&words::typed(&manifest.command), 10 * TEXT_CHARS_MAX),
            program: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Foreign text as a page shows it.
fn shown(text: &str) -> String {
    words::printable(text, TEXT_CHARS_MAX)
}

fn lines(texts: &[String]) -> Vec<String> {
    texts.iter().take(LINES_MAX).map(|text| shown(text)).collect()
}

fn errors(manifest: &Manifest) -> Vec<(String, String)> {
    let shown = manifest.errors.iter().take(ERRORS_MAX);
    shown.map(|(text, count)| (self::shown(text), words::count(*count))).collect()
}

/// The verdict first, then what else a reader must know before the first figure.
fn notices(manifest: &Manifest) -> Vec<Notice> {
    let mut notices = vec![validity(manifest)];
    if manifest.load.kind == LoadKind::Saturation {
        notices.push(Notice {
            class: "warn",
            head: "Saturation: latencies are not comparable.",
            text: "Each session sent as soon as it was answered, so a slow target was asked less. \
                   The rate is what this run measures."
                .to_owned(),
            lines: Vec::new(),
        });
    }
    notices.extend(ledger_notice(manifest));
    let failed = manifest.requirements.iter().filter(|asked| !asked.held);
    let failed: Vec<_> = failed.map(|asked| format!("{}: {}", asked.text, asked.seen)).collect();
    if !failed.is_empty() {
        let head = "Requirements failed.";
        notices.push(Notice { class: "bad", head, text: String::new(), lines: lines(&failed) });
    }
    notices
}

fn validity(manifest: &Manifest) -> Notice {
    let honesty = &manifest.honesty;
    if !honesty.invalid.is_empty() {
        return Notice {
            class: "bad",
            head: "INVALID.",
            text: "The generator was the limit: this run says nothing of the target.".to_owned(),
            lines: lines(&honesty.invalid),
        };
    }
    let slip = words::latency(honesty.slip.p99_ms);
    let busiest = honesty.source_load.iter().chain(&honesty.sink_load).copied();
    let busiest = words::share(busiest.fold(0.0, f64::max));
    Notice {
        class: "good",
        head: "Valid.",
        text: format!(
            "The generator was not the limit: 99 % of messages were begun within {slip} of their time, \
             its busiest thread was busy for {busiest} of it."
        ),
        lines: Vec::new(),
    }
}

fn ledger_notice(manifest: &Manifest) -> Option<Notice> {
    let ledger = manifest.ledger.as_ref()?;
    let counts = [
        ("lost", ledger.lost),
        ("corrupted", ledger.corrupted),
        ("invented", ledger.invented),
        ("smuggled", ledger.smuggled),
    ];
    let bad = counts.iter().filter(|(_, count)| *count > 0);
    let mut told: Vec<_> =
        bad.map(|(what, count)| format!("{} recipients {what}", words::count(*count))).collect();
    told.extend(ledger.caps_broken.iter().map(|cap| format!("cap passed: {cap}")));
    let head = "The ledgers do not agree.";
    let notice = Notice { class: "bad", head, text: String::new(), lines: lines(&told) };
    (!told.is_empty()).then_some(notice)
}

fn caption(id: &str) -> &'static str {
    match id {
        "spectrum" => {
            "How long the slowest messages took: each step to the right leaves a tenth as many. \
             Latency counts from the intended start of a message, so waiting behind a slow answer is \
             in it. A red mark is a limit that was required. The last step is a single message."
        }
        "over-time" => {
            "Percentiles of each moment by the time at which messages were answered. \
             A gap is a time without an answer."
        }
        "heat-map" => {
            "Each column is a moment, each cell a latency; colours by the logarithm of the count. Two \
             bands are two kinds of messages, which percentiles alone do not show."
        }
        "sweep" => {
            "One point a level of load. Past the knee more is offered, and what comes back is waiting \
             instead of mail."
        }
        _ => {
            "Each bar is the sum of its parts. Percentiles do not add up: the slowest of one phase are \
             not the slowest of another, so a sum is not the percentile of the whole."
        }
    }
}
