//! Why mail for a site waits, and until when, as a small value.

use super::Scheduler;
use super::limits::Hindrance;
use super::path::Path;
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
    /// A limit, a rate, a pause or a hold.
    Limit(Hindrance),
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
        let courses = self.courses.iter().filter(|course| *course.domain == *domain);
        let mut sites: Vec<u32> = courses.map(|course| course.site).collect();
        sites.sort_unstable();
        sites.dedup();
        sites.into_iter().map(|site| self.view(now, &self.sites[site])).collect()
    }

    fn view(&self, now: Now, site: &Site) -> SiteView {
        SiteView {
            site: site.key().clone(),
            ready: site.ready,
            deferred: site.deferred,
            in_flight: site.in_flight,
            connections: site.in_use,
            connections_max: site.pace.settings.connections,
            bound_by: (*site.pace.bound_by).into(),
            waits_for: self.waits_for(now, site),
            last_reply: site.last_reply.as_deref().cloned(),
        }
    }

    pub(super) fn waits_for(&self, now: Now, site: &Site) -> WaitsFor {
        if self.stopping {
            return WaitsFor::Stop;
        }
        if site.ready == 0 {
            let next = self.next_try(now, site);
            return next.map_or(WaitsFor::Nothing, |at| WaitsFor::NextTry { at });
        }
        self.hindrance(now, site).map_or(WaitsFor::Nothing, WaitsFor::Limit)
    }

    /// What keeps the next delivery of a site from going out: of its paths, the one that comes nearest.
    fn hindrance(&self, now: Now, site: &Site) -> Option<Hindrance> {
        let path = |path| self.path_hindrance(now, site, path);
        let nearest =
            site.paths.iter().map(path).min_by_key(|one| one.as_ref().map(Hindrance::rank));
        nearest?.or_else(|| self.left_to_another(now, site))
    }

    pub(super) fn path_hindrance(&self, now: Now, site: &Site, path: &Path) -> Option<Hindrance> {
        let bytes = self.next_bytes(site, path.source);
        let sent = self.may_send(now, site, (path.source, Some(path)), bytes);
        let opened = sent.and_then(|()| self.may_open(now, site, Some(path)));
        let from = self.opens_from(now, site, path);
        let in_use = || (from > now.mono).then_some(Hindrance::InUse { until: from });
        opened.err().or_else(in_use)
    }

    /// The size of what goes next from a source: of the pools it serves the smallest, which a rate of
    /// bytes lets go first.
    fn next_bytes(&self, site: &Site, source: u16) -> u32 {
        let next = |trunk: &u32| {
            let pool = self.order.trunks[*trunk as usize].pool;
            if !self.roster.members(pool).iter().any(|member| member.source == source) {
                return None;
            }
            let (_, oldest) = self.order.oldest(&self.entries, self.order.next(*trunk)?)?;
            Some(self.entries[oldest].bytes())
        };
        site.trunks.iter().filter_map(next).min().unwrap_or(0)
    }

    pub(super) fn next_try(&self, now: Now, site: &Site) -> Option<Mono> {
        let heads = site.fifos.heads().chain(site.restored.first());
        heads.filter_map(|id| self.entries[id].due(now.mono)).min()
    }
}
