//! What mail for several sites will need, fetched together: of a thousand sites each is cold when its
//! turn comes, and what is fetched at once is waited for once.

use std::mem::offset_of;

use super::Scheduler;
use super::site::Site;
use crate::base::prefetch;
use crate::model::delivery::LeaseId;

impl Scheduler {
    /// Fetches a lease, and gives the number of its site.
    #[must_use]
    pub fn prefetch_lease(&self, lease: LeaseId) -> Option<u32> {
        let lease = &self.leases[self.leases.find(lease)?];
        prefetch::all(lease);
        Some(lease.site)
    }

    /// Fetches what these sites have, as far as there are any with these numbers. Each pass looks only at
    /// what the one before it fetched.
    pub fn prefetch_sites(&self, sites: &[u32]) {
        let sites = || sites.iter().filter_map(|site| self.sites.get(*site));
        sites().for_each(|site| prefetch::start(site, offset_of!(Site, by_source)));
        sites().for_each(|site| self.prefetch_named_by(site));
        sites().for_each(|site| self.prefetch_beyond(site));
        sites().for_each(|site| self.prefetch_around_leaf(site));
    }

    /// What a site names.
    fn prefetch_named_by(&self, site: &Site) {
        prefetch::all(&*site.target);
        prefetch::row(site.lanes());
        if let Some(path) = site.paths.first() {
            prefetch::all(path);
        }
        if let Some(course) = site.resting {
            prefetch::all(&self.courses[course]);
        }
        if let Some(trunk) = site.trunks.first() {
            prefetch::all(&self.order.trunks[*trunk as usize]);
        }
    }

    /// What is named by what a site names, the leaf of its course among it.
    fn prefetch_beyond(&self, site: &Site) {
        prefetch::row(site.key().name().as_bytes());
        if let Some(path) = site.paths.first() {
            path.counters.prefetch();
            prefetch::row(path.lanes());
            if let Some(lease) = path.pick(self.shard, |lane| lane.idle) {
                prefetch::all(&self.leases[lease]);
            }
        }
        if let Some(course) = site.resting {
            prefetch::all(&self.order.leaves[self.courses[course].leaf as usize]);
        }
    }

    fn prefetch_around_leaf(&self, site: &Site) {
        if let Some(course) = site.resting {
            self.order.prefetch_around(self.courses[course].leaf);
        }
    }
}
