//! `--require`: what a run must reach, so that a script can go by the exit code.

use std::fmt;
use std::str::FromStr;

use super::manifest::{Manifest, Requirement};
use crate::latency::{Latencies, Phase};
use crate::quantity;

/// One demand: `p99.9<50ms`, `e2e.p50<=5ms`, `lost=0`, `rate>=2000/s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    subject: Subject,
    comparison: Comparison,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Subject {
    /// In milliseconds; quantile 1 is the maximum.
    Latency {
        phase: Phase,
        quantile: f64,
    },
    /// Acknowledged messages per second.
    Rate,
    Count(Count),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

/// Counts of a manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    Lost,
    Duplicated,
    Corrupted,
    Invented,
    Smuggled,
    CapsBroken,
    Offered,
    Acknowledged,
    Tempfailed,
    Refused,
    Unacknowledged,
    Delivered,
    ConnectionLosses,
    ConnectFailures,
    Errors,
    Invalid,
}

impl Threshold {
    /// Holds it against a run.
    pub(super) fn judge(&self, manifest: &Manifest, latencies: &Latencies) -> Requirement {
        let (seen, held) = match self.subject.value(manifest, latencies) {
            None => (self.subject.absence().to_owned(), false),
            Some(value) => (self.subject.words(value), self.comparison.holds(value, self.bound)),
        };
        Requirement { text: self.text.clone(), seen, held }
    }
}

impl Subject {
    fn from_name(name: &str) -> Option<Self> {
        if name == "rate" {
            return Some(Self::Rate);
        }
        if let Some(count) = Count::from_name(name) {
            return Some(Self::Count(count));
        }
        let (phase, quantile) =
            match name.split_once('.').map(|(first, rest)| (Phase::from_name(first), rest)) {
                Some((Some(phase), quantile)) => (phase, quantile),
                _ => (Phase::Message, name),
            };
        let quantile = match quantile {
            "p50" => 0.5,
            "p90" => 0.9,
            "p99" => 0.99,
            "p99.9" => 0.999,
            "max" => 1.0,
            _ => return None,
        };
        Some(Self::Latency { phase, quantile })
    }

    fn parse_bound(self, text: &str) -> Result<f64, String> {
        match self {
            Self::Latency { .. } => quantity::parse_span(text).map(|span| span.as_secs_f64() * 1e3),
            Self::Rate => quantity::parse_rate(text),
            Self::Count(_) => {
                text.parse::<u32>().map(f64::from).map_err(|_| format!("{text:?} is no count"))
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a comparison needs seven digits")]
    fn value(self, manifest: &Manifest, latencies: &Latencies) -> Option<f64> {
        match self {
            Self::Latency { phase, quantile } => {
                let values = latencies.get(phase)?;
                Some(values.value_at_quantile(quantile) as f64 / 1e6)
            }
            Self::Rate => Some(manifest.totals.rate_per_s),
            Self::Count(count) => count.value(manifest).map(|count| count as f64),
        }
    }

    fn words(self, value: f64) -> String {
        match self {
            Self::Latency { .. } => format!("{value:.3} ms"),
            Self::Rate => format!("{value:.1}/s"),
            Self::Count(_) => format!("{value}"),
        }
    }

    /// Why there is no value.
    fn absence(self) -> &'static str {
        match self {
            Self::Latency { .. } => "nothing was recorded",
            Self::Rate | Self::Count(_) => "no sink took part",
        }
    }
}

impl Count {
    const NAMES: [(&str, Self); 16] = [
        ("lost", Self::Lost),
        ("duplicated", Self::Duplicated),
        ("corrupted", Self::Corrupted),
        ("invented", Self::Invented),
        ("smuggled", Self::Smuggled),
        ("caps-broken", Self::CapsBroken),
        ("offered", Self::Offered),
        ("acknowledged", Self::Acknowledged),
        ("tempfailed", Self::Tempfailed),
        ("refused", Self::Refused),
        ("unacknowledged", Self::Unacknowledged),
        ("delivered", Self::Delivered),
        ("connection-losses", Self::ConnectionLosses),
        ("connect-failures", Self::ConnectFailures),
        ("errors", Self::Errors),
        ("invalid", Self::Invalid),
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, count)| count)
    }

