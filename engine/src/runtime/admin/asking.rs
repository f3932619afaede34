//! One question to all shards, and their answers put together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::mesh::{Control, Mesh};
use crate::model::admin::{
    Amounts, Answer, FlowLine, LINES_MAX, MessageFound, Query, QueueReport, SiteList, SiteReport,
    Steer, Steered,
};
use crate::model::connection::ShardId;
use crate::model::message::MessageId;

/// A shard answers in its next turn; this long only when the machine is in trouble.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// When a shard's mailbox is full.
const POST_AGAIN: Duration = Duration::from_millis(1);

/// No answer came: the engine stops, or a shard is stuck.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the engine does not answer: it is stopping, or overloaded")]
pub(super) struct Silent;

/// What became of the search for a message.
pub(super) enum Search<T = Box<MessageFound>> {
    Found(T),
    Nowhere,
    /// Some shard still reads what the spool held at the start.
    NotYet,
}

/// What became of an order.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Done(Steered),
    /// No shard did it.
    Refused(String),
    /// Some shards did it, of which it tells.
    InPart {
        done: Steered,
        why: String,
    },
    /// Some shards did not answer, and may have done it or may do it yet; of the others it tells.
    Unknown {
        done: Steered,
        why: String,
    },
}

/// All shards, to be asked.
#[derive(Clone)]
pub(super) struct Shards {
    mesh: Arc<Mesh>,
    /// Orders so far.
    orders: Arc<AtomicU64>,
}

impl Shards {
    pub(super) fn new(mesh: Arc<Mesh>) -> Self {
        Self { mesh, orders: Arc::default() }
    }

    /// A number that tells an order from the others of this run.
    pub(super) fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn shards(&self) -> u16 {
        u16::try_from(self.mesh.shards()).unwrap_or(u16::MAX)
    }

    /// Asks one shard.
    pub(super) async fn ask(&self, shard: ShardId, query: Query) -> Result<Answer, Silent> {
        let answer = self.post(shard, query);
        tokio::time::timeout(ANSWER_TIME, answer).await.map_err(|_| Silent)?
    }

    async fn post(&self, shard: ShardId, query: Query) -> Result<Answer, Silent> {
        let (sender, receiver) = oneshot::channel();
        let mut word = Control::Ask { query: Box::new(query), answer: sender };
        while let Err(back) = self.mesh.control(shard, word) {
            word = back;
            tokio::time::sleep(POST_AGAIN).await;
        }
        receiver.await.map_err(|_| Silent)
    }

    /// Asks all shards at once.
    async fn ask_all(&self, query: Query) -> Result<Vec<Answer>, Silent> {
        self.ask_each(query).await.into_iter().collect()
    }

    /// The same, where it matters who answered.
    async fn ask_each(&self, query: Query) -> Vec<Result<Answer, Silent>> {
        let mut asked = Vec::new();
        for shard in (0..self.shards()).map(ShardId) {
            let (shards, query) = (self.clone(), query.clone());
            asked.push(tokio::spawn(async move { shards.ask(shard, query).await }));
        }
        let mut answers = Vec::with_capacity(asked.len());
        for one in asked {
            answers.push(one.await.unwrap_or(Err(Silent)));
        }
        answers
    }

    /// The sites with most mail of all shards.
    pub(super) async fn sites(&self, most: usize) -> Result<SiteList, Silent> {
        let mut all = SiteList::default();
        for answer in self.ask_all(Query::Sites { most }).await? {
            let Answer::Sites(list) = answer else { return Err(Silent) };
            all.total.add(&list.total);
            all.left_out += list.left_out;
            all.sites.extend(list.sites);
        }
        all.sites.sort_by(|a, b| more_first(&a.amounts, &b.amounts).then(a.site.cmp(&b.site)));
        all.left_out += all.sites.len().saturating_sub(most) as u64;
        all.sites.truncate(most);
        Ok(all)
    }

