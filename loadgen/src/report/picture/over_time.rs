//! How latency went over the run, and below it what was asked for and what was taken.

use hdrhistogram::Histogram;
use plotters::prelude::RGBColor;

use super::canvas::{
    Area, BLUE, Drawing, GREEN, GRID, INK, MUTED, ORANGE, PURPLE, Painted, Picture, RED, px,
};
use super::plane::{Frame, Name, Plane, Points};
use super::scale::{Axis, log};
use super::words;
use crate::clock;
use crate::report::measured::{COLUMNS_MAX, Series};
use crate::report::{Measured, ReportError};
use crate::run::manifest::Second;

const UPPER: u32 = 270;
const LINES: [(&str, f64, RGBColor); 4] =
    [("max", 1.0, MUTED), ("99.9 %", 0.999, PURPLE), ("99 %", 0.99, ORANGE), ("50 %", 0.5, BLUE)];

pub(in crate::report) fn draw(run: &Measured) -> Result<Option<Drawing>, ReportError> {
    if run.manifest.seconds.is_empty() && run.main_series().is_none() {
        return Ok(None);
    }
    let picture = Picture {
        id: "over-time",
        title: "Latency and rate over time".to_owned(),
        about: about(run),
        height: 470,
    };
    picture.draw(|area| paint(area, run)).map(Some)
}

fn about(run: &Measured) -> String {
    let seconds = &run.manifest.seconds;
    let taken: Vec<u64> = seconds.iter().map(|second| second.acknowledged).collect();
    let (least, most) = (taken.iter().min().unwrap_or(&0), taken.iter().max().unwrap_or(&0));
    format!(
        "Median, 99 %, 99.9 % and longest latency by time; acknowledged messages a second, from {} to {}.",
        words::count(*least),
        words::count(*most)
    )
}

pub(in crate::report) fn paint(area: &Area<'_>, run: &Measured) -> Painted {
    let (upper, lower) = area.split_vertically(px(UPPER));
    let times = run.manifest.seconds.iter().map(|second| second.at_s);
    let length = run.main_series().map_or(0.0, |(_, series)| series.length_s());
    // The last column may reach beyond the end of the run.
    let ends = times.fold(f64::NEG_INFINITY, f64::max);
    let across = Axis::time(if ends.is_finite() { ends } else { length });
    if let Some((phase, series)) = run.main_series() {
        paint_latencies(&upper, &across, phase, series)?;
    }
    paint_rates(&lower, &across, &run.manifest.seconds)
}

fn paint_latencies(area: &Area<'_>, across: &Axis, phase: &str, series: &Series) -> Painted {
    let all: Vec<_> = LINES
        .into_iter()
        .map(|(name, quantile, colour)| (name, pieces(series, quantile, across), colour))
        .collect();
    let logs = all.iter().flat_map(|(_, pieces, _)| pieces.iter().flatten());
    let up = Axis::latency(logs.map(|point| 10f64.powf(point.1)));
    let title = format!("Latency over time: {phase}");
    let frame = Frame { title: &title, across: "", right: 130 };
    let mut plane = Plane::new(area, &frame, across, &up)?;
    let mut names = Vec::new();
    for (name, pieces, colour) in all {
        let last = pieces.last().and_then(|piece| piece.last()).copied();
        names.extend(last.map(|(_, at)| Name { text: name.to_owned(), at, colour }));
        for piece in pieces {
            if let [lonely] = piece[..] {
                plane.dots(&[lonely], colour)?;
            }
            plane.path(piece, colour, if name == "max" { 2 } else { 4 })?;
        }
    }
    plane.name_lines(across.range.end, names)
}

/// The line in pieces: a time in which nothing was answered is a gap, and not a straight line.
fn pieces(series: &Series, quantile: f64, across: &Axis) -> Vec<Points> {
    let point = |(column, values): (usize, &Histogram<u64>)| {
        let middle = (words::size(column) + 0.5) * series.width_s;
        let latency = clock::seconds(values.value_at_quantile(quantile)) * 1e3;
        let is_seen = !values.is_empty() && middle <= across.range.end;
        is_seen.then(|| (middle, log(latency)))
    };
    let points: Vec<_> = series.columns.iter().enumerate().map(point).collect();
    let pieces = points.split(Option::is_none).filter(|piece| !piece.is_empty());
    pieces.map(|piece| piece.iter().copied().flatten().collect()).collect()
}

fn paint_rates(area: &Area<'_>, across: &Axis, seconds: &[Second]) -> Painted {
    let offered = rates(seconds, |second| second.offered);
    let taken = rates(seconds, |second| second.acknowledged);
    let delivered = rates(seconds, |second| second.delivered);
    let errors = rates(seconds, |second| second.errors);
    let all = [&offered, &taken, &delivered, &errors].into_iter().flatten();
    let up = Axis::rate(all.map(|point| point.1).fold(0.0, f64::max));
    let frame = Frame { title: "Messages a second", across: "since the start", right: 130 };
    let mut plane = Plane::new(area, &frame, across, &up)?;
    plane.surface(taken.clone(), GRID)?;
    let mut names = Vec::new();
    let lines = [
        ("offered", offered, INK, 2),
        ("delivered", delivered, GREEN, 3),
        ("errors", errors, RED, 3),
    ];
    for (name, points, colour, width) in lines {
        let is_flat = points.iter().all(|point| point.1 <= 0.0);
        if !is_flat && let Some((_, at)) = points.last().copied() {
            names.push(Name { text: name.to_owned(), at, colour });
            plane.path(points, colour, width)?;
        }
    }
    if let Some((_, at)) = taken.last().copied() {
        names.push(Name { text: "acknowledged".to_owned(), at, colour: BLUE });
        plane.path(taken, BLUE, 4)?;
    }
    plane.name_lines(across.range.end, names)
}

/// Means over as many seconds as make one column.
fn rates(seconds: &[Second], count: impl Fn(&Second) -> u64) -> Points {
    let each = seconds.len().div_ceil(COLUMNS_MAX).max(1);
    let mean = |part: &[Second]| {
        let sum: f64 = part.iter().map(|second| words::number(count(second))).sum();
        let middle: f64 = part.iter().map(|second| second.at_s - 0.5).sum();
        let parts = words::size(part.len());
        ((middle / parts).max(0.0), sum / parts)
    };
    seconds.chunks(each).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_no_more_points_than_a_picture_columns() {
        let second =
            |at: u32| Second { at_s: f64::from(at) + 1.0, acknowledged: 10, ..Second::default() };
        let seconds: Vec<_> = (0..3600).map(second).collect();
        let points = rates(&seconds, |second| second.acknowledged);
        assert!(points.len() <= COLUMNS_MAX);
        assert!(points.iter().all(|point| (point.1 - 10.0).abs() < 1e-9));
    }

    #[test]
    fn silence_is_a_gap() {
        let mut series = Series::default();
        for answered in [true, true, false, true] {
            let mut column = crate::latency::histogram();
            if answered {
                column.record(2_000_000).unwrap();
            }
            series.columns.push(column);
        }
        let lengths: Vec<_> = pieces(&series, 0.5, &Axis::time(4.0)).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1]);
    }
}
