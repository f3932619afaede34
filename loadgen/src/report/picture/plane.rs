//! Two axes with their grid, and what is drawn between them: lines, their names at their ends.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{AXIS, Area, GRID, INK, MUTED, Painted, bold, font, placed, px, stroke};
use super::scale::Axis;

/// Between the names of two lines, from middle to middle.
const NAME_DISTANCE: i32 = 17;

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(in crate::report) type Points = Vec<(f64, f64)>;

/// What stands around the plane.
pub(in crate::report) struct Frame<'t> {
    pub(in crate::report) title: &'t str,
    /// What is across, named below the axis.
    pub(in crate::report) across: &'t str,
    /// Room for the names of lines, in pixels.
    pub(in crate::report) right: i32,
}

pub(in crate::report) struct Plane<'a> {
    area: Area<'a>,
    chart: Chart<'a>,
}

/// A line's name, where the line ends.
pub(in crate::report) struct Name {
    pub(in crate::report) text: String,
    pub(in crate::report) at: f64,
    pub(in crate::report) colour: RGBColor,
}

impl<'a> Plane<'a> {
    pub(in crate::report) fn new(
        area: &Area<'a>,
        frame: &Frame<'_>,
        across: &Axis,
        up: &Axis,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let below = if frame.across.is_empty() { 26 } else { 46 };
        let chart = ChartBuilder::on(area)
            .margin_left(px(66))
            .margin_right(px(frame.right))
            .margin_top(px(44))
            .margin_bottom(px(below))
            .build_cartesian_2d(across.range.clone(), up.range.clone())?;
        let mut plane = Self { area: area.clone(), chart };
        plane.draw_grid(across, up)?;
        plane.draw_titles(frame, across, up)?;
        Ok(plane)
    }

    fn draw_grid(&mut self, across: &Axis, up: &Axis) -> Painted {
        for (at, name) in &up.ticks {
            self.path(vec![(across.range.start, *at), (across.range.end, *at)], GRID, 2)?;
            let (left, middle) = self.place(across.range.start, *at);
            let style = placed(font(12, MUTED), HPos::Right, VPos::Center);
            self.write(name, (left - px(8), middle), style)?;
        }
        for (at, name) in &across.ticks {
            self.path(vec![(*at, up.range.start), (*at, up.range.end)], GRID, 2)?;
            let (middle, bottom) = self.place(*at, up.range.start);
            let style = placed(font(12, MUTED), HPos::Center, VPos::Top);
            self.write(name, (middle, bottom + px(7)), style)?;
        }
        self.path(
            vec![(across.range.start, up.range.start), (across.range.end, up.range.start)],
            AXIS,
            2,
        )
    }

    fn draw_titles(&self, frame: &Frame<'_>, across: &Axis, up: &Axis) -> Painted {
        let style = placed(bold(14, INK), HPos::Left, VPos::Top);
        self.write(frame.title, (0, px(12)), style)?;
        if !frame.across.is_empty() {
            let (right, bottom) = self.place(across.range.end, up.range.start);
            let style = placed(font(12, MUTED), HPos::Right, VPos::Top);
            self.write(frame.across, (right, bottom + px(26)), style)?;
        }
        Ok(())
    }

    /// Where a point is, in the library's units of the area.
    pub(in crate::report) fn place(&self, across: f64, up: f64) -> (i32, i32) {
        let (left, top) = self.area.get_base_pixel();
        let (x, y) = self.chart.backend_coord(&(across, up));
        (x - left, y - top)
    }

    /// Writes at a place that [`Self::place`] gave.
    pub(in crate::report) fn write(
        &self,
        text: &str,
        at: (i32, i32),
        style: TextStyle<'static>,
    ) -> Painted {
        self.area.draw(&Text::new(text.to_owned(), at, style))?;
        Ok(())
    }

    pub(in crate::report) fn path(
        &mut self,
        points: Points,
        colour: RGBColor,
        width: u32,
    ) -> Painted {
        self.chart.draw_series([PathElement::new(points, stroke(colour, width))])?;
        Ok(())
    }

    pub(in crate::report) fn dashes(&mut self, points: Points, colour: RGBColor) -> Painted {
        let dashed = DashedLineSeries::new(points, 10, 7, stroke(colour, 3));
        self.chart.draw_series(dashed)?;
        Ok(())
    }

    /// Everything below a line.
    pub(in crate::report) fn surface(&mut self, points: Points, colour: RGBColor) -> Painted {
        self.chart.draw_series(AreaSeries::new(points, 0.0, colour.filled()))?;
        Ok(())
    }

    pub(in crate::report) fn dots(&mut self, points: &[(f64, f64)], colour: RGBColor) -> Painted {
        let dot = |point: &(f64, f64)| Circle::new(*point, px(3), colour.filled());
        self.chart.draw_series(points.iter().map(dot))?;
        Ok(())
    }

    pub(in crate::report) fn boxes(
        &mut self,
        boxes: impl Iterator<Item = ([(f64, f64); 2], RGBColor)>,
    ) -> Painted {
        let filled = |(corners, colour): ([(f64, f64); 2], RGBColor)| {
            Rectangle::new(corners, colour.filled())
        };
        self.chart.draw_series(boxes.map(filled))?;
        Ok(())
    }

    /// Names lines at the right edge, pushed apart where they would cover each other.
    pub(in crate::report) fn name_lines(&self, right: f64, mut names: Vec<Name>) -> Painted {
        names.sort_by(|one, other| other.at.total_cmp(&one.at));
        let mut free_from = i32::MIN;
        for name in names {
            let (edge, middle) = self.place(right, name.at);
            let middle = middle.max(free_from);
            free_from = middle + px(NAME_DISTANCE);
            let style = placed(font(13, name.colour), HPos::Left, VPos::Center);
            self.write(&name.text, (edge + px(8), middle), style)?;
        }
        Ok(())
    }
}
