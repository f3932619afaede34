//! What a source tells: counters while it runs, latencies and the ledger at its end.

use std::time::Duration;

use hashbrown::HashMap;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock;
use crate::latency::{self, Quantiles};
use crate::ledger::AckLedger;

/// Different reply texts kept; later ones are counted together.
const ERROR_TEXTS_MAX: usize = 64;
/// Bytes kept of a reply text.
const ERROR_BYTES_MAX: usize = 200;

/// A stretch of time that is measured for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Start of the connect to its success.
    Connect,
    /// Connected to 220.
    Banner,
    Ehlo,
    /// Flight with MAIL to its reply; in a pipelined session the same for `Rcpt` and `Data`.
    Mail,
    Rcpt,
    Data,
    /// Final dot to 250.
    Dot,
    /// Intended start to 250: what a sender waits.
    Message,
    /// Intended start to actual start: a schedule the source could not keep.
    Slip,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Banner,
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
        Self::Message,
        Self::Slip,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
            Self::Message => "message",
            Self::Slip => "slip",
        }
    }
}

/// Counts of messages and connections so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SourceProgress {
    /// Messages begun.
    pub offered: u64,
    /// Messages with 250 to the final dot.
    pub acknowledged: u64,
    pub tempfailed: u64,
    pub refused: u64,
    /// Messages whose connection was lost before the reply to the final dot.
    pub unacknowledged: u64,
    /// Connections that came about.
    pub connections: u64,
    /// Connections that ended without our QUIT.
    pub connection_losses: u64,
    pub connect_failures: u64,
}

/// The end of a run, as the source saw it.
pub struct SourceReport {
    pub acknowledged: AckLedger,
    pub sent: SourceProgress,
    /// Start to the last acknowledgement.
    pub elapsed: Duration,
    /// Acknowledged messages per second of `elapsed`.
    pub rate: f64,
    /// Nanoseconds per [`Phase`], in the order of [`Phase::ALL`].
    pub phases: Vec<(Phase, Histogram<u64>)>,
    pub cpu_seconds: f64,
    /// Unwelcome replies and socket errors, most frequent first.
    pub errors: Vec<(String, u64)>,
}

impl SourceReport {
    pub(super) fn new(total: ThreadReport, sent: SourceProgress, start_ns: u64) -> Self {
        let elapsed = Duration::from_nanos(total.last_reply_ns.saturating_sub(start_ns));
        let mut errors: Vec<_> = total.errors.into_iter().collect();
        errors.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            acknowledged: total.ledger,
            sent,
            elapsed,
            rate: per_second(sent.acknowledged, elapsed),
            phases: Phase::ALL.into_iter().zip(total.phases).collect(),
            cpu_seconds: clock::seconds(total.cpu_ns),
            errors,
        }
    }

    pub fn phase(&self, wanted: Phase) -> &Histogram<u64> {
        &self.phases[wanted as usize].1
    }

    /// The report without the ledger, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let phases: serde_json::Map<_, _> = self
            .phases
            .iter()
            .map(|(phase, values)| (phase.name().to_owned(), Quantiles::of(values).to_json()))
            .collect();
        serde_json::json!({
            "sent": self.sent,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "rate_per_s": self.rate,
            "cpu_s": self.cpu_seconds,
            "phases": phases,
            "errors": self.errors,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs seven digits")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// What one thread has recorded; the sum over threads is the report.
pub(super) struct ThreadReport {
    pub(super) ledger: AckLedger,
    pub(super) last_reply_ns: u64,
    pub(super) cpu_ns: u64,
    phases: [Histogram<u64>; Phase::ALL.len()],
    errors: HashMap<String, u64>,
}

impl ThreadReport {
    pub(super) fn new() -> Self {
        Self {
            ledger: AckLedger::default(),
            last_reply_ns: 0,
            cpu_ns: 0,
            phases: std::array::from_fn(|_| latency::histogram()),
            errors: HashMap::new(),
        }
    }

    pub(super) fn record(&mut self, phase: Phase, ns: u64) {
        self.phases[phase as usize].saturating_record(ns);
    }

    pub(super) fn note_error(&mut self, text: &str) {
        let cut = text.floor_char_boundary(ERROR_BYTES_MAX);
        if let Some(count) = self.errors.get_mut(&text[..cut]) {
            *count += 1;
        } else if self.errors.len() < ERROR_TEXTS_MAX {
            self.errors.insert(text[..cut].to_owned(), 1);
        } else {
            *self.errors.entry("(other texts)".to_owned()).or_insert(0) += 1;
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.ledger.merge(&other.ledger);
        self.last_reply_ns = self.last_reply_ns.max(other.last_reply_ns);
        self.cpu_ns += other.cpu_ns;
        for (sum, values) in self.phases.iter_mut().zip(&other.phases) {
            sum.add(values).expect("all phases have the same bounds");
        }
        for (text, count) in other.errors {
            *self.errors.entry(text).or_insert(0) += count;
        }
    }
}
