//! An operator's questions on their way to the shards, and the answers: as the control thread asks, first
//! the home of a message, then the owners of its sites.

use postrider_engine::model::admin::{
    Answer, MessageFound, PartFound, Query, SiteReport, Waiting, Wanted,
};
use postrider_engine::model::message::MessageId;
use postrider_engine::model::route::SiteKey;
use postrider_engine::shard::{AskedId, Event};

use super::World;
use super::binding::RELOAD_TAKES;
use crate::sim::agenda::Due;
use crate::sim::asking::{Question, What};
use crate::sim::checkers::{Explained, OfMessage, OfPart, Seen, Violation};
use crate::sim::clock::MS;
use crate::sim::ledger::MailState;
use crate::sim::net::Word;
use crate::sim::spooled;

/// Questions have numbers of their own, above those of orders.
const QUESTIONS_FROM: u32 = 1 << 31;

/// Parts of a message that are asked about.
const PARTS_ASKED_MAX: usize = 4;

impl World {
    pub(super) fn plan_asking(&mut self, begin: u64) {
        for _ in 0..self.options.questions {
            let chance = &mut self.asking.chance;
            let at = begin + chance.between(MS, self.options.trouble_for);
            self.agenda.add(at, Due::Ask);
        }
    }

    /// An operator asks something: most of all why a message waits.
    pub(super) fn ask_something(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let shards = engine.cores.len();
        let what = match self.asking.chance.below(8) {
            0 => What::Site(self.asking.chance.index(self.options.groups.len() * 2)),
            1 => What::Sites { most: self.asking.chance.length(0, 3) },
            _ => match self.some_message() {
                Some(id) => What::Message(id),
                None => return Ok(()),
            },
        };
        self.ask_shards(what, 0..shards);
        Ok(())
    }

    fn some_message(&mut self) -> Option<MessageId> {
        let is_known = |mail: &&crate::sim::ledger::Mail| mail.state == MailState::Acknowledged;
        let known = self.ledger.mails.iter().filter(is_known).filter_map(|mail| mail.id);
        let known: Vec<MessageId> = known.collect();
        (!known.is_empty()).then(|| *self.asking.chance.pick(&known))
    }

    fn ask_shards(&mut self, what: What, shards: std::ops::Range<usize>) {
        let was_live = match &what {
            What::Message(id) => self.stored(*id).is_some(),
            _ => false,
        };
        let number = self.asking.asked.len();
        self.trace.say(self.clock.at, || format!("question {number}: {what:?}"));
        let (run, open) = (self.run, shards.len());
        let (is_not_yet, found, stored) = (false, None, None);
        let question = Question { run, what, open, was_live, is_not_yet, found, stored };
        self.asking.asked.push(question);
        for shard in shards {
            let soon = self.clock.at + self.asking.chance.skewed(MS, 20 * MS);
            self.agenda.add(soon, Due::Asked { run, shard, question: number });
        }
    }

    /// What the disk holds of a message at this moment.
    fn stored(&self, id: MessageId) -> Option<crate::sim::ledger::Spooled> {
        let found = spooled::recover(&self.disk.files, 1).ok()?;
        let of_message: Vec<_> =
            found.deliveries.into_iter().filter(|one| one.delivery.message == id).collect();
        spooled::live(&self.disk.files, &of_message, &self.clock).pop()
    }

    pub(super) fn question_arrives(&mut self, run: u32, shard: usize, question: usize) {
        let query = match &self.asking.asked[question].what {
            What::Message(id) => Query::Message(*id),
            What::Part { found, part } => {
                let Some(site) = part.site.clone() else { return };
                let (domain, flow) = (part.domain.clone(), found.flow.clone());
                Query::Wait(Wanted { site, domain, flow, message: found.message })
            }
            What::Site(site) => Query::Site { name: self.site_name(*site).into() },
            What::Sites { most } => Query::Sites { most: *most },
        };
        let number = QUESTIONS_FROM + u32::try_from(question).unwrap_or(0);
        let query = Box::new(query);
        self.tell(run, shard, Word::Whole(Event::Asked { asked: AskedId(number), query }));
    }

