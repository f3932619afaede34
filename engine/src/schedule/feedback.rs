//! What attempts teach: signals to the control loop of their path, replies to the operator's rules.

use std::sync::Arc;

use super::alarm::Kind;
use super::control::{Changes, Door, Load, Phase, Seen, What};
use super::rules::{Fired, Place};
use super::{Action, Scheduler};
use crate::base::map::stable_hash;
use crate::base::time::{Mono, Now};
use crate::model::hold::{Hold, Scope};
use crate::model::note::Phases;
use crate::model::outcome::Reply;
use crate::model::settings::{Action as RuleAction, Subject};
use crate::model::state::KEEPER;
use crate::shard::Fact;

/// A path of a site, by its number there.
pub(super) type At = (u32, u16);

impl Scheduler {
    /// Tells the control loop of a path what an attempt said; whether its door closed by it.
    pub(super) fn learn(&mut self, now: Now, at: At, seen: Seen) -> bool {
        let load = self.load(now, at);
        let site = &mut self.sites[at.0];
        let jitter =
            stable_hash(&(now.mono.0 ^ u64::from(site.serial).rotate_left(32)).to_le_bytes());
        let control = Arc::clone(&site.pace.control);
        let path = site.path(at.1);
        let was_closed = matches!(path.control.door(), Door::Closed { .. });
        let changes = path.control.handle_signal(now.mono, seen, load, jitter, &control);
        self.take_changes(now, at, changes);
        !was_closed && matches!(self.sites[at.0].path(at.1).control.door(), Door::Closed { .. })
    }

    /// How long the phases of an attempt took.
    pub(super) fn learn_phases(&mut self, now: Now, at: At, phases: &Phases) {
        let load = self.load(now, at);
        let control = &mut self.sites[at.0].path(at.1).control;
        let took = [(Phase::Greeting, phases.greeting), (Phase::Dot, phases.dot)];
        for (phase, took) in
            took.into_iter().filter_map(|(phase, took)| Some((phase, took.duration()?)))
        {
            control.handle_latency(phase, took, load);
        }
    }

    fn load(&self, now: Now, (number, path): At) -> Load {
        let site = &self.sites[number];
        let path = &site.paths[usize::from(path)];
        let ceiling = self.ceiling(now, site, path);
        Load { in_use: path.in_use, busy: path.busy(), waiting: site.ready, ceiling }
    }

    /// Reports what the control loop changed, and sets the alarm of the door.
    pub(super) fn take_changes(&mut self, now: Now, at: At, changes: Changes) {
        self.note_change(now, at, &changes);
        for change in changes {
            let fact = match change.what {
                What::Breaker { old: Door::Open, new: Door::Closed { until, .. } } => {
                    Some(self.site_closed(now, at, until))
                }
                What::Breaker { new: Door::Open, .. } => Some(self.site_opened(at)),
                What::Breaker { .. } => None,
                _ if change.is_routine() => None,
                _ => Some(self.site_paced(at, change.to_string().into())),
            };
            self.actions.extend(fact.map(Action::Report));
        }
        self.arm_path(at);
    }

    fn site_closed(&self, now: Now, (number, _): At, until: Mono) -> Fact {
        let site = &self.sites[number];
        Fact::SiteClosed {
            site: site.key.name().into(),
            cause: site.last_reply.iter().map(Reply::to_string).collect(),
            seconds: until.since(now.mono).as_secs(),
        }
    }

    fn site_opened(&self, (number, _): At) -> Fact {
        Fact::SiteOpened { site: self.sites[number].key.name().into() }
    }

    fn site_paced(&self, (number, path): At, change: Box<str>) -> Fact {
        let site = &self.sites[number];
        let source = self.roster.source_at(site.paths[usize::from(path)].source);
        Fact::SitePaced { site: site.key.name().into(), source: (*source.name).into(), change }
    }

    /// When a path changes by itself: its door, or an effect of a rule that ends.
    pub(super) fn arm_path(&mut self, (number, at): At) {
        let path = self.sites[number].path(at);
        let ends = [path.control.next_wakeup(), path.effects.next_end()];
        if let Some(first) = ends.into_iter().flatten().min() {
            self.arm(number, Kind::Path(at), first);
        }
    }

    pub(super) fn path_time(&mut self, now: Now, number: u32, at: u16) {
        let path = self.sites[number].path(at);
        let mut ended = false;
        while path.effects.poll_ended(now.mono).is_some() {
            ended = true;
        }
        if ended && path.effects.next_end().is_none() {
            self.save_effects(now, (number, at));
        }
        let path = self.sites[number].path(at);
        let changes = path.control.handle_time(now.mono);
        self.take_changes(now, (number, at), changes);
    }

