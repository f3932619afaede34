//! Why mail for a site waits, and until when, as a small value.

use std::collections::BTreeSet;

use super::Scheduler;
use super::gate::{Gate, Trouble};
use super::site::Site;
use crate::base::time::{Mono, Now};
use crate::model::outcome::Reply;
use crate::model::route::SiteKey;

/// The state of one site.
#[derive(Clone, Debug)]
pub struct SiteView {
    pub site: SiteKey,
    pub ready: u32,
    pub deferred: u32,
    pub in_flight: u32,
    pub connections: u32,
    pub connections_max: u32,
    /// The domain, or "default", whose settings gave `connections_max`.
    pub bound_by: Box<str>,
    pub waits_for: WaitsFor,
    /// The last complaint of the site.
    pub last_reply: Option<Reply>,
}

/// The limit that binds at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing is ready.
    Nothing,
    /// The next try of what is deferred.
    NextTry { at: Mono },
    /// All permits are in use.
    Permits,
    /// A reply to the one delivery that probes whether the site works again.
    Probe,
    /// The site asked to slow down.
    Throttled { until: Mono },
    /// The site could not be reached.
    Unreachable { until: Mono },
    /// This machine could not open a connection.
    Local { until: Mono },
    /// The engine is stopping.
    Stop,
}

impl Scheduler {
    /// The state of a site, if it holds anything.
    #[must_use]
    pub fn explain(&self, now: Now, key: &SiteKey) -> Option<SiteView> {
        self.sites.find(key).map(|number| self.view(now, &self.sites[number]))
    }

    /// The states of all sites that hold mail for `domain`. Looks at every domain: for people.
    #[must_use]
    pub fn explain_domain(&self, now: Now, domain: &str) -> Vec<SiteView> {
        let courses = self.bearings.iter().filter(|course| *course.domain == *domain);
        let sites: BTreeSet<u32> = courses.map(|course| course.site).collect();
        sites.into_iter().map(|site| self.view(now, &self.sites[site])).collect()
    }

    fn view(&self, now: Now, site: &Site) -> SiteView {
        SiteView {
            site: site.key.clone(),
            ready: site.ready,
            deferred: site.deferred,
            in_flight: site.in_flight,
            connections: site.in_use,
            connections_max: site.pace.settings.connections,
            bound_by: (*site.pace.bound_by).into(),
            waits_for: self.waits_for(now, site),
            last_reply: site.last_reply.clone(),
        }
    }

    fn waits_for(&self, now: Now, site: &Site) -> WaitsFor {
        if self.stopping {
            return WaitsFor::Stop;
        }
        match site.gate {
            Gate::Closed { until, cause: Trouble::Throttled, .. } => WaitsFor::Throttled { until },
            Gate::Closed { until, cause: Trouble::Unreachable, .. } => {
                WaitsFor::Unreachable { until }
            }
            Gate::Closed { until, cause: Trouble::Local, .. } => WaitsFor::Local { until },
            Gate::Probing { .. } if site.ready > 0 => WaitsFor::Probe,
            _ if site.ready > 0 => WaitsFor::Permits,
            _ => self.next_try(now, site).map_or(WaitsFor::Nothing, |at| WaitsFor::NextTry { at }),
        }
    }

    fn next_try(&self, now: Now, site: &Site) -> Option<Mono> {
        let fifos = site.fifos.heads().filter_map(|id| self.entries[id].due(now.mono));
        fifos.chain(site.restored.next()).min()
    }
}