    /// A shard answers an order, or a question.
    pub(super) fn answer_comes(&mut self, asked: AskedId, answer: Answer) -> Result<(), Violation> {
        let Some(number) = asked.0.checked_sub(QUESTIONS_FROM) else {
            return self.order_answered(asked, &answer);
        };
        self.trace.say(self.clock.at, || format!("question {number} is answered: {answer:?}"));
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let stored = match &answer {
            Answer::Message(Some(found)) => self.stored(found.message),
            _ => None,
        };
        let question = &mut self.asking.asked[number];
        question.open -= 1;
        let what = question.what.clone();
        match (answer, what) {
            (Answer::Message(Some(found)), _) => {
                (question.found, question.stored) = (Some(found), stored);
            }
            (Answer::NotYet, _) => question.is_not_yet = true,
            (Answer::Site(reports), What::Site(site)) => {
                for report in &reports {
                    self.site_explained(site, report)?;
                }
            }
            (Answer::Sites(list), What::Sites { most }) => {
                let (told, most) = (list.sites.len(), most);
                self.see(&self.explained(&Explained::Sites { told, most }))?;
            }
            (Answer::Wait(waiting), What::Part { found, part }) => {
                return self.part_explained(&found, &part, waiting.as_deref());
            }
            _ => {}
        }
        self.message_explained(number)
    }

    /// When all shards have answered for a message.
    fn message_explained(&mut self, number: usize) -> Result<(), Violation> {
        let question = &self.asking.asked[number];
        let (What::Message(id), 0) = (&question.what, question.open) else { return Ok(()) };
        if question.is_not_yet {
            return Ok(());
        }
        let (id, found, was_live) = (*id, question.found.clone(), question.was_live);
        let stored = question.stored.clone();
        let of = OfMessage { id, was_live, stored: stored.as_ref(), found: found.as_deref() };
        self.see(&self.explained(&Explained::Message(of)))?;
        let Some(found) = found else { return Ok(()) };
        let Some(engine) = &self.engine else { return Ok(()) };
        let shards = u16::try_from(engine.cores.len()).unwrap_or(1);
        for part in found.parts.iter().take(PARTS_ASKED_MAX) {
            let Some(site) = &part.site else { continue };
            let owner = usize::from(site.owner(shards).0);
            let (found, part) = (found.clone(), Box::new(part.clone()));
            self.ask_shards(What::Part { found, part }, owner..owner + 1);
        }
        Ok(())
    }

    fn part_explained(
        &mut self,
        found: &MessageFound,
        part: &PartFound,
        waiting: Option<&Waiting>,
    ) -> Result<(), Violation> {
        let Some(waiting) = waiting else { return Ok(()) };
        let site = part.site.as_ref().and_then(|key| self.site_of(key));
        let connections = site.map(|site| self.connections_lately(site)).unwrap_or_default();
        let bounds = site.map(|site| self.bounds_lately(site)).unwrap_or_default();
        let of = OfPart { found, part, waiting, site, connections, bounds };
        self.see(&self.explained(&Explained::Part(of)))
    }

    fn site_explained(&mut self, site: usize, report: &SiteReport) -> Result<(), Violation> {
        let connections = self.connections_lately(site);
        self.see(&self.explained(&Explained::Site { site, report, connections }))
    }

    fn explained<'a>(&self, of: &'a Explained<'a>) -> Seen<'a> {
        Seen::Explained {
            of,
            at: self.clock.at,
            quiet: self.quiet.time(),
            is_stopping: self.engine.as_ref().is_some_and(|engine| engine.stop_by.is_some()),
            is_wall_steady: self.options.later.wall_steps == 0,
        }
    }

    /// The engine's name for a site that is asked for by all its hosts, or by one address.
    fn site_name(&self, site: usize) -> String {
        let group = &self.options.groups[site / 2];
        if group.is_routed {
            return format!("{}:25", group.sites[0][0].ip);
        }
        let mut names: Vec<&str> =
            group.sites[site % 2].iter().map(|host| host.name.as_str()).collect();
        names.sort_unstable();
        names.join(",")
    }

    fn site_of(&self, key: &SiteKey) -> Option<usize> {
        (0..self.options.groups.len() * 2).find(|site| self.site_name(*site) == key.name())
    }

    /// The limits on the connections of a site of which a shard may not have heard that they are over.
    fn connections_lately(&self, site: usize) -> Vec<u32> {
        self.limits[site / 2].since(self.clock.at.saturating_sub(RELOAD_TAKES))
    }

    fn bounds_lately(&self, site: usize) -> Vec<crate::sim::bounds::Site> {
        let is_late = self.clock.at < self.bounds_since + RELOAD_TAKES;
        let before = self.bounds_before.iter().rev().filter(|_| is_late).map(|(_, bounds)| bounds);
        let all = [&self.options.bounds].into_iter().chain(before);
        all.filter_map(|bounds| bounds.groups.get(site / 2).cloned()).collect()
    }
}
