//! When the next message, or the next connection, may go: the rates of a site, of a path, and those
//! that several sites share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::RATE_LOST_WAIT;
use super::path::Path;
use super::site::Site;
use super::warm_up::Counted;
use super::{Action, Scheduler};
use crate::base::cell::{Cell, CellKey, Measure};
use crate::base::gcra::{Gcra, Rate};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::delivery::LeaseId;
use crate::model::settings::Caps;

/// A learned rate may run ahead by this much: what a turn may come late.
const LEARNED_AHEAD: Duration = Duration::from_millis(10);

/// Pacing state of a site with rates; most have none.
#[derive(Debug, Default)]
pub(super) struct Pacers {
    messages: Gcra,
    bytes: Gcra,
    connections: Gcra,
}

impl Pacers {
    /// When all that was taken is paid for.
    pub(super) fn rest_at(&self) -> Mono {
        let all = [self.messages, self.bytes, self.connections];
        all.iter().map(Gcra::rests_at).max().unwrap_or_default()
    }
}

/// How long a lease may wait with its permit to connect again; else it ends, and what could go by
/// another source or at another time does.
const ASKING_MAX: Duration = Duration::from_secs(5);

/// What sets a rate or a limit that binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `connections` of the site.
    Connections,
    ConnectionsPerSource,
    ConnectionsPerIp,
    ConnectionRate,
    MessageRate,
    ByteRate,
    /// What the control loop found the site to take.
    Learned,
    /// A `[[rule]]`, by name and place.
    Rule(Box<str>),
    /// A cap shared with other sites, by name.
    Shared(Box<str>),
}

/// Sites whose next message is less than a tick of the wheel away, or simply next: the wheel is a
/// millisecond coarse.
#[derive(Debug, Default)]
pub(super) struct PaceAlarms(BTreeMap<(Mono, u32), u32>);

impl PaceAlarms {
    pub(super) fn set(&mut self, at: Mono, site: u32, serial: u32) {
        self.0.insert((at, site), serial);
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first site due, with its serial and when it was due.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<(Mono, u32, u32)> {
        let entry = self.0.first_entry()?;
        let (at, site) = *entry.key();
        (at <= now).then(|| (at, site, entry.remove()))
    }
}

impl Scheduler {
    /// When a message of `bytes` may go by a path, and what makes it wait.
    pub(super) fn message_due(
        &self,
        now: Now,
        site: &Site,
        path: Option<&Path>,
        bytes: u32,
    ) -> Option<(Mono, Bound)> {
        let now = now.mono;
        let settings = &site.pace.settings;
        let own = |pacer: fn(&Pacers) -> Gcra, rate: &Option<Rate>, units, bound| {
            let pacer = site.pacers.as_deref().map(pacer).unwrap_or_default();
            rate.map(|rate| (pacer.ready_at(now, &rate, units), bound))
        };
        let path_rate = path.and_then(|path| path_rate(path, now).map(|rate| (path, rate)));
        let waits = [
            own(|pacers| pacers.messages, &settings.message_rate, 1, Bound::MessageRate),
            own(|pacers| pacers.bytes, &settings.byte_rate, u64::from(bytes), Bound::ByteRate),
            path_rate.map(|(path, (rate, bound))| (path.pacer.ready_at(now, &rate, 1), bound)),
            path.and_then(|path| self.shared_due(path, now, bytes)),
        ];
        waits.into_iter().flatten().filter(|(due, _)| *due > now).max_by_key(|(due, _)| *due)
    }

    /// Whether anything paces messages here: then a message is given only to a connection that is
    /// ready for it, and leaves at the moment it was reckoned for.
    pub(super) fn is_paced(&self, now: Now, site: &Site, path: Option<&Path>) -> bool {
        let settings = &site.pace.settings;
        let shared = |cell: &Arc<Cell>| {
            let caps = self.caps_of(cell.key());
            caps.is_some_and(|caps| caps.message_rate.is_some() || caps.byte_rate.is_some())
        };
        settings.message_rate.is_some()
            || settings.byte_rate.is_some()
            || path.is_some_and(|path| {
                path_rate(path, now.mono).is_some()
                    || path.cells.iter().any(shared)
                    || self.is_warming(now, path)
            })
    }

