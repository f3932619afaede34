//! Which host and address a session tries next, one after the other under its one permit.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::note::{HostSet, Remote};
use crate::model::route::{MailHost, Target, Way};
use crate::model::source::{Binding, EgressSource};

/// Hosts tried by one session. The rest of a long MX list has its turn when the site is tried
/// again: the resolver shuffles equals.
const HOSTS_TRIED_MAX: usize = 5;
/// Addresses tried by one session, so that a dead site holds a permit for minutes, not hours.
const ADDRESSES_TRIED_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Itinerary {
    target: Arc<Target>,
    source: Option<Arc<EgressSource>>,
    skip: HostSet,
    host: usize,
    /// Addresses of `host` seen so far.
    address: usize,
    /// Addresses that were connected to, and how many hosts they are of.
    tried: usize,
    hosts_tried: usize,
    /// Host and address counted last.
    counted: Option<(usize, usize)>,
    busy: Option<Busy>,
}

/// What was found to have as many connections as it may: the first such address.
#[derive(Clone, Copy, Debug)]
struct Busy {
    ip: IpAddr,
    /// No worse host is tried: a host that is busy works.
    preference: u16,
}

/// Where to connect to, and from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
}

/// Why not one address was connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Busy(IpAddr),
    /// Every host was to be passed over.
    AllSkipped,
    /// The source has no address of the family of any host.
    NoFamily,
}

impl Itinerary {
    pub(super) fn new(
        target: Arc<Target>,
        source: Option<Arc<EgressSource>>,
        skip: HostSet,
    ) -> Self {
        Self {
            target,
            source,
            skip,
            host: 0,
            address: 0,
            tried: 0,
            hosts_tried: 0,
            counted: None,
            busy: None,
        }
    }

    /// The next hop. The loop is bounded by the addresses of a target, `HOSTS_MAX` times
    /// `ADDRESSES_MAX`.
    pub(super) fn advance(&mut self) -> Option<Hop> {
        if self.tried >= ADDRESSES_TRIED_MAX {
            return None;
        }
        loop {
            let host = self.hosts().get(self.host)?;
            if self.is_beyond(host) {
                return None;
            }
            match host.addresses.get(self.address).copied() {
                Some(to) if !self.is_skipped(self.host) => {
                    self.address += 1;
                    if let Some(hop) = self.hop(to) {
                        return Some(hop);
                    }
                }
                _ => self.skip_host(),
            }
        }
    }

    /// Whether this host is not for this session any more.
    fn is_beyond(&self, host: &MailHost) -> bool {
        let is_counted = self.counted.is_some_and(|(last, _)| last == self.host);
        (self.hosts_tried >= HOSTS_TRIED_MAX && !is_counted)
            || self.busy.is_some_and(|busy| host.preference > busy.preference)
    }

    /// The address of the last hop was connected to, with whatever success; again, in clear, is
    /// no other try.
    pub(super) fn handle_tried(&mut self) {
        let now = (self.host, self.address);
        let before = self.counted.replace(now);
        self.tried += usize::from(before != Some(now));
        self.hosts_tried += usize::from(before.map(|(host, _)| host) != Some(self.host));
    }

    /// The address of the last hop has as many connections as it may: it was not tried.
    pub(super) fn handle_busy(&mut self) {
        let Some(ip) = self.address().map(|to| to.ip()) else { return };
        let Some(host) = self.hosts().get(self.host) else { return };
        let preference = host.preference;
        self.busy.get_or_insert(Busy { ip, preference });
    }

    /// `None`: the source has no address of that family.
    fn hop(&self, to: SocketAddr) -> Option<Hop> {
        let binding = self.source.as_ref().map_or(Binding::Free, |source| source.binding(to.ip()));
        match binding {
            Binding::Free => Some(Hop { to, from: None }),
            Binding::To(own) => Some(Hop { to, from: Some(own) }),
            Binding::Impossible => None,
        }
    }

    fn is_skipped(&self, host: usize) -> bool {
        u8::try_from(host).is_ok_and(|place| self.skip.holds(place))
    }