    fn value(self, manifest: &Manifest) -> Option<u64> {
        let (totals, ledger) = (&manifest.totals, manifest.ledger.as_ref());
        Some(match self {
            Self::Lost => ledger?.lost,
            Self::Duplicated => ledger?.duplicated,
            Self::Corrupted => ledger?.corrupted,
            Self::Invented => ledger?.invented,
            Self::Smuggled => ledger?.smuggled,
            Self::CapsBroken => ledger?.caps_broken.len() as u64,
            Self::Offered => totals.offered,
            Self::Acknowledged => totals.acknowledged,
            Self::Tempfailed => totals.tempfailed,
            Self::Refused => totals.refused,
            Self::Unacknowledged => totals.unacknowledged,
            Self::Delivered => ledger.map(|_| totals.delivered)?,
            Self::ConnectionLosses => totals.connection_losses,
            Self::ConnectFailures => totals.connect_failures,
            Self::Errors => manifest.errors.iter().map(|(_, count)| count).sum(),
            Self::Invalid => manifest.honesty.invalid.len() as u64,
        })
    }
}

impl Comparison {
    /// The longer signs first, since the shorter begin them.
    const SIGNS: [(&str, Self); 5] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        (">", Self::Above),
        ("=", Self::Equal),
    ];

    #[expect(clippy::float_cmp, reason = "counts are whole and small")]
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            Self::Equal => value == bound,
            Self::AtLeast => value >= bound,
            Self::Above => value > bound,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: &str| {
            format!("{text:?}: {reason}; p99.9<50ms, e2e.max<1s, lost=0, rate>=2000/s are some")
        };
        let at = text.find(['<', '>', '=']).ok_or_else(|| wrong("no comparison"))?;
        let (name, rest) = text.split_at(at);
        let (sign, comparison) = Comparison::SIGNS
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| wrong("no comparison"))?;
        let subject =
            Subject::from_name(name.trim()).ok_or_else(|| wrong("nothing of that name"))?;
        let bound =
            subject.parse_bound(rest[sign.len()..].trim()).map_err(|reason| wrong(&reason))?;
        Ok(Self { text: text.to_owned(), subject, comparison, bound })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::manifest::Ledger;

    fn judge(text: &str) -> (bool, String) {
        let mut manifest = crate::run::account::tests::manifest();
        manifest.totals.rate_per_s = 2000.5;
        manifest.ledger = Some(Ledger { duplicated: 2, ..Ledger::default() });
        manifest.honesty.invalid = vec!["slow".to_owned()];
        let mut latencies = Latencies::default();
        (0..1000).for_each(|_| latencies.record(Phase::Message, 4_000_000));
        latencies.record(Phase::Message, 60_000_000);
        latencies.record(Phase::EndToEnd, 9_000_000);
        let judged = text.parse::<Threshold>().unwrap().judge(&manifest, &latencies);
        (judged.held, judged.seen)
    }

    #[test]
    fn demands_hold_or_not_as_the_figures_say() {
        for held in [
            "p99.9<5ms",
            "message.p50<=5ms",
            "e2e.max<10ms",
            "max>50ms",
            "lost=0",
            "duplicated<=2",
            "rate>=2000/s",
            "rate<3k/s",
            "invalid=1",
        ] {
            assert!(judge(held).0, "{held}: {}", judge(held).1);
        }
        for broken in ["max<50ms", "duplicated=0", "rate>=2001/s", "invalid=0", "e2e.p50<1ms"] {
            assert!(!judge(broken).0, "{broken}");
        }
        assert_eq!(judge("queue.p99<1s"), (false, "nothing was recorded".to_owned()));
    }

    #[test]
    fn what_is_no_demand_is_refused() {
        for wrong in
            ["", "p99", "p98<5ms", "p99<5", "lost=none", "rate>=x", "dots.p50<1s", "lost!0"]
        {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong:?}");
        }
    }
}
