//! Axes: what range is shown, and where on it a reader finds a number to hold on to.

use std::ops::Range;

use super::words;

/// Below this nothing is measured: a microsecond, in milliseconds.
const LEAST_MS: f64 = 1e-3;
/// A narrower view would make a mountain of every wobble.
const DECADES_MIN: f64 = 0.8;
/// Room above and below the data, in decades.
const ROOM: f64 = 0.06;
/// Steps of a linear axis, at most, and of one of time.
const STEPS_MAX: f64 = 7.0;
const TIME_STEPS_MAX: f64 = 10.0;
/// Percentiles that are named, with their number of nines: -log10(1 - p).
const PERCENTILES: [(f64, &str); 8] = [
    (0.0, "0 %"),
    (0.301, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
    (6.0, "99.9999 %"),
];

#[derive(Debug)]
pub(in crate::report) struct Axis {
    pub(in crate::report) range: Range<f64>,
    pub(in crate::report) ticks: Vec<(f64, String)>,
}

/// A latency on a logarithmic axis.
pub(in crate::report) fn log(ms: f64) -> f64 {
    ms.max(LEAST_MS).log10()
}

impl Axis {
    /// Logarithmic, for latencies in milliseconds.
    pub(in crate::report) fn latency(values_ms: impl Iterator<Item = f64>) -> Self {
        let logs = values_ms.filter(|value| value.is_finite()).map(log);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return Self::latency([0.1, 10.0].into_iter());
        }
        let lacking = (DECADES_MIN - (high - low)).max(0.0) / 2.0;
        let range = (low - lacking - ROOM)..(high + lacking + ROOM);
        Self { ticks: decade_ticks(&range), range }
    }

    /// The percentile axis, by the logarithm of 1/(1-p).
    pub(in crate::report) fn nines(most: f64) -> Self {
        let shown = most.clamp(1.0, 7.0);
        let ticks = PERCENTILES.into_iter().filter(|(nines, _)| *nines <= shown + 1e-9);
        Self { range: 0.0..shown, ticks: ticks.map(|(at, name)| (at, name.to_owned())).collect() }
    }

    /// Seconds since the start, named in a unit that fits.
    pub(in crate::report) fn time(length_s: f64) -> Self {
        let length = length_s.max(1.0);
        let (unit, name) = match length {
            _ if length <= 180.0 => (1.0, "s"),
            _ if length <= 3.0 * 3600.0 => (60.0, "min"),
            _ => (3600.0, "h"),
        };
        let step = round_step(length / unit / TIME_STEPS_MAX).max(1.0);
        let ticks = multiples(step, length / unit);
        let named = |at: f64| (at * unit, format!("{at:.0} {name}"));
        Self { range: 0.0..length, ticks: ticks.map(named).collect() }
    }

    /// A rate from nought.
    pub(in crate::report) fn rate(most_per_s: f64) -> Self {
        let most = if most_per_s.is_finite() { most_per_s.max(1.0) } else { 1.0 } * 1.1;
        let step = round_step(most / STEPS_MAX);
        let named = |at: f64| match at {
            _ if at >= 1.0 || at == 0.0 => (at, words::rounded(at)),
            _ => (at, format!("{at:.1}")),
        };
        Self { range: 0.0..most, ticks: multiples(step, most).map(named).collect() }
    }
}

/// As many of 1, 2 and 5 times a power of ten as there is room for.
fn decade_ticks(range: &Range<f64>) -> Vec<(f64, String)> {
    let factors: &[f64] = match range.end - range.start {
        decades if decades < 1.7 => &[1.0, 2.0, 5.0],
        decades if decades < 3.2 => &[1.0, 3.0],
        _ => &[1.0],
    };
    // From a microsecond to ten thousand seconds.
    let decades = (-3..=7).map(|power| 10f64.powi(power));
    let values = decades.flat_map(|decade| factors.iter().map(move |factor| factor * decade));
    let seen = values.filter(|value| range.contains(&value.log10()));
    seen.map(|value| (value.log10(), unit_only(value))).collect()
}

/// A round latency without digits it does not need: `2 ms`.
fn unit_only(ms: f64) -> String {
    match ms {
        _ if ms < 0.999 => format!("{:.0} µs", ms * 1e3),
        _ if ms < 999.0 => format!("{ms:.0} ms"),
        _ => format!("{:.0} s", ms / 1e3),
    }
}

/// 1, 2 or 5 times a power of ten, at least as much as asked.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.max(1e-9).log10().floor());
    let fits = |factor: &f64| factor * decade >= least * 0.999;
    [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0) * decade
}

fn multiples(step: f64, most: f64) -> impl Iterator<Item = f64> {
    // A step is at least a twentieth of the range.
    (0..20u8).map(move |number| f64::from(number) * step).take_while(move |at| *at <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn a_latency_axis_names_decades_and_more_where_there_is_room() {
        let axis = Axis::latency([0.05, 700.0].into_iter());
        assert_eq!(names(&axis), ["100 µs", "1 ms", "10 ms", "100 ms"]);
        let axis = Axis::latency([1.1, 1.2].into_iter());
        assert_eq!(names(&axis), ["500 µs", "1 ms", "2 ms"]);
        assert!(!Axis::latency([].into_iter()).ticks.is_empty());
        assert!(!Axis::latency([f64::NAN, f64::INFINITY].into_iter()).ticks.is_empty());
    }

    #[test]
    fn a_time_axis_has_a_unit_that_fits() {
        assert_eq!(names(&Axis::time(10.0)).len(), 11);
        assert_eq!(names(&Axis::time(60.0))[1], "10 s");
        assert_eq!(names(&Axis::time(3600.0))[1], "10 min");
        assert_eq!(names(&Axis::time(86_400.0))[1], "5 h");
        assert_eq!(names(&Axis::time(0.0)), ["0 s", "1 s"]);
    }

    #[test]
    fn a_rate_axis_begins_at_nought_and_holds_the_most() {
        let axis = Axis::rate(12_400.0);
        assert_eq!(names(&axis)[..2], ["0", "2,000"]);
        assert!(axis.range.end > 12_400.0);
        assert!(Axis::rate(f64::NAN).range.end >= 1.0);
    }
}
