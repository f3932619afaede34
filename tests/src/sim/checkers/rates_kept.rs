//! A rate is never exceeded: in any window `w`, at most `rate × w + burst` messages, connections or
//! bytes of a site, a provider, a source at a provider, a source, and a tenant; in each run of the
//! engine. Bytes are those that hosts take; a message of more than the burst passes alone, and the
//! promise then holds with its bytes as the burst.
//!
//! The moment that counts is the one at which the owner of the site decides: MAIL, or the attempt to
//! connect, is handed to the driver in the same turn, and judged to the nanosecond, unless a body had
//! to be read first or another shard executes it. Those count at the best moment they may have had. A
//! tenant's rates are taken when mail is given to a connection, which may be opening or busy: that is
//! when it was begun to be opened at the earliest, where a lease has but one connection.

use std::collections::BTreeMap;

use postrider_engine::model::settings::Rate;

use super::{Begun, Checker, RateInForce, Seen};
use crate::sim::bounds::{Key, Of};
use crate::sim::ledger::Ledger;

/// Of what began longer ago than so many others nothing is remembered.
const REMEMBERED: usize = 400;

#[derive(Debug, Default)]
pub(super) struct RatesKept {
    begun: BTreeMap<(Key, Of), Line>,
    judged: u64,
}

/// What began under one rate: the earliest moment of each decision, in order, and its units.
#[derive(Debug)]
struct Line {
    rate: Rate,
    moments: Vec<(u64, u64)>,
}

impl Line {
    fn add(&mut self, earliest: u64, units: u64) {
        let place = self.moments.partition_point(|(other, _)| *other <= earliest);
        self.moments.insert(place, (earliest, units));
        if self.moments.len() > REMEMBERED {
            self.moments.remove(0);
        }
    }

    /// A window that ends now and has too many: since when, and how many.
    fn is_over(&self, at: u64) -> Option<(u64, u64)> {
        let units = u128::from(self.rate.units);
        let (per, mut burst) = (self.rate.per.as_nanos(), u128::from(self.rate.burst.max(1)));
        let mut count = 0u64;
        for (since, taken) in self.moments.iter().rev() {
            count += taken;
            burst = burst.max(u128::from(*taken));
            let allowed = units * u128::from(at - since) + burst * per;
            if u128::from(count) * per > allowed {
                return Some((*since, count));
            }
        }
        None
    }
}

impl RatesKept {
    fn begins(&mut self, begun: &Begun) -> Result<(), String> {
        for RateInForce { key, of, rate, since, units, earliest } in &begun.rates {
            if *earliest < *since {
                continue;
            }
            self.judged += 1;
            let new = || Line { rate: *rate, moments: Vec::new() };
            let line = self.begun.entry((*key, *of)).or_insert_with(new);
            if line.rate != *rate {
                *line = new();
            }
            line.add(*earliest, *units);
            if let Some((from, count)) = line.is_over(begun.at) {
                let micros = (begun.at - from) / 1000;
                return Err(format!("{key:?}: {count} {of:?} in {micros} us, allowed: {rate:?}"));
            }
        }
        Ok(())
    }
}

impl Checker for RatesKept {
    fn name(&self) -> &'static str {
        "rates kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Begins(begun) => self.begins(begun)?,
            Seen::Rebound | Seen::Ended { .. } => self.begun.clear(),
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_too_many_is_seen_wherever_the_window_begins() {
        let rate = Rate { units: 1, per: Duration::from_nanos(100), burst: 2 };
        let mut line = Line { rate, moments: Vec::new() };
        for at in [0, 0, 100, 200, 300] {
            line.add(at, 1);
            assert_eq!(line.is_over(at), None, "{at}");
        }
        line.add(399, 1);
        assert_eq!(line.is_over(399), Some((0, 6)));
    }

    #[test]
    fn more_than_the_burst_passes_alone() {
        let rate = Rate { units: 1, per: Duration::from_nanos(1), burst: 10 };
        let mut line = Line { rate, moments: Vec::new() };
        line.add(0, 100);
        assert_eq!(line.is_over(0), None);
        line.add(1, 2);
        assert_eq!(line.is_over(1), Some((0, 102)));
        assert_eq!(line.is_over(2), None, "with its bytes as the burst");
    }

    #[test]
    fn what_may_have_been_decided_earlier_is_not_held_against_the_present() {
        let rate = Rate { units: 1, per: Duration::from_nanos(100), burst: 1 };
        let mut line = Line { rate, moments: Vec::new() };
        line.add(100, 1);
        line.add(0, 1);
        assert_eq!(line.is_over(110), None);
        line.add(120, 1);
        assert!(line.is_over(120).is_some());
    }
}
