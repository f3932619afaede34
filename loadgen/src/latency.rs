//! Latencies of one run: what is recorded, and how it reads in a report.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The smallest value told apart: a loopback round trip is ten times as long.
const LOWEST_NS: u64 = 1_000;
/// One hour: what takes longer is recorded as one hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds, from a microsecond to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
        .expect("the bounds are in order")
}

/// The figures of a histogram that a report shows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
        }
    }

    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

fn milliseconds(ns: u64) -> f64 {
    crate::clock::seconds(ns) * 1e3
}
