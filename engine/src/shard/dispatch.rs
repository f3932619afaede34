//! From a durable message to the queue of its site, and from that queue to connections.

use std::sync::Arc;

use super::{Effect, Effects, QuestionId, Shard};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::prng::Prng;
use crate::base::time::{Mono, Now};
use crate::egress::route::{Ask, Router};
use crate::model::connection::ShardId;
use crate::model::delivery::Delivery;
use crate::model::flow::Flow;
use crate::model::note::{Note, Parcel};
use crate::model::route::{Answer, Bearing, Question, SiteKey, Target};
use crate::model::settings::Settings;
use crate::model::state::KEEPER;
use crate::schedule::Action;

/// Domains whose target a shard remembers. Beyond, it forgets them all and asks the process-wide
/// cache again: cheap, and a peer that invents domains cannot make it grow.
const KNOWN_DOMAINS_MAX: usize = 100_000;

/// Where domains lead, and who waits to learn it.
pub(super) struct Routing {
    router: Router,
    shards: u16,
    known: Map<Arc<str>, Lead>,
    reloads: u64,
    asking: Map<Arc<str>, QuestionId>,
    asked: Map<QuestionId, Asked>,
    next_question: u32,
    prng: Prng,
}

/// A domain and where it leads.
type Known = (Arc<str>, Lead);

#[derive(Clone)]
struct Lead {
    /// After which reload it was looked up: from before the last one it is not gone by.
    reload: u64,
    /// As its target has it: the two lie far apart.
    fresh_until: Mono,
    target: Arc<Target>,
    /// Of its site.
    owner: ShardId,
}

/// A question under way. The deliveries that wait for it are bounded by the live messages.
struct Asked {
    domain: Arc<str>,
    what: Question,
    waiting: Vec<Waiting>,
}

/// A delivery that is to be located. `due`: not to be tried before.
pub(super) struct Waiting {
    pub(super) flow: Arc<Flow>,
    pub(super) delivery: Delivery,
    pub(super) due: Option<Mono>,
    /// When it left another site, if it was at one.
    pub(super) left: Option<Mono>,
}

impl Routing {
    pub(super) fn new(settings: &Settings, shards: u16, seed: u64) -> Self {
        Self::by(router(settings), shards, seed)
    }

    fn by(router: Router, shards: u16, seed: u64) -> Self {
        Self {
            router,
            shards,
            known: Map::default(),
            reloads: 0,
            asking: Map::default(),
            asked: Map::default(),
            next_question: 0,
            prng: Prng::new(seed),
        }
    }

    pub(super) fn handle_settings(&mut self, settings: &Settings) {
        self.go_by(router(settings));
    }

    fn go_by(&mut self, router: Router) {
        self.router = router;
        self.reloads += 1;
    }

    fn fresh(&self, domain: &str, now: Now) -> Option<Known> {
        let (domain, lead) = self.known.get_key_value(domain)?;
        let is_fresh = lead.reload == self.reloads && lead.fresh_until > now.mono;
        is_fresh.then(|| (Arc::clone(domain), lead.clone()))
    }

    /// A domain, and the site its mail went to when that was last looked up, fresh or not: mail that
    /// waits stays there over a reload.
    pub(super) fn last_known(&self, domain: &str) -> (Arc<str>, Option<SiteKey>) {
        match self.known.get_key_value(domain) {
            Some((domain, lead)) => (Arc::clone(domain), Some(lead.target.site.clone())),
            None => (domain.into(), None),
        }
    }

    fn learn(&mut self, domain: Arc<str>, target: Target) -> Known {
        if self.known.len() >= KNOWN_DOMAINS_MAX {
            self.known.clear();
        }
        let owner = target.site.owner(self.shards);
        let (reload, fresh_until) = (self.reloads, target.fresh_until);
        let lead = Lead { reload, fresh_until, target: Arc::new(target), owner };
        self.known.insert(Arc::clone(&domain), lead.clone());
        (domain, lead)
    }

    /// Remembers who asks; the question to put, if it is not under way already.
    fn wait(&mut self, domain: &str, what: &Question, waiting: Waiting) -> Option<QuestionId> {
        if let Some(asked) = self.asking.get(domain).and_then(|id| self.asked.get_mut(id)) {
            asked.waiting.push(waiting);
            return None;
        }
        let question = QuestionId(self.next_question);
        self.next_question = self.next_question.wrapping_add(1);
        let domain: Arc<str> = domain.into();
        self.asking.insert(Arc::clone(&domain), question);
        let what = what.clone();
        self.asked.insert(question, Asked { domain, what, waiting: vec![waiting] });
        Some(question)
    }

    fn answered(&mut self, question: QuestionId) -> Option<Asked> {
        let asked = self.asked.remove(&question)?;
        self.asking.remove(&asked.domain);
        Some(asked)
    }
}

/// Routing as the settings say; our own listeners are where mail must not go.
fn router(settings: &Settings) -> Router {
    let own = settings.listeners.iter().map(|listener| listener.address).collect();
    Router::new(&settings.routes, &settings.egress, &settings.hostname, own)
}

