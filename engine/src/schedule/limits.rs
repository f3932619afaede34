//! What keeps a path from sending, or from opening a connection: the same answer for who decides and
//! for who asks why.

use super::Scheduler;
use super::control::{Door, Trouble};
use super::pacing::Bound;
use super::path::Path;
use super::site::Site;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::note::HostSet;
use crate::model::route::Way;

/// Connections that may be on their way to a paced site at once: as many as it has, and one.
const OPENING_AHEAD: u32 = 1;

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// An operator, or a rule, stopped it.
    Held { by: Box<str>, until: Option<Mono> },
    /// The site asked to slow down.
    Throttled { until: Mono },
    /// The site could not be reached.
    Unreachable { until: Mono },
    /// This machine could not open a connection.
    Local { until: Mono },
    /// The one delivery that tries whether the site works again.
    Probe,
    /// A rate, until then.
    Rate { until: Mono, bound: Bound },
    /// A number of connections.
    Connections { limit: u32, bound: Bound },
    /// A cap shared with other sites; it stands in line there.
    Shared { cap: Box<str> },
    /// The day of a source in its warm-up is full.
    WarmUp { until: Mono },
    /// A connection that is being opened, or whose end is awaited.
    Connection,
    /// A connection in use that may be free soon: until then no other is opened.
    InUse { until: Mono },
}

impl Hindrance {
    /// How near the path is to sending: the lower, the sooner.
    pub(super) fn rank(&self) -> (u8, Mono) {
        match self {
            Self::Connection => (0, Mono::default()),
            Self::InUse { until } => (0, *until),
            Self::Connections { .. } => (1, Mono::default()),
            Self::Rate { until, .. } | Self::WarmUp { until } => (2, *until),
            Self::Shared { .. } => (3, Mono::default()),
            Self::Probe => (4, Mono::default()),
            Self::Throttled { until } | Self::Unreachable { until } | Self::Local { until } => {
                (5, *until)
            }
            Self::Held { until, .. } => (6, until.unwrap_or(Mono::NEVER)),
        }
    }
}

impl Scheduler {
    /// Whether a path may send a message of `bytes` now.
    pub(super) fn may_send(
        &self,
        now: Now,
        site: &Site,
        (source, path): (u16, Option<&Path>),
        bytes: u32,
    ) -> Result<(), Hindrance> {
        if let Some(held) = self.held(site, source) {
            return Err(held);
        }
        if let Some(path) = path {
            self.is_passable(now, path)?;
        }
        match self.message_due(now, site, path, bytes) {
            Some((until, bound)) => Err(Hindrance::Rate { until, bound }),
            None => Ok(()),
        }
    }

    pub(super) fn is_passable(&self, now: Now, path: &Path) -> Result<(), Hindrance> {
        if let Some(effect) = path.effects.stop(now.mono) {
            let by = format!("rule {}", effect.by.name).into();
            return Err(Hindrance::Held { by, until: Some(effect.until) });
        }
        match path.control.door() {
            Door::Open => self.is_below_day(now, path),
            Door::Probing { .. } if path.in_flight > 0 || path.fruitless > 0 => {
                Err(Hindrance::Probe)
            }
            Door::Probing { .. } => self.is_below_day(now, path),
            Door::Closed { until, cause: Trouble::Throttled } => {
                Err(Hindrance::Throttled { until })
            }
            Door::Closed { until, cause: Trouble::Unreachable | Trouble::Refused } => {
                Err(Hindrance::Unreachable { until })
            }
            Door::Closed { until, cause: Trouble::Local } => Err(Hindrance::Local { until }),
        }
    }

    /// Whether a path may open one more connection now.
    pub(super) fn may_open(
        &self,
        now: Now,
        site: &Site,
        path: Option<&Path>,
    ) -> Result<(), Hindrance> {
        let limit = connections_max(site);
        if site.in_use >= limit {
            return Err(Hindrance::Connections { limit, bound: Bound::Connections });
        }
        if let Some(path) = path {
            self.has_room(now, site, path)?;
        }
        match self.connection_due(now, site, path) {
            Some((until, bound)) => Err(Hindrance::Rate { until, bound }),
            None => Ok(()),
        }
    }

    fn has_room(&self, now: Now, site: &Site, path: &Path) -> Result<(), Hindrance> {
        if let Some(cap) = super::caps::waits_at(path) {
            return Err(Hindrance::Shared { cap });
        }
        if path.crowded_until > now.mono {
            let limit = site.pace.settings.connections_per_ip.unwrap_or(0);
            return Err(Hindrance::Connections { limit, bound: Bound::ConnectionsPerIp });
        }
        let probing = matches!(path.control.door(), Door::Probing { .. });
        if path.fruitless > 0 || probing && path.working > 0 {
            return Err(Hindrance::Connection);
        }
        let (ceiling, bound) = self.ceiling_and_bound(now, site, path);
        if path.in_use >= ceiling {
            return Err(Hindrance::Connections { limit: ceiling, bound });
        }
        let limit = self.width(now, site, path);
        if path.in_use >= limit {
            return Err(Hindrance::Connections { limit, bound: Bound::Learned });
        }
        if path.opening > 0 && path.opening >= path.working - path.opening + OPENING_AHEAD {
            return Err(Hindrance::Connection);
        }
        Ok(())
    }

    /// Connections a path may have, as the control loop has it.
    pub(super) fn width(&self, now: Now, site: &Site, path: &Path) -> u32 {
        let ceiling = self.ceiling(now, site, path);
        match path.control.door() {
            Door::Probing { .. } => ceiling.min(1),
            _ if !site.pace.settings.ramp.adaptive => ceiling,
            _ => path.control.width().min(ceiling),
        }
    }

    /// The strictest limit on the connections of a path that others set.
    pub(super) fn ceiling(&self, now: Now, site: &Site, path: &Path) -> u32 {
        self.ceiling_and_bound(now, site, path).0
    }

    fn ceiling_and_bound(&self, now: Now, site: &Site, path: &Path) -> (u32, Bound) {
        let settings = &site.pace.settings;
        let per_source = settings.connections_per_source;
        let per_source = per_source.filter(|_| !planted(Bug::LimitPerSourceIgnored));
        let per_source = per_source.unwrap_or(u32::MAX);
        let ruled = path.effects.connections_limit(now.mono);
        let ruled = ruled.map(|(limit, effect)| (limit, Bound::Rule(effect.by.name.clone())));
        let all = [
            (connections_max(site), Bound::Connections),
            (per_source, Bound::ConnectionsPerSource),
        ];
        let limits = all.into_iter().chain(ruled);
        limits.min_by_key(|(limit, _)| *limit).unwrap_or((0, Bound::Connections))
    }
}

pub(super) fn connections_max(site: &Site) -> u32 {
    site.pace.settings.connections + u32::from(planted(Bug::LimitOffByOne))
}

/// Hosts that rules pass over.
pub(super) fn skipped(now: Now, site: &Site, path: &Path) -> HostSet {
    let mut skip = HostSet::EMPTY;
    let Way::Hosts(hosts) = &site.target.way else { return skip };
    for (name, _) in path.effects.skipped_hosts(now.mono) {
        let place = hosts.iter().position(|host| *host.name == *name);
        if let Some(place) = place.and_then(|place| u8::try_from(place).ok()) {
            skip.insert(place);
        }
    }
    skip
}
