//! Who asks why mail waits is told what is so: an acknowledged message is known until it is over, with the
//! attempts and the next try that the disk has; what is said to bind is in force and used up; and where
//! something is known to bind, it is told.

use std::collections::BTreeMap;

use postrider_engine::model::admin::{
    Amounts, Binding, LINES_MAX, PartFound, Reach, SiteReport, Verb,
};
use postrider_engine::model::hold::Scope;
use postrider_engine::model::message::MessageId;
use postrider_engine::shard::Fact;

use super::state_kept::reaches;
use super::{Checker, Explained, OfMessage, OfPart, Seen};
use crate::sim::bounds::Key;
use crate::sim::clock::{MS, SECOND};
use crate::sim::ledger::{Ledger, Pending, Spooled, parse_id};
use crate::sim::orders::{Course, Order};

/// In this time of a quiet disk what the engine knows is on it.
const WRITTEN_WITHIN: u64 = 50 * MS;
/// Until an order that is given can bind everywhere, or no longer does.
const ORDER_TAKES: u64 = SECOND;

#[derive(Debug, Default)]
pub(super) struct IsExplained {
    /// Connections of the present run, as hosts count them.
    open: BTreeMap<Key, u32>,
    holds: Vec<Held>,
    /// Recipients that a message was said to have left, and when that was, in quiet time.
    left: BTreeMap<MessageId, (usize, u64)>,
    /// A bit has flipped, or a message was set aside: what is on the disk may not be known.
    is_excused: bool,
    judged: u64,
}

/// Something an operator holds, or may hold.
#[derive(Debug)]
struct Held {
    reach: Reach,
    /// In which time it is in force for sure, and until when it may be.
    surely: (u64, u64),
    until: u64,
}

impl IsExplained {
    fn ordered(&mut self, order: &Order) {
        let (steer, at) = (&order.steer, order.at);
        if steer.verb == Verb::Cancel {
            return;
        }
        // From here on what there was may be in force or not.
        for held in self.holds.iter_mut().filter(|held| held.reach == steer.reach) {
            held.surely.1 = held.surely.1.min(at);
        }
        if steer.verb == Verb::Hold {
            let lasts = steer.lasts.map_or(u64::MAX / 4, |lasts| nanos(lasts.as_nanos()));
            let until = at + lasts + ORDER_TAKES;
            self.holds.push(Held { reach: steer.reach.clone(), surely: (0, 0), until });
        }
    }

    fn order_ended(&mut self, order: &Order, now: u64) {
        let steer = &order.steer;
        if order.course != Course::Kept {
            return;
        }
        if steer.verb == Verb::Release {
            self.holds.retain(|held| held.reach != steer.reach);
        }
        let lasts = steer.lasts.map_or(u64::MAX / 4, |lasts| nanos(lasts.as_nanos()));
        if steer.verb == Verb::Hold {
            let own = self.holds.iter_mut().rev().find(|held| held.reach == steer.reach);
            if let Some(held) = own {
                held.surely = (now, order.at + lasts);
            }
        }
    }

    /// A hold that ends by itself, as rules have it: it never shortens another.
    fn held(&mut self, scope: &Scope, from: u64, until: u64) {
        let reach = match scope.clone() {
            Scope::Site(name) => Reach::Site(name),
            Scope::Source(name) => Reach::Source(name),
            Scope::Tenant(name) => Reach::Tenant(name),
            Scope::Campaign { tenant, campaign } => Reach::Campaign { tenant, campaign },
        };
        self.holds.push(Held { reach, surely: (from, until), until: until + ORDER_TAKES });
    }

    fn run_ends(&mut self) {
        self.open.clear();
        for held in &mut self.holds {
            held.surely = (0, 0);
            // It ends by the wall clock of the next run.
            held.until = u64::MAX;
        }
    }

    fn message(&mut self, of: &OfMessage<'_>, at: Moment) -> Result<(), String> {
        let OfMessage { id, was_live, stored, found } = of;
        if self.is_excused {
            return Ok(());
        }
        self.judged += 1;
        let left: usize = found
            .map_or(0, |found| found.parts.iter().map(|part| usize::from(part.recipients)).sum());
        self.left.insert(*id, (left, at.quiet));
        let Some(found) = found else { return Ok(()) };
        if !was_live {
            return Err(format!("{id} was over, and is told as waiting: {found:?}"));
        }
        if found.parts.len() > LINES_MAX || left == 0 {
            return Err(format!("{id} waits in {} parts for nobody", found.parts.len()));
        }
        let Some(stored) = stored else { return Ok(()) };
        if *found.flow != stored.flow {
            return Err(format!("{id} is of {:?}, and told as of {:?}", stored.flow, found.flow));
        }
        found.parts.iter().try_for_each(|part| is_as_stored(part, stored, at))
    }

