//! The resolver of the process: questions of all shards in, answers out, on the control thread.
//!
//! One loop owns everything: a table decides what is known, what is being asked and who waits; a
//! bounded number of lookups runs at once beside it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::clock;
use crate::model::connection::ShardId;
use crate::model::route::{Answer, Question};
use crate::model::settings::DnsSettings;
use crate::shard::event::QuestionId;

mod lookup;
mod table;
#[cfg(test)]
mod zone;

use lookup::Dns;
pub(super) use lookup::{ResolverError, SOCKETS_MAX};
use table::{Handled, Table};

/// Questions on their way to the control thread. A shard whose question does not fit keeps it and
/// asks again; nothing is dropped.
const QUESTIONS_MAX: usize = 16_384;

/// Domains being looked up at once; the rest waits in order. More would only wait for
/// [`lookup::QUERIES_MAX`].
const LOOKUPS_MAX: usize = 256;

/// Questions waiting for lookups. At this number no more are taken from the queue, which then
/// fills and slows the shards down.
const WAITERS_MAX: usize = 65_536;

/// Domains remembered; at some 500 bytes each, 50 MB.
const ENTRIES_MAX: usize = 100_000;

/// A question and who wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub from: ShardId,
    pub question: QuestionId,
    pub what: Question,
}

/// The shards' end of the queue of questions.
#[derive(Clone, Debug)]
pub(super) struct Questions(mpsc::Sender<Asked>);

/// The control thread's end.
#[derive(Debug)]
pub(super) struct QuestionInbox(mpsc::Receiver<Asked>);

/// What answers.
pub(super) struct Resolver {
    dns: Arc<Dns>,
    table: Table<(ShardId, QuestionId)>,
}

/// A queue of questions; it may be written from any thread.
#[must_use]
pub(super) fn questions() -> (Questions, QuestionInbox) {
    let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
    (Questions(sender), QuestionInbox(receiver))
}

impl Questions {
    /// Puts a question into the queue, without waiting.
    ///
    /// # Errors
    /// Hands it back if the queue is full or the resolver has ended: ask again later.
    pub(super) fn ask(&self, asked: Asked) -> Result<(), Asked> {
        self.0.try_send(asked).map_err(mpsc::error::TrySendError::into_inner)
    }
}

impl Resolver {
    /// # Errors
    /// No servers were set, and the system names none either.
    pub(super) fn new(settings: &DnsSettings) -> Result<Self, ResolverError> {
        let dns = Arc::new(Dns::new(settings)?);
        Ok(Self { dns, table: Table::new(ENTRIES_MAX, LOOKUPS_MAX) })
    }

    /// Answers until every [`Questions`] is dropped; run it inside a tokio runtime with I/O and
    /// time. Each question is answered once; `answer` must not block.
    pub(super) async fn run(
        mut self,
        mut inbox: QuestionInbox,
        answer: impl Fn(ShardId, QuestionId, Arc<Answer>),
    ) {
        let mut lookups = JoinSet::new();
        loop {
            while let Some(question) = self.table.poll_lookup() {
                let dns = Arc::clone(&self.dns);
                lookups.spawn(async move {
                    let found = dns.answer(&question).await;
                    (question, found)
                });
            }
            tokio::select! {
                asked = inbox.0.recv(), if self.table.waiting() < WAITERS_MAX => match asked {
                    Some(asked) => self.handle_question(asked, &answer),
                    None => return,
                },
                Some(done) = lookups.join_next() => match done {
                    Ok((question, found)) => self.handle_answer(&question, found, &answer),
                    Err(error) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic())
                    }
                    Err(_) => return,
                },
            }
        }
    }

    fn handle_question(
        &mut self,
        asked: Asked,
        answer: &impl Fn(ShardId, QuestionId, Arc<Answer>),
    ) {
        let waiter = (asked.from, asked.question);
        match self.table.handle_question(waiter, asked.what, clock::now().mono) {
            Handled::Known(known) => answer(asked.from, asked.question, known),
            Handled::Waits => {}
        }
    }

    fn handle_answer(
        &mut self,
        question: &Question,
        found: Answer,
        answer: &impl Fn(ShardId, QuestionId, Arc<Answer>),
    ) {
        let (waiters, found) = self.table.handle_answer(question, found, clock::now().mono);
        for (shard, id) in waiters {
            answer(shard, id, Arc::clone(&found));
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("waiting", &self.table.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::zone::{Zone, settings, start_server};
    use super::*;

    fn ask(questions: &Questions, shard: u16, question: u32, domain: &str) {
        let what = Question::MailHosts(domain.into());
        let asked = Asked { from: ShardId(shard), question: QuestionId(question), what };
        questions.ask(asked).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_question_is_answered_once_and_a_domain_is_asked_once() {
        let zone = Zone::default().mx("a.test", 10, "mx.a.test").a("mx.a.test", [192, 0, 2, 1]);
        let server = start_server(zone).await;
        let resolver = Resolver::new(&settings(&server)).unwrap();
        let (questions, inbox) = questions();
        for number in 0..500 {
            let domain = if number % 2 == 0 { "a.test" } else { "missing.test" };
            ask(&questions, 1, number, domain);
        }
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&seen);
        let held = RefCell::new(Some(questions));
        let run = resolver.run(inbox, move |shard, id, answer| {
            sink.borrow_mut().push((shard, id, answer.result.is_ok()));
            if sink.borrow().len() == 500 {
                drop(held.take());
            }
        });
        tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
        let mut seen = Rc::try_unwrap(seen).unwrap().into_inner();
        seen.sort_unstable_by_key(|(_, id, _)| id.0);
        let expected = |number| (ShardId(1), QuestionId(number), number % 2 == 0);
        assert_eq!(seen, (0..500).map(expected).collect::<Vec<_>>());
        assert_eq!(server.asked("a.test", hickory_proto::rr::RecordType::MX), 1);
    }

    #[test]
    fn a_full_queue_hands_the_question_back() {
        let (questions, _inbox) = questions();
        for number in 0..u32::try_from(QUESTIONS_MAX).unwrap() {
            ask(&questions, 0, number, "a.test");
        }
        let what = Question::Host("b.test".into());
        let one_more = Asked { from: ShardId(0), question: QuestionId(0), what };
        assert_eq!(questions.ask(one_more.clone()), Err(one_more));
    }
}
