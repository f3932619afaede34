//! Which message is next, and when: one schedule shared by all threads of a source.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::schedule::{Schedule, Timetable};
use super::{SourcePlan, SourceProgress};
use crate::clock::{self, SECOND_NS};

/// How long sessions may wait for replies after a stop.
const STOP_GRACE_NS: u64 = 10 * SECOND_NS;

/// What the threads share: the schedule and the counters.
pub(super) struct Shared {
    start_ns: u64,
    end_ns: u64,
    first_sequence: u64,
    schedule: Option<Schedule>,
    next: AtomicU64,
    limit: AtomicU64,
    stopped: AtomicBool,
    /// The schedule has no message any more, though its time may not be over.
    exhausted: AtomicBool,
    stopped_at: AtomicU64,
    /// Seconds that are over: a thread that sees the number change hands over what it recorded.
    seconds: AtomicU32,
    /// By thread: sessions that wait for the schedule.
    free: Vec<AtomicUsize>,
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
        let schedule = plan.open_loop();
        // A schedule with an end of its own ends the run, unless the plan says more.
        let own_span = schedule.and_then(|s| s.span()).filter(|_| plan.messages.is_none());
        let span_ns = plan.duration.or(own_span).map_or(u64::MAX, clock::nanos);
        Self {
            start_ns,
            end_ns: start_ns.saturating_add(span_ns),
            first_sequence: plan.first_sequence,
            schedule,
            next: AtomicU64::new(0),
            limit: AtomicU64::new(plan.messages.unwrap_or(u64::MAX)),
            stopped: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            stopped_at: AtomicU64::new(u64::MAX),
            seconds: AtomicU32::new(0),
            free: (0..plan.thread_count()).map(|_| AtomicUsize::new(0)).collect(),
            counters: Counters::default(),
        }
    }

    /// The walk of one thread through the schedule, if there is one.
    pub(super) fn timetable(&self, seed: u64) -> Option<Timetable> {
        self.schedule.map(|schedule| Timetable::new(schedule, seed))
    }

    /// Takes the next message if its time has come.
    pub(super) fn take(&self, timetable: &mut Option<Timetable>, now: u64) -> Next {
        loop {
            let index = self.next.load(Relaxed);
            if self.is_over(now) {
                return Next::Over;
            }
            let intended_ns = match timetable {
                None => now,
                Some(timetable) => match timetable.offset_ns(index) {
                    None => u64::MAX,
                    Some(offset) => self.start_ns.saturating_add(offset),
                },
            };
            if intended_ns >= self.end_ns {
                self.exhausted.store(true, Relaxed);
                return Next::Over;
            }
            if intended_ns > now {
                return Next::NotBefore(intended_ns);
            }
            let taken = self.next.compare_exchange_weak(index, index + 1, Relaxed, Relaxed);
            if taken.is_ok() {
                return Next::Message { sequence: self.first_sequence + index, intended_ns };
            }
        }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        self.stopped.load(Relaxed)
            || self.exhausted.load(Relaxed)
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

    /// Asks the threads to hand over what they recorded.
    pub(super) fn end_second(&self) {
        self.seconds.fetch_add(1, Relaxed);
    }

    pub(super) fn seconds(&self) -> u32 {
        self.seconds.load(Relaxed)
    }

    /// Notes how many sessions of a thread wait for the schedule.
    pub(super) fn note_free(&self, thread: usize, sessions: usize) {
        self.free[thread].store(sessions, Relaxed);
    }

    /// Says whether a session waited for the schedule when its thread last looked.
    pub(super) fn is_session_free(&self) -> bool {
        self.free.iter().any(|sessions| sessions.load(Relaxed) > 0)
    }
}