    /// What was said to be left of a message is all that the disk has, once all is written.
    fn look(&self, spooled: &[Spooled], quiet: u64) -> Result<(), String> {
        if self.is_excused {
            return Ok(());
        }
        for message in spooled {
            let Some((left, since)) = self.left.get(&message.id) else { continue };
            let has = message.pending.len();
            if has > *left && quiet > since + WRITTEN_WITHIN {
                let id = message.id;
                return Err(format!("{id} was told to have {left} recipients left, and has {has}"));
            }
        }
        Ok(())
    }

    fn part(&mut self, of: &OfPart<'_>, at: Moment) -> Result<(), String> {
        let OfPart { found, part, waiting, site, .. } = of;
        if waiting.in_flight {
            return Ok(());
        }
        self.judged += 1;
        let what = waiting.binding.as_ref().map_or("", |binding| &binding.what);
        let (tenant, campaign) = (&*found.flow.tenant, &*found.flow.campaign);
        for held in &self.holds {
            if !(held.surely.0..held.surely.1).contains(&at.at) {
                continue;
            }
            // Caps of its tenant are told before a hold of its campaign.
            let is_capped = what == "tenant" && matches!(held.reach, Reach::Campaign { .. });
            if reaches(&held.reach, tenant, Some(campaign)) && what != "held" && !is_capped {
                let (id, reach) = (found.message, &held.reach);
                return Err(format!("{reach} is held, and {id} is told to wait for {what:?}"));
            }
        }
        match &waiting.binding {
            Some(binding) => self.binding(binding, of, at),
            None => match site {
                Some(site) => self.nothing_binds(*site, &waiting.amounts, &of.connections),
                None => Ok(()),
            },
        }
        .map_err(|why| format!("{} for {}: {why}", found.message, part.domain))
    }

    fn binding(&self, binding: &Binding, of: &OfPart<'_>, at: Moment) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("{why}: {binding:?}"));
        let has = |is_set: &dyn Fn(&crate::sim::bounds::Site) -> bool| {
            of.site.is_none() || of.bounds.iter().any(is_set)
        };
        match binding.what.as_str() {
            "connections" => return self.connections(binding, of),
            "held" => return self.hold(binding, at.at),
            "stopping" if !at.is_stopping => return wrong("nobody stops"),
            "next_try" if of.waiting.amounts.ready > 0 => return wrong("some of it is ready"),
            "next_try" if binding.until_seconds.is_none() => return wrong("a try without time"),
            "throttled" | "unreachable" | "local" if binding.until_seconds.is_none() => {
                return wrong("a closed door without time");
            }
            "message_rate" if !has(&|site| site.message_rate.is_some()) => {
                return wrong("no such rate is set");
            }
            "connection_rate" if !has(&|site| site.connection_rate.is_some()) => {
                return wrong("no such rate is set");
            }
            "byte_rate" if !has(&|site| site.byte_rate.is_some()) => {
                return wrong("no such rate is set");
            }
            "connections_per_source" => {
                let limit = binding.limit.and_then(|limit| u32::try_from(limit).ok());
                if !has(&|site| site.connections_per_source == limit) {
                    return wrong("no such limit is set");
                }
            }
            "connections_per_ip" if !has(&|site| site.connections_per_ip.is_some()) => {
                return wrong("no such limit is set");
            }
            _ => {}
        }
        let is_counted = matches!(&*binding.what, "connections_per_source" | "window" | "rule");
        let (used, limit) = (binding.used.unwrap_or(0), binding.limit);
        match limit.filter(|limit| is_counted && used < *limit) {
            Some(_) => wrong("a limit that is not used up"),
            None => Ok(()),
        }
    }

    fn connections(&self, binding: &Binding, of: &OfPart<'_>) -> Result<(), String> {
        let (Some(limit), Some(used)) = (binding.limit, binding.used) else {
            return Err(format!("connections without figures: {binding:?}"));
        };
        let Some(site) = of.site else { return Ok(()) };
        let open = u64::from(self.open.get(&Key::Site(site)).copied().unwrap_or(0));
        let is_set = of.connections.iter().any(|one| u64::from(*one) == limit);
        if used < limit || used < open || !is_set {
            let lately = &of.connections;
            return Err(format!(
                "hosts count {open}, the limit is {lately:?}, told is {binding:?}"
            ));
        }
        Ok(())
    }

