//! Mail that waits for a connection in use to be free again, where another would not be open sooner.

use std::time::Duration;

use super::Scheduler;
use super::feedback::At;
use super::path::Path;
use super::site::Site;
use crate::base::time::{Mono, Now};
use crate::model::note::{Phases, Took};

/// No longer than this, whatever it takes to open a connection.
const WAIT_MAX: Duration = Duration::from_secs(1);

impl Scheduler {
    /// From when on another connection may be opened for the next message of a site. If it is the only
    /// one and a connection in use has had answers, it waits for that as long as it took to open one the
    /// last time: so it goes at most that much later, mostly sooner, and a site that gets a message at a
    /// time is not given connections that then lie idle.
    pub(super) fn opens_from(&self, now: Now, site: &Site, path: &Path) -> Mono {
        if site.ready > 1 || !self.has_good_in_use(path) || self.is_paced(now, site, Some(path)) {
            return now.mono;
        }
        let took = path.opening_took.duration().unwrap_or_default();
        path.waits_until.unwrap_or_else(|| now.mono.plus(took.min(WAIT_MAX)))
    }

    fn has_good_in_use(&self, path: &Path) -> bool {
        let mut in_use = path.lanes().iter().filter_map(|lane| lane.busy.front());
        in_use.any(|lease| self.leases[lease].answered > 0)
    }

    /// The only message of a site waits until then, if nothing takes it before.
    pub(super) fn wait_for_reply(&mut self, (number, path): At, until: Mono) {
        self.sites[number].path(path).waits_until = Some(until);
        self.arm_pace(number, until);
    }

    /// A connection says once how long it took to open.
    pub(super) fn learn_opening(&mut self, (number, path): At, phases: &Phases) {
        let Phases { connect, greeting, tls, .. } = *phases;
        if greeting != Took::NOT {
            self.sites[number].path(path).opening_took = connect.and(greeting).and(tls);
        }
    }
}
