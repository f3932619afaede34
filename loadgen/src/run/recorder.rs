//! What the threads of a run record, handed over once a second without ever making them wait.
//!
//! Each thread fills an interval of its own. When it is told that a second is over, it gives the
//! full one away and goes on with an empty one that came back; if none has come back yet, it goes
//! on filling the same, and that interval is a second longer.

use crossbeam::channel::{self, Receiver, Sender};
use hdrhistogram::Histogram;

use crate::clock;
use crate::latency::{self, Latencies, Phase};
use crate::source::Steps;

/// Intervals that go round between a thread and the collector: one is filled, one is merged.
const INTERVALS_PER_THREAD: usize = 2;

/// Which end of the run a thread works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Sink,
}

/// What one thread recorded between two hand-overs.
#[derive(Default)]
pub(crate) struct Interval {
    pub(super) thread: usize,
    pub(super) latencies: Latencies,
    pub(super) steps: Vec<StepValues>,
    /// Processor time of the thread, up to the hand-over.
    pub(super) cpu_ns: u64,
    /// Nothing comes after it.
    pub(super) is_last: bool,
}

/// What belongs to one step of a schedule.
#[derive(Default)]
pub(super) struct StepValues {
    /// [`Phase::Message`] of the messages meant to start in it.
    pub(super) message: Option<Box<Histogram<u64>>>,
    /// Messages acknowledged while it lasted.
    pub(super) acknowledged: u64,
}

impl StepValues {
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        if let Some(values) = &other.message {
            let sum = self.message.get_or_insert_with(|| Box::new(latency::histogram()));
            sum.add(&**values).expect("all steps have the same bounds");
        }
    }
}

impl Interval {
    fn clear(&mut self) {
        self.latencies.clear();
        self.steps.clear();
    }
}

/// The pen of one thread.
pub(crate) struct Recorder {
    current: Box<Interval>,
    steps: Steps,
    start_ns: u64,
    reader: Option<Reader>,
}

/// Where full intervals go to, and empty ones come from.
struct Reader {
    full: Sender<Box<Interval>>,
    empty: Receiver<Box<Interval>>,
}

impl Recorder {
    /// One that keeps everything until its end.
    pub(crate) fn alone() -> Self {
        Self { current: Box::default(), steps: Steps::ONE, start_ns: 0, reader: None }
    }

    /// Divides messages by the steps of a schedule that begins at `start_ns`.
    pub(crate) fn begin(&mut self, steps: Steps, start_ns: u64) {
        (self.steps, self.start_ns) = (steps, start_ns);
    }

    pub(crate) fn record(&mut self, phase: Phase, ns: u64) {
        self.current.latencies.record(phase, ns);
    }

    /// Records an acknowledged message.
    pub(crate) fn record_message(&mut self, intended_ns: u64, now: u64) {
        let ns = now.saturating_sub(intended_ns);
        self.record(Phase::Message, ns);
        if self.reader.is_none() || self.steps.count < 2 {
            return;
        }
        let (begun_in, ended_in) = (self.step(intended_ns), self.step(now));
        let steps = &mut self.current.steps;
        if steps.len() <= begun_in.max(ended_in) {
            steps.resize_with(self.steps.count, StepValues::default);
        }
        let values = &mut steps[begun_in].message;
        values.get_or_insert_with(|| Box::new(latency::histogram())).saturating_record(ns);
        // What is answered behind the end of the schedule was achieved in no step.
        if now.saturating_sub(self.start_ns) / self.steps.width_ns < self.steps.count as u64 {
            steps[ended_in].acknowledged += 1;
        }
    }

    /// Gives away what was recorded so far.
    pub(crate) fn hand_over(&mut self) {
        let Some(reader) = &self.reader else { return };
        let Ok(mut next) = reader.empty.try_recv() else { return };
        next.thread = self.current.thread;
        self.current.cpu_ns = clock::thread_cpu_ns();
        let full = std::mem::replace(&mut self.current, next);
        // A collector that has gone wants nothing more.
        reader.full.send(full).ok();
    }

    /// The end of the thread: hands over the rest, or returns all if nobody collects.
    pub(crate) fn finish(mut self) -> Latencies {
        self.current.cpu_ns = clock::thread_cpu_ns();
        self.current.is_last = true;
        match self.reader {
            Some(reader) => {
                reader.full.send(self.current).ok();
                Latencies::default()
            }
            None => self.current.latencies,
        }
    }

