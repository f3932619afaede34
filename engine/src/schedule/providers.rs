//! Which provider a site belongs to, and whose settings bind it.

use std::sync::Arc;

use super::Scheduler;
use super::course::Course;
use super::policy::strictest;
use crate::base::time::Now;

impl Scheduler {
    /// Another domain of a site: where it makes the site a provider's, that counts for all of it.
    pub(super) fn note_domain(&mut self, now: Now, number: u32, domain: &Arc<str>) {
        let site = &mut self.sites[number];
        let provider = self.policies.provider_of(&site.target, domain);
        if site.domain.is_empty() {
            site.domain = Arc::clone(domain);
        }
        if self.policies.is_before(provider.as_deref(), site.provider.as_deref()) {
            (site.provider, site.domain) = (provider, Arc::clone(domain));
            site.policies.clear();
            self.join_policies(|course| course.site == number);
            self.count_site_anew(now, number);
            self.repace(number);
            self.trim(number);
        }
    }

    /// Finds the provider of each site anew: of those of its domains the first in the settings.
    pub(super) fn find_providers(&mut self, numbers: &[u32]) {
        for number in numbers {
            let site = &mut self.sites[*number];
            site.provider = self.policies.provider_of(&site.target, &site.domain);
            site.policies.clear();
        }
        for course in self.courses.iter() {
            let site = &mut self.sites[course.site];
            let provider = self.policies.provider_of(&site.target, &course.domain);
            if self.policies.is_before(provider.as_deref(), site.provider.as_deref()) {
                (site.provider, site.domain) = (provider, Arc::clone(&course.domain));
            }
        }
        self.join_policies(|_| true);
    }

    /// The policies that the domains of these courses fall under bind their sites.
    fn join_policies(&mut self, is_meant: impl Fn(&Course) -> bool) {
        for course in self.courses.iter_mut().filter(|course| is_meant(course)) {
            let site = &mut self.sites[course.site];
            course.policy = self.policies.of(&course.domain, site.provider.as_deref());
            site.join(course.policy);
        }
    }

    /// New settings for a site that holds mail of no domain: those of the domain that brought it.
    pub(super) fn renew_pace(&mut self, number: u32) {
        let site = &mut self.sites[number];
        let policy = self.policies.of(&site.domain, site.provider.as_deref());
        site.pace = self.policies[policy].pace();
        self.repace(number);
    }

    /// Works the settings of a site out of those of its domains; without any, it keeps what it had.
    pub(super) fn repace(&mut self, number: u32) {
        let site = &mut self.sites[number];
        let policies = site.policies.iter().map(|(policy, _)| &self.policies[*policy]);
        if let Some(pace) = strictest(policies) {
            site.pace = pace;
        }
    }
}
