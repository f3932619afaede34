//! The counters of one host: written by its thread, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(super) struct HostCounters {
    pub(super) connections: AtomicU64,
    pub(super) concurrent: AtomicU64,
    pub(super) concurrent_max: AtomicU64,
    pub(super) concurrent_max_of_run: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) recipients: AtomicU64,
    pub(super) replies_4xx: AtomicU64,
    pub(super) replies_5xx: AtomicU64,
    /// CLOCK_MONOTONIC of the last message; zero before the first.
    pub(super) last_message_ns: AtomicU64,
}

impl HostCounters {
    /// Counts a connection from its accept on; returns its number.
    pub(super) fn opened(&self) -> u64 {
        add(&self.connections, 1);
        let now = self.concurrent.load(Relaxed) + 1;
        self.concurrent.store(now, Relaxed);
        raise(&self.concurrent_max, now);
        raise(&self.concurrent_max_of_run, now);
        self.connections.load(Relaxed)
    }

    /// Must come before our side is closed: the peer may open the next one at once.
    pub(super) fn closing(&self) {
        self.concurrent.store(self.concurrent.load(Relaxed) - 1, Relaxed);
    }

    /// Ends a run of counting; returns its maximum.
    pub(super) fn mark_run(&self) -> u64 {
        self.concurrent_max_of_run.swap(self.concurrent.load(Relaxed), Relaxed)
    }

    pub(super) fn count_reply(&self, code: u16) {
        match code {
            400..500 => add(&self.replies_4xx, 1),
            500..600 => add(&self.replies_5xx, 1),
            _ => {}
        }
    }

    pub(super) fn count_message(&self, recipients: u64, now: u64) {
        add(&self.messages, 1);
        add(&self.recipients, recipients);
        self.last_message_ns.store(now, Relaxed);
    }
}

/// One thread writes each counter, so a load and a store are enough, and cheaper.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed) + amount, Relaxed);
}

fn raise(maximum: &AtomicU64, value: u64) {
    if value > maximum.load(Relaxed) {
        maximum.store(value, Relaxed);
    }
}