    /// Takes what [`Scheduler::message_due`] found free: shared rates first, where another shard may
    /// have been quicker. `None`: it was; what was taken is lost, which only makes less of a rate.
    pub(super) fn take_message(
        &mut self,
        now: Now,
        number: u32,
        path: u16,
        bytes: u32,
    ) -> Option<Counted> {
        let bytes = if planted(Bug::ByteRateNeverTaken) { 0 } else { bytes };
        let site = &self.sites[number];
        let shared = &site.paths[usize::from(path)].cells;
        if !shared.iter().all(|cell| self.take_shared(cell, now.mono, bytes)) {
            return None;
        }
        let counted = self.take_of_day(now, number, path)?;
        if planted(Bug::RateNeverTaken) {
            return Some(counted);
        }
        let site = &mut self.sites[number];
        let settings = Arc::clone(&site.pace.settings);
        if settings.message_rate.is_some() || settings.byte_rate.is_some() {
            let pacers = site.pacers.get_or_insert_default();
            take(&mut pacers.messages, settings.message_rate.as_ref(), now.mono, 1);
            take(&mut pacers.bytes, settings.byte_rate.as_ref(), now.mono, u64::from(bytes));
        }
        let path = site.path(path);
        if let Some((rate, _)) = path_rate(path, now.mono) {
            take(&mut path.pacer, Some(&rate), now.mono, 1);
        }
        Some(counted)
    }

    /// When a connection may be opened, and what makes it wait.
    pub(super) fn connection_due(
        &self,
        now: Now,
        site: &Site,
        path: Option<&Path>,
    ) -> Option<(Mono, Bound)> {
        let pacer = site.pacers.as_deref().map(|pacers| pacers.connections).unwrap_or_default();
        let rate = site.pace.settings.connection_rate;
        let own = rate.map(|rate| (pacer.ready_at(now.mono, &rate, 1), Bound::ConnectionRate));
        let cells = path.into_iter().flat_map(|path| &path.cells);
        let shared = cells.filter_map(|cell| {
            let rate = self.caps_of(cell.key())?.connection_rate?;
            let due = cell.rate(Measure::Connections).ready_at(now.mono, &rate, 1);
            Some((due, Bound::Shared(name_of(cell.key()))))
        });
        let waits = own.into_iter().chain(shared).filter(|(due, _)| *due > now.mono);
        waits.max_by_key(|(due, _)| *due)
    }

    /// As [`Scheduler::take_message`], for a connection.
    pub(super) fn take_connection(&mut self, now: Now, number: u32, path: u16) -> bool {
        let cells = &self.sites[number].paths[usize::from(path)].cells;
        let taken = cells.iter().all(|cell| {
            let rate = self.caps_of(cell.key()).and_then(|caps| caps.connection_rate);
            rate.is_none_or(|rate| cell.rate(Measure::Connections).take(now.mono, &rate, 1).is_ok())
        });
        if !taken {
            return false;
        }
        let site = &mut self.sites[number];
        if let Some(rate) = site.pace.settings.connection_rate {
            take(&mut site.pacers.get_or_insert_default().connections, Some(&rate), now.mono, 1);
        }
        true
    }

    /// Whether connections are paced here: then each attempt of a lease counts.
    pub(super) fn paces_connections(&self, site: &Site, path: &Path) -> bool {
        let is_paced = |cell: &Arc<Cell>| {
            self.caps_of(cell.key()).is_some_and(|caps| caps.connection_rate.is_some())
        };
        site.pace.settings.connection_rate.is_some() || path.cells.iter().any(is_paced)
    }

    /// A lease whose connection came to nothing wants another, to the next host or in clear. It is
    /// answered when the rate lets it, before any new connection of its site.
    pub fn handle_another(&mut self, now: Now, lease: LeaseId) {
        let Some(slot) = self.leases.find(lease) else { return };
        let number = self.leases[slot].site;
        self.sites[number].askers.push_back((lease, now.mono));
        self.answer_askers(now, number);
    }

    /// Answers the leases that wait to connect again; the first that has to wait arms the alarm.
    pub(super) fn answer_askers(&mut self, now: Now, number: u32) {
        while let Some((lease, since)) = self.sites[number].askers.front().copied() {
            let Some(slot) = self.leases.find(lease) else {
                self.sites[number].askers.pop_front();
                continue;
            };
            let Some(may_connect) = self.may_connect_again(now, slot, since) else { return };
            self.sites[number].askers.pop_front();
            let to = self.leases[slot].shard;
            self.actions.push_back(Action::Leave { to, lease, may_connect });
        }
    }

