//! Messages of one day that a source in its warm-up may send to one receiver, counted by all shards.
//!
//! ```text
//! count = date 20 | step 12 | sent 32        answers = date 20 | answers 22 | bad 22
//! ```
//! Both words carry the date they are of, so neither needs the other's consent: a message is counted
//! only in the day that its shard has looked at, and what is said of a day that is over is not held
//! against the next. The count only grows, but for a message that was not sent after all: of two
//! shards that disagree, the later day is right.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::base::cell::atomics::{AtomicU64, Ordering};

const SENT_BITS: u32 = 32;
const STEP_BITS: u32 = 12;
const ANSWER_BITS: u32 = 22;
const ANSWERS_MAX: u64 = (1 << ANSWER_BITS) - 1;

/// The last date that can be told: in the year 4840.
pub const DATE_MAX: u32 = (1 << 20) - 1;
/// The last place in a curve that can be told.
pub const STEP_MAX: u16 = (1 << STEP_BITS) - 1;

/// What is counted together: a source, and who receives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DayKey {
    pub source: Box<str>,
    pub receiver: Receiver,
}

/// Who counts what a source sends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Receiver {
    Provider(Box<str>),
    /// A site of no provider, by the name of its key.
    Site(Box<str>),
}

/// A day of a curve. The later one is the larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayCount {
    /// Days since 1970; 0: nothing was sent yet.
    pub date: u32,
    /// How far the curve is, from 0.
    pub step: u16,
    /// Messages of this day.
    pub sent: u32,
}

/// What was answered on one day; from four million on nothing more is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answers: u32,
    /// Of these, those that were throttled or refused for who we are.
    pub bad: u32,
}

/// Why a message was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The day is full.
    Full,
    /// Another shard has begun another day: look again.
    Moved,
}

/// The count of one source at one receiver.
pub struct Day {
    key: DayKey,
    words: CachePadded<Words>,
}

#[derive(Debug, Default)]
struct Words {
    count: AtomicU64,
    answers: AtomicU64,
}

impl Day {
    #[must_use]
    pub fn new(key: DayKey) -> Self {
        Self { key, words: CachePadded::new(Words::default()) }
    }

    #[must_use]
    pub fn key(&self) -> &DayKey {
        &self.key
    }

    #[must_use]
    pub fn count(&self) -> DayCount {
        DayCount::of_word(self.words.count.load(Ordering::SeqCst))
    }

    /// What was answered on a date.
    #[must_use]
    pub fn tally(&self, date: u32) -> Tally {
        let word = self.words.answers.load(Ordering::SeqCst);
        if date_of_answers(word) == date { Tally::of_word(word) } else { Tally::default() }
    }

    /// Counts one message in the day that was looked at, unless it has `cap` already. The count with
    /// it.
    ///
    /// # Errors
    /// Why it may not be sent.
    pub fn take(&self, day: DayCount, cap: u32) -> Result<u32, Refused> {
        let mut word = self.words.count.load(Ordering::SeqCst);
        // Ends: each round more means that another shard counted.
        loop {
            let count = DayCount::of_word(word);
            if (count.date, count.step) != (day.date, day.step) {
                return Err(Refused::Moved);
            }
            if count.sent >= cap {
                return Err(Refused::Full);
            }
            let next = DayCount { sent: count.sent + 1, ..count };
            match self.swap(word, next) {
                Ok(()) => return Ok(next.sent),
                Err(moved) => word = moved,
            }
        }
    }

    /// A message counted on `date` was not sent. Of a day that is over nothing is taken back.
    pub fn put_back(&self, date: u32) {
        let mut word = self.words.count.load(Ordering::SeqCst);
        loop {
            let count = DayCount::of_word(word);
            if count.date != date || count.sent == 0 {
                return;
            }
            match self.swap(word, DayCount { sent: count.sent - 1, ..count }) {
                Ok(()) => return,
                Err(moved) => word = moved,
            }
        }
    }

    /// Begins another day. `false`: something was counted, or begun, meanwhile.
    #[must_use]
    pub fn turn(&self, from: DayCount, to: DayCount) -> bool {
        self.swap(from.word(), to).is_ok()
    }

    /// An answer to a message of the present day.
    pub fn note_answer(&self, is_bad: bool) {
        let date = self.count().date;
        let mut word = self.words.answers.load(Ordering::SeqCst);
        loop {
            if date_of_answers(word) > date {
                return;
            }
            let before = Tally::of_word(if date_of_answers(word) == date { word } else { 0 });
            if u64::from(before.answers) >= ANSWERS_MAX {
                return;
            }
            let next = Tally { answers: before.answers + 1, bad: before.bad + u32::from(is_bad) };
            let swap = self.words.answers.compare_exchange(
                word,
                next.word(date),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            match swap {
                Ok(_) => return,
                Err(moved) => word = moved,
            }
        }
    }

    /// What an earlier run left: it holds where it is later than what this one knows.
    pub fn restore(&self, count: DayCount, tally: Tally) {
        self.words.count.fetch_max(count.word(), Ordering::SeqCst);
        self.words.answers.fetch_max(tally.word(count.date), Ordering::SeqCst);
    }

    fn swap(&self, from: u64, to: DayCount) -> Result<(), u64> {
        let words = &self.words.count;
        words.compare_exchange(from, to.word(), Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }
}

impl fmt::Debug for Day {
    /// The name alone: the numbers are another shard's business at any moment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Day({:?})", self.key)
    }
}

impl DayCount {
    fn word(self) -> u64 {
        let (date, step) = (self.date.min(DATE_MAX), self.step.min(STEP_MAX));
        u64::from(date) << (STEP_BITS + SENT_BITS)
            | u64::from(step) << SENT_BITS
            | u64::from(self.sent)
    }

