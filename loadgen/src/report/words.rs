//! Numbers and foreign text as a report shows them: units people read, no control characters.

use std::time::{Duration, UNIX_EPOCH};

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "a report needs seven digits, not nineteen")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// A length or an index as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "what is counted here are columns and points")]
pub(super) fn size(count: usize) -> f64 {
    count as f64
}

/// The whole part of a number, as an index; none below zero.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and so it should")]
#[expect(clippy::cast_sign_loss, reason = "the cast saturates, and so it should")]
pub(super) fn index(number: f64) -> usize {
    number as usize
}

/// Three digits and a unit: `850 µs`, `1.25 ms`, `12.4 s`.
pub(crate) fn latency(ms: f64) -> String {
    match ms {
        _ if ms < 0.9995 => format!("{} µs", three_digits(ms * 1e3)),
        _ if ms < 999.5 => format!("{} ms", three_digits(ms)),
        _ => format!("{} s", three_digits(ms / 1e3)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12,400/s`; below ten a second with a fraction.
pub(crate) fn rate(per_s: f64) -> String {
    if per_s < 9.95 { format!("{per_s:.2}/s") } else { format!("{}/s", rounded(per_s)) }
}

/// A large number without its fraction.
pub(crate) fn rounded(value: f64) -> String {
    count(u64::try_from(index(value.round())).unwrap_or(u64::MAX))
}

/// A change with its sign: `+5.2 %`.
pub(crate) fn change(ratio: f64) -> String {
    // Spaces that do not break.
    format!("{:+.1}\u{a0}%", (ratio - 1.0) * 100.0).replace('-', "\u{2212}")
}

/// A part of a whole: `12.5 %`.
pub(crate) fn share(part: f64) -> String {
    format!("{:.1}\u{a0}%", part * 100.0)
}

/// `23.4 GiB`.
pub(crate) fn memory(bytes: u64) -> String {
    format!("{:.1} GiB", number(bytes) / f64::from(1 << 30))
}

/// `2.5 s`, `3 min 20 s`, `1 h 5 min`.
pub(crate) fn span(seconds: f64) -> String {
    let whole = index(seconds.round());
    match whole {
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// A time of day and date; nothing for a number that is none.
pub(crate) fn moment(since_1970_s: f64) -> String {
    let since = Duration::try_from_secs_f64(since_1970_s).unwrap_or_default();
    // Beyond the year 9999 the format has no words.
    let since = since.min(Duration::from_secs(253_402_300_799));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

/// Text from outside with nothing in it that XML forbids, and no longer than asked.
pub(crate) fn printable(text: &str, chars_max: usize) -> String {
    let is_wild = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    let tame = |c: char| if is_wild(c) { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().map(tame).take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// A command as it can be typed again in a shell.
pub(crate) fn typed(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |word: &String| match word.is_empty() || !word.chars().all(plain) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word.clone(),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits_and_the_unit_that_fits() {
        let shown = [0.0421, 0.85, 0.99951, 1.25, 12.44, 999.4, 999.6, 12_400.0].map(latency);
        let wanted =
            ["42.1 µs", "850 µs", "1.00 ms", "1.25 ms", "12.4 ms", "999 ms", "1.00 s", "12.4 s"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.5, 9.99, 12_399.6].map(rate), ["0.50/s", "10/s", "12,400/s"]);
        assert_eq!(rounded(-3.0), "0");
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(change(1.052), "+5.2\u{a0}%");
        assert_eq!(change(0.9), "\u{2212}10.0\u{a0}%");
    }

    #[test]
    fn times_no_clock_shows_do_no_harm() {
        assert_eq!(moment(0.0), "Thu, 01 Jan 1970 00:00:00 GMT");
        for wild in [f64::NAN, f64::INFINITY, -1.0, 1e300, 1e18] {
            assert!(!moment(wild).is_empty());
        }
        assert_eq!([2.5, 200.0, 3900.0].map(span), ["2.5 s", "3 min 20 s", "1 h 5 min"]);
    }

    #[test]
    fn control_characters_and_long_texts_are_tamed() {
        assert_eq!(printable("a\u{0}b\u{1b}[31m", 20), "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(printable("grüße", 5), "grüße");
        assert_eq!(printable("grüße!", 5), "grüß…");
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["loadgen", "--require", "p99<50ms", "it's", ""].map(str::to_owned);
        assert_eq!(typed(&words), r"loadgen --require 'p99<50ms' 'it'\''s' ''");
    }
}
