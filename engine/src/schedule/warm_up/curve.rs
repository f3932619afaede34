//! Where a source stands in its curve at one receiver: what the beginning of a date makes of the day
//! before, and how much may be sent today.

use crate::base::cell::{DATE_MAX, DayCount, STEP_MAX, Tally};
use crate::base::time::Wall;
use crate::model::settings::WarmUp;

const SECONDS_PER_DAY: u64 = 86_400;
const NANOS_PER_DAY: u64 = SECONDS_PER_DAY * 1_000_000_000;

/// Of a day's cap, the share that is written down ahead of its use: what a crash may cost a day, and
/// how often its count is written.
const AHEAD_SHARE: u32 = 20;

/// What a new date makes of the day before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There was none.
    Begins,
    /// It was used: the next step.
    Counts,
    /// Less than half of it was sent: again.
    HardlyUsed,
    /// Too much of it was throttled or refused: again.
    Frozen,
}

/// The date of a moment, in UTC.
pub(super) fn date_of(wall: Wall) -> u32 {
    u32::try_from(wall.seconds() / SECONDS_PER_DAY).unwrap_or(DATE_MAX).min(DATE_MAX)
}

/// When a date is over.
pub(super) fn end_of(date: u32) -> Wall {
    Wall((u64::from(date) + 1).saturating_mul(NANOS_PER_DAY))
}

/// How many messages a step allows; `None`: the source is warm.
pub(super) fn cap_of(curve: &WarmUp, step: u16) -> Option<u32> {
    curve.days.get(usize::from(step)).copied()
}

/// What becomes of the day that was counted last, now that it is over.
pub(super) fn judge(curve: &WarmUp, day: DayCount, tally: Tally) -> Verdict {
    if day.date == 0 {
        return Verdict::Begins;
    }
    let (answers, bad) = (u64::from(tally.answers), u64::from(tally.bad));
    if tally.answers >= curve.freeze_sample && bad * 100 > answers * u64::from(curve.freeze_percent)
    {
        return Verdict::Frozen;
    }
    match cap_of(curve, day.step) {
        Some(cap) if u64::from(day.sent) * 2 < u64::from(cap) => Verdict::HardlyUsed,
        _ => Verdict::Counts,
    }
}

/// The day of `date`, which comes after that of `day`.
pub(super) fn next_day(curve: &WarmUp, day: DayCount, tally: Tally, date: u32) -> DayCount {
    let step = match judge(curve, day, tally) {
        Verdict::Counts => day.step.saturating_add(1).min(STEP_MAX),
        Verdict::Begins | Verdict::HardlyUsed | Verdict::Frozen => day.step,
    };
    DayCount { date, step, sent: 0 }
}

/// Where a source stands on `today`, as far as is known: a day that is over is judged.
pub(super) fn standing(curve: &WarmUp, day: DayCount, tally: Tally, today: u32) -> DayCount {
    // A warm source is counted no more. A shard whose day begins a moment later than another's goes
    // by the later one.
    if cap_of(curve, day.step).is_none() || day.date >= today {
        return day;
    }
    next_day(curve, day, tally, today)
}

/// Messages of a day that are written down together.
fn ahead(cap: u32) -> u32 {
    (cap / AHEAD_SHARE).max(1)
}

/// Whether the count must be written when it reaches `sent`: a new part of the day is begun.
pub(super) fn is_written_at(sent: u32, cap: u32) -> bool {
    sent > 0 && (sent - 1).is_multiple_of(ahead(cap))
}

