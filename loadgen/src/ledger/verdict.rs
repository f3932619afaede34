//! The comparison of both sides: the last word of every run.

use std::fmt;

use serde::Serialize;

use super::{AckLedger, ArrivalLedger, Outcome};

/// Examples kept of each kind of finding.
const EXAMPLES_MAX: usize = 5;

/// What the ledgers prove. Counts are recipients, but for `corrupted`, `unmarked` and `foreign`
/// (messages) and `smuggled` (bytes).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub acknowledged: u64,
    /// Acknowledged and arrived at least once.
    pub delivered: u64,
    /// Acknowledged, never arrived, and reported to the sender as not reached.
    pub bounced: u64,
    /// Delivered, and reported as not reached all the same.
    pub delivered_and_bounced: u64,
    /// Acknowledged, neither arrived nor bounced, and known to the caller otherwise.
    pub accounted: u64,
    /// Acknowledged, and neither arrived nor bounced: includes what still waits, so compare when
    /// all is calm.
    pub lost: u64,
    /// Arrivals beyond the first, of any recipient.
    pub duplicated: u64,
    pub corrupted: u64,
    /// Arrived and never offered.
    pub invented: u64,
    /// Offered, in doubt, and arrived: allowed.
    pub unacknowledged_but_arrived: u64,
    /// Answered with 4xx or 5xx, and arrived all the same: a failed commit may leave such a one.
    pub refused_but_arrived: u64,
    pub unmarked: u64,
    pub foreign: u64,
    pub smuggled: u64,
    pub examples: Vec<String>,
}

impl Verdict {
    /// Nothing lost, corrupted, invented or smuggled.
    pub fn is_clean(&self) -> bool {
        [self.lost, self.corrupted, self.invented, self.smuggled].iter().all(|count| *count == 0)
    }

    fn example(&mut self, kind: &str, seen: u64, sequence: u64, index: usize) {
        if seen <= EXAMPLES_MAX as u64 {
            self.examples.push(format!("{kind}: message {sequence}, recipient {index}"));
        }
    }
}

/// Holds what arrived against what was acknowledged.
pub fn compare(acknowledged: &AckLedger, arrived: &ArrivalLedger) -> Verdict {
    compare_accounting(acknowledged, arrived, |_, _| false)
}

/// The same, where the caller can account for recipients that neither arrived nor bounced,
/// because they still wait in a queue or were set aside and reported.
pub fn compare_accounting(
    acknowledged: &AckLedger,
    arrived: &ArrivalLedger,
    is_accounted: impl Fn(u64, usize) -> bool,
) -> Verdict {
    let mut verdict = Verdict {
        corrupted: arrived.corrupted,
        unmarked: arrived.unmarked,
        foreign: arrived.foreign,
        smuggled: arrived.smuggled,
        examples: arrived.explanations.iter().take(EXAMPLES_MAX).cloned().collect(),
        ..Verdict::default()
    };
    for (sequence, index, outcome) in acknowledged.iter() {
        if outcome != Outcome::Acknowledged {
            continue;
        }
        verdict.acknowledged += 1;
        let has_bounced = arrived.bounces(sequence, index) > 0;
        if arrived.count(sequence, index) > 0 {
            verdict.delivered += 1;
            verdict.delivered_and_bounced += u64::from(has_bounced);
        } else if has_bounced {
            verdict.bounced += 1;
        } else if is_accounted(sequence, index) {
            verdict.accounted += 1;
        } else {
            verdict.lost += 1;
            verdict.example("lost", verdict.lost, sequence, index);
        }
    }
    for (sequence, index, count) in arrived.iter() {
        judge_arrival(&mut verdict, acknowledged.outcome(sequence, index), sequence, index);
        if count > 1 {
            verdict.duplicated += u64::from(count) - 1;
            verdict.example("duplicated", verdict.duplicated, sequence, index);
        }
    }
    verdict
}

fn judge_arrival(verdict: &mut Verdict, offered: Option<Outcome>, sequence: u64, index: usize) {
    match offered {
        Some(Outcome::Acknowledged) => {}
        Some(Outcome::Unacknowledged) => verdict.unacknowledged_but_arrived += 1,
        Some(Outcome::Tempfailed | Outcome::Refused) => {
            verdict.refused_but_arrived += 1;
            verdict.example("refused but arrived", verdict.refused_but_arrived, sequence, index);
        }
        None => {
            verdict.invented += 1;
            verdict.example("invented", verdict.invented, sequence, index);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("acknowledged recipients", self.acknowledged),
            ("delivered", self.delivered),
            ("bounced", self.bounced),
            ("accounted for otherwise", self.accounted),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("delivered and bounced", self.delivered_and_bounced),
            ("corrupted messages", self.corrupted),
            ("invented", self.invented),
            ("unacknowledged but arrived", self.unacknowledged_but_arrived),
            ("refused but arrived", self.refused_but_arrived),
            ("unmarked messages", self.unmarked),
            ("messages of other runs", self.foreign),
            ("smuggled bytes", self.smuggled),
        ];
        for (name, count) in rows {
            writeln!(f, "{name:<28}{count:>12}")?;
        }
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        write!(f, "{}", if self.is_clean() { "clean" } else { "NOT CLEAN" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_counted_as_itself() {
        let mut acknowledged = AckLedger::default();
        acknowledged.record(0, 0, Outcome::Acknowledged);
        acknowledged.record(1, 0, Outcome::Acknowledged);
        acknowledged.record(2, 0, Outcome::Unacknowledged);
        acknowledged.record(3, 1, Outcome::Refused);
        acknowledged.record(10_000, 2, Outcome::Unacknowledged);
        let mut arrived = ArrivalLedger::default();
        for (sequence, index) in [(0, 0), (0, 0), (2, 0), (3, 1), (9, 9)] {
            arrived.record(sequence, index);
        }
        let verdict = compare(&acknowledged, &arrived);
        assert_eq!((verdict.acknowledged, verdict.delivered, verdict.lost), (2, 1, 1));
        assert_eq!((verdict.duplicated, verdict.invented), (1, 1));
        let accounting = compare_accounting(&acknowledged, &arrived, |sequence, _| sequence == 1);
        assert_eq!((accounting.lost, accounting.accounted), (0, 1));
        arrived.record_bounce(1, 0);
        let verdict = compare(&acknowledged, &arrived);
        assert_eq!((verdict.lost, verdict.bounced, verdict.delivered_and_bounced), (0, 1, 0));
        assert_eq!((verdict.unacknowledged_but_arrived, verdict.refused_but_arrived), (1, 1));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn ledgers_survive_their_files() {
        let mut acknowledged = AckLedger::default();
        acknowledged.record(5, 99, Outcome::Tempfailed);
        acknowledged.record(u64::MAX, 0, Outcome::Acknowledged);
        let mut file = Vec::new();
        acknowledged.write_to(&mut file).unwrap();
        assert_eq!(AckLedger::read_from(file.as_slice()).unwrap(), acknowledged);

        let mut arrived = ArrivalLedger::default();
        arrived.smuggled = 3;
        arrived.record(7, 1);
        arrived.record(7, 1);
        arrived.record_bounce(7, 2);
        file.clear();
        arrived.write_to(&mut file).unwrap();
        assert_eq!(ArrivalLedger::read_from(file.as_slice()).unwrap(), arrived);
        assert!(ArrivalLedger::read_from(&b"# something else\n"[..]).is_err());
    }
}
