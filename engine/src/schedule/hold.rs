//! Stopping mail and letting it go on: what is held stays where it is, so a hold costs the same for
//! ten messages and for ten million.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Duration;

use hashbrown::Equivalent;

use super::Scheduler;
use super::limits::Hindrance;
use super::order::Blocked;
use super::site::Site;
use crate::base::map::Map;
use crate::base::time::{Mono, Now};
use crate::model::hold::{Hold, Scope, ScopeName};

/// Holds at once. Beyond, the operator is told no; a rule's hold replaces nothing and is not taken.
pub const HOLDS_MAX: usize = 10_000;

/// How the hold of a rule says whose it is.
pub(super) const RULE: &str = "rule ";
/// A rule prolongs its hold with each reply; on disk it may end so much sooner.
const PROLONGED_UNWRITTEN: Duration = Duration::from_secs(10);

/// One hold, and its end as it is on disk.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) written: Option<Mono>,
}

/// All that is held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_scope: Map<Scope, Held>,
    ends: BTreeSet<(Mono, Scope)>,
}

impl Holds {
    pub(super) fn get(&self, scope: &Scope) -> Option<&Hold> {
        self.named(scope)
    }

    /// By a name alone: asked for each parcel, so nothing is copied for it.
    fn named<Q>(&self, name: &Q) -> Option<&Hold>
    where
        Q: Hash + Equivalent<Scope> + ?Sized,
    {
        if self.by_scope.is_empty() {
            return None;
        }
        self.by_scope.get(name).map(|held| &held.hold)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_scope.is_empty()
    }

    pub(super) fn next_end(&self) -> Option<Mono> {
        self.ends.first().map(|(until, _)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.by_scope.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Scope, &Hold)> {
        self.by_scope.iter().map(|(scope, held)| (scope, &held.hold))
    }

    fn insert(&mut self, scope: &Scope, held: Held) {
        self.remove(scope);
        if let Some(until) = held.hold.until {
            self.ends.insert((until, scope.clone()));
        }
        self.by_scope.insert(scope.clone(), held);
    }

    fn remove(&mut self, scope: &Scope) -> bool {
        let Some(held) = self.by_scope.remove(scope) else { return false };
        if let Some(until) = held.hold.until {
            self.ends.remove(&(until, scope.clone()));
        }
        true
    }

    fn pop_ended(&mut self, now: Mono) -> Option<Scope> {
        let (until, _) = self.ends.first()?;
        if *until > now {
            return None;
        }
        let (_, scope) = self.ends.pop_first()?;
        self.by_scope.remove(&scope);
        Some(scope)
    }
}

impl Scheduler {
    /// Stops what `scope` names, mail to come included. What is under way goes on. A hold without an
    /// end stays against one with an end. `false`: there are too many holds.
    pub fn handle_hold(&mut self, now: Now, scope: &Scope, hold: Hold) -> bool {
        let known = self.holds.get(scope);
        if known.is_some_and(|known| {
            known.until.is_none_or(|until| Some(until) >= hold.until && hold.until.is_some())
        }) {
            return true;
        }
        if known.is_none() && self.holds.by_scope.len() >= HOLDS_MAX {
            return false;
        }
        self.put_hold(now, scope, hold);
        true
    }

    /// An operator's word stands against any hold there was, be that longer or not.
    pub(super) fn replace_hold(&mut self, now: Now, scope: &Scope, hold: Hold) {
        self.holds.remove(scope);
        self.put_hold(now, scope, hold);
    }

    fn put_hold(&mut self, now: Now, scope: &Scope, hold: Hold) {
        let written = self.holds.by_scope.get(scope).filter(|known| known.hold.by == hold.by);
        let written = written.and_then(|known| known.written);
        let is_as_written =
            |until: Mono| written.is_some_and(|written| until <= written.plus(PROLONGED_UNWRITTEN));
        if hold.until.is_some_and(is_as_written) {
            return self.install_hold(scope, Held { hold, written });
        }
        let written = hold.until;
        self.install_hold(scope, Held { hold, written });
        self.write_hold(now, scope);
    }

    pub(super) fn install_hold(&mut self, scope: &Scope, held: Held) {
        self.holds.insert(scope, held);
        self.block(scope, Blocked::Held);
    }

    /// Lets what `scope` names go on; whether it was held.
    pub fn handle_release(&mut self, now: Now, scope: &Scope) -> bool {
        let held = self.holds.remove(scope);
        if held {
            self.write_hold(now, scope);
            self.resume(now, scope);
        }
        held
    }

    /// Holds whose time is over.
    pub(super) fn end_holds(&mut self, now: Now) {
        while let Some(scope) = self.holds.pop_ended(now.mono) {
            self.write_hold(now, &scope);
            self.resume(now, &scope);
        }
    }

    fn resume(&mut self, now: Now, scope: &Scope) {
        self.block(scope, Blocked::No);
        for number in self.sites.numbers() {
            if self.sites[number].ready > 0 {
                self.dispatch(now, number);
            }
        }
    }

    /// Looks at all tenants, or campaigns, with mail here, never at the mail.
    fn block(&mut self, scope: &Scope, blocked: Blocked) {
        match scope {
            Scope::Site(_) | Scope::Source(_) => {}
            Scope::Tenant(tenant) => self.order.block_tenant(tenant, blocked),
            Scope::Campaign { tenant, campaign } => {
                self.order.block_campaign(tenant, campaign, blocked);
            }
        }
    }

    /// Whether a new leaf, or its tenant, is held.
    pub(super) fn block_new(&mut self, leaf: u32) {
        if self.holds.is_empty() {
            return;
        }
        let (branch, campaign) = {
            let leaf = &self.order.leaves[leaf as usize];
            (leaf.branch, leaf.campaign())
        };
        let tenant = self.order.branches[branch as usize].tenant();
        let is_tenant_held = self.holds.named(&ScopeName::Tenant(tenant)).is_some();
        let campaign = ScopeName::Campaign { tenant, campaign };
        let is_campaign_held = self.holds.named(&campaign).is_some();
        if is_tenant_held {
            self.order.block_branch(branch, Blocked::Held);
        }
        if is_campaign_held {
            self.order.block_leaf(leaf, Blocked::Held);
        }
    }

    /// What an operator or a rule holds of a site, or of a source.
    pub(super) fn held(&self, site: &Site, source: u16) -> Option<Hindrance> {
        let hold = self.hold_on(site, source)?;
        Some(Hindrance::Held { by: hold.by.clone(), until: hold.until })
    }

    pub(super) fn hold_on(&self, site: &Site, source: u16) -> Option<&Hold> {
        if self.holds.is_empty() {
            return None;
        }
        let source = ScopeName::Source(&self.roster.source_at(source).name);
        let scopes = [ScopeName::Site(site.key().name()), source];
        scopes.iter().find_map(|scope| self.holds.named(scope))
    }
}
