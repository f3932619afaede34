//! An operator's questions and orders, taken up in the turn they come in.

use std::sync::Arc;

use super::event::AskedId;
use super::storage::opened;
use super::{Effect, Effects, Shard};
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::admin::{Answer, LINES_MAX, MessageFound, PartFound, Query};
use crate::model::delivery::RecordInMemory;
use crate::model::message::MessageId;
use crate::spool::PendingRun;

impl Shard {
    /// Answers at once, but for a message: its record is read first.
    pub(super) fn asked(&mut self, now: Now, asked: AskedId, query: &Query, out: &mut Effects) {
        let steady = self.clock.now(now);
        let answer = match query {
            Query::Sites { most } => {
                Answer::Sites(self.scheduler.list_sites(steady, (*most).min(LINES_MAX)))
            }
            Query::Site { name } => {
                Answer::Site(self.scheduler.describe_site(steady, name).into_iter().collect())
            }
            Query::SitesOf { domain } => {
                Answer::Site(self.scheduler.describe_sites_of(steady, domain))
            }
            Query::Queue { most } => {
                Answer::Queue(self.scheduler.list_queue(steady, (*most).min(LINES_MAX)))
            }
            Query::Message(id) => match self.spool.pending_place(*id) {
                Some(place) => return self.fetch_for_question(asked, *id, place, out),
                None if self.knows_all_messages() || planted(Bug::ToldBeforeTakenOver) => {
                    Answer::Message(None)
                }
                None => Answer::NotYet,
            },
            Query::Wait(wanted) => {
                Answer::Wait(self.scheduler.describe_wait(steady, wanted).map(Box::new))
            }
            Query::Steer(steer) => return self.ordered(now, asked, steer, out),
        };
        answered(asked, answer, out);
    }

    /// What the spool knows of a message whose record was read.
    pub(super) fn tell_of_message(
        &self,
        now: Now,
        asked: AskedId,
        id: MessageId,
        record: &RecordInMemory,
        out: &mut Effects,
    ) {
        let found = self.message_found(now, id, &record.block.bytes()[record.at as usize..]);
        answered(asked, Answer::Message(found.map(Box::new)), out);
    }

    fn message_found(&self, now: Now, id: MessageId, record: &[u8]) -> Option<MessageFound> {
        let (view, envelope) = opened(record)?;
        let runs = self.spool.pending_runs(id);
        if runs.is_empty() && !planted(Bug::FinishedExplained) {
            // Over since its record was asked for.
            return None;
        }
        let mut parts = Vec::new();
        for group in envelope.groups() {
            let (domain, site) = self.routing.last_known(group.domain);
            let in_group = |run: &PendingRun| {
                let first = run.first.max(group.first);
                let end = (run.first + run.count).min(group.first + group.count);
                (first < end).then(|| end - first)
            };
            for (run, recipients) in runs.iter().filter_map(|run| Some((run, in_group(run)?))) {
                let due = run.due.map(|due| due.since(now.wall).as_millis().div_ceil(1000));
                parts.push(PartFound {
                    domain: Arc::clone(&domain),
                    recipients,
                    attempts: run.attempts,
                    next_try_seconds: due.and_then(|due| u64::try_from(due).ok()),
                    site: site.clone(),
                });
            }
        }
        parts.truncate(LINES_MAX);
        let (message, bytes) = (id, view.record_bytes);
        let age_seconds = now.wall.since(view.accepted).as_secs();
        Some(MessageFound { message, flow: Arc::new(envelope.flow()), age_seconds, bytes, parts })
    }
}

pub(super) fn answered(asked: AskedId, answer: Answer, out: &mut Effects) {
    out.push(Effect::Answer { asked, answer: Box::new(answer) });
}
