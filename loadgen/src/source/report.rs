//! What a source tells: counters while it runs, latencies and the ledger at its end.

use std::time::Duration;

use hashbrown::HashMap;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock;
use crate::latency::{self, Latencies, Phase, Quantiles};
use crate::ledger::AckLedger;
use crate::run::recorder::Recorder;

/// Different reply texts kept; later ones are counted together.
const ERROR_TEXTS_MAX: usize = 64;
/// Bytes kept of a reply text.
const ERROR_BYTES_MAX: usize = 200;

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
    /// The first line that the target said.
    pub banner: Option<String>,
}

impl SourceReport {
    pub(super) fn new(total: Total, sent: SourceProgress, start_ns: u64) -> Self {
        let elapsed = Duration::from_nanos(total.last_reply_ns.saturating_sub(start_ns));
        let mut errors: Vec<_> = total.errors.into_iter().collect();
        errors.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            acknowledged: total.ledger,
            sent,
            elapsed,
            rate: per_second(sent.acknowledged, elapsed),
            phases: by_phase(&total.latencies),
            cpu_seconds: clock::seconds(total.cpu_ns),
            errors,
            banner: total.banner,
        }
    }

    /// Puts in the latencies of a run whose threads handed them over under way.
    pub(crate) fn set_latencies(&mut self, latencies: &Latencies) {
        self.phases = by_phase(latencies);
    }

    pub fn phase(&self, wanted: Phase) -> &Histogram<u64> {
        &self.phases[wanted as usize].1
    }

    /// The report without the ledger, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let phases: serde_json::Map<_, _> = self
            .phases
            .iter()
            .filter(|(_, values)| !values.is_empty())
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

/// Every phase, those without a value as well.
fn by_phase(latencies: &Latencies) -> Vec<(Phase, Histogram<u64>)> {
    let values = |phase| latencies.get(phase).cloned().unwrap_or_else(latency::histogram);
    Phase::ALL.into_iter().map(|phase| (phase, values(phase))).collect()
}

/// What one thread has recorded.
pub(super) struct ThreadReport {
    pub(super) ledger: AckLedger,
    pub(super) last_reply_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) recorder: Recorder,
    /// What nobody collected, once the thread has ended.
    latencies: Latencies,
    pub(super) banner: Option<String>,
    errors: HashMap<String, u64>,
}

impl ThreadReport {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self {
            ledger: AckLedger::default(),
            last_reply_ns: 0,
            cpu_ns: 0,
            recorder,
            latencies: Latencies::default(),
            banner: None,
            errors: HashMap::new(),
        }
    }

    /// The last words of the thread, said on the thread: its processor time is read there.
    pub(super) fn close(mut self) -> Self {
        self.cpu_ns = clock::thread_cpu_ns();
        let recorder = std::mem::replace(&mut self.recorder, Recorder::alone());
        self.latencies = recorder.finish();
        self
    }

    pub(super) fn record(&mut self, phase: Phase, ns: u64) {
        self.recorder.record(phase, ns);
    }

    pub(super) fn note_banner(&mut self, text: &str) {
        let cut = text.floor_char_boundary(ERROR_BYTES_MAX);
        self.banner.get_or_insert_with(|| text[..cut].to_owned());
    }

    pub(super) fn note_error(&mut self, text: &str) {
        note(&mut self.errors, text);
    }
}

/// The sum over the threads.
#[derive(Default)]
pub(super) struct Total {
    ledger: AckLedger,
    last_reply_ns: u64,
    cpu_ns: u64,
    latencies: Latencies,
    banner: Option<String>,
    errors: HashMap<String, u64>,
}

impl Total {
    pub(super) fn add(&mut self, thread: ThreadReport) {
        self.ledger.merge(&thread.ledger);
        self.last_reply_ns = self.last_reply_ns.max(thread.last_reply_ns);
        self.cpu_ns += thread.cpu_ns;
        self.latencies.add(&thread.latencies);
        if self.banner.is_none() {
            self.banner = thread.banner;
        }
        for (text, count) in thread.errors {
            *self.errors.entry(text).or_insert(0) += count;
        }
    }

    pub(super) fn note_error(&mut self, text: &str) {
        note(&mut self.errors, text);
    }
}

fn note(errors: &mut HashMap<String, u64>, text: &str) {
    let cut = text.floor_char_boundary(ERROR_BYTES_MAX);
    if let Some(count) = errors.get_mut(&text[..cut]) {
        *count += 1;
    } else if errors.len() < ERROR_TEXTS_MAX {
        errors.insert(text[..cut].to_owned(), 1);
    } else {
        *errors.entry("(other texts)".to_owned()).or_insert(0) += 1;
    }
}