    fn hold(&self, binding: &Binding, at: u64) -> Result<(), String> {
        let Some((reach, by)) = binding.text.split_once(" is held by ") else { return Ok(()) };
        let may_be = |held: &Held| held.reach.to_string() == reach && at <= held.until;
        if by.starts_with("rule") || self.holds.iter().any(may_be) {
            return Ok(());
        }
        Err(format!("nobody holds it: {binding:?}"))
    }

    fn nothing_binds(&self, site: usize, of: &Amounts, limits: &[u32]) -> Result<(), String> {
        let open = self.open.get(&Key::Site(site)).copied().unwrap_or(0);
        let limit = limits.iter().max().copied().unwrap_or(u32::MAX);
        if of.ready > 0 && open >= limit {
            return Err(format!("all {open} connections are in use, and nothing is told to bind"));
        }
        Ok(())
    }

    fn site(&mut self, site: usize, report: &SiteReport, limits: &[u32]) -> Result<(), String> {
        self.judged += 1;
        let open = self.open.get(&Key::Site(site)).copied().unwrap_or(0);
        if report.connections < open || !limits.contains(&report.connections_max) {
            let (told, most) = (report.connections, report.connections_max);
            return Err(format!(
                "hosts count {open} connections of site {site}, the limit is {limits:?}; told is \
                 {told} of {most}"
            ));
        }
        Ok(())
    }
}

/// Attempts and next try of a part, where all its recipients on the disk have the same.
fn is_as_stored(part: &PartFound, stored: &Spooled, at: Moment) -> Result<(), String> {
    let end = format!("@{}", part.domain);
    let of_domain = || stored.pending.iter().filter(|one| one.address.ends_with(&end));
    let least = of_domain().map(|one| one.attempts).min();
    if least.is_some_and(|least| part.attempts < least) {
        return Err(format!("{}: {least:?} attempts were made, told is {part:?}", stored.id));
    }
    let Some(first) = of_domain().next() else { return Ok(()) };
    let is_alike = |one: &Pending| (one.attempts, one.due) == (first.attempts, first.due);
    let is_current = part.attempts == first.attempts && of_domain().all(is_alike);
    let Some(due) = first.due.filter(|due| at.is_wall_steady && is_current && *due > at.at) else {
        return Ok(());
    };
    let ahead = (due - at.at).div_ceil(SECOND);
    match part.next_try_seconds {
        Some(told) if told.abs_diff(ahead) <= 1 => Ok(()),
        told => Err(format!("{} is tried in {ahead} s, told is {told:?}", stored.id)),
    }
}

/// When something was told.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: u64,
    quiet: u64,
    is_stopping: bool,
    is_wall_steady: bool,
}

fn nanos(duration: u128) -> u64 {
    u64::try_from(duration).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

impl Checker for IsExplained {
    fn name(&self) -> &'static str {
        "explained"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Opened { limits } => {
                limits.iter().for_each(|(key, _)| *self.open.entry(*key).or_default() += 1);
            }
            Seen::Closed { limits } => limits.iter().for_each(|(key, _)| {
                let open = self.open.entry(*key).or_default();
                *open = open.saturating_sub(1);
            }),
            Seen::Ordered { order } => self.ordered(order),
            Seen::OrderEnded { order, at } => self.order_ended(order, *at),
            Seen::Held { scope, lasts, at, .. } => {
                self.held(scope, *at, at + nanos(lasts.as_nanos()));
            }
            Seen::Ended { .. } => self.run_ends(),
            Seen::Rotten { .. } | Seen::ReadFailed => self.is_excused = true,
            Seen::Told { fact: Fact::MessageSetAside { message, .. }, .. } => {
                self.is_excused |= parse_id(message).is_none();
                parse_id(message).into_iter().for_each(|id| _ = self.left.remove(&id));
            }
            Seen::Recovered { spooled, is_restart, quiet, .. } => {
                self.look(spooled, *quiet)?;
                if *is_restart {
                    self.left.clear();
                }
            }
            Seen::Explained { of, at, quiet, is_stopping, is_wall_steady } => {
                let (quiet, is_stopping) = (*quiet, *is_stopping);
                let at = Moment { at: *at, quiet, is_stopping, is_wall_steady: *is_wall_steady };
                match of {
                    Explained::Message(of) => self.message(of, at)?,
                    Explained::Part(of) => self.part(of, at)?,
                    Explained::Site { site, report, connections } => {
                        self.site(*site, report, connections)?;
                    }
                    Explained::Sites { told, most } if told > most => {
                        return Err(format!("{most} sites were wanted, {told} are told"));
                    }
                    Explained::Sites { .. } => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
