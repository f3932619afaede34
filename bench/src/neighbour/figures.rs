//! The figures of one run, drawn from its tally.

use std::time::Duration;

use serde_json::{Value, json};

use super::scenario::Scenario;
use super::tally::{Second, Tally};

/// A provider is back for a sender when this share of the rate before flows again.
const RECOVERED_SHARE: f64 = 0.9;
/// The rate after an outage is looked at over this many seconds: long enough that arrivals by chance
/// do not decide, short enough that a burst does not make up for long silence.
const RATE_SECONDS: usize = 10;
/// The rate before it, over this many.
const BEFORE_SECONDS: usize = 600;
/// A herd comes within this many seconds after the return.
const HERD_SECONDS: usize = 600;

/// Shares are of 1. What has no meaning in a scenario is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) delivered: u64,
    /// Messages that failed or expired, or that an operator took back.
    pub(crate) given_up: u64,
    /// Of all tries (connects that came to nothing, messages), those that came to nothing.
    pub(crate) deferred: f64,
    /// Of what the provider would have taken, what it was sent.
    pub(crate) utilisation: Option<f64>,
    /// Tries after a refusal, before anything was taken again.
    pub(crate) closed_door: u64,
    pub(crate) open_most: u32,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) in_queue_p50: Duration,
    pub(crate) in_queue_p99: Duration,
    /// Jain's index that 99 of 100 seconds reach.
    pub(crate) jain: Option<f64>,
    /// 99th percentile of the wait of transactional mail, in service times.
    pub(crate) transactional: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recovery {
    /// Until the rate of before was nearly reached, over [`RATE_SECONDS`]: no less than these.
    /// `None`: never.
    pub(crate) time: Option<Duration>,
    /// Most connects in one second after the return.
    pub(crate) herd: u32,
    /// Tries while the provider was away.
    pub(crate) knocks: u32,
}

impl Figures {
    pub(crate) fn new(scenario: &Scenario, tally: &Tally) -> Self {
        let tries = tally.delivered + tally.refused;
        let quantile = |share| Duration::from_millis(tally.in_queue.value_at_quantile(share));
        Self {
            delivered: tally.delivered,
            given_up: tally.given_up,
            deferred: ratio(tally.refused, tries),
            utilisation: scenario.is_saturated.then(|| utilisation(tally.counted())),
            closed_door: tally.closed_door,
            open_most: tally.open_most,
            recovery: scenario.away.and_then(|away| recovery(&tally.seconds, away)),
            in_queue_p50: quantile(0.5),
            in_queue_p99: quantile(0.99),
            jain: scenario
                .has_tenants()
                .then(|| thousandths(tally.fairness.value_at_quantile(0.01))),
            transactional: (!tally.waits.is_empty()).then(|| {
                let wait = Duration::from_millis(tally.waits.value_at_quantile(0.99));
                wait.as_secs_f64() / scenario.service.as_secs_f64()
            }),
        }
    }

    /// Names and values, as `--require` and `--json` know them.
    pub(crate) fn named(&self) -> Vec<(&'static str, Option<f64>)> {
        let recovery = self.recovery;
        let never = Duration::from_secs(u64::from(u32::MAX));
        vec![
            ("delivered", Some(exact(self.delivered))),
            ("given_up", Some(exact(self.given_up))),
            ("deferred", Some(self.deferred)),
            ("utilisation", self.utilisation),
            ("closed_door", Some(exact(self.closed_door))),
            ("connections", Some(f64::from(self.open_most))),
            ("recovery", recovery.map(|one| one.time.unwrap_or(never).as_secs_f64())),
            ("herd", recovery.map(|one| f64::from(one.herd))),
            ("knocks", recovery.map(|one| f64::from(one.knocks))),
            ("p50", Some(self.in_queue_p50.as_secs_f64())),
            ("p99", Some(self.in_queue_p99.as_secs_f64())),
            ("jain", self.jain),
            ("transactional", self.transactional),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let named = self.named().into_iter();
        named.map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }
}

fn utilisation(seconds: &[Second]) -> f64 {
    let delivered: f64 = seconds.iter().map(|second| f64::from(second.delivered)).sum();
    let allowed: f64 = seconds.iter().map(|second| second.allowed).sum();
    if allowed > 0.0 { delivered / allowed } else { 0.0 }
}

fn recovery(seconds: &[Second], (from, length): (Duration, Duration)) -> Option<Recovery> {
    let index = |at: Duration| usize::try_from(at.as_secs()).unwrap_or(usize::MAX);
    let (gone, back) = (index(from), index(from + length));
    let before = rate(seconds.get(gone.checked_sub(BEFORE_SECONDS)?..gone)?);
    let after = seconds.get(back..)?;
    let is_back = |one: &[Second]| rate(one) >= RECOVERED_SHARE * before;
    let reached = after.windows(RATE_SECONDS).position(is_back).map(|start| start + RATE_SECONDS);
    let herd = after.iter().take(HERD_SECONDS).map(|second| second.connects).max()?;
    Some(Recovery {
        time: reached.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        herd,
        knocks: seconds[gone..back].iter().map(|second| second.refused).sum(),
    })
}

fn rate(seconds: &[Second]) -> f64 {
    let delivered: u32 = seconds.iter().map(|second| second.delivered).sum();
    f64::from(delivered) / f64::from(u32::try_from(seconds.len()).unwrap_or(u32::MAX))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { exact(part) / exact(whole) }
}

fn thousandths(count: u64) -> f64 {
    exact(count) / 1000.0
}

/// A count as a number that divides; counts of a simulation are far below 2^53.
fn exact(count: u64) -> f64 {
    Duration::from_secs(count).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 300;

    /// 20 a second before an outage; after it so many at first, for so long.
    fn time(first: u32, seconds: usize) -> Option<u64> {
        let of = |delivered| Second { delivered, ..Second::default() };
        let before = vec![of(20); BEFORE_SECONDS];
        let away = vec![of(0); LENGTH];
        let after = [vec![of(first); seconds], vec![of(90); 100]].concat();
        let span = |seconds: usize| Duration::from_secs(u64::try_from(seconds).unwrap());
        let all = [before, away, after].concat();
        recovery(&all, (span(BEFORE_SECONDS), span(LENGTH))).unwrap().time.map(|it| it.as_secs())
    }

    #[test]
    fn who_is_silent_has_not_recovered() {
        // Two seconds at 90 fill ten at 18.
        assert_eq!(time(0, 45), Some(47));
        assert_eq!(time(17, 45), Some(46), "too little is as good as nothing");
        assert_eq!(time(18, 45), Some(10), "the shortest there is");
        assert_eq!(time(90, 1), Some(10));
    }
}
