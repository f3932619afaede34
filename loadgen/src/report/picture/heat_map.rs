//! Where the messages were: time across, latency up, darker where there were more.

use hdrhistogram::Histogram;
use plotters::prelude::RGBColor;
use plotters::style::text_anchor::{HPos, VPos};

use super::canvas::{Area, Drawing, HEAT, MUTED, Painted, Picture, font, placed, px};
use super::plane::{Frame, Plane};
use super::scale::{Axis, log};
use super::words;
use crate::clock;
use crate::report::measured::Series;
use crate::report::{Measured, ReportError};

/// Rows from the shortest to the longest latency. With [`super::super::measured::COLUMNS_MAX`] columns
/// no more than 8,640 boxes of a hundred bytes, and neighbours of one colour are one box.
const ROWS: usize = 48;

/// Counts by column and row, the lowest latencies first.
struct Cells {
    columns: Vec<[u64; ROWS]>,
    most: u64,
}

pub(in crate::report) fn draw(run: &Measured) -> Result<Option<Drawing>, ReportError> {
    let Some((phase, series)) = run.main_series() else { return Ok(None) };
    let picture = Picture {
        id: "heat-map",
        title: format!("Latencies by time: {phase}"),
        about: "How many messages had which latency when; the more, the darker.".to_owned(),
        height: 360,
    };
    picture.draw(|area| paint(area, phase, series)).map(Some)
}

fn paint(area: &Area<'_>, phase: &str, series: &Series) -> Painted {
    let full = series.columns.iter().filter(|column| !column.is_empty());
    let ends = full.flat_map(|column| [column.min(), column.max()]);
    let up = Axis::latency(ends.map(|ns| clock::seconds(ns) * 1e3));
    let across = Axis::time(series.length_s());
    let cells = Cells::count(series, &up);
    let title = format!("Where the messages were: {phase}");
    let frame = Frame { title: &title, across: "since the start", right: 130 };
    let mut plane = Plane::new(area, &frame, &across, &up)?;
    let row_height = (up.range.end - up.range.start) / words::size(ROWS);
    let boxes = cells.boxes().into_iter().map(|patch| {
        let left = words::size(patch.columns.0) * series.width_s;
        let right = words::size(patch.columns.1) * series.width_s;
        let bottom = up.range.start + words::size(patch.row) * row_height;
        ([(left, bottom + row_height), (right, bottom)], patch.colour)
    });
    plane.boxes(boxes)?;
    paint_key(area, cells.most)
}

/// A box of neighbours of one colour: columns from and to, and the row.
#[derive(Debug, PartialEq)]
struct Patch {
    columns: (usize, usize),
    row: usize,
    colour: RGBColor,
}

impl Cells {
    fn count(series: &Series, up: &Axis) -> Self {
        let columns: Vec<_> = series.columns.iter().map(|column| count_rows(column, up)).collect();
        let most = columns.iter().flatten().copied().max().unwrap_or(0);
        Self { columns, most }
    }

    fn boxes(&self) -> Vec<Patch> {
        (0..ROWS).flat_map(|row| self.row_boxes(row)).collect()
    }

    fn row_boxes(&self, row: usize) -> Vec<Patch> {
        let mut boxes: Vec<Patch> = Vec::new();
        for (column, rows) in self.columns.iter().enumerate() {
            let Some(colour) = self.colour(rows[row]) else { continue };
            match boxes.last_mut() {
                Some(last) if last.columns.1 == column && last.colour == colour => {
                    last.columns.1 = column + 1;
                }
                _ => boxes.push(Patch { columns: (column, column + 1), row, colour }),
            }
        }
        boxes
    }

    /// By the logarithm: one late message beside a thousand must be seen.
    fn colour(&self, count: u64) -> Option<RGBColor> {
        let most = words::number(self.most.max(1));
        let share = words::number(count).ln_1p() / most.ln_1p();
        let level = words::index(share * words::size(HEAT.len())).min(HEAT.len() - 1);
        (count > 0).then(|| HEAT[level])
    }
}

fn count_rows(column: &Histogram<u64>, up: &Axis) -> [u64; ROWS] {
    let mut rows = [0; ROWS];
    let height = up.range.end - up.range.start;
    for value in column.iter_recorded() {
        let latency = log(clock::seconds(value.value_iterated_to()) * 1e3);
        let part = (latency - up.range.start) / height;
        let row = words::index(part * words::size(ROWS)).min(ROWS - 1);
        rows[row] += value.count_since_last_iteration();
    }
    rows
}

/// What the colours mean.
fn paint_key(area: &Area<'_>, most: u64) -> Painted {
    let (width, _) = area.dim_in_pixel();
    let left = i32::try_from(width)? - px(112);
    for (level, colour) in HEAT.iter().rev().enumerate() {
        let top = px(56 + 18 * i32::try_from(level)?);
        let corners = [(left, top), (left + px(16), top + px(18))];
        area.draw(&plotters::prelude::Rectangle::new(
            corners,
            plotters::prelude::Color::filled(colour),
        ))?;
    }
    let bottom = 56 + 18 * i32::try_from(HEAT.len())? - 9;
    let named = [("messages".to_owned(), 44), (words::count(most), 65), ("1".to_owned(), bottom)];
    for (text, middle) in named {
        let style = placed(font(12, MUTED), HPos::Left, VPos::Center);
        let indent = if middle < 50 { 0 } else { px(24) };
        let label = plotters::prelude::Text::new(text, (left + indent, px(middle)), style);
        area.draw(&label)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_colour_are_one_box_and_gaps_stay_gaps() {
        let mut columns = vec![[0; ROWS]; 5];
        for column in [0, 1, 3] {
            columns[column][7] = 100;
        }
        let cells = Cells { columns, most: 100 };
        let spans: Vec<_> = cells.boxes().iter().map(|patch| (patch.columns, patch.row)).collect();
        assert_eq!(spans, [((0, 2), 7), ((3, 4), 7)]);
    }

    #[test]
    fn one_message_beside_a_million_is_seen() {
        let cells = Cells { columns: Vec::new(), most: 1_000_000 };
        assert_eq!(cells.colour(0), None);
        assert_eq!(cells.colour(1), Some(HEAT[0]));
        assert_eq!(cells.colour(1_000_000), Some(HEAT[7]));
    }

    #[test]
    fn every_message_is_in_a_row() {
        let mut column = crate::latency::histogram();
        for latency in [1_000, 1_000_000, 3_600_000_000_000] {
            column.record(latency).unwrap();
        }
        let rows = count_rows(&column, &Axis::latency([1.0, 10.0].into_iter()));
        assert_eq!(rows.iter().sum::<u64>(), 3);
    }
}
