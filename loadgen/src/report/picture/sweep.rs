//! Latency against rate, level by level: flat, until the target has had enough.

use plotters::prelude::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Area, BLUE, Drawing, INK, ORANGE, PURPLE, Painted, Picture, font, placed, px};
use super::plane::{Frame, Name, Plane, Points};
use super::scale::{Axis, log};
use super::words;
use crate::latency::Quantiles;
use crate::report::{Measured, ReportError};
use crate::run::manifest::Step;

/// Levels of a sweep that are drawn, of more every n-th.
const STEPS_MAX: usize = 200;
type Line = (&'static str, fn(&Quantiles) -> f64, RGBColor);
const LINES: [Line; 3] = [
    ("99.9 %", |message| message.p999_ms, PURPLE),
    ("99 %", |message| message.p99_ms, ORANGE),
    ("50 %", |message| message.p50_ms, BLUE),
];

pub(in crate::report) fn draw(run: &Measured) -> Result<Option<Drawing>, ReportError> {
    let steps = shown(&run.manifest.steps);
    if steps.len() < 2 {
        return Ok(None);
    }
    let knee = steps.iter().find(|step| step.is_knee);
    let about = knee.map_or_else(
        || "Latency by achieved rate; no level at which it gave way.".to_owned(),
        |knee| {
            let (rate, p99) =
                (words::rate(knee.achieved_per_s), words::latency(knee.message.p99_ms));
            format!(
                "Latency by achieved rate; the last good level is {rate} with 99 % below {p99}."
            )
        },
    );
    let title = "Latency against rate".to_owned();
    let picture = Picture { id: "sweep", title, about, height: 380 };
    picture.draw(|area| paint(area, &steps)).map(Some)
}

/// Levels at which something was answered.
fn shown(steps: &[Step]) -> Vec<Step> {
    let each = steps.len().div_ceil(STEPS_MAX).max(1);
    let chosen = steps.iter().enumerate().filter(|(place, step)| place % each == 0 || step.is_knee);
    let answered = chosen.filter(|(_, step)| step.message.count > 0 && step.achieved_per_s > 0.0);
    answered.map(|(_, step)| *step).collect()
}

fn paint(area: &Area<'_>, steps: &[Step]) -> Painted {
    let across = Axis::rate(steps.iter().map(|step| step.achieved_per_s).fold(0.0, f64::max));
    let latencies = |step: &Step| LINES.map(|(_, latency, _)| latency(&step.message));
    let up = Axis::latency(steps.iter().flat_map(latencies));
    let frame = Frame {
        title: "Latency against rate",
        across: "acknowledged messages a second",
        right: 130,
    };
    let mut plane = Plane::new(area, &frame, &across, &up)?;
    if let Some(knee) = steps.iter().find(|step| step.is_knee) {
        paint_knee(&mut plane, knee, &up)?;
    }
    let mut names = Vec::new();
    for (name, latency, colour) in LINES {
        // In the order of time: past the knee the line may turn back.
        let point = |step: &Step| (step.achieved_per_s, log(latency(&step.message)));
        let points: Points = steps.iter().map(point).collect();
        let last = points[points.len() - 1];
        names.push(Name { text: name.to_owned(), at: last.1, colour });
        plane.dots(&points, colour)?;
        plane.path(points, colour, 4)?;
    }
    plane.name_lines(across.range.end, names)
}

fn paint_knee(plane: &mut Plane<'_>, knee: &Step, up: &Axis) -> Painted {
    let rate = knee.achieved_per_s;
    plane.dashes(vec![(rate, up.range.start), (rate, up.range.end)], INK)?;
    let (across, top) = plane.place(rate, up.range.end);
    let style = placed(font(13, INK), HPos::Center, VPos::Bottom);
    let text = format!("knee: {}, 99 % {}", words::rate(rate), words::latency(knee.message.p99_ms));
    plane.write(&text, (across, top - px(3)), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_drawn_however_many_levels_there_are() {
        let message = Quantiles {
            count: 5,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 2.0,
            p999_ms: 3.0,
            max_ms: 4.0,
        };
        let step = |number: u32| Step {
            from_s: 0.0,
            to_s: 1.0,
            offered_per_s: f64::from(number),
            achieved_per_s: f64::from(number),
            message,
            is_knee: number == 777,
        };
        let steps: Vec<_> = (1..=1000).map(step).collect();
        let shown = shown(&steps);
        assert!(shown.len() <= STEPS_MAX + 1);
        assert!(shown.iter().any(|step| step.is_knee));
    }
}
