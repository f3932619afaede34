//! Connections, rate and refusals over time, ours and Postfix's in one picture (SVG, no fonts needed).

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::receiver::outage::Outages;
use super::scenario::Scenario;
use super::tally::{Second, Tally};

const SIZE: (u32, u32) = (1120, 960);
const HEAD: u32 = 96;
/// Where the legend's third entry begins.
const LIMIT_LEFT: i32 = 440;
/// Points of a line: more would not be seen.
const POINTS: usize = 360;

const FONT: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";
const OURS: RGBColor = RGBColor(0, 102, 180);
const THEIRS: RGBColor = RGBColor(214, 96, 0);
const LIMIT: RGBColor = RGBColor(20, 20, 20);
const INK: RGBColor = RGBColor(50, 50, 50);
const GRID: RGBColor = RGBColor(228, 228, 228);
const AWAY: RGBColor = RGBColor(238, 238, 238);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Points = Vec<(f64, f64)>;

/// One of the three panels.
struct Panel {
    what: &'static str,
    ours: Points,
    theirs: Points,
    limit: Points,
    is_last: bool,
}

/// The time that is drawn.
struct View {
    seconds: Range<usize>,
    /// Seconds of one unit of the axis, and its name.
    unit: (f64, &'static str),
}

pub(crate) fn draw(scenario: &Scenario, ours: &Tally, theirs: &Tally, file: &Path) -> Result<()> {
    let view = View::new(scenario, ours.seconds.len());
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    paint(&root, scenario, &view, ours, theirs).map_err(|error| anyhow!("{error}"))?;
    root.present().map_err(|error| anyhow!("{error}"))
}

type Painted = Result<(), Box<dyn std::error::Error>>;

fn paint(
    root: &Area<'_>,
    scenario: &Scenario,
    view: &View,
    ours: &Tally,
    theirs: &Tally,
) -> Painted {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(HEAD);
    title(&head, scenario)?;
    let panels = panels(view, &ours.seconds, &theirs.seconds);
    for (area, panel) in body.split_evenly((3, 1)).iter().zip(&panels) {
        draw_panel(area, scenario, view, panel)?;
    }
    Ok(())
}

impl View {
    fn new(scenario: &Scenario, run: usize) -> Self {
        let index = |at: Duration| usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(run);
        let seconds = index(scenario.view.0)..index(scenario.view.1);
        let unit = if seconds.len() > 3 * 3600 { (3600.0, "hours") } else { (60.0, "minutes") };
        Self { seconds, unit }
    }

    fn at(&self, second: usize) -> f64 {
        whole(second) / self.unit.0
    }

    fn axis(&self) -> Range<f64> {
        self.at(self.seconds.start)..self.at(self.seconds.end)
    }

    /// Means over as many seconds as make one point.
    fn means(&self, seconds: &[Second], value: impl Fn(&Second) -> f64) -> Points {
        let each = (self.seconds.len() / POINTS).max(1);
        let chosen = seconds.get(self.seconds.clone()).unwrap_or_default();
        let mean = |(number, part): (usize, &[Second])| {
            let sum: f64 = part.iter().map(&value).sum();
            (self.at(self.seconds.start + number * each), sum / whole(part.len()))
        };
        chosen.chunks(each).enumerate().map(mean).collect()
    }
}

fn panels(view: &View, ours: &[Second], theirs: &[Second]) -> [Panel; 3] {
    let panel = |what, value: fn(&Second) -> f64| Panel {
        what,
        ours: view.means(ours, value),
        theirs: view.means(theirs, value),
        limit: Points::new(),
        is_last: false,
    };
    // What the provider allows depends on it alone for all that are drawn with a limit.
    let connections =
        view.means(ours, |second| second.connections_allowed.map_or(f64::NAN, f64::from));
    [
        Panel { limit: connections, ..panel("open connections", |second| f64::from(second.open)) },
        Panel {
            limit: view.means(ours, |second| second.allowed),
            ..panel("delivered, messages/s", |second| f64::from(second.delivered))
        },
        Panel { is_last: true, ..panel("refused tries/s", |second| f64::from(second.refused)) },
    ]
}

fn title(area: &Area<'_>, scenario: &Scenario) -> Painted {
    let font = |size| (FONT, size).into_font().color(&INK);
    let text = format!("One site: {}", scenario.title);
    area.draw(&Text::new(text, (24, 12), font(22.0)))?;
    area.draw(&Text::new(scenario.setting(), (24, 42), font(14.0)))?;
    for (left, name, colour) in
        [(24, "postrider", OURS), (170, "Postfix, default settings", THEIRS)]
    {
        let line = vec![(left, 77), (left + 34, 77)];
        area.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        area.draw(&Text::new(name, (left + 42, 68), font(16.0)))?;
    }
    for dash in 0..3 {
        let left = LIMIT_LEFT + 13 * dash;
        let line = vec![(left, 77), (left + 8, 77)];
        area.draw(&PathElement::new(line, LIMIT.stroke_width(2)))?;
    }
    let name = "what the provider allows";
    area.draw(&Text::new(name, (LIMIT_LEFT + 42, 68), font(16.0)))?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, scenario: &Scenario, view: &View, panel: &Panel) -> Painted {
    let top = panel.top();
    let mut plane = ChartBuilder::on(area)
        .margin_left(8)
        .margin_right(26)
        .margin_top(8)
        .x_label_area_size(if panel.is_last { 48 } else { 22 })
        .y_label_area_size(62)
        .build_cartesian_2d(view.axis(), 0.0..top)?;
    shade(&mut plane, scenario, view, top)?;
    let style = |size| (FONT, size).into_font().color(&INK);
    let mut mesh = plane.configure_mesh();
    mesh.label_style(style(14.0)).axis_desc_style(style(15.0)).y_desc(panel.what);
    mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).axis_style(INK).y_labels(6);
    mesh.x_label_formatter(&tidy).y_label_formatter(&tidy).x_labels(13);
    let since = format!("{} since the start", view.unit.1);
    if panel.is_last {
        mesh.x_desc(since);
    }
    mesh.draw()?;
    drop(mesh);
    label_phases(&mut plane, scenario, view, panel)?;
    lines(&mut plane, panel, top)
}

