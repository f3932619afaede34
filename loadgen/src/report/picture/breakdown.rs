//! What the time goes into: the phases of a message and of a connection, as parts of their sum.

use plotters::prelude::{Color as _, RGBColor, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{
    Area, BLUE, Drawing, GOLD, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, Painted, Picture, RED,
    TEAL, bold, font, placed, px,
};
use super::words;
use crate::clock;
use crate::report::{Measured, ReportError};

/// What a connection costs before its first message.
const OF_A_CONNECTION: [&str; 5] = ["connect", "banner", "tls", "ehlo", "auth"];
/// One after the other, from the intended start to the recipient's side.
const OF_A_MESSAGE: [&str; 8] =
    ["wait", "slip", "mail", "rcpt", "data", "dot", "queue", "delivery"];
/// Pipelined commands are answered in one flight, measured three times from its start.
const OF_A_PIPELINED_MESSAGE: [&str; 6] = ["wait", "slip", "data", "dot", "queue", "delivery"];
const COLOURS: [RGBColor; 8] = [MUTED, RED, PURPLE, GOLD, GREEN, BLUE, ORANGE, TEAL];

const LEFT: i32 = 166;
const RIGHT: i32 = 1060;
const BAR: i32 = 26;
const BARS_TOP: i32 = 52;
/// From one group of bars to the next.
const GROUP: i32 = 108;
/// A narrower part has no room for its figure.
const LABELLED_MIN: i32 = 58;

/// The phases of one thing, with their median and their 99 %.
struct Group {
    name: &'static str,
    parts: Vec<Part>,
}

struct Part {
    phase: &'static str,
    colour: RGBColor,
    median_ms: f64,
    p99_ms: f64,
}

pub(in crate::report) fn draw(run: &Measured) -> Result<Option<Drawing>, ReportError> {
    let of_message: &[_] =
        if run.manifest.load.pipelining { &OF_A_PIPELINED_MESSAGE } else { &OF_A_MESSAGE };
    let groups = [("a message", of_message), ("a connection", &OF_A_CONNECTION[..])]
        .map(|(name, phases)| Group { name, parts: parts(run, phases) });
    let groups: Vec<_> = groups.into_iter().filter(|group| !group.parts.is_empty()).collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let picture = Picture {
        id: "breakdown",
        title: "What the time goes into".to_owned(),
        about: groups.iter().map(Group::about).collect::<Vec<_>>().join(" "),
        height: u32::try_from(BARS_TOP + GROUP * i32::try_from(groups.len()).unwrap_or(2))
            .unwrap_or(300),
    };
    picture.draw(|area| paint(area, &groups)).map(Some)
}

fn parts(run: &Measured, phases: &[&'static str]) -> Vec<Part> {
    let part = |(place, phase): (usize, &&'static str)| {
        let values = run.phase(phase)?;
        let at = |quantile| clock::seconds(values.value_at_quantile(quantile)) * 1e3;
        let colour = COLOURS[place % COLOURS.len()];
        Some(Part { phase, colour, median_ms: at(0.5), p99_ms: at(0.99) })
    };
    phases.iter().enumerate().filter_map(part).collect()
}

impl Group {
    fn about(&self) -> String {
        let told = |part: &Part| {
            let (median, p99) = (words::latency(part.median_ms), words::latency(part.p99_ms));
            format!("{} median {median}, 99 % {p99}", part.phase)
        };
        let parts: Vec<_> = self.parts.iter().map(told).collect();
        format!("Of {}: {}.", self.name, parts.join("; "))
    }
}

fn paint(area: &Area<'_>, groups: &[Group]) -> Painted {
    let title = placed(bold(14, INK), HPos::Left, VPos::Top);
    write(area, "What the time goes into", (0, 12), title)?;
    let mut top = BARS_TOP;
    for group in groups {
        paint_key(area, group, top)?;
        paint_bar(area, group, "median", |part| part.median_ms, top + 22)?;
        paint_bar(area, group, "99 %", |part| part.p99_ms, top + 22 + BAR + 6)?;
        top += GROUP;
    }
    Ok(())
}

/// The names of the phases with their colours, in the order of the bars.
fn paint_key(area: &Area<'_>, group: &Group, top: i32) -> Painted {
    let heading = placed(font(13, INK), HPos::Left, VPos::Center);
    write(area, &format!("of {}", group.name), (0, top + 8), heading)?;
    let mut left = LEFT;
    for part in &group.parts {
        let corners = [(px(left), px(top + 2)), (px(left + 12), px(top + 14))];
        area.draw(&Rectangle::new(corners, part.colour.filled()))?;
        let style = placed(font(12, INK), HPos::Left, VPos::Center);
        write(area, part.phase, (left + 17, top + 8), style)?;
        left += 96;
    }
    Ok(())
}

fn paint_bar(
    area: &Area<'_>,
    group: &Group,
    name: &str,
    latency: impl Fn(&Part) -> f64,
    top: i32,
) -> Painted {
    let sum: f64 = group.parts.iter().map(&latency).sum();
    let label = format!("{name}, sum {}", words::latency(sum));
    let style = placed(font(12, MUTED), HPos::Right, VPos::Center);
    write(area, &label, (LEFT - 10, top + BAR / 2), style)?;
    let mut before = 0.0;
    for part in &group.parts {
        let ms = latency(part);
        let (left, right) = (edge(before, sum), edge(before + ms, sum));
        let corners = [(px(left), px(top)), (px(right), px(top + BAR))];
        area.draw(&Rectangle::new(corners, part.colour.filled()))?;
        if right - left >= LABELLED_MIN {
            let style = placed(font(12, PAPER), HPos::Center, VPos::Center);
            write(area, &words::latency(ms), ((left + right) / 2, top + BAR / 2), style)?;
        }
        before += ms;
    }
    Ok(())
}

fn edge(before: f64, sum: f64) -> i32 {
    let part = if sum > 0.0 { before / sum } else { 0.0 };
    let across = words::index(part * f64::from(RIGHT - LEFT));
    LEFT + i32::try_from(across).unwrap_or(0).min(RIGHT - LEFT)
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: plotters::prelude::TextStyle<'static>,
) -> Painted {
    area.draw(&Text::new(text.to_owned(), (px(at.0), px(at.1)), style))?;
    Ok(())
}