    /// Takes the token of one more connection; `None`: not yet.
    fn may_connect_again(&mut self, now: Now, slot: u32, since: Mono) -> Option<bool> {
        let (number, path) = self.leases[slot].at();
        let site = &self.sites[number];
        let due = self.connection_due(now, site, site.paths.get(usize::from(path)));
        let due = due.map_or(now.mono, |(due, _)| due);
        if self.stopping || due > since.plus(ASKING_MAX) {
            return Some(false);
        }
        if due <= now.mono && self.take_connection(now, number, path) {
            return Some(true);
        }
        self.arm_pace(number, due.max(now.mono.plus(RATE_LOST_WAIT)));
        None
    }

    fn shared_due(&self, path: &Path, now: Mono, bytes: u32) -> Option<(Mono, Bound)> {
        let due = |cell: &Arc<Cell>| self.cell_due(cell, now, bytes);
        path.cells.iter().filter_map(due).max_by_key(|(due, _)| *due)
    }

    /// When a cell lets a message of `bytes` pass.
    pub(super) fn cell_due(&self, cell: &Cell, now: Mono, bytes: u32) -> Option<(Mono, Bound)> {
        let caps = self.caps_of(cell.key())?;
        let of = |rate: Option<Rate>, measure, units| {
            rate.map(|rate| cell.rate(measure).ready_at(now, &rate, units))
        };
        let messages = of(caps.message_rate, Measure::Messages, 1);
        let bytes = of(caps.byte_rate, Measure::Bytes, u64::from(bytes));
        Some((messages.max(bytes)?, Bound::Shared(name_of(cell.key()))))
    }

    pub(super) fn take_shared(&self, cell: &Cell, now: Mono, bytes: u32) -> bool {
        let caps = self.caps_of(cell.key()).filter(|_| !planted(Bug::SharedRateNeverTaken));
        let Some(caps) = caps else { return true };
        let take = |rate: Option<Rate>, measure, units| {
            rate.is_none_or(|rate| cell.rate(measure).take(now, &rate, units).is_ok())
        };
        take(caps.message_rate, Measure::Messages, 1)
            && take(caps.byte_rate, Measure::Bytes, u64::from(bytes))
    }

    /// The settings of a shared cap.
    pub(super) fn caps_of(&self, key: &CellKey) -> Option<&Caps> {
        match key {
            CellKey::Provider(name) => Some(&self.policies.provider(name)?.caps),
            CellKey::SourceProvider(_, name) => {
                Some(&self.policies.provider(name)?.caps_per_source)
            }
            CellKey::Source(name) => self.roster.source_caps(name),
            CellKey::Tenant(name) => Some(&self.roster.tenant(name)?.settings.caps),
            CellKey::RemoteIp(_) => None,
        }
    }
}

/// A rule's rate, or the learned one, whichever is slower.
fn path_rate(path: &Path, now: Mono) -> Option<(Rate, Bound)> {
    let learned = path.control.rate().map(|rate| (learned(rate), Bound::Learned));
    let ruled = path
        .effects
        .rate_limit(now)
        .map(|(rate, effect)| (rate, Bound::Rule(effect.by.name.clone())));
    let slowness = |(rate, _): &(Rate, Bound)| {
        rate.per.as_nanos().saturating_mul(1 << 20) / u128::from(rate.units.max(1))
    };
    [learned, ruled].into_iter().flatten().max_by_key(slowness)
}

/// Messages per 1000 seconds as a rate.
fn learned(rate: u32) -> Rate {
    let per = Duration::from_secs(1000);
    let ahead = u128::from(rate) * LEARNED_AHEAD.as_nanos() / per.as_nanos();
    Rate { units: u64::from(rate), per, burst: u64::try_from(ahead).unwrap_or(1).max(1) }
}

/// What was looked at before is free: the result says nothing new.
fn take(pacer: &mut Gcra, rate: Option<&Rate>, now: Mono, units: u64) {
    if let Some(rate) = rate {
        let taken = pacer.take(now, rate, units);
        debug_assert!(taken.is_ok(), "a rate was found free before it was taken");
    }
}

/// How a shared cap is called.
pub(super) fn name_of(key: &CellKey) -> Box<str> {
    match key {
        CellKey::Provider(name) => format!("provider.\"{name}\""),
        CellKey::Source(name) => format!("source.\"{name}\""),
        CellKey::SourceProvider(source, name) => format!("provider.\"{name}\" per source {source}"),
        CellKey::RemoteIp(ip) => format!("connections_per_ip of {ip}"),
        CellKey::Tenant(name) => format!("tenant.\"{name}\""),
    }
    .into()
}