    fn step(&self, at_ns: u64) -> usize {
        self.steps.at(at_ns.saturating_sub(self.start_ns))
    }
}

/// Makes the recorders of a run, and takes what they hand over.
pub(crate) struct Inbox {
    full: Receiver<Box<Interval>>,
    sender: Sender<Box<Interval>>,
    threads: Vec<Thread>,
}

struct Thread {
    side: Side,
    empty: Sender<Box<Interval>>,
    has_ended: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        // Bounded by the intervals that go round.
        let (sender, full) = channel::unbounded();
        Self { full, sender, threads: Vec::new() }
    }

    /// A recorder for one more thread.
    pub(crate) fn recorder(&mut self, side: Side) -> Recorder {
        let thread = self.threads.len();
        let (give_back, empty) = channel::bounded(INTERVALS_PER_THREAD);
        for _ in 1..INTERVALS_PER_THREAD {
            give_back.send(Box::default()).expect("it has room, and its receiver is here");
        }
        self.threads.push(Thread { side, empty: give_back, has_ended: false });
        let current = Box::new(Interval { thread, ..Interval::default() });
        let reader = Some(Reader { full: self.sender.clone(), empty });
        Recorder { current, steps: Steps::ONE, start_ns: 0, reader }
    }

    pub(super) fn sides(&self) -> Vec<Side> {
        self.threads.iter().map(|thread| thread.side).collect()
    }

    /// Takes an interval of each thread that still runs, but waits no longer than `until_ns`.
    pub(super) fn gather(&mut self, until_ns: u64, mut take: impl FnMut(&Interval)) {
        let mut awaited = self.threads.iter().filter(|thread| !thread.has_ended).count();
        while awaited > 0 {
            let wait = std::time::Duration::from_nanos(until_ns.saturating_sub(clock::now_ns()));
            let Ok(mut interval) = self.full.recv_timeout(wait) else { return };
            awaited -= 1;
            take(&interval);
            let thread = &mut self.threads[interval.thread];
            thread.has_ended |= interval.is_last;
            interval.clear();
            // A thread that ended needs it no more.
            thread.empty.try_send(interval).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND_NS;

    fn gather(inbox: &mut Inbox) -> Vec<(usize, u64, bool)> {
        let mut seen = Vec::new();
        inbox.gather(clock::now_ns() + SECOND_NS, |interval| {
            let count = interval.latencies.get(Phase::Dot).map_or(0, Histogram::len);
            seen.push((interval.thread, count, interval.is_last));
        });
        seen
    }

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice() {
        let mut inbox = Inbox::new();
        let mut recorder = inbox.recorder(Side::Source);
        recorder.record(Phase::Dot, 5_000);
        recorder.hand_over();
        recorder.record(Phase::Dot, 5_000);
        recorder.record(Phase::Dot, 5_000);
        // No empty interval has come back: the two stay where they are.
        recorder.hand_over();
        assert_eq!(gather(&mut inbox), [(0, 1, false)]);
        recorder.record(Phase::Dot, 5_000);
        recorder.hand_over();
        assert_eq!(gather(&mut inbox), [(0, 3, false)]);
        recorder.record(Phase::Dot, 5_000);
        assert!(recorder.finish().get(Phase::Dot).is_none());
        assert_eq!(gather(&mut inbox), [(0, 1, true)]);
        assert_eq!(gather(&mut inbox), [], "nobody is awaited any more");
    }

    #[test]
    fn a_message_belongs_to_the_step_it_was_meant_for() {
        let mut inbox = Inbox::new();
        let mut recorder = inbox.recorder(Side::Source);
        recorder.begin(Steps { width_ns: SECOND_NS, count: 2 }, 100);
        // Meant for the first step, answered in the second; and answered after the last.
        recorder.record_message(100 + SECOND_NS / 2, 100 + SECOND_NS);
        recorder.record_message(100 + SECOND_NS / 2, 100 + 2 * SECOND_NS);
        recorder.hand_over();
        inbox.gather(clock::now_ns() + SECOND_NS, |interval| {
            let counts = interval.steps.iter().map(|step| {
                (step.message.as_ref().map_or(0, |values| values.len()), step.acknowledged)
            });
            assert_eq!(counts.collect::<Vec<_>>(), [(2, 0), (0, 1)]);
        });
    }
}
