//! The figures of one run, drawn from its tally.

use std::time::Duration;

use serde_json::{Value, json};

use super::receiver::outage::Outages;
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

/// Over all outages of a run: how late one return is found is chance, as tries fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recovery {
    /// Until the rate of before was nearly reached, over [`RATE_SECONDS`]: no less than these.
    /// `None`: after some outage never, before the next.
    pub(crate) mean: Option<Duration>,
    pub(crate) worst: Option<Duration>,
    /// Most connects in one second after a return.
    pub(crate) herd: u32,
    /// Tries while the provider was away, a mean.
    pub(crate) knocks: f64,
}

/// One outage and what followed.
struct Return {
    time: Option<Duration>,
    herd: u32,
    knocks: u32,
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
            recovery: scenario.away.and_then(|away| Recovery::new(&tally.seconds, &away)),
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
            ("recovery", recovery.map(|one| one.mean.unwrap_or(never).as_secs_f64())),
            ("recovery_worst", recovery.map(|one| one.worst.unwrap_or(never).as_secs_f64())),
            ("herd", recovery.map(|one| f64::from(one.herd))),
            ("knocks", recovery.map(|one| one.knocks)),
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

impl Recovery {
    fn new(seconds: &[Second], outages: &Outages) -> Option<Self> {
        let returns = returns(seconds, outages);
        let count = u32::try_from(returns.len()).ok().filter(|count| *count > 0)?;
        let times: Option<Vec<Duration>> = returns.iter().map(|one| one.time).collect();
        let knocks: u32 = returns.iter().map(|one| one.knocks).sum();
        Some(Self {
            mean: times.as_ref().map(|times| times.iter().sum::<Duration>() / count),
            worst: times.and_then(|times| times.into_iter().max()),
            herd: returns.iter().map(|one| one.herd).max()?,
            knocks: f64::from(knocks) / f64::from(count),
        })
    }
}

/// Each outage that had its time before and after it in this run.
fn returns(seconds: &[Second], outages: &Outages) -> Vec<Return> {
    let index = |at: Duration| usize::try_from(at.as_secs()).unwrap_or(usize::MAX);
    let spans = outages.spans().map(|(from, to)| (index(from), index(to)));
    let inside = |(_, back): &(usize, usize)| back.saturating_add(HERD_SECONDS) <= seconds.len();
    let length = outages.period.map_or(usize::MAX, index);
    let of = |(gone, back): (usize, usize)| {
        let next = gone.saturating_add(length).min(seconds.len());
        let before = rate(seconds.get(gone.checked_sub(BEFORE_SECONDS)?..gone)?);
        Some(Return::new(before, &seconds[gone..back], &seconds[back..next]))
    };
    spans.take_while(inside).filter_map(of).collect()
}

impl Return {
    fn new(before: f64, away: &[Second], after: &[Second]) -> Self {
        let is_back = |one: &[Second]| rate(one) >= RECOVERED_SHARE * before;
        let reached = after.windows(RATE_SECONDS).position(is_back).map(|at| at + RATE_SECONDS);
        let herd = after.iter().take(HERD_SECONDS).map(|second| second.connects).max();
        Self {
            time: reached.map(|count| Duration::from_secs(u64::try_from(count).unwrap_or(0))),
            herd: herd.unwrap_or(0),
            knocks: away.iter().map(|second| second.refused).sum(),
        }
    }
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
    use crate::neighbour::receiver::outage::Away;

    const LENGTH: u32 = 300;

    fn span(delivered: u32, seconds: u32) -> Vec<Second> {
        let one = Second { delivered, connects: delivered, ..Second::default() };
        vec![one; usize::try_from(seconds).unwrap()]
    }

    /// One outage after another: before it 20 a second; while it lasts two knocks and one more than
    /// at the last one; after it the given rate for so long, then 90.
    fn outages(returns: &[(u32, u32)]) -> Option<Recovery> {
        let (before, after) = (600, 700);
        let mut all = Vec::new();
        for (number, (first, seconds)) in (0..).zip(returns) {
            let mut away = span(0, LENGTH);
            (away[7].refused, away[150].refused) = (2, number);
            let back = [span(*first, *seconds), span(90, after - seconds)];
            all.extend([span(20, before), away, back.concat()].concat());
        }
        let length = |seconds: u32| Duration::from_secs(u64::from(seconds));
        let outages = Outages {
            first: length(before),
            length: length(LENGTH),
            longer: Duration::ZERO,
            period: Some(length(before + LENGTH + after)),
            away: Away::Silent,
        };
        Recovery::new(&all, &outages)
    }

    /// The same once: seconds until it is back.
    fn time(first: u32, seconds: u32) -> Option<u64> {
        outages(&[(first, seconds)]).unwrap().worst.map(|time| time.as_secs())
    }

    #[test]
    fn who_is_silent_has_not_recovered() {
        // Two seconds at 90 fill ten at 18.
        assert_eq!(time(0, 45), Some(47));
        assert_eq!(time(17, 45), Some(46), "too little is as good as nothing");
        assert_eq!(time(18, 45), Some(10), "the shortest there is");
        assert_eq!(time(90, 1), Some(10));
        assert_eq!(time(17, 700), None);
    }

    #[test]
    fn several_outages_are_one_figure() {
        let recovery = outages(&[(0, 45), (20, 300), (0, 245)]).unwrap();
        let seconds = [recovery.mean, recovery.worst].map(|time| time.unwrap().as_secs());
        assert_eq!(seconds, [(47 + 10 + 247) / 3, 247]);
        assert_eq!((recovery.herd, recovery.knocks), (90, 3.0), "the most; two, three and four");
    }

    #[test]
    fn who_never_came_back_once_has_no_mean() {
        let recovery = outages(&[(0, 45), (0, 45), (0, 700)]).unwrap();
        assert_eq!((recovery.mean, recovery.worst), (None, None));
        assert!(outages(&[]).is_none());
    }

    #[test]
    fn an_outage_that_the_run_cuts_short_does_not_count() {
        let long = [span(20, 600), span(0, LENGTH), span(20, 600)].concat();
        let first = Duration::from_secs(600);
        let length = Duration::from_secs(u64::from(LENGTH));
        let longer = Duration::ZERO;
        let outages = Outages { first, length, longer, period: None, away: Away::Silent };
        assert!(Recovery::new(&long, &outages).is_some());
        assert!(Recovery::new(&long[..1499], &outages).is_none());
    }
}