    /// A site; where none has the name, those of the domain of that name.
    pub(super) async fn site(&self, name: &str) -> Result<Vec<SiteReport>, Silent> {
        let named = self.reports(Query::Site { name: name.into() }).await?;
        if !named.is_empty() {
            return Ok(named);
        }
        self.reports(Query::SitesOf { domain: name.into() }).await
    }

    async fn reports(&self, query: Query) -> Result<Vec<SiteReport>, Silent> {
        let mut all = Vec::new();
        for answer in self.ask_all(query).await? {
            let Answer::Site(reports) = answer else { return Err(Silent) };
            all.extend(reports);
        }
        Ok(all)
    }

    /// A flow may be among the first of one shard and far down the list of another: each tells as many
    /// as it may.
    pub(super) async fn queue(&self, most: usize) -> Result<QueueReport, Silent> {
        let mut reports = Vec::new();
        for answer in self.ask_all(Query::Queue { most: LINES_MAX }).await? {
            let Answer::Queue(report) = answer else { return Err(Silent) };
            reports.push(report);
        }
        Ok(one_queue(reports, most))
    }

    /// What would be concerned.
    pub(super) async fn count(&self, steer: Steer) -> Result<Steered, Silent> {
        let mut all = Steered::default();
        for answer in self.ask_all(Query::Steer(Steer { dry_run: true, ..steer })).await? {
            let Answer::Steered(steered) = answer else { return Err(Silent) };
            all.add(&steered);
        }
        Ok(all)
    }

    /// Does it.
    pub(super) async fn steer(&self, steer: Steer) -> Outcome {
        let answers = self.ask_each(Query::Steer(Steer { dry_run: false, ..steer })).await;
        outcome(answers)
    }

    /// What the home of a message knows of it.
    pub(super) async fn message(&self, id: MessageId) -> Result<Search, Silent> {
        let mut search = Search::Nowhere;
        for answer in self.ask_all(Query::Message(id)).await? {
            match answer {
                Answer::Message(Some(found)) => return Ok(Search::Found(found)),
                Answer::NotYet => search = Search::NotYet,
                _ => {}
            }
        }
        Ok(search)
    }
}

/// Puts together what shards answered to one order.
fn outcome(answers: Vec<Result<Answer, Silent>>) -> Outcome {
    let (all, mut done) = (answers.len(), Steered::default());
    let (mut refused, mut silent, mut reason) = (0, 0, None);
    for answer in answers {
        match answer {
            Ok(Answer::Steered(Steered { refused: Some(why), .. })) => {
                refused += 1;
                reason = reason.or(Some(why));
            }
            Ok(Answer::Steered(steered)) => done.add(&steered),
            Ok(_) | Err(Silent) => silent += 1,
        }
    }
    let amounts = format!(
        "of {all} shards {} did it, with {} deliveries at {} sites",
        all - refused - silent,
        done.amounts.waiting(),
        done.sites
    );
    match reason {
        _ if silent > 0 => {
            let why = format!(
                "{Silent}: {amounts}; {silent} did not answer, and may have done it or do it yet"
            );
            Outcome::Unknown { done, why }
        }
        None => Outcome::Done(done),
        Some(why) if refused == all => Outcome::Refused(why),
        Some(why) => {
            let why = format!("done in part: {amounts}; {refused} refused: {why}");
            Outcome::InPart { done, why }
        }
    }
}

/// The queues of all shards as one, with the first `most` flows.
fn one_queue(reports: Vec<QueueReport>, most: usize) -> QueueReport {
    let mut all = QueueReport::default();
    for report in reports {
        all.total.add(&report.total);
        all.left_out += report.left_out;
        all.at_least |= report.at_least;
        all.flows.extend(report.flows);
        all.holds.extend(report.holds);
    }
    // Each shard has the same holds; who asked each a moment later may be told another second.
    all.holds.sort();
    all.holds.dedup_by(|a, b| (&a.scope, &a.by) == (&b.scope, &b.by));
    all.flows = joined(all.flows);
    all.left_out += all.flows.len().saturating_sub(most) as u64;
    all.flows.truncate(most);
    all
}

