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

/// A stretch of time that is measured for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Start of the connect to its success.
    Connect,
    /// Connected to 220.
    Banner,
    Ehlo,
    /// STARTTLS to the end of the handshake.
    Tls,
    Auth,
    /// Flight with MAIL to its reply; in a pipelined session the same for `Rcpt` and `Data`.
    Mail,
    Rcpt,
    Data,
    /// Final dot, or the last chunk and what went in its flight, to 250.
    Dot,
    /// Intended start to 250: what a sender waits.
    Message,
    /// By how much the source itself was late: a session was free, and the message not begun.
    Slip,
    /// Intended start to a free session: the target's doing, and a part of `Message`.
    Wait,
    /// 250 at the source to MAIL at the sink; zero where MAIL came first.
    Queue,
    /// MAIL to the final dot, both at the sink.
    Delivery,
    /// Intended start to the final dot at the sink.
    #[serde(rename = "e2e")]
    EndToEnd,
}

impl Phase {
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Banner,
        Self::Ehlo,
        Self::Tls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
        Self::Message,
        Self::Slip,
        Self::Wait,
        Self::Queue,
        Self::Delivery,
        Self::EndToEnd,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
            Self::Message => "message",
            Self::Slip => "slip",
            Self::Wait => "wait",
            Self::Queue => "queue",
            Self::Delivery => "delivery",
            Self::EndToEnd => "e2e",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// A histogram per phase, made when its first value comes.
#[derive(Default, Clone)]
pub struct Latencies {
    by_phase: [Option<Box<Histogram<u64>>>; Phase::ALL.len()],
}

impl Latencies {
    pub fn record(&mut self, phase: Phase, ns: u64) {
        self.values_mut(phase).saturating_record(ns);
    }

    pub fn get(&self, phase: Phase) -> Option<&Histogram<u64>> {
        self.by_phase[phase as usize].as_deref().filter(|values| !values.is_empty())
    }

    pub fn add(&mut self, other: &Self) {
        for (phase, values) in other.iter() {
            self.values_mut(phase).add(values).expect("all phases have the same bounds");
        }
    }

    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        for values in self.by_phase.iter_mut().flatten().filter(|values| !values.is_empty()) {
            values.reset();
        }
    }

    /// The phases that have values.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, &Histogram<u64>)> {
        Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.get(phase)?)))
    }

    fn values_mut(&mut self, phase: Phase) -> &mut Histogram<u64> {
        self.by_phase[phase as usize].get_or_insert_with(|| Box::new(histogram()))
    }
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
        let max = histogram.max();
        // The end of the last bucket may lie behind the largest value.
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile).min(max));
        Self {
            count: histogram.len(),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(max),
        }
    }

    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

fn milliseconds(ns: u64) -> f64 {
    crate::clock::seconds(ns) * 1e3
}
