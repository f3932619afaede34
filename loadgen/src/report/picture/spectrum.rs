//! Latency by percentile, on an axis that gives every further nine as much room as the one before.

use hdrhistogram::Histogram;
use plotters::prelude::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{
    Area, BLUE, Drawing, FAINT_BLUE, FAINT_ORANGE, GREEN, ORANGE, PURPLE, Painted, Picture, RED,
    font, placed, px,
};
use super::plane::{Frame, Name, Plane, Points};
use super::scale::{Axis, log};
use super::words;
use crate::clock;
use crate::report::compare::Side;
use crate::report::measured::MAIN_PHASES;
use crate::report::{Comparison, Measured, ReportError};

/// Points on a stretch of one nine: more would not be seen.
const POINTS_PER_NINE: u32 = 40;
/// One message in ten million: no run has more.
const NINES_MAX: f64 = 7.0;
/// Single runs that are drawn behind the line of all.
const SINGLE_RUNS_MAX: usize = 12;

/// One line of the picture.
pub(in crate::report) struct Curve {
    /// Nothing for a line that only stands behind another.
    name: String,
    points: Points,
    colour: RGBColor,
    width: u32,
}

/// A limit that was asked for, at its percentile.
pub(in crate::report) struct Mark {
    nines: f64,
    limit_ms: f64,
    text: String,
}

pub(in crate::report) fn draw(run: &Measured) -> Result<Option<Drawing>, ReportError> {
    let curves = curves(run);
    if curves.is_empty() {
        return Ok(None);
    }
    let picture = Picture {
        id: "spectrum",
        title: "Latency by percentile".to_owned(),
        about: about(run),
        height: 400,
    };
    picture.draw(|area| paint(area, &curves, &marks(run))).map(Some)
}

fn about(run: &Measured) -> String {
    let told = |phase: &&str| {
        let values = run.phase(phase)?;
        let at = |quantile| words::latency(ms(values.value_at_quantile(quantile)));
        Some(format!("{phase}: median {}, 99 % {}, 99.9 % {}", at(0.5), at(0.99), at(0.999)))
    };
    MAIN_PHASES.iter().filter_map(told).collect::<Vec<_>>().join("; ")
}

/// The phases that a sender or a recipient feels.
pub(in crate::report) fn curves(run: &Measured) -> Vec<Curve> {
    let colours = [BLUE, GREEN, PURPLE];
    let curve = |(phase, colour): (&str, RGBColor)| {
        let points = points(run.phase(phase)?);
        Some(Curve { name: phase.to_owned(), points, colour, width: 5 })
    };
    MAIN_PHASES.into_iter().zip(colours).filter_map(curve).collect()
}

/// Each run of both sides thinly, and all of a side together.
pub(in crate::report) fn overlay(comparison: &Comparison) -> Vec<Curve> {
    let mut curves = Vec::new();
    let sides = [(&comparison.before, FAINT_ORANGE), (&comparison.after, FAINT_BLUE)];
    for (side, colour) in sides {
        let single = |run: &Histogram<u64>| Curve {
            name: String::new(),
            points: points(run),
            colour,
            width: 2,
        };
        curves.extend(side.distributions().take(SINGLE_RUNS_MAX).map(single));
    }
    for (side, colour) in [(&comparison.before, ORANGE), (&comparison.after, BLUE)] {
        curves.extend(pooled(side).map(|points| Curve {
            name: words::printable(&side.name, 16),
            points,
            colour,
            width: 5,
        }));
    }
    curves
}

fn pooled(side: &Side) -> Option<Points> {
    side.distributions().next()?;
    let mut sum = crate::latency::histogram();
    for run in side.distributions() {
        // Both have the bounds of `latency::histogram`.
        sum.add(run).ok()?;
    }
    Some(points(&sum))
}

/// As far to the right as there are messages for.
fn points(values: &Histogram<u64>) -> Points {
    let last = words::number(values.len().max(1)).log10().min(NINES_MAX);
    let step = f64::from(POINTS_PER_NINE).recip();
    let steps = 0..=words::index(last / step);
    let at = |nines: f64| {
        let quantile = 1.0 - 10f64.powf(-nines);
        (nines, log(ms(values.value_at_quantile(quantile))))
    };
    let mut points: Points = steps.map(|number| at(words::size(number) * step)).collect();
    points.push((last, log(ms(values.max()))));
    points
}

