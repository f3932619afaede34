//! Which host and address a session tries next, one after the other under its one permit.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::route::{MailHost, Target, Way};

/// Hosts tried by one session. The rest of a long MX list has its turn when the site is tried
/// again: the resolver shuffles equals.
const HOSTS_TRIED_MAX: usize = 5;
/// Addresses tried by one session, so that a dead site holds a permit for minutes, not hours.
const ADDRESSES_TRIED_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Itinerary {
    target: Arc<Target>,
    host: usize,
    /// Addresses of `host` tried so far.
    address: usize,
    tried: usize,
}

impl Itinerary {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, host: 0, address: 0, tried: 0 }
    }

    /// The next address to connect to.
    pub(super) fn advance(&mut self) -> Option<SocketAddr> {
        if self.tried >= ADDRESSES_TRIED_MAX {
            return None;
        }
        while self.host < HOSTS_TRIED_MAX {
            if let Some(to) = self.hosts().get(self.host)?.addresses.get(self.address) {
                let to = *to;
                self.address += 1;
                self.tried += 1;
                return Some(to);
            }
            self.skip_host();
        }
        None
    }

    /// The host spoke, and its other addresses would say the same.
    pub(super) fn skip_host(&mut self) {
        self.host += 1;
        self.address = 0;
    }

    /// The host tried last.
    pub(super) fn host_name(&self) -> &str {
        self.hosts().get(self.host).map_or("", |host| &host.name)
    }

    /// The address tried last.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let tried = self.address.checked_sub(1)?;
        self.hosts().get(self.host)?.addresses.get(tried).copied()
    }

    /// Host and address for texts.
    pub(super) fn label(&self) -> String {
        match self.address() {
            Some(address) => format!("{}[{}]", self.host_name(), address.ip()),
            None => self.host_name().to_owned(),
        }
    }

    fn hosts(&self) -> &[MailHost] {
        match &self.target.way {
            Way::Hosts(hosts) => hosts,
            Way::Deferred(_) | Way::Failed(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::model::route::SiteKey;

    fn itinerary(hosts: u8, addresses: u8) -> Itinerary {
        let host = |n: u8| MailHost {
            name: n.to_string().into(),
            addresses: (0..addresses).map(|a| SocketAddr::from(([9, 9, n, a], 25))).collect(),
        };
        let way = Way::Hosts((0..hosts).map(host).collect());
        let site = SiteKey::MxSet("s".into());
        Itinerary::new(Arc::new(Target { site, way, fresh_until: Mono::NEVER }))
    }

    #[test]
    fn addresses_of_a_host_come_before_the_next_host() {
        let mut way = itinerary(2, 2);
        let seen: Vec<_> = std::iter::from_fn(|| way.advance().map(|to| to.to_string())).collect();
        assert_eq!(seen, ["9.9.0.0:25", "9.9.0.1:25", "9.9.1.0:25", "9.9.1.1:25"]);
        let mut way = itinerary(2, 2);
        assert!(way.advance().is_some());
        assert_eq!(way.label(), "0[9.9.0.0]");
        way.skip_host();
        assert_eq!(way.advance().map(|to| to.to_string()), Some("9.9.1.0:25".to_owned()));
    }

    #[test]
    fn no_list_is_long_enough_to_keep_a_permit() {
        for (hosts, addresses, tried) in [(20, 8, 10), (20, 1, 5), (0, 0, 0), (3, 0, 0)] {
            let mut way = itinerary(hosts, addresses);
            assert_eq!(std::iter::from_fn(|| way.advance()).count(), tried);
        }
    }
}
