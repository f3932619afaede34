//! Which message is next, and when: one schedule shared by all threads of a source.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{SourcePlan, SourceProgress};
use crate::clock::{self, SECOND_NS};

/// How long sessions may wait for replies after a stop.
const STOP_GRACE_NS: u64 = 10 * SECOND_NS;

/// What the threads share: the schedule and the counters.
pub(super) struct Shared {
    start_ns: u64,
    end_ns: u64,
    first_sequence: u64,
    nanos_per_message: Option<f64>,
    next: AtomicU64,
    limit: AtomicU64,
    stopped: AtomicBool,
    stopped_at: AtomicU64,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) acknowledged: AtomicU64,
    pub(super) tempfailed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unacknowledged: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connection_losses: AtomicU64,
    pub(super) connect_failures: AtomicU64,
}

/// The answer to "what now?".
pub(super) enum Next {
    Message { sequence: u64, intended_ns: u64 },
    NotBefore(u64),
    Over,
}

impl Shared {
    pub(super) fn new(plan: &SourcePlan, start_ns: u64) -> Self {
        let span_ns = plan.duration.map_or(u64::MAX, clock::nanos);
        Self {
            start_ns,
            end_ns: start_ns.saturating_add(span_ns),
            first_sequence: plan.first_sequence,
            nanos_per_message: plan.rate.map(|rate| 1e9 / rate),
            next: AtomicU64::new(0),
            limit: AtomicU64::new(plan.messages.unwrap_or(u64::MAX)),
            stopped: AtomicBool::new(false),
            stopped_at: AtomicU64::new(u64::MAX),
            counters: Counters::default(),
        }
    }

    /// Takes the next message if its time has come.
    pub(super) fn take(&self, now: u64) -> Next {
        loop {
            let index = self.next.load(Relaxed);
            if self.is_over(now) {
                return Next::Over;
            }
            let intended_ns = match self.due(index) {
                Some(due) if due >= self.end_ns => return Next::Over,
                Some(due) if due > now => return Next::NotBefore(due),
                Some(due) => due,
                None => now,
            };
            let taken = self.next.compare_exchange_weak(index, index + 1, Relaxed, Relaxed);
            if taken.is_ok() {
                return Next::Message { sequence: self.first_sequence + index, intended_ns };
            }
        }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        self.stopped.load(Relaxed)
            || now >= self.end_ns
            || self.next.load(Relaxed) >= self.limit.load(Relaxed)
    }

    /// Lets one more message be offered, in place of one that is in doubt.
    pub(super) fn offer_another(&self) {
        // An unlimited run needs no replacement.
        let _unlimited = self.limit.fetch_update(Relaxed, Relaxed, |limit| limit.checked_add(1));
    }

    pub(super) fn stop(&self, now: u64) {
        self.stopped_at.fetch_min(now, Relaxed);
        self.stopped.store(true, Relaxed);
    }

    /// Says whether the time for replies after a stop has passed.
    pub(super) fn grace_is_over(&self, now: u64) -> bool {
        now >= self.stopped_at.load(Relaxed).saturating_add(STOP_GRACE_NS)
    }

    pub(super) fn start_ns(&self) -> u64 {
        self.start_ns
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.end_ns
    }

    pub(super) fn progress(&self) -> SourceProgress {
        let counters = &self.counters;
        SourceProgress {
            offered: self.next.load(Relaxed),
            acknowledged: counters.acknowledged.load(Relaxed),
            tempfailed: counters.tempfailed.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            unacknowledged: counters.unacknowledged.load(Relaxed),
            connections: counters.connections.load(Relaxed),
            connection_losses: counters.connection_losses.load(Relaxed),
            connect_failures: counters.connect_failures.load(Relaxed),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a schedule of years keeps its microseconds in a double"
    )]
    fn due(&self, index: u64) -> Option<u64> {
        let after = (index as f64 * self.nanos_per_message?) as u64;
        Some(self.start_ns.saturating_add(after))
    }
}
