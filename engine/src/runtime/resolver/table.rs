//! What is known of each domain, what is being asked, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::map::Map;
use crate::base::time::Mono;
use crate::model::route::{Answer, DnsFailure, Question};

/// How long after its end an answer still serves when the servers fail (RFC 8767).
const STALE_MAX: Duration = Duration::from_secs(3600);

/// How long a stale answer is given before the servers are asked again (RFC 8767 §4).
const STALE_TTL: Duration = Duration::from_secs(30);

/// The least an answer is good for, so that the end of a TTL does not make a loop.
pub(super) const TTL_MIN: Duration = Duration::from_secs(5);

/// The table, for waiters of any kind.
#[derive(Debug)]
pub(super) struct Table<W> {
    entries: Map<Question, Entry>,
    /// Age of each entry, oldest first.
    by_age: BTreeMap<u64, Question>,
    next_age: u64,
    entries_max: usize,
    /// Who waits, for each question that was sent or waits to be.
    flights: Map<Question, Vec<W>>,
    queued: VecDeque<Question>,
    running: usize,
    running_max: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    age: u64,
    fresh_until: Mono,
    /// Serves until then, if nothing better can be had.
    stale_until: Mono,
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handled {
    Known(Arc<Answer>),
    Waits,
}

impl<W> Table<W> {
    pub(super) fn new(entries_max: usize, running_max: usize) -> Self {
        Self {
            entries: Map::default(),
            by_age: BTreeMap::new(),
            next_age: 0,
            entries_max,
            flights: Map::default(),
            queued: VecDeque::new(),
            running: 0,
            running_max,
            waiting: 0,
        }
    }

    /// Questions not answered yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn handle_question(&mut self, waiter: W, what: Question, now: Mono) -> Handled {
        if let Some(entry) = self.entries.get(&what)
            && entry.fresh_until > now
        {
            let ttl = entry.fresh_until.since(now).max(TTL_MIN);
            return Handled::Known(Arc::new(Answer { ttl, ..entry.answer.clone() }));
        }
        self.waiting += 1;
        if let Some(waiters) = self.flights.get_mut(&what) {
            waiters.push(waiter);
        } else {
            self.queued.push_back(what.clone());
            self.flights.insert(what, vec![waiter]);
        }
        Handled::Waits
    }

    /// The next question to look up, while there may be more lookups.
    pub(super) fn poll_lookup(&mut self) -> Option<Question> {
        if self.running >= self.running_max {
            return None;
        }
        let question = self.queued.pop_front()?;
        self.running += 1;
        Some(question)
    }

    /// Takes what a lookup found; returns those who waited and what to tell them.
    pub(super) fn handle_answer(
        &mut self,
        question: &Question,
        found: Answer,
        now: Mono,
    ) -> (Vec<W>, Arc<Answer>) {
        self.running = self.running.saturating_sub(1);
        let waiters = self.flights.remove(question).unwrap_or_default();
        self.waiting -= waiters.len();
        let answer = match self.stale(question, &found, now) {
            Some(stale) => stale,
            None => {
                self.store(question, found.clone(), now);
                found
            }
        };
        (waiters, Arc::new(answer))
    }

    /// An old answer with hosts, if the servers only failed this time.
    fn stale(&mut self, question: &Question, found: &Answer, now: Mono) -> Option<Answer> {
        if !matches!(found.result, Err(DnsFailure::Temporary(_))) {
            return None;
        }
        let entry = self.entries.get_mut(question)?;
        if entry.answer.result.is_err() || entry.stale_until <= now {
            return None;
        }
        entry.fresh_until = now.plus(STALE_TTL);
        Some(Answer { ttl: STALE_TTL, ..entry.answer.clone() })
    }

