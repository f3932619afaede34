//! What a sink tells: counters per host while it runs, latencies and the ledger at its end.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::SinkHost;
use super::host::HostCounters;
use super::standing::Standing;
use crate::clock;
use crate::latency::{self, Quantiles};
use crate::ledger::{ArrivalLedger, Repeats};
use crate::run::arrivals::Arrivals;

/// Caps told in a report: enough to see who does not keep them.
const CAPS_TOLD_MAX: usize = 1000;

/// The counts of one host.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct HostReport {
    pub name: String,
    pub address: String,
    /// Connections accepted by the system, those turned away with 421 among them.
    pub connections: u64,
    pub concurrent: u64,
    pub concurrent_max: u64,
    /// The same since the last [`super::Sink::mark_run`].
    pub concurrent_max_of_run: u64,
    /// Messages taken.
    pub messages: u64,
    /// Recipients of the messages taken.
    pub recipients: u64,
    pub replies_4xx: u64,
    pub replies_5xx: u64,
}

/// The counts of all hosts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkProgress {
    pub hosts: Vec<HostReport>,
    pub connections: u64,
    pub concurrent: u64,
    pub messages: u64,
    pub recipients: u64,
    pub replies_4xx: u64,
    pub replies_5xx: u64,
    /// Since the last message, or `None` before the first.
    pub idle_for: Option<Duration>,
}

impl SinkProgress {
    pub(super) fn new(hosts: &[SinkHost], counters: &[HostCounters]) -> Self {
        let hosts: Vec<_> = hosts
            .iter()
            .zip(counters)
            .map(|(host, counters)| host_report(host, counters))
            .collect();
        let last = counters.iter().map(|host| host.last_message_ns.load(Relaxed)).max();
        let sum = |count: fn(&HostReport) -> u64| hosts.iter().map(count).sum();
        Self {
            connections: sum(|host| host.connections),
            concurrent: sum(|host| host.concurrent),
            messages: sum(|host| host.messages),
            recipients: sum(|host| host.recipients),
            replies_4xx: sum(|host| host.replies_4xx),
            replies_5xx: sum(|host| host.replies_5xx),
            idle_for: last
                .filter(|last| *last > 0)
                .map(|last| Duration::from_nanos(clock::now_ns().saturating_sub(last))),
            hosts,
        }
    }
}

/// The end of a run, as the sink saw it.
pub struct SinkReport {
    pub hosts: Vec<HostReport>,
    pub totals: SinkProgress,
    /// Corrupted, unmarked, foreign and smuggled are counted in here as well.
    pub arrivals: ArrivalLedger,
    /// Arrivals beyond the first, by the run (see [`super::Sink::mark_run`]) of the one before.
    pub repeats: Repeats,
    /// Intended start at the source to arrival of the final dot, in nanoseconds.
    pub end_to_end: Histogram<u64>,
    pub cpu_seconds: f64,
    /// Hosts, groups of them and recipient domains whose cap was passed, with what was seen.
    pub caps_broken: Vec<String>,
    /// Threads that did not end well: the report is not complete.
    pub failures: Vec<String>,
}

impl SinkReport {
    pub(super) fn new(total: ThreadReport, totals: SinkProgress) -> Self {
        Self {
            hosts: totals.hosts.clone(),
            totals,
            arrivals: total.ledger,
            repeats: total.repeats,
            end_to_end: total.end_to_end,
            cpu_seconds: clock::seconds(total.cpu_ns),
            caps_broken: caps_broken(&total.standings),
            failures: total.failures,
        }
    }

    /// The report without the ledger, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "totals": self.totals,
            "end_to_end": Quantiles::of(&self.end_to_end),
            "cpu_s": self.cpu_seconds,
            "corrupted": self.arrivals.corrupted,
            "unmarked": self.arrivals.unmarked,
            "foreign": self.arrivals.foreign,
            "smuggled": self.arrivals.smuggled,
            "explanations": self.arrivals.explanations,
            "caps_broken": self.caps_broken,
            "failures": self.failures,
        })
    }

    /// Whether every thread ended well and every cap was kept.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.caps_broken.is_empty()
    }
}

/// A memory that several hosts share tells once.
fn caps_broken(standings: &[Standing]) -> Vec<String> {
    let mut broken: Vec<_> =
        standings.iter().flat_map(|standing| standing.lock().watch.take_broken()).collect();
    let more = broken.len().saturating_sub(CAPS_TOLD_MAX);
    broken.truncate(CAPS_TOLD_MAX);
    if more > 0 {
        broken.push(format!("and {more} caps more"));
    }
    broken
}

fn host_report(host: &SinkHost, counters: &HostCounters) -> HostReport {
    HostReport {
        name: host.name.clone(),
        address: host.address.to_string(),
        connections: counters.connections.load(Relaxed),
        concurrent: counters.concurrent.load(Relaxed),
        concurrent_max: counters.concurrent_max.load(Relaxed),
        concurrent_max_of_run: counters.concurrent_max_of_run.load(Relaxed),
        messages: counters.messages.load(Relaxed),
        recipients: counters.recipients.load(Relaxed),
        replies_4xx: counters.replies_4xx.load(Relaxed),
        replies_5xx: counters.replies_5xx.load(Relaxed),
    }
}

/// What one thread has recorded; the sum over threads is the report.
pub(super) struct ThreadReport {
    pub(super) ledger: ArrivalLedger,
    pub(super) repeats: Repeats,
    pub(super) end_to_end: Histogram<u64>,
    pub(super) cpu_ns: u64,
    pub(super) standings: Vec<Standing>,
    /// In a run that is recorded.
    pub(super) arrivals: Option<Arrivals>,
    failures: Vec<String>,
}

impl ThreadReport {
    pub(super) fn new() -> Self {
        Self {
            ledger: ArrivalLedger::default(),
            repeats: Repeats::default(),
            end_to_end: latency::histogram(),
            cpu_ns: 0,
            standings: Vec::new(),
            arrivals: None,
            failures: Vec::new(),
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.ledger.merge(&other.ledger);
        self.repeats.merge(&other.repeats);
        self.end_to_end.add(&other.end_to_end).expect("all threads have the same bounds");
        self.cpu_ns += other.cpu_ns;
        self.standings.extend(other.standings);
    }

    pub(super) fn fail(&mut self, text: String) {
        self.failures.push(text);
    }
}
