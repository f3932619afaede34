//! A run as a report needs it: the manifest, whole distributions by phase, and how they went over time.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;

use super::words;
use crate::latency;
use crate::run::Manifest;
use crate::run::read::{self, Interval, ReadError};

/// The phases a sender or a recipient feels, the foremost first.
pub const MAIN_PHASES: [&str; 3] = ["message", "dot", "e2e"];
/// Columns of a picture over time: twice as many as are seen apart would not be seen better.
pub const COLUMNS_MAX: usize = 180;
/// The shortest stretch of time that has a column of its own.
const COLUMN_S: f64 = 1.0;
/// A column is a few pixels wide and 1 % of a latency less than one high.
const COLUMN_DIGITS: u8 = 2;

/// A run that has been read.
#[derive(Debug)]
pub struct Measured {
    pub manifest: Manifest,
    phases: BTreeMap<&'static str, Histogram<u64>>,
    series: BTreeMap<&'static str, Series>,
}

/// The latencies of one phase over time, in columns of equal width.
#[derive(Debug)]
pub struct Series {
    pub width_s: f64,
    pub columns: Vec<Histogram<u64>>,
}

impl Measured {
    /// Reads the folder of a run.
    pub fn read(folder: &Path) -> Result<Self, ReadError> {
        let manifest = read::manifest(folder)?;
        let mut run = Self { manifest, phases: BTreeMap::new(), series: BTreeMap::new() };
        read::intervals(folder, |interval| run.add(&interval))?;
        Ok(run)
    }

    fn add(&mut self, interval: &Interval) {
        let whole = self.phases.entry(interval.phase).or_insert_with(latency::histogram);
        merge(whole, &interval.latencies);
        if MAIN_PHASES.contains(&interval.phase) {
            self.series.entry(interval.phase).or_default().add(interval);
        }
    }

    /// What one phase took over the whole run, if anything of it was measured.
    pub fn phase(&self, name: &str) -> Option<&Histogram<u64>> {
        self.phases.get(name).filter(|latencies| !latencies.is_empty())
    }

    /// The foremost phase that was measured over time, with its name.
    pub fn main_series(&self) -> Option<(&'static str, &Series)> {
        let found = |name: &'static str| self.series.get(name).map(|series| (name, series));
        MAIN_PHASES.into_iter().find_map(found)
    }
}

impl Default for Series {
    fn default() -> Self {
        Self { width_s: COLUMN_S, columns: Vec::new() }
    }
}

impl Series {
    fn add(&mut self, interval: &Interval) {
        let middle = interval.start_s + interval.length_s / 2.0;
        while words::index(middle / self.width_s) >= COLUMNS_MAX {
            self.halve();
        }
        let column = words::index(middle / self.width_s);
        while self.columns.len() <= column {
            self.columns.push(empty_column());
        }
        merge(&mut self.columns[column], &interval.latencies);
    }

    /// Columns of twice the width: how long the run is shows only at its end.
    fn halve(&mut self) {
        self.width_s *= 2.0;
        let joined = self.columns.chunks(2).map(|pair| {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|other| merge(&mut sum, other));
            sum
        });
        self.columns = joined.collect();
    }

    pub fn length_s(&self) -> f64 {
        self.width_s * words::size(self.columns.len())
    }
}

fn empty_column() -> Histogram<u64> {
    let whole = latency::histogram();
    Histogram::new_with_bounds(whole.low(), whole.high(), COLUMN_DIGITS)
        .expect("these bounds hold with more digits")
}

/// Adds up, whatever range the other has: what is above ours counts as our highest.
fn merge(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    for value in part.iter_recorded() {
        let (latency, times) = (value.value_iterated_to(), value.count_since_last_iteration());
        sum.saturating_record_n(latency, times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(second: u32, ns: u64, times: u64) -> Interval {
        let mut latencies = latency::histogram();
        latencies.record_n(ns, times).unwrap();
        Interval { phase: "dot", start_s: f64::from(second), length_s: 1.0, latencies }
    }

    #[test]
    fn a_long_run_has_no_more_columns_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..3600 {
            series.add(&interval(second, 1_000_000, 2));
        }
        assert!(series.columns.len() <= COLUMNS_MAX && series.columns.len() > COLUMNS_MAX / 3);
        assert!((series.length_s() - 3600.0).abs() < series.width_s + 0.1);
        let total: u64 = series.columns.iter().map(Histogram::len).sum();
        assert_eq!(total, 7200);
        let full = words::index(2.0 * series.width_s);
        assert_eq!(series.columns[3].len(), u64::try_from(full).unwrap());
    }

    #[test]
    fn a_moment_without_mail_is_an_empty_column() {
        let mut series = Series::default();
        series.add(&interval(0, 1_000, 1));
        series.add(&interval(5, 1_000, 1));
        let lengths: Vec<_> = series.columns.iter().map(Histogram::len).collect();
        assert_eq!(lengths, [1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn histograms_of_other_ranges_are_taken_over() {
        let mut wide = Histogram::<u64>::new_with_bounds(1, 86_400_000_000_000, 3).unwrap();
        wide.record(80_000_000_000_000).unwrap();
        let mut sum = latency::histogram();
        merge(&mut sum, &wide);
        assert_eq!(sum.len(), 1);
        assert!(sum.max() >= sum.high());
    }
}
