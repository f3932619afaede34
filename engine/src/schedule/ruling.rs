//! What the operator's rules make of replies: what becomes of the recipients, and what is stopped or
//! slowed down for a time.

use super::feedback::At;
use super::permit::Flight;
use super::rules::{self, Fired, Hearing, Place, RuleCounters, Rules};
use super::{Action, Scheduler};
use crate::base::time::Now;
use crate::model::hold::{Hold, Scope};
use crate::model::note::{Cause, Class, RecipientResult, Remote};
use crate::model::outcome::Reply;
use crate::model::route::{MailHost, Way};
use crate::model::settings::{Action as RuleAction, Subject};
use crate::model::state::KEEPER;

/// What rules decided about replies, besides what lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ruling {
    pub(super) fate: Option<Fate>,
    /// The path is to be treated as if the site had asked for it.
    pub(super) asks_to_slow_down: bool,
}

/// What becomes of a recipient, whatever its reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Bounce,
    Defer,
    OtherSource,
}

impl Fate {
    fn of(action: &RuleAction) -> Option<Self> {
        match action {
            RuleAction::Bounce => Some(Self::Bounce),
            RuleAction::Defer => Some(Self::Defer),
            RuleAction::OtherSource => Some(Self::OtherSource),
            _ => None,
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::Bounce => Class::Failed,
            Self::Defer | Self::OtherSource => Class::Deferred,
        }
    }
}

impl Ruling {
    /// Changes what a recipient's reply means. A fate makes the reply one about the recipient; a
    /// wish to slow down without one puts the recipient back, at no cost.
    fn apply_to(self, one: &mut RecipientResult) {
        match self.fate {
            Some(fate) => {
                one.class = fate.class();
                if one.cause == Cause::Throttle {
                    one.cause = Cause::Recipient;
                }
            }
            None if self.asks_to_slow_down => {
                (one.class, one.cause) = (Class::Deferred, Cause::Throttle);
            }
            None => {}
        }
    }

    fn add(&mut self, other: Self) {
        self.asks_to_slow_down |= other.asks_to_slow_down;
        if other.fate == Some(Fate::OtherSource) || self.fate.is_none() {
            self.fate = other.fate.or(self.fate);
        }
    }
}

impl Scheduler {
    /// A delivery of the path was answered: what ratio rules measure against.
    pub(super) fn count_answer(&mut self, now: Now, at: At, course: u32) {
        if !self.rules.is_empty() {
            let (rules, place, counters) = self.rules_at(at, course);
            rules.note_answer(now.mono, &place, counters);
        }
    }

    /// What the rules make of the replies of a delivery, each taken for the recipients it is about.
    /// A fate in the answer is that of some recipient; to be sent from another source goes first.
    pub(super) fn rule_on_recipients(
        &mut self,
        now: Now,
        at: At,
        flight: &Flight,
        remote: Option<Remote>,
        recipients: &mut [RecipientResult],
    ) -> Ruling {
        let (mut whole, mut hearing) = (Ruling::default(), Hearing::default());
        if self.rules.is_empty() {
            return whole;
        }
        let is_same = |one: &RecipientResult, other: &RecipientResult| {
            (one.class, one.cause) == (other.class, other.cause) && one.reply == other.reply
        };
        for same in
            recipients.chunk_by_mut(is_same).filter(|same| same[0].class != Class::Delivered)
        {
            let reply = &same[0].reply;
            let ruling = self.hear_rules(now, at, flight.course, remote, reply, &mut hearing);
            same.iter_mut().for_each(|one| ruling.apply_to(one));
            whole.add(ruling);
        }
        whole
    }

    /// What the rules make of one reply to a delivery, or to a connection for its domain.
    pub(super) fn rule_on(
        &mut self,
        now: Now,
        at: At,
        course: u32,
        remote: Option<Remote>,
        reply: &Reply,
    ) -> Ruling {
        if self.rules.is_empty() {
            return Ruling::default();
        }
        self.hear_rules(now, at, course, remote, reply, &mut Hearing::default())
    }

    fn hear_rules(
        &mut self,
        now: Now,
        at: At,
        course: u32,
        remote: Option<Remote>,
        reply: &Reply,
        hearing: &mut Hearing,
    ) -> Ruling {
        let (rules, place, counters) = self.rules_at(at, course);
        let fired = rules.judge(now.mono, &place, reply, counters, hearing);
        let mut ruling = Ruling::default();
        for one in fired {
            match (one.action, Fate::of(&one.action)) {
                (RuleAction::Throttle, _) => ruling.asks_to_slow_down = true,
                (_, Some(fate)) => ruling.fate = Some(fate),
                _ if hearing.is_first(one.rule) => self.apply(now, at, course, remote, &one),
                _ => {}
            }
        }
        ruling
    }

