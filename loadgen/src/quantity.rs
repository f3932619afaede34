//! Quantities of the command line: spans of time and rates, read and written for people.

use std::time::Duration;

/// Reads `50ms`, `1.5s`, `250us`, `2m` or `1h`.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: 50ms, 5s, 2m, 1h are some");
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, factor) = split_unit(text, &units).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

/// Reads `2000/s`, `20k/s`, `90/min` or a bare number of messages per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no rate: 2000/s, 20k/s, 90/min are some");
    let units = [("k/s", 1e3), ("/s", 1.0), ("/min", 1.0 / 60.0), ("/h", 1.0 / 3600.0)];
    let rate = match split_unit(text, &units) {
        Some((number, factor)) => number * factor,
        None => text.trim().parse().map_err(|_| wrong())?,
    };
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(wrong()) }
}

/// A span in the largest unit that keeps it whole.
pub fn write_span(span: Duration) -> String {
    let micros = span.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    let fits = |unit: &&(u128, &str)| micros >= unit.0 && micros.is_multiple_of(unit.0);
    match units.iter().find(fits) {
        Some((size, name)) => format!("{}{name}", micros / size),
        None => format!("{micros}us"),
    }
}

/// The longest unit at the end of `text`, and the number before it.
fn split_unit(text: &str, units: &[(&str, f64)]) -> Option<(f64, f64)> {
    let text = text.trim();
    let found = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        Some((number, *factor))
    });
    found.filter(|(number, _)| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_rates_read_as_written() {
        for text in ["50ms", "5s", "2m", "1h", "250us", "1500ms"] {
            assert_eq!(write_span(parse_span(text).unwrap()), text);
        }
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_rate("2000/s"), Ok(2000.0));
        assert_eq!(parse_rate("20k/s"), Ok(20_000.0));
        assert_eq!(parse_rate("90/min"), Ok(1.5));
        assert_eq!(parse_rate("7"), Ok(7.0));
        for wrong in ["", "s", "-1s", "5", "nan s", "infs"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
        assert!(
            parse_rate("0/s").is_err() && parse_rate("-3").is_err() && parse_rate("x").is_err()
        );
    }
}