/// What is written of a count: all of the part that is begun.
pub(super) fn written_of(sent: u32, cap: u32) -> u32 {
    sent.div_ceil(ahead(cap)).saturating_mul(ahead(cap)).min(cap).max(sent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::cell::{Day, DayKey, Receiver, Refused};
    use crate::model::settings::Overflow;

    fn curve(days: &[u32]) -> WarmUp {
        let overflow = Overflow::Pool;
        WarmUp { days: days.to_vec(), overflow, freeze_percent: 10, freeze_sample: 50 }
    }

    fn rising() -> WarmUp {
        curve(&[2, 3, 5])
    }

    fn day(step: u16, sent: u32) -> DayCount {
        DayCount { date: 20_000, step, sent }
    }

    #[test]
    fn dates_are_those_of_utc() {
        assert_eq!(date_of(Wall(0)), 0);
        let end = end_of(20_000);
        assert_eq!([date_of(Wall(end.0 - 1)), date_of(end)], [20_000, 20_001]);
        assert_eq!(date_of(Wall(u64::MAX)), 213_503);
    }

    #[test]
    fn a_day_counts_if_half_of_it_was_sent() {
        let curve = curve(&[50, 101]);
        let verdict = |day| judge(&curve, day, Tally::default());
        assert_eq!(verdict(DayCount::default()), Verdict::Begins);
        assert_eq!(
            [verdict(day(0, 24)), verdict(day(0, 25))],
            [Verdict::HardlyUsed, Verdict::Counts]
        );
        assert_eq!(
            [verdict(day(1, 50)), verdict(day(1, 51))],
            [Verdict::HardlyUsed, Verdict::Counts]
        );
    }

    #[test]
    fn a_day_is_repeated_over_the_share_and_from_the_sample_on() {
        let curve = curve(&[50]);
        let verdict = |answers, bad| judge(&curve, day(0, 50), Tally { answers, bad });
        assert_eq!(verdict(49, 49), Verdict::Counts, "too few to tell");
        assert_eq!(verdict(50, 5), Verdict::Counts, "as much as may be");
        assert_eq!(verdict(50, 6), Verdict::Frozen);
        assert_eq!(verdict(4_000_000, 4_000_000), Verdict::Frozen);
    }

    #[test]
    fn behind_the_last_day_the_source_is_warm_and_stays_so() {
        let curve = curve(&[50, 100]);
        let warm = next_day(&curve, day(1, 100), Tally::default(), 20_001);
        assert_eq!((warm.step, cap_of(&curve, warm.step)), (2, None));
        assert_eq!(standing(&curve, warm, Tally::default(), 20_400), warm);
    }

    #[test]
    fn days_without_mail_take_one_step_at_most() {
        let curve = curve(&[50, 100, 200]);
        let later = standing(&curve, day(0, 50), Tally::default(), 20_300);
        assert_eq!(later, DayCount { date: 20_300, step: 1, sent: 0 });
        let again = standing(&curve, later, Tally::default(), 20_301);
        assert_eq!(again, DayCount { date: 20_301, step: 1, sent: 0 }, "nothing was sent");
    }

    #[test]
    fn what_is_written_is_ahead_by_a_twentieth_at_most() {
        for cap in [1, 3, 19, 40, 50, 1_000] {
            let mut written = 0;
            for sent in 1..=cap {
                if is_written_at(sent, cap) {
                    written = written_of(sent, cap);
                }
                assert!((sent..=cap).contains(&written), "{sent} of {cap}: {written}");
                assert!(written - sent < ahead(cap));
            }
        }
        assert_eq!(written_of(7, 3), 7, "of a curve that was lowered");
    }

    /// What can happen to a day.
    #[derive(Clone, Debug)]
    enum Event {
        Send,
        PutBack,
        Answer(bool),
        Pass(u32),
        /// A shard whose clock is a little behind asks.
        SendLate,
        Restart,
        Reload(Vec<u32>),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            20 => Just(Event::Send),
            2 => Just(Event::PutBack),
            8 => any::<bool>().prop_map(Event::Answer),
            4 => (1..4_u32).prop_map(Event::Pass),
            2 => Just(Event::SendLate),
            1 => Just(Event::Restart),
            1 => prop::collection::vec(1..6_u32, 1..5).prop_map(|mut days| {
                days.sort_unstable();
                Event::Reload(days)
            }),
        ]
    }

    /// A message on `today`: the day it counts in.
    fn send(cell: &Day, curve: &WarmUp, today: u32) -> Option<DayCount> {
        loop {
            let before = cell.count();
            let stands = standing(curve, before, cell.tally(before.date), today);
            let cap = cap_of(curve, stands.step)?;
            if stands.date != before.date {
                assert!(cell.turn(before, stands), "nobody else is here");
            }
            match cell.take(stands, cap) {
                Ok(sent) => return Some(DayCount { sent, ..stands }),
                Err(Refused::Full) => return None,
                Err(Refused::Moved) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn no_day_holds_more_than_its_cap_and_steps_follow_each_other(
            events in prop::collection::vec(any_event(), 1..300),
        ) {
            let key = DayKey { source: "s".into(), receiver: Receiver::Site("r".into()) };
            let mut cell = Day::new(key.clone());
            let mut curve = WarmUp { freeze_sample: 2, ..rising() };
            let (mut today, mut sent, mut largest, mut last) = (20_000, 0, 0, DayCount::default());
            for event in events {
                match event {
                    Event::Send | Event::SendLate => {
                        let late = u32::from(matches!(event, Event::SendLate) && sent > 0);
                        let Some(taken) = send(&cell, &curve, today - late) else { continue };
                        prop_assert_eq!(taken.date, today, "the later day is right");
                        sent += 1;
                        largest = largest.max(cap_of(&curve, taken.step).unwrap());
                        prop_assert!(sent <= largest, "{} of {}", sent, largest);
                        let step = u32::from(taken.step) - u32::from(last.step);
                        prop_assert!(step <= u32::from(taken.date != last.date), "one a day");
                        last = taken;
                    }
                    Event::PutBack if sent > 0 => {
                        cell.put_back(today);
                        sent -= 1;
                    }
                    Event::Answer(is_bad) => cell.note_answer(is_bad),
                    Event::Pass(days) => {
                        today += days;
                        (sent, largest) = (0, 0);
                    }
                    Event::Restart => {
                        let (count, tally) = (cell.count(), cell.tally(cell.count().date));
                        cell = Day::new(key.clone());
                        cell.restore(count, tally);
                    }
                    Event::Reload(days) => curve.days = days,
                    Event::PutBack => {}
                }
            }
        }
    }
}