    fn of_word(word: u64) -> Self {
        Self {
            date: low_bits(word >> (STEP_BITS + SENT_BITS), 20),
            step: u16::try_from(low_bits(word >> SENT_BITS, STEP_BITS)).unwrap_or(STEP_MAX),
            sent: low_bits(word, SENT_BITS),
        }
    }
}

impl Tally {
    fn word(self, date: u32) -> u64 {
        let most = |number: u32| u64::from(number).min(ANSWERS_MAX);
        u64::from(date.min(DATE_MAX)) << (2 * ANSWER_BITS)
            | most(self.answers) << ANSWER_BITS
            | most(self.bad)
    }

    fn of_word(word: u64) -> Self {
        Self {
            answers: low_bits(word >> ANSWER_BITS, ANSWER_BITS),
            bad: low_bits(word, ANSWER_BITS),
        }
    }
}

fn date_of_answers(word: u64) -> u32 {
    low_bits(word >> (2 * ANSWER_BITS), 20)
}

fn low_bits(word: u64, bits: u32) -> u32 {
    u32::try_from(word & ((1 << bits) - 1)).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn day() -> Day {
        let receiver = Receiver::Provider("p".into());
        Day::new(DayKey { source: "s".into(), receiver })
    }

    fn begun(date: u32, step: u16) -> (Day, DayCount) {
        let (day, count) = (day(), DayCount { date, step, sent: 0 });
        assert!(day.turn(DayCount::default(), count));
        (day, count)
    }

    #[test]
    fn no_more_than_the_cap_are_counted_and_only_in_the_day_that_was_looked_at() {
        let (day, first) = begun(20_000, 0);
        assert_eq!([day.take(first, 2), day.take(first, 2)], [Ok(1), Ok(2)]);
        assert_eq!(day.take(first, 2), Err(Refused::Full));
        let second = DayCount { date: 20_001, step: 1, sent: 0 };
        assert!(!day.turn(first, second), "two were counted since");
        assert!(day.turn(day.count(), second));
        assert_eq!(day.take(first, 9), Err(Refused::Moved));
        assert_eq!(day.take(second, u32::MAX), Ok(1));
    }

    #[test]
    fn what_was_not_sent_is_taken_back_from_its_own_day_only() {
        let (day, first) = begun(20_000, 3);
        day.take(first, 5).unwrap();
        day.put_back(20_000);
        day.put_back(20_000);
        assert_eq!(day.count(), first, "never below nothing");
        day.take(first, 5).unwrap();
        let second = DayCount { date: 20_001, step: 4, sent: 0 };
        assert!(day.turn(day.count(), second));
        day.take(second, 5).unwrap();
        day.put_back(20_000);
        assert_eq!(day.count().sent, 1);
    }

    #[test]
    fn answers_are_of_the_day_on_which_they_come() {
        let (day, first) = begun(20_000, 0);
        for is_bad in [true, false, false] {
            day.note_answer(is_bad);
        }
        assert_eq!(day.tally(20_000), Tally { answers: 3, bad: 1 });
        assert_eq!(day.tally(19_999), Tally::default());
        assert!(day.turn(first, DayCount { date: 20_001, step: 1, sent: 0 }));
        assert_eq!(day.tally(20_001), Tally::default());
        day.note_answer(false);
        assert_eq!(day.tally(20_001), Tally { answers: 1, bad: 0 });
    }

    #[test]
    fn what_is_restored_holds_unless_more_is_known() {
        let tally = Tally { answers: 7, bad: 2 };
        let left = DayCount { date: 20_000, step: 2, sent: 40 };
        let day = day();
        for _ in 0..2 {
            day.restore(left, tally);
            assert_eq!((day.count(), day.tally(20_000)), (left, tally));
        }
        day.restore(DayCount { date: 19_999, step: 1, sent: 90 }, Tally::default());
        assert_eq!((day.count(), day.tally(20_000)), (left, tally));
    }

    #[test]
    fn the_largest_values_keep_to_their_bits() {
        let most = DayCount { date: u32::MAX, step: u16::MAX, sent: u32::MAX };
        let kept = DayCount { date: DATE_MAX, step: STEP_MAX, sent: u32::MAX };
        let day = day();
        day.restore(most, Tally { answers: u32::MAX, bad: u32::MAX });
        assert_eq!(day.count(), kept);
        let all = (1 << ANSWER_BITS) - 1;
        day.note_answer(true);
        assert_eq!(day.tally(DATE_MAX), Tally { answers: all, bad: all });
        assert_eq!(day.take(kept, u32::MAX), Err(Refused::Full));
    }
}