fn lines(plane: &mut Plane<'_, '_>, panel: &Panel, top: f64) -> Painted {
    // Theirs below ours: where both are the same, ours shows.
    for (points, colour) in [(&panel.theirs, THEIRS), (&panel.ours, OURS)] {
        plane.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
    }
    for part in steps(&panel.limit, top) {
        let style = LIMIT.stroke_width(2);
        plane.draw_series(DashedLineSeries::new(part, 8, 5, style))?;
    }
    Ok(())
}

/// The limit in pieces, each level, for a rule changes at once; what is above the panel is left out.
fn steps(limit: &[(f64, f64)], top: f64) -> Vec<Points> {
    let same = |one: &(f64, f64), other: &(f64, f64)| (one.1 - other.1).abs() < f64::EPSILON;
    let pieces = limit.chunk_by(same).filter(|piece| piece[0].1 <= top && piece[0].1 > 0.0);
    let ends = |piece: &[(f64, f64)]| vec![piece[0], piece[piece.len() - 1]];
    pieces.filter(|piece| piece.len() > 1).map(ends).collect()
}

impl Panel {
    /// Room for both lines, and for the limit unless it is far above them.
    fn top(&self) -> f64 {
        let most = |points: &Points| points.iter().map(|point| point.1).fold(0.0, f64::max);
        let lines = most(&self.ours).max(most(&self.theirs)).max(0.5);
        let limit = most(&self.limit);
        let seen = if limit <= 2.0 * lines { limit.max(lines) } else { lines };
        seen * if self.limit.is_empty() { 1.08 } else { 1.2 }
    }
}

/// Times when the provider is away, in grey.
fn shade(plane: &mut Plane<'_, '_>, scenario: &Scenario, view: &View, top: f64) -> Painted {
    let (axis, edge) = (view.axis(), |at: Duration| at.as_secs_f64() / view.unit.0);
    let spans = scenario.away.iter().flat_map(Outages::spans);
    let spans = spans.map(|(from, to)| (edge(from), edge(to)));
    let seen = spans.take_while(|(from, _)| *from < axis.end).filter(|(_, to)| *to > axis.start);
    plane.draw_series(seen.map(|(from, to)| {
        let corners = [(from.max(axis.start), 0.0), (to.min(axis.end), top)];
        Rectangle::new(corners, AWAY.filled())
    }))?;
    Ok(())
}

/// The rules of a changing provider, each over its time, in the first panel.
fn label_phases(
    plane: &mut Plane<'_, '_>,
    scenario: &Scenario,
    view: &View,
    panel: &Panel,
) -> Painted {
    let top = panel.top();
    for phase in scenario.phases {
        let at = phase.from.as_secs_f64() / view.unit.0;
        let edge = PathElement::new(vec![(at, 0.0), (at, top)], INK.mix(0.35).stroke_width(1));
        plane.draw_series([edge])?;
        if panel.what.starts_with("open") {
            let place = Pos::new(HPos::Left, VPos::Top);
            let style = (FONT, 14.0).into_font().color(&INK).pos(place);
            plane.draw_series([Text::new(format!(" {}", phase.label), (at, top), style)])?;
        }
    }
    Ok(())
}

/// No more digits than it takes.
fn tidy(value: &f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A count of seconds as a number on an axis.
fn whole(count: usize) -> f64 {
    Duration::from_secs(u64::try_from(count).unwrap_or(0)).as_secs_f64()
}