    /// The rules, what they ask of a reply to a delivery, and what they counted on its path.
    fn rules_at(&mut self, at: At, course: u32) -> (&Rules, Place<'_>, &mut RuleCounters) {
        let site = &mut self.sites[at.0];
        let path = &mut site.paths[usize::from(at.1)];
        let source = &*self.roster.source_at(path.source).name;
        let place = Place {
            provider: site.provider.as_deref(),
            domain: &self.courses[course].domain,
            site: &site.target.site,
            source: Some(source).filter(|name| !name.is_empty()),
        };
        (&self.rules, place, &mut path.counters)
    }

    /// The name of the host that spoke. By its address: the hosts may have been resolved anew since.
    fn host_of(&self, number: u32, remote: Option<Remote>) -> Box<str> {
        let Way::Hosts(hosts) = &self.sites[number].target.way else { return Box::default() };
        let Some(Remote { host, ip }) = remote else { return Box::default() };
        let spoke = |host: &&MailHost| host.addresses.iter().any(|address| address.ip() == ip);
        let at_its_place = hosts.get(usize::from(host)).filter(spoke);
        let host = at_its_place.or_else(|| hosts.iter().find(spoke));
        host.map(|host| host.name.clone()).unwrap_or_default()
    }

    /// Lets what a rule asks for take effect, but for what becomes of the recipient.
    fn apply(&mut self, now: Now, at: At, course: u32, remote: Option<Remote>, fired: &Fired) {
        let fired = &Fired { action: self.narrowed(fired.action, at, course), ..fired.clone() };
        let has_begun = match fired.action {
            RuleAction::Throttle
            | RuleAction::Bounce
            | RuleAction::Defer
            | RuleAction::OtherSource => false,
            RuleAction::Suspend { what, lasts } if what != Subject::Path => {
                let by = format!("rule {}", fired.label.name).into();
                let hold = Hold { by, until: Some(now.mono.plus(lasts)) };
                self.suspend(now, what, at, course, hold)
            }
            RuleAction::Backoff { .. }
            | RuleAction::Connections { .. }
            | RuleAction::MessageRate { .. }
            | RuleAction::SkipHost { .. }
            | RuleAction::Suspend { .. } => {
                let host = self.host_of(at.0, remote);
                let change = self.sites[at.0].path(at.1).effects.apply(now.mono, fired, &host);
                self.note_effect(now, at, change);
                change == rules::Change::Begun
            }
        };
        self.arm_path(at);
        if has_begun {
            let change = format!("rule {}: {:?}", fired.label.name, fired.action);
            let fact = self.site_paced(at, change.into());
            self.actions.push_back(Action::Report(fact));
        }
    }

    /// Whether anything is stopped that was not.
    fn suspend(&mut self, now: Now, what: Subject, at: At, course: u32, hold: Hold) -> bool {
        let scope = self.scope_of(what, at, course);
        let has_begun = self.holds.get(&scope).is_none();
        // Of a site this is the one owner; but one shard writes down what is held.
        if what == Subject::Site {
            self.handle_hold(now, &scope, hold.clone());
        }
        if what != Subject::Site || self.shard != KEEPER {
            self.actions.push_back(Action::Hold { scope, hold });
        }
        has_begun
    }

    /// Mail without a tenant, a campaign or a named source is nobody's: to suspend all of it would stop
    /// most senders entirely, so only the path is.
    fn narrowed(&self, action: RuleAction, at: At, course: u32) -> RuleAction {
        let RuleAction::Suspend { what, lasts } = action else { return action };
        let is_nobodys = match self.scope_of(what, at, course) {
            Scope::Tenant(name) | Scope::Source(name) => name.is_empty(),
            Scope::Campaign { campaign, .. } => campaign.is_empty(),
            Scope::Site(_) => false,
        };
        let what = if is_nobodys { Subject::Path } else { what };
        RuleAction::Suspend { what, lasts }
    }

    fn scope_of(&self, what: Subject, at: At, course: u32) -> Scope {
        let flow = &self.courses[course].flow;
        match what {
            Subject::Tenant => Scope::Tenant(flow.tenant.clone()),
            Subject::Campaign => {
                Scope::Campaign { tenant: flow.tenant.clone(), campaign: flow.campaign.clone() }
            }
            Subject::Site => Scope::Site(self.sites[at.0].key().name().into()),
            Subject::Source | Subject::Path => {
                let source = self.sites[at.0].paths[usize::from(at.1)].source;
                Scope::Source((*self.roster.source_at(source).name).into())
            }
        }
    }
}