fn more_first(one: &Amounts, other: &Amounts) -> std::cmp::Ordering {
    let mail = |amounts: &Amounts| amounts.waiting() + amounts.in_flight;
    mail(other).cmp(&mail(one))
}

/// Lines of the same flow as one.
fn joined(mut lines: Vec<FlowLine>) -> Vec<FlowLine> {
    fn name(line: &FlowLine) -> (&str, &str, &str) {
        (&line.class, &line.tenant, &line.campaign)
    }
    lines.sort_by(|a, b| name(a).cmp(&name(b)));
    let mut all: Vec<FlowLine> = Vec::with_capacity(lines.len());
    for line in lines {
        match all.last_mut() {
            Some(last) if name(last) == name(&line) => last.amounts.add(&line.amounts),
            _ => all.push(line),
        }
    }
    all.sort_by(|a, b| more_first(&a.amounts, &b.amounts));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_flow_on_two_shards_is_one_line() {
        let line = |tenant: &str, ready| FlowLine {
            class: "bulk".to_owned(),
            tenant: tenant.to_owned(),
            campaign: String::new(),
            amounts: Amounts { ready, deferred: 1, in_flight: 0 },
        };
        let lines = joined(vec![line("a", 2), line("b", 4), line("a", 3)]);
        assert_eq!(lines.len(), 2);
        assert_eq!((&*lines[0].tenant, lines[0].amounts.ready), ("a", 5));
        assert_eq!((lines[0].amounts.deferred, lines[1].amounts.ready), (2, 4));
    }

    fn flow(tenant: &str, ready: u64) -> FlowLine {
        FlowLine {
            class: "bulk".to_owned(),
            tenant: tenant.to_owned(),
            campaign: String::new(),
            amounts: Amounts { ready, ..Amounts::default() },
        }
    }

    #[test]
    fn a_flow_that_is_first_only_over_all_shards_is_first() {
        let report = |flows| QueueReport { flows, ..QueueReport::default() };
        let one = report(vec![flow("a", 5), flow("c", 4)]);
        let mut other = report(vec![flow("b", 5), flow("c", 4)]);
        let all = one_queue(vec![one.clone(), other.clone()], 1);
        assert_eq!((&all.flows[..], all.left_out, all.at_least), (&[flow("c", 8)][..], 2, false));
        other.at_least = true;
        assert!(one_queue(vec![one, other], 1).at_least, "a shard has left out what may be more");
    }

    fn steered(ready: u64, refused: Option<&str>) -> Result<Answer, Silent> {
        Ok(Answer::Steered(Steered {
            amounts: Amounts { ready, ..Amounts::default() },
            sites: 1,
            known: true,
            refused: refused.map(str::to_owned),
            ..Steered::default()
        }))
    }

    #[test]
    fn an_order_that_only_some_shards_did_is_told_as_such() {
        assert!(matches!(outcome(vec![steered(2, None), steered(3, None)]), Outcome::Done(done)
            if done.amounts.ready == 5));
        let refused = outcome(vec![steered(2, Some("full")), steered(3, Some("full"))]);
        assert_eq!(refused, Outcome::Refused("full".to_owned()));
        let Outcome::InPart { done, why } =
            outcome(vec![steered(2, None), steered(3, Some("full"))])
        else {
            panic!("one of two did it")
        };
        assert_eq!((done.amounts.ready, done.sites), (2, 1));
        assert!(why.contains("1 did it, with 2 deliveries") && why.contains("full"), "{why}");
    }

    #[test]
    fn an_order_without_an_answer_may_have_been_done() {
        let silent = outcome(vec![steered(2, None), Err(Silent)]);
        let Outcome::Unknown { done, why } = silent else { panic!("who knows: {silent:?}") };
        assert_eq!(done.amounts.ready, 2);
        assert!(why.contains("1 did not answer, and may have done it"), "{why}");
        let all = outcome(vec![Err(Silent), steered(1, Some("full"))]);
        assert!(matches!(all, Outcome::Unknown { .. }), "{all:?}");
    }
}