fn ms(ns: u64) -> f64 {
    clock::seconds(ns) * 1e3
}

/// What `--require` asked of percentiles.
pub(in crate::report) fn marks(run: &Measured) -> Vec<Mark> {
    run.manifest.requirements.iter().filter_map(|asked| mark(&asked.text)).collect()
}

/// Understands `p99.9<50ms`; a requirement of another kind has no place in this picture.
fn mark(text: &str) -> Option<Mark> {
    let (percentile, limit) = text.strip_prefix('p')?.split_once('<')?;
    let percentile: f64 = percentile.trim().parse().ok()?;
    let limit = limit.trim_start_matches('=').trim();
    let units = [("µs", 1e-3), ("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (digits, unit) =
        units.into_iter().find_map(|(unit, ms)| Some((limit.strip_suffix(unit)?, ms)))?;
    let limit_ms = digits.trim().parse::<f64>().ok()? * unit;
    let nines = -(1.0 - percentile / 100.0).log10();
    let is_drawable = nines.is_finite() && limit_ms.is_finite() && limit_ms > 0.0;
    let text = words::printable(text, 24);
    is_drawable.then_some(Mark { nines, limit_ms, text })
}

pub(in crate::report) fn paint(area: &Area<'_>, curves: &[Curve], marks: &[Mark]) -> Painted {
    let last = curves.iter().flat_map(|curve| &curve.points).map(|point| point.0);
    let across = Axis::nines(last.fold(1.0, f64::max));
    let seen: Vec<&Mark> = marks.iter().filter(|mark| mark.nines < across.range.end).collect();
    let logs = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let limits = seen.iter().map(|mark| mark.limit_ms);
    let up = Axis::latency(logs.map(|log| 10f64.powf(log)).chain(limits));
    let frame = Frame {
        title: "Latency by percentile",
        across: "percentile of messages, by 1/(1 − p)",
        right: 130,
    };
    let mut plane = Plane::new(area, &frame, &across, &up)?;
    for curve in curves {
        plane.path(curve.points.clone(), curve.colour, curve.width)?;
    }
    for mark in seen {
        paint_mark(&mut plane, mark)?;
    }
    let named = curves.iter().filter(|curve| !curve.name.is_empty());
    let name = |curve: &Curve| {
        let at = curve.points.last()?.1;
        Some(Name { text: curve.name.clone(), at, colour: curve.colour })
    };
    plane.name_lines(across.range.end, named.filter_map(name).collect())
}

/// A line at the limit, up to its percentile: there the curve must still be below.
fn paint_mark(plane: &mut Plane<'_>, mark: &Mark) -> Painted {
    let height = log(mark.limit_ms);
    plane.dashes(vec![(0.0, height), (mark.nines, height)], RED)?;
    plane.dots(&[(mark.nines, height)], RED)?;
    let (left, middle) = plane.place(0.0, height);
    let style = placed(font(12, RED), HPos::Left, VPos::Bottom);
    plane.write(&mark.text, (left + px(6), middle - px(4)), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_longest_latency_where_its_messages_end() {
        let mut values = crate::latency::histogram();
        for value in 1..=1000 {
            values.record(value * 1_000_000).unwrap();
        }
        let points = points(&values);
        let (nines, height) = points[points.len() - 1];
        assert!((nines - 3.0).abs() < 1e-9);
        assert!((height - 3.0).abs() < 0.01);
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }

    #[test]
    fn limits_of_percentiles_are_marked_and_no_others() {
        let mark = mark("p99.9<50ms").unwrap();
        assert!((mark.nines - 3.0).abs() < 1e-6 && (mark.limit_ms - 50.0).abs() < 1e-9);
        assert!((super::mark("p50 <= 800us").unwrap().limit_ms - 0.8).abs() < 1e-9);
        for other in ["lost=0", "rate>2000", "p<1ms", "p99<", "p100<1ms", "p99<-1ms", "p150<1s"] {
            assert!(super::mark(other).is_none(), "{other}");
        }
    }
}