    /// Why nothing was tried, where the target has hosts.
    pub(super) fn obstacle(&self) -> Obstacle {
        match self.busy {
            Some(Busy { ip, .. }) => Obstacle::Busy(ip),
            None if (0..self.hosts().len()).all(|host| self.is_skipped(host)) => {
                Obstacle::AllSkipped
            }
            None => Obstacle::NoFamily,
        }
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
    fn address(&self) -> Option<SocketAddr> {
        let tried = self.address.checked_sub(1)?;
        self.hosts().get(self.host)?.addresses.get(tried).copied()
    }

    /// The hop given last.
    pub(super) fn current(&self) -> Option<Hop> {
        self.hop(self.address()?)
    }

    /// The host tried last, for those who keep count of hosts.
    pub(super) fn remote(&self) -> Option<Remote> {
        let host = u8::try_from(self.host).ok()?;
        Some(Remote { host, ip: self.address()?.ip() })
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

    /// Hosts of these preferences, with so many addresses each: `9.9.HOST.ADDRESS`.
    fn target(preferences: &[u16], addresses: u8) -> Arc<Target> {
        let host = |(n, preference): (u8, &u16)| MailHost {
            preference: *preference,
            name: n.to_string().into(),
            addresses: (0..addresses).map(|a| SocketAddr::from(([9, 9, n, a], 25))).collect(),
        };
        let way = Way::Hosts((0..).zip(preferences).map(host).collect());
        let site = SiteKey::MxSet("s".into());
        Arc::new(Target::new(site, way, Mono::NEVER))
    }

    fn itinerary(preferences: &[u16], addresses: u8) -> Itinerary {
        Itinerary::new(target(preferences, addresses), None, HostSet::EMPTY)
    }

    /// The last two bytes of the next address, which is tried.
    fn next(way: &mut Itinerary) -> Option<(u8, u8)> {
        let found = untried(way);
        way.handle_tried();
        found
    }

    fn untried(way: &mut Itinerary) -> Option<(u8, u8)> {
        let IpAddr::V4(ip) = way.advance()?.to.ip() else { panic!("all are v4") };
        let [_, _, host, address] = ip.octets();
        Some((host, address))
    }

    #[test]
    fn addresses_of_a_host_come_before_the_next_host() {
        let mut way = itinerary(&[1, 1], 2);
        let seen: Vec<_> = std::iter::from_fn(|| next(&mut way)).collect();
        assert_eq!(seen, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        let mut way = itinerary(&[1, 1], 2);
        assert!(next(&mut way).is_some());
        assert_eq!(way.label(), "0[9.9.0.0]");
        way.skip_host();
        assert_eq!(next(&mut way), Some((1, 0)));
        assert_eq!(way.remote(), Some(Remote { host: 1, ip: "9.9.1.0".parse().unwrap() }));
    }

    #[test]
    fn no_list_is_long_enough_to_keep_a_permit() {
        for (hosts, addresses, tried) in [(20, 8, 10), (20, 1, 5), (0, 0, 0), (3, 0, 0)] {
            let mut way = itinerary(&vec![1; hosts], addresses);
            assert_eq!(std::iter::from_fn(|| next(&mut way)).count(), tried);
        }
    }

    #[test]
    fn hosts_to_be_passed_over_count_as_no_try() {
        let mut skip = HostSet::EMPTY;
        (0..20).filter(|host| ![3, 19].contains(host)).for_each(|host| skip.insert(host));
        let mut way = Itinerary::new(target(&[1; 20], 1), None, skip);
        assert_eq!(
            [next(&mut way), next(&mut way), next(&mut way)],
            [Some((3, 0)), Some((19, 0)), None]
        );
        skip.insert(3);
        skip.insert(19);
        let mut way = Itinerary::new(target(&[1; 20], 1), None, skip);
        assert_eq!((next(&mut way), way.obstacle()), (None, Obstacle::AllSkipped));
    }

    #[test]
    fn a_busy_address_is_passed_over_for_its_equals_and_for_nothing_worse() {
        let mut way = itinerary(&[10, 10, 20], 2);
        let mut seen = Vec::new();
        while let Some(found) = untried(&mut way) {
            way.handle_busy();
            seen.push(found);
        }
        assert_eq!(seen, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(way.obstacle(), Obstacle::Busy("9.9.0.0".parse().unwrap()));
        // However many are busy, they use up no try.
        let mut way = itinerary(&[1; 20], 1);
        for _ in 0..15 {
            assert!(untried(&mut way).is_some());
            way.handle_busy();
        }
        assert_eq!(std::iter::from_fn(|| next(&mut way)).count(), 5);
    }

    #[test]
    fn a_source_goes_to_hosts_of_its_families_only() {
        let source = |address: Option<&str>, address6: Option<&str>| {
            Some(Arc::new(EgressSource {
                name: "s".into(),
                address: address.map(|ip| ip.parse().unwrap()),
                address6: address6.map(|ip| ip.parse().unwrap()),
                hostname: None,
            }))
        };
        let v4 = source(Some("192.0.2.1"), None);
        let mut way = Itinerary::new(target(&[1], 1), v4, HostSet::EMPTY);
        let hop = way.advance().unwrap();
        assert_eq!(hop.from, Some("192.0.2.1".parse().unwrap()));
        let v6 = source(None, Some("2001:db8::1"));
        let mut way = Itinerary::new(target(&[1, 2], 3), v6, HostSet::EMPTY);
        assert_eq!((way.advance(), way.obstacle()), (None, Obstacle::NoFamily));
    }
}
