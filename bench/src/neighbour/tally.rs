//! What was seen in one run, by the receiver and by a clock; the same for every sender.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use postrider_engine::base::time::Mono;

use super::receiver::{Answer, Receiver};
use super::world::{Class, Mail, START};

const SECOND: Duration = Duration::from_secs(1);
/// Longer waits count as this: thirty days, in milliseconds.
const LONGEST: u64 = 30 * 24 * 3600 * 1000;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Second {
    pub(crate) delivered: u32,
    pub(crate) refused: u32,
    pub(crate) connects: u32,
    /// Connections open at its end, as the receiver counts them.
    pub(crate) open: u32,
    /// Messages that the receiver would have taken.
    pub(crate) allowed: f64,
    /// Connections that it would have kept open, if it counts them.
    pub(crate) connections_allowed: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) seconds: Vec<Second>,
    /// From here on everything counts; before, senders may learn.
    counted_from: Mono,
    next_second: Mono,
    open: u32,
    pub(crate) open_most: u32,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    /// Messages that the sender gave up, from the start.
    pub(crate) given_up: u64,
    /// Refused again before anything was taken in between: the sender had been told.
    pub(crate) closed_door: u64,
    refused_last: bool,
    /// Milliseconds from arrival to the reply that took it.
    pub(crate) in_queue: Histogram<u64>,
    /// Milliseconds from arrival to the offer, transactional mail alone.
    pub(crate) waits: Histogram<u64>,
    /// Transactional mail that had no turn yet.
    unoffered: BTreeMap<u32, Mono>,
    tenants: Vec<Tenant>,
    /// Jain's index of each second in which all tenants had mail waiting, in thousandths.
    pub(crate) fairness: Histogram<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tenant {
    waiting: u32,
    delivered_this_second: u32,
    /// Whether it had mail waiting all this second.
    was_waiting: bool,
}

impl Tally {
    pub(crate) fn new(tenants: u16, warm_up: Duration) -> Self {
        Self {
            seconds: Vec::new(),
            counted_from: START.plus(warm_up),
            next_second: START.plus(SECOND),
            open: 0,
            open_most: 0,
            delivered: 0,
            refused: 0,
            given_up: 0,
            closed_door: 0,
            refused_last: false,
            in_queue: histogram(),
            waits: histogram(),
            unoffered: BTreeMap::new(),
            tenants: vec![Tenant::default(); usize::from(tenants)],
            fairness: histogram(),
        }
    }

    /// Closes the seconds that are over.
    pub(crate) fn pass_to(&mut self, now: Mono, receiver: &dyn Receiver) {
        while self.next_second <= now {
            let start = Mono(self.next_second.0 - 1_000_000_000);
            let open = self.open;
            let second = self.second();
            second.open = open;
            second.allowed = receiver.allows(start);
            second.connections_allowed = receiver.connections(start);
            self.judge_fairness();
            self.next_second = self.next_second.plus(SECOND);
        }
    }

    /// The second under way.
    fn second(&mut self) -> &mut Second {
        let since = self.next_second.since(START).as_secs();
        let index = usize::try_from(since).unwrap_or(usize::MAX) - 1;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    fn counts(&self) -> bool {
        self.next_second > self.counted_from
    }

    pub(crate) fn arrived(&mut self, mail: &Mail) {
        self.tenants[usize::from(mail.tenant)].waiting += 1;
        if mail.class == Class::Transactional && self.counts() {
            self.unoffered.insert(mail.number, mail.arrival);
        }
    }

    pub(crate) fn connecting(&mut self) {
        self.second().connects += 1;
    }

    pub(crate) fn opened(&mut self) {
        self.open += 1;
        if self.counts() {
            self.open_most = self.open_most.max(self.open);
        }
    }

    pub(crate) fn closed(&mut self) {
        self.open -= 1;
    }

    /// A connect or a message came to nothing.
    pub(crate) fn refused(&mut self) {
        self.second().refused += 1;
        if self.counts() {
            self.refused += 1;
            self.closed_door += u64::from(self.refused_last);
        }
        self.refused_last = true;
    }

    pub(crate) fn offered(&mut self, now: Mono, mail: &Mail, answer: Answer) {
        if let Some(arrival) = self.unoffered.remove(&mail.number) {
            self.waits.saturating_record(millis(now.since(arrival)));
        }
        if answer == Answer::Taken {
            self.refused_last = false;
        } else {
            self.refused();
        }
    }

    pub(crate) fn delivered(&mut self, now: Mono, mail: &Mail) {
        self.second().delivered += 1;
        let tenant = &mut self.tenants[usize::from(mail.tenant)];
        tenant.waiting -= 1;
        tenant.delivered_this_second += 1;
        if self.counts() {
            self.delivered += 1;
            self.in_queue.saturating_record(millis(now.since(mail.arrival)));
        }
    }

    /// The run is over: what had no turn has waited until now.
    pub(crate) fn end(mut self, now: Mono, given_up: u64) -> Self {
        self.given_up = given_up;
        for arrival in std::mem::take(&mut self.unoffered).into_values() {
            self.waits.saturating_record(millis(now.since(arrival)));
        }
        self
    }

    fn judge_fairness(&mut self) {
        let all_waiting = self.tenants.iter().all(|one| one.waiting > 0 && one.was_waiting);
        if all_waiting && self.tenants.len() > 1 && self.counts() {
            let shares = self.tenants.iter().map(|one| f64::from(one.delivered_this_second));
            let thousandths = Duration::from_secs_f64(jain(shares)).as_millis();
            self.fairness.saturating_record(u64::try_from(thousandths).unwrap_or(0));
        }
        for tenant in &mut self.tenants {
            tenant.was_waiting = tenant.waiting > 0;
            tenant.delivered_this_second = 0;
        }
    }

    /// The seconds that count.
    pub(crate) fn counted(&self) -> &[Second] {
        let skipped = self.counted_from.since(START).as_secs();
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        self.seconds.get(skipped..).unwrap_or_default()
    }
}

/// Jain's index: 1 where all are equal, 1/n where one has all.
fn jain(shares: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = shares.clone().map(|_| 1.0).sum::<f64>();
    let squares: f64 = shares.clone().map(|share| share * share).sum();
    if squares > 0.0 { shares.sum::<f64>().powi(2) / (count * squares) } else { 0.0 }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST, 3).unwrap_or_else(|error| panic!("sound bounds: {error}"))
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_is_one_for_equals_and_least_for_a_monopoly() {
        assert!((jain([5.0; 4].into_iter()) - 1.0).abs() < 1e-9);
        assert!((jain([8.0, 0.0, 0.0, 0.0].into_iter()) - 0.25).abs() < 1e-9);
    }
}
