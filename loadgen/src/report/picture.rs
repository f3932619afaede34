//! Pictures as SVG: one look for all, readable in light and in dark, with a title for those who cannot see.

pub(super) mod breakdown;
pub(super) mod canvas;
pub(super) mod heat_map;
pub(super) mod over_time;
pub(super) mod plane;
pub(super) mod scale;
pub(super) mod spectrum;
pub(super) mod sweep;

use self::canvas::{Drawing, INK, MUTED, Picture};
use super::{Comparison, Measured, ReportError, words};
use crate::run::manifest::LoadKind;

/// Characters of a caption that fit into the width of a picture.
const CAPTION_CHARS_MAX: usize = 150;

/// The picture of a run that stands alone, for a README: the spectrum, and the run over time below it.
pub(super) fn of_run(run: &Measured) -> Result<String, ReportError> {
    let manifest = &run.manifest;
    let title = format!("{} · {}", manifest.load.schedule, standing(run));
    let picture = Picture {
        id: "run",
        title: words::printable(&title, CAPTION_CHARS_MAX),
        about: "Latency by percentile, and latency and rate over the time of the run.".to_owned(),
        height: 900,
    };
    let drawing = picture.draw(|area| {
        let (head, body) = area.split_vertically(canvas::px(78));
        heading(&head, &title, &setting(run))?;
        let body = body.margin(0, 0, canvas::px(24), 0);
        let (upper, lower) = body.split_vertically(canvas::px(360));
        spectrum::paint(&upper, &spectrum::curves(run), &spectrum::marks(run))?;
        over_time::paint(&lower, run)
    })?;
    Ok(drawing.alone())
}

/// The overlay of two folders of runs that stands alone.
pub(super) fn of_comparison(comparison: &Comparison) -> Result<String, ReportError> {
    let title = format!("{} against {}", comparison.after.name, comparison.before.name);
    let picture = Picture {
        id: "comparison",
        title: words::printable(&title, CAPTION_CHARS_MAX),
        about: "Latency of messages by percentile, before and after, each run and all together."
            .to_owned(),
        height: 480,
    };
    let drawing = picture.draw(|area| {
        let (head, body) = area.split_vertically(canvas::px(78));
        heading(&head, &title, &comparison.standing_text())?;
        let body = body.margin(0, 0, canvas::px(24), 0);
        spectrum::paint(&body, &spectrum::overlay(comparison), &[])
    })?;
    Ok(drawing.alone())
}

fn standing(run: &Measured) -> String {
    let manifest = &run.manifest;
    let rate = words::rate(manifest.totals.rate_per_s);
    match manifest.load.kind {
        _ if !manifest.honesty.invalid.is_empty() => {
            "INVALID: the generator was the limit".to_owned()
        }
        LoadKind::Saturation => format!("{rate} at saturation, latencies not comparable"),
        LoadKind::OpenLoop => format!("{rate} acknowledged"),
    }
}

fn setting(run: &Measured) -> String {
    let (machine, load) = (&run.manifest.machine, &run.manifest.load);
    format!(
        "{} · {} cores · {} · {} sessions · {} bytes · {}",
        machine.processor,
        machine.cores,
        machine.kernel,
        load.sessions,
        load.sizes,
        words::moment(run.manifest.started)
    )
}

fn heading(area: &canvas::Area<'_>, title: &str, below: &str) -> canvas::Painted {
    let title = words::printable(title, CAPTION_CHARS_MAX / 2);
    canvas::text(area, &title, (24, 22), canvas::bold(20, INK))?;
    let below = words::printable(below, CAPTION_CHARS_MAX);
    canvas::text(area, &below, (24, 52), canvas::font(12, MUTED))
}

/// The pictures of a run's page, in the order in which they are read.
pub(super) fn gallery(run: &Measured) -> Result<Vec<Drawing>, ReportError> {
    let mut drawings = Vec::new();
    for draw in [spectrum::draw, over_time::draw, heat_map::draw, sweep::draw, breakdown::draw] {
        drawings.extend(draw(run)?);
    }
    Ok(drawings)
}

/// The picture of a comparison's page; none if nothing was measured.
pub(super) fn overlay(comparison: &Comparison) -> Result<Option<Drawing>, ReportError> {
    let curves = spectrum::overlay(comparison);
    if curves.is_empty() {
        return Ok(None);
    }
    let picture = Picture {
        id: "overlay",
        title: "Latency by percentile, before and after".to_owned(),
        about: format!("{} and {}", comparison.before.name, comparison.after.name),
        height: 420,
    };
    picture.draw(|area| spectrum::paint(area, &curves, &[])).map(Some)
}