    fn store(&mut self, question: &Question, answer: Answer, now: Mono) {
        if let Some(old) = self.entries.remove(question) {
            self.by_age.remove(&old.age);
        }
        while self.entries.len() >= self.entries_max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let age = self.next_age;
        self.next_age += 1;
        let fresh_until = now.plus(answer.ttl);
        let stale_until = fresh_until.plus(STALE_MAX);
        self.by_age.insert(age, question.clone());
        self.entries.insert(question.clone(), Entry { answer, age, fresh_until, stale_until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::ResolvedHost;

    fn question(name: &str) -> Question {
        Question::MailHosts(name.into())
    }

    fn found(name: &str, seconds: u64) -> Answer {
        let host = ResolvedHost { preference: 0, name: name.into(), addresses: Vec::new() };
        Answer { result: Ok(vec![host]), ttl: Duration::from_secs(seconds) }
    }

    fn failed(failure: DnsFailure) -> Answer {
        Answer { result: Err(failure), ttl: Duration::from_secs(15) }
    }

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(seconds))
    }

    fn table() -> Table<u32> {
        Table::new(3, 2)
    }

    /// Asks and answers at one moment.
    fn learn(table: &mut Table<u32>, name: &str, answer: Answer, now: Mono) -> Arc<Answer> {
        assert_eq!(table.handle_question(0, question(name), now), Handled::Waits);
        assert_eq!(table.poll_lookup(), Some(question(name)));
        table.handle_answer(&question(name), answer, now).1
    }

    #[test]
    fn many_questions_make_one_lookup_and_all_are_answered() {
        let mut table = table();
        for waiter in 1..=5 {
            assert_eq!(table.handle_question(waiter, question("a"), at(0)), Handled::Waits);
        }
        assert_eq!(table.poll_lookup(), Some(question("a")));
        assert_eq!(table.poll_lookup(), None);
        assert_eq!(table.handle_question(6, question("a"), at(1)), Handled::Waits);
        let (waiters, answer) = table.handle_answer(&question("a"), found("mx", 60), at(2));
        assert_eq!((waiters, &*answer), (vec![1, 2, 3, 4, 5, 6], &found("mx", 60)));
        assert_eq!(table.waiting(), 0);
    }

    #[test]
    fn an_answer_serves_for_the_rest_of_its_time_only() {
        let mut table = table();
        learn(&mut table, "a", found("mx", 60), at(0));
        let known = table.handle_question(1, question("a"), at(40));
        assert_eq!(known, Handled::Known(Arc::new(found("mx", 20))));
        assert_eq!(table.handle_question(1, question("a"), at(60)), Handled::Waits);
    }

    #[test]
    fn a_failure_is_remembered_too() {
        let mut table = table();
        learn(&mut table, "a", failed(DnsFailure::NoSuchDomain), at(0));
        assert!(matches!(table.handle_question(1, question("a"), at(9)), Handled::Known(_)));
    }

    #[test]
    fn a_stale_answer_helps_over_a_failure_for_an_hour() {
        let mut table = table();
        let down = || failed(DnsFailure::Temporary("down".into()));
        learn(&mut table, "a", found("mx", 60), at(0));
        assert_eq!(*learn(&mut table, "a", down(), at(100)), found("mx", 30));
        let known = table.handle_question(1, question("a"), at(110));
        assert_eq!(known, Handled::Known(Arc::new(found("mx", 20))));
        assert_eq!(*learn(&mut table, "a", down(), at(60 + 3599)), found("mx", 30));
        assert_eq!(*learn(&mut table, "a", down(), at(60 + 3700)), down());
    }

    #[test]
    fn a_definite_no_ends_a_stale_answer() {
        let mut table = table();
        learn(&mut table, "a", found("mx", 60), at(0));
        let gone = || failed(DnsFailure::NoSuchDomain);
        assert_eq!(*learn(&mut table, "a", gone(), at(100)), gone());
        let down = || failed(DnsFailure::Temporary("down".into()));
        assert_eq!(*learn(&mut table, "a", down(), at(200)), down());
    }

    #[test]
    fn lookups_are_bounded_and_start_in_order() {
        let mut table = table();
        for (waiter, name) in (0..).zip(["a", "b", "c", "d"]) {
            table.handle_question(waiter, question(name), at(0));
        }
        assert_eq!(table.poll_lookup(), Some(question("a")));
        assert_eq!(table.poll_lookup(), Some(question("b")));
        assert_eq!(table.poll_lookup(), None);
        table.handle_answer(&question("b"), found("mx", 60), at(0));
        assert_eq!(table.poll_lookup(), Some(question("c")));
        assert_eq!(table.poll_lookup(), None);
        assert_eq!(table.waiting(), 3);
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let mut table = table();
        for name in ["a", "b", "c"] {
            learn(&mut table, name, found("mx", 60), at(0));
        }
        // Learned again, so "b" is now the oldest.
        learn(&mut table, "a", found("mx", 60), at(70));
        learn(&mut table, "d", found("mx", 60), at(70));
        assert_eq!((table.entries.len(), table.by_age.len()), (3, 3));
        let held: Vec<bool> =
            ["a", "b", "c", "d"].map(|name| table.entries.contains_key(&question(name))).into();
        assert_eq!(held, [true, false, true, true]);
    }
}