    /// What the operator's rules make of a reply to a delivery, or to a connection for its domain.
    pub(super) fn judge_reply(
        &mut self,
        now: Now,
        at: At,
        domain: &str,
        reply: &Reply,
    ) -> Vec<Fired> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let site = &mut self.sites[at.0];
        let source = Arc::clone(&self.roster.source_at(site.path(at.1).source).name);
        let (key, provider) = (site.key.clone(), site.provider.clone());
        let place = Place {
            provider: provider.as_deref(),
            domain,
            site: &key,
            source: Some(&*source).filter(|name| !name.is_empty()),
        };
        let counters = &mut site.path(at.1).counters;
        self.rules.judge(now.mono, &place, reply, counters)
    }

    /// A delivery of the path was answered: what ratio rules measure against.
    pub(super) fn count_answer(&mut self, now: Now, at: At, course: u32) {
        if self.rules.is_empty() {
            return;
        }
        let domain = &*self.courses[course].domain;
        let site = &mut self.sites[at.0];
        let source = Arc::clone(&self.roster.source_at(site.path(at.1).source).name);
        let (key, provider) = (site.key.clone(), site.provider.clone());
        let place = Place {
            provider: provider.as_deref(),
            domain,
            site: &key,
            source: Some(&*source).filter(|name| !name.is_empty()),
        };
        self.rules.note_answer(now.mono, &place, &mut site.path(at.1).counters);
    }

    /// Lets what rules ask for take effect, but for what becomes of the recipient.
    pub(super) fn apply(&mut self, now: Now, at: At, course: u32, host: &str, fired: &Fired) {
        let told = match fired.action {
            RuleAction::Suspend {
                what: what @ (Subject::Tenant | Subject::Campaign | Subject::Source),
                lasts,
            } => {
                let scope = self.scope_of(what, at, course);
                let by = format!("rule {}", fired.label.name).into();
                let hold = Hold { by, until: Some(now.mono.plus(lasts)) };
                // All owners have mail of it; this one learns of it the same way.
                self.actions.push_back(Action::Hold { scope, hold });
                true
            }
            // Sources that were not needed here yet are stopped as well.
            RuleAction::Suspend { what: what @ Subject::Site, lasts } => {
                let scope = self.scope_of(what, at, course);
                let by = format!("rule {}", fired.label.name).into();
                let begun = self.holds.get(&scope).is_none();
                let hold = Hold { by, until: Some(now.mono.plus(lasts)) };
                self.handle_hold(now, &scope, hold.clone());
                // One shard writes down what is held.
                if self.shard != KEEPER {
                    self.actions.push_back(Action::Hold { scope, hold });
                }
                begun
            }
            RuleAction::Throttle
            | RuleAction::Bounce
            | RuleAction::Defer
            | RuleAction::OtherSource => false,
            RuleAction::Backoff { .. }
            | RuleAction::Connections { .. }
            | RuleAction::MessageRate { .. }
            | RuleAction::SkipHost { .. }
            | RuleAction::Suspend { what: Subject::Path, .. } => {
                let effects = &mut self.sites[at.0].path(at.1).effects;
                let change = effects.apply(now.mono, fired, host);
                self.note_effect(now, at, change);
                change == super::rules::Change::Begun
            }
        };
        for path in 0..self.sites[at.0].paths.len() {
            self.arm_path((at.0, u16::try_from(path).unwrap_or(u16::MAX)));
        }
        if told {
            let change = format!("rule {}: {:?}", fired.label.name, fired.action);
            let fact = self.site_paced(at, change.into());
            self.actions.push_back(Action::Report(fact));
        }
    }

    fn scope_of(&self, what: Subject, at: At, course: u32) -> Scope {
        let flow = &self.courses[course].flow;
        match what {
            Subject::Tenant => Scope::Tenant(flow.tenant.clone()),
            Subject::Campaign => {
                Scope::Campaign { tenant: flow.tenant.clone(), campaign: flow.campaign.clone() }
            }
            Subject::Site => Scope::Site(self.sites[at.0].key.name().into()),
            Subject::Source | Subject::Path => {
                let source = self.sites[at.0].paths[usize::from(at.1)].source;
                Scope::Source((*self.roster.source_at(source).name).into())
            }
        }
    }
}