impl Shard {
    /// Finds the way for a delivery and hands it to the owner of its site.
    pub(super) fn locate(&mut self, now: Now, domain: &str, waiting: Waiting, out: &mut Effects) {
        if let Some(known) = self.routing.fresh(domain, now) {
            return self.hand_over(known, waiting, out);
        }
        match self.routing.router.ask(domain) {
            Ask::Ready(target) => {
                let known = self.routing.learn(domain.into(), target);
                self.hand_over(known, waiting, out);
            }
            Ask::Question(what) => self.resolve(domain, what, waiting, out),
        }
    }

    fn resolve(&mut self, domain: &str, what: Question, waiting: Waiting, out: &mut Effects) {
        if let Some(question) = self.routing.wait(domain, &what, waiting) {
            out.push(Effect::Resolve { question, what: Box::new(what) });
        }
    }

    pub(super) fn resolved(
        &mut self,
        now: Now,
        question: QuestionId,
        answer: &Answer,
        out: &mut Effects,
    ) {
        let Some(asked) = self.routing.answered(question) else { return };
        let Asked { domain, what, waiting } = asked;
        if self.routing.router.ask(&domain) != Ask::Question(what) {
            // The routes changed meanwhile: this answers another question than theirs is now.
            for one in waiting {
                self.locate(now, &domain, one, out);
            }
            return;
        }
        let routing = &mut self.routing;
        let target = routing.router.target(&domain, answer, now.mono, &mut routing.prng);
        let known = routing.learn(domain, target);
        let served = if planted(Bug::AnswerForOneOnly) { 1 } else { usize::MAX };
        for one in waiting.into_iter().take(served) {
            self.hand_over(known.clone(), one, out);
        }
    }

    fn hand_over(&mut self, (domain, lead): Known, waiting: Waiting, out: &mut Effects) {
        let Waiting { flow, delivery, due, left } = waiting;
        let Lead { target, owner, .. } = lead;
        let owner = if planted(Bug::OwnerOfItsOwn) { self.id } else { owner };
        let bearing = Bearing { domain, target, flow };
        let parcel = Box::new(Parcel { bearing, delivery, left });
        self.tell(owner, Note::Deliver { parcel, due }, out);
    }

    /// Carries the scheduler's decisions out; whether there were any.
    pub(super) fn dispatch(&mut self, now: Now, out: &mut Effects) -> bool {
        let mut moved = false;
        while let Some(action) = self.scheduler.poll_action() {
            self.carry_out(now, action, out);
            moved = true;
        }
        moved
    }

    fn carry_out(&mut self, now: Now, action: Action, out: &mut Effects) {
        match action {
            Action::Open { to, opening } => self.tell(to, Note::Open(Box::new(opening)), out),
            Action::Work { to, lease, delivery } => {
                self.tell(to, Note::Work { lease, delivery: Box::new(delivery) }, out);
            }
            Action::Leave { to, lease, may_connect } => {
                self.tell(to, Note::Leave { lease, may_connect }, out);
            }
            Action::Close { to, lease } => self.tell(to, Note::Close { lease }, out),
            Action::Settle { home, settlement } => {
                self.tell(home, Note::Settle(Box::new(settlement)), out);
            }
            Action::Relocate { domain, flow, delivery, due } => {
                let left = Some(now.mono);
                self.locate(now, &domain, Waiting { flow, delivery, due, left }, out);
            }
            Action::Hold { scope, hold } => {
                for shard in (0..self.shards).map(ShardId) {
                    let (scope, hold) = (scope.clone(), hold.clone());
                    self.tell(shard, Note::Hold(Box::new((scope, hold))), out);
                }
            }
            Action::Grant { .. } if planted(Bug::GrantDropped) => {}
            Action::Grant { to, cell, grant } => self.tell(to, Note::Grant { cell, grant }, out),
            Action::CancelOver { key, order } => {
                self.tell(KEEPER, Note::CancelOver { key, order }, out);
            }
            // At once, so that what asks for it afterwards finds it.
            Action::Remember(item) if self.id == KEEPER => self.spool.remember(now, item),
            Action::Remember(item) => self.tell(KEEPER, Note::Remember(Box::new(item)), out),
            Action::WriteDay { to, day } => self.tell(to, Note::WriteDay(day), out),
            Action::Report(fact) => out.push(Effect::Report(Box::new(fact))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;
    use crate::model::route::Way;
    use crate::model::settings::{EgressSettings, TlsMode};

    #[test]
    fn after_a_reload_mail_is_located_anew_and_still_told_where_it_is() {
        let egress = EgressSettings { port: 25, allow_private: false, tls: TlsMode::Off };
        let router = || Router::new(&[], &egress, "mta.example", Vec::new());
        let mut routing = Routing::by(router(), 1, 1);
        let now = Now { mono: Mono(1), wall: Wall(1) };
        let site = SiteKey::MxSet("mx.example".into());
        let way = Way::Hosts(Vec::new());
        let target = Target::new(site.clone(), way, Mono::NEVER);
        routing.learn("a.example".into(), target.clone());
        assert!(routing.fresh("a.example", now).is_some());
        routing.go_by(router());
        assert!(routing.fresh("a.example", now).is_none(), "the routes may be others");
        assert_eq!(routing.last_known("a.example").1, Some(site));
        routing.learn("a.example".into(), target);
        assert!(routing.fresh("a.example", now).is_some());
    }
}
