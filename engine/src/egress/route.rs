//! Where mail for a domain goes: the operator's routes, then what the resolver says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::reach::refusal;
use crate::base::map::Map;
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::model::outcome::{Enhanced, Reply};
use crate::model::route::{
    ADDRESSES_MAX, Answer, DnsFailure, HOSTS_MAX, MailHost, Question, ResolvedHost, SiteKey,
    Target, Way,
};
use crate::model::settings::{DomainPattern, EgressSettings, NextHop, RouteSettings};

/// A shorter answer is kept this long: TTL 0 must not mean a question per message.
const FRESH_MIN: Duration = Duration::from_secs(30);
/// A longer answer is asked again after this: hosts move.
const FRESH_MAX: Duration = Duration::from_secs(3600);
/// A failure is believed this long.
const FAILURE_FRESH: Duration = Duration::from_secs(60);

/// The operator's routes and what is needed to judge the resolver's answers.
#[derive(Debug)]
pub struct Router {
    /// The first that matches is gone by.
    routes: Vec<RouteSettings>,
    /// The first route for each domain that has one of its own.
    exact: Map<Box<str>, usize>,
    /// Those for more than one domain, in order.
    wide: Vec<usize>,
    port: u16,
    allow_private: bool,
    hostname: Box<str>,
    /// Where this engine listens; an unspecified address stands for loopback of its port.
    own: Vec<SocketAddr>,
}

/// Whether the resolver is needed.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    Ready(Target),
    Question(Question),
}

impl Router {
    #[must_use]
    pub fn new(
        routes: &[RouteSettings],
        egress: &EgressSettings,
        hostname: &str,
        own: Vec<SocketAddr>,
    ) -> Self {
        let (mut exact, mut wide) = (Map::default(), Vec::new());
        for (at, route) in routes.iter().enumerate() {
            match &route.domain {
                DomainPattern::Exact(domain) => {
                    exact.entry(domain.clone()).or_insert(at);
                }
                DomainPattern::Below(_) | DomainPattern::Any => wide.push(at),
            }
        }
        Self {
            routes: routes.to_vec(),
            exact,
            wide,
            port: egress.port,
            allow_private: egress.allow_private,
            hostname: hostname.to_ascii_lowercase().into(),
            own,
        }
    }

    /// What must be asked about `domain` (in lower case) before its mail can go.
    #[must_use]
    pub fn ask(&self, domain: &str) -> Ask {
        match self.next_hop(domain) {
            Some(NextHop::Address(to)) => Ask::Ready(self.explicit(*to)),
            Some(NextHop::Host(name, _)) => Ask::Question(Question::Host(name.clone())),
            None if domain.is_empty() => {
                Ask::Ready(hopeless(domain, failed(550, 1, 3, "the address has no domain")))
            }
            None if domain.starts_with('[') => Ask::Ready(self.literal(domain)),
            None => Ask::Question(Question::MailHosts(domain.into())),
        }
    }

    /// Where mail for `domain` goes, now that the resolver has answered what [`Router::ask`] asked.
    #[must_use]
    pub fn target(&self, domain: &str, answer: &Answer, now: Mono, prng: &mut Prng) -> Target {
        let mut target = match (self.next_hop(domain), &answer.result) {
            (Some(NextHop::Address(to)), _) => return self.explicit(*to),
            (Some(NextHop::Host(name, port)), Ok(hosts)) => self.via_host(name, *port, hosts),
            (Some(NextHop::Host(name, port)), Err(failure)) => {
                next_hop_lost(name, *port, &describe(failure))
            }
            (None, Ok(hosts)) => self.via_mx(domain, hosts, prng),
            (None, Err(failure)) => hopeless(domain, no_hosts(domain, failure)),
        };
        let fresh = match &mut target.way {
            Way::Hosts(hosts) => {
                trim(hosts);
                answer.ttl.clamp(FRESH_MIN, FRESH_MAX)
            }
            // Mail waits for it: asked again as soon as the resolver would ask.
            Way::Deferred(_) => answer.ttl.min(FAILURE_FRESH),
            Way::Failed(_) => FAILURE_FRESH,
        };
        Target { fresh_until: now.plus(fresh), ..target }
    }

    fn next_hop(&self, domain: &str) -> Option<&NextHop> {
        let wide = self.wide.iter().find(|at| self.routes[**at].domain.matches(domain));
        let first = wide.into_iter().chain(self.exact.get(domain)).min()?;
        Some(&self.routes[*first].via)
    }

    /// An address that the operator wrote down: nothing but a loop is refused.
    fn explicit(&self, to: SocketAddr) -> Target {
        let site = SiteKey::NextHop(to.to_string().into());
        let way = if self.is_own(to) {
            Way::Failed(loops(&to.to_string()))
        } else {
            let name = to.ip().to_string().into();
            Way::Hosts(vec![MailHost { preference: 0, name, addresses: vec![to] }])
        };
        Target::new(site, way, Mono::NEVER)
    }

    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`, from a sender: under the same rules as an MX host.
    fn literal(&self, domain: &str) -> Target {
        let Some(ip) = parse_literal(domain) else {
            return hopeless(domain, failed(550, 1, 3, "not an address literal"));
        };
        if let Some(why) = self.refused(ip) {
            return hopeless(domain, unreachable_address(domain, ip, why));
        }
        self.explicit(SocketAddr::new(ip, self.port))
    }

    /// A next hop that the operator named: its addresses may be private.
    fn via_host(&self, name: &str, port: u16, hosts: &[ResolvedHost]) -> Target {
        let found = hosts.iter().flat_map(|host| &host.addresses).take(ADDRESSES_MAX);
        let all: Vec<SocketAddr> = found.map(|ip| SocketAddr::new(*ip, port)).collect();
        if all.is_empty() {
            return next_hop_lost(name, port, "it has no address");
        }
        let site = next_hop_key(name, port);
        let addresses: Vec<SocketAddr> = all.into_iter().filter(|to| !self.is_own(*to)).collect();
        let way = if addresses.is_empty() {
            Way::Failed(loops(name))
        } else {
            Way::Hosts(vec![MailHost { preference: 0, name: name.into(), addresses }])
        };
        Target::new(site, way, Mono::NEVER)
    }

    fn via_mx(&self, domain: &str, found: &[ResolvedHost], prng: &mut Prng) -> Target {
        let hosts = in_order_of_trial(found, prng);
        let Some(hosts) = self.before_ourselves(hosts) else {
            return hopeless(domain, Way::Failed(loops(domain)));
        };
        let reachable: Vec<MailHost> =
            hosts.iter().filter_map(|host| self.reachable(host)).collect();
        if reachable.is_empty() {
            return hopeless(domain, self.why_none(domain, &hosts));
        }
        let way = Way::Hosts(reachable);
        Target::new(SiteKey::MxSet(names_of(&hosts)), way, Mono::NEVER)
    }

    /// Drops every host no better than ourselves (RFC 5321 §5.1); `None`: we are the best.
    fn before_ourselves<'a>(&self, hosts: Vec<&'a ResolvedHost>) -> Option<Vec<&'a ResolvedHost>> {
        let ours = hosts.iter().find(|host| self.is_ourselves(host)).map(|host| host.preference);
        let Some(ours) = ours else { return Some(hosts) };
        let better: Vec<_> = hosts.into_iter().filter(|host| host.preference < ours).collect();
        (!better.is_empty()).then_some(better)
    }

    /// A bogus MX at loopback is refused like any other private address, and cuts nothing off.
    fn is_ourselves(&self, host: &ResolvedHost) -> bool {
        let is_own = |ip: &IpAddr| {
            let to = SocketAddr::new(*ip, self.port);
            self.own.contains(&to) || (self.refused(*ip).is_none() && self.is_own(to))
        };
        *host.name == *self.hostname || host.addresses.iter().any(is_own)
    }

    fn is_own(&self, to: SocketAddr) -> bool {
        let ip = to.ip().to_canonical();
        self.own.iter().any(|own| {
            let is_here = own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
            own.port() == to.port() && (own.ip() == ip || is_here)
        })
    }

    /// The host with the addresses that we may connect to, if there are any.
    fn reachable(&self, host: &ResolvedHost) -> Option<MailHost> {
        let allowed = host.addresses.iter().filter(|ip| self.refused(**ip).is_none());
        let addresses: Vec<SocketAddr> =
            allowed.take(ADDRESSES_MAX).map(|ip| SocketAddr::new(*ip, self.port)).collect();
        let ResolvedHost { preference, name, .. } = host;
        (!addresses.is_empty()).then(|| MailHost {
            preference: *preference,
            name: name.clone(),
            addresses,
        })
    }

    fn refused(&self, ip: IpAddr) -> Option<&'static str> {
        if self.allow_private { None } else { refusal(ip) }
    }

    /// The first refused address says it for all.
    fn why_none(&self, domain: &str, hosts: &[&ResolvedHost]) -> Way {
        let mut addresses = hosts.iter().flat_map(|host| &host.addresses);
        match addresses.find_map(|ip| self.refused(*ip).map(|why| (*ip, why))) {
            Some((ip, why)) => unreachable_address(domain, ip, why),
            None => no_hosts(domain, &DnsFailure::NoAddress),
        }
    }
}

/// By preference, equals in an order of chance (RFC 5321 §5.1), at most [`HOSTS_MAX`].
fn in_order_of_trial<'a>(found: &'a [ResolvedHost], prng: &mut Prng) -> Vec<&'a ResolvedHost> {
    // The root is the name of a null MX; beside others it means nothing (RFC 7505 §3).
    let mut hosts: Vec<_> = found.iter().filter(|host| !host.name.is_empty()).collect();
    prng.shuffle(&mut hosts);
    hosts.sort_by_key(|host| host.preference);
    hosts.truncate(HOSTS_MAX);
    hosts
}

/// Every shard remembers the targets of its domains for a while: no room for hosts that will not come.
fn trim(hosts: &mut Vec<MailHost>) {
    hosts.iter_mut().for_each(|host| host.addresses.shrink_to_fit());
    hosts.shrink_to_fit();
}

/// Names, sorted, joined by commas: domains with the same hosts are one site.
fn names_of(hosts: &[&ResolvedHost]) -> Box<str> {
    let mut names: Vec<&str> = hosts.iter().map(|host| &*host.name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",").into()
}

fn parse_literal(domain: &str) -> Option<IpAddr> {
    let inside = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            inside[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn next_hop_key(name: &str, port: u16) -> SiteKey {
    SiteKey::NextHop(format!("{name}:{port}").into())
}

/// A next hop that cannot be found is the operator's slip or a passing trouble: mail waits for it.
fn next_hop_lost(name: &str, port: u16, why: &str) -> Target {
    let text = format!("next hop {name} not found: {why}");
    let way = Way::Deferred(Reply::local(451, Enhanced(4, 4, 4), &text));
    Target::new(next_hop_key(name, port), way, Mono::NEVER)
}

/// A domain without hosts; [`Router::target`] sets until when that is believed.
fn hopeless(domain: &str, way: Way) -> Target {
    Target::new(SiteKey::Unroutable(domain.into()), way, Mono::NEVER)
}

fn no_hosts(domain: &str, failure: &DnsFailure) -> Way {
    let text = format!("{domain}: {}", describe(failure));
    match failure {
        DnsFailure::NoSuchDomain => failed(550, 1, 2, &text),
        DnsFailure::NoAddress => failed(550, 4, 4, &text),
        DnsFailure::NullMx => failed(556, 1, 10, &text),
        DnsFailure::Temporary(_) => Way::Deferred(Reply::local(451, Enhanced(4, 4, 3), &text)),
    }
}

fn describe(failure: &DnsFailure) -> Box<str> {
    match failure {
        DnsFailure::NoSuchDomain => "no such domain".into(),
        DnsFailure::NoAddress => "no mail host has an address".into(),
        DnsFailure::NullMx => "the domain takes no mail (null MX)".into(),
        DnsFailure::Temporary(cause) => format!("name service: {cause}").into(),
    }
}

fn unreachable_address(domain: &str, ip: IpAddr, why: &str) -> Way {
    failed(550, 4, 4, &format!("{domain}: mail host address {ip} is refused: {why}"))
}

fn loops(name: &str) -> Reply {
    Reply::local(554, Enhanced(5, 4, 6), &format!("mail for {name} loops back to myself"))
}

fn failed(code: u16, subject: u16, detail: u16, text: &str) -> Way {
    Way::Failed(Reply::local(code, Enhanced(5, subject, detail), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::TlsMode;

    fn router(allow_private: bool, routes: &[(DomainPattern, NextHop)]) -> Router {
        let routes: Vec<RouteSettings> = routes
            .iter()
            .map(|(domain, via)| RouteSettings { domain: domain.clone(), via: via.clone() })
            .collect();
        let egress = EgressSettings { port: 25, allow_private, tls: TlsMode::Off };
        let own = vec!["0.0.0.0:25".parse().unwrap(), "8.8.4.4:25".parse().unwrap()];
        Router::new(&routes, &egress, "Out.Example.ORG", own)
    }

    fn answer(hosts: &[(u16, &str, &str)]) -> Answer {
        let host = |(preference, name, addresses): &(u16, &str, &str)| ResolvedHost {
            preference: *preference,
            name: (*name).into(),
            addresses: addresses.split_whitespace().map(|ip| ip.parse().unwrap()).collect(),
        };
        Answer { result: Ok(hosts.iter().map(host).collect()), ttl: Duration::from_secs(300) }
    }

    fn failure(failure: DnsFailure) -> Answer {
        Answer { result: Err(failure), ttl: Duration::from_secs(999) }
    }

    fn go(router: &Router, answer: &Answer) -> Target {
        router.target("example.com", answer, Mono(0), &mut Prng::new(1))
    }

    /// The way in one line: host names and addresses, or the reply.
    fn told(target: &Target) -> String {
        match &target.way {
            Way::Hosts(hosts) => {
                let one = |host: &MailHost| format!("{} {:?}", host.name, host.addresses);
                hosts.iter().map(one).collect::<Vec<_>>().join("; ")
            }
            Way::Deferred(reply) | Way::Failed(reply) => reply.to_string(),
        }
    }

    fn check(hosts: &[(u16, &str, &str)], expected: &str) {
        assert_eq!(told(&go(&router(false, &[]), &answer(hosts))), expected);
    }

    #[test]
    fn hosts_come_by_preference() {
        let hosts = [(20, "b.net", "1.1.1.1"), (10, "a.net", "9.9.9.9 2606:4700::1")];
        check(&hosts, "a.net [9.9.9.9:25, [2606:4700::1]:25]; b.net [1.1.1.1:25]");
        let target = go(&router(false, &[]), &answer(&hosts));
        assert_eq!(target.site, SiteKey::MxSet("a.net,b.net".into()));
        let Way::Hosts(found) = &target.way else { panic!("{target:?}") };
        assert!(found.iter().map(|host| host.preference).eq([10, 20]));
        assert_eq!(target.fresh_until, Mono(0).plus(Duration::from_secs(300)));
    }

    #[test]
    fn equal_hosts_take_turns_at_being_first() {
        let names: Vec<String> = (0..4).map(|n| format!("{n}.net")).collect();
        let hosts: Vec<_> = names.iter().map(|name| (5, name.as_str(), "1.1.1.1")).collect();
        let mut prng = Prng::new(9);
        let mut firsts = [0; 4];
        for _ in 0..400 {
            let target = router(false, &[]).target("d", &answer(&hosts), Mono(0), &mut prng);
            firsts[usize::from(told(&target).as_bytes()[0] - b'0')] += 1;
        }
        assert!(firsts.iter().all(|count| *count > 60), "{firsts:?}");
    }

    #[test]
    fn hosts_no_better_than_ourselves_are_dropped() {
        let (a, us, z) =
            ((10, "a.net", "1.1.1.1"), (20, "out.example.org", "8.8.4.4"), (20, "z", "1.1.1.2"));
        check(&[a, us, z, (30, "w", "1.1.1.3")], "a.net [1.1.1.1:25]");
        check(&[us, (30, "w", "1.1.1.3")], "554 5.4.6 mail for example.com loops back to myself");
        check(&[us, z], "554 5.4.6 mail for example.com loops back to myself");
        let alias = (5, "alias.net", "8.8.4.4");
        check(&[a, alias], "554 5.4.6 mail for example.com loops back to myself");
    }

    #[test]
    fn every_failure_has_its_reply() {
        let router = router(false, &[]);
        let check = |kind, expected: &str| {
            let answer = failure(kind);
            let target = go(&router, &answer);
            assert_eq!(told(&target), expected);
            let fresh = match target.way {
                Way::Deferred(_) => answer.ttl.min(FAILURE_FRESH),
                _ => FAILURE_FRESH,
            };
            assert_eq!(target.fresh_until, Mono(0).plus(fresh));
            assert_eq!(target.site, SiteKey::Unroutable("example.com".into()));
        };
        check(DnsFailure::NoSuchDomain, "550 5.1.2 example.com: no such domain");
        check(DnsFailure::NoAddress, "550 5.4.4 example.com: no mail host has an address");
        check(DnsFailure::NullMx, "556 5.1.10 example.com: the domain takes no mail (null MX)");
        let temporary = DnsFailure::Temporary("SERVFAIL".into());
        check(temporary, "451 4.4.3 example.com: name service: SERVFAIL");
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        check(&[(1, "a", "127.0.0.1"), (2, "b", "10.0.0.1 1.1.1.1")], "b [1.1.1.1:25]");
        let why = "550 5.4.4 example.com: mail host address 10.0.0.1 is refused: private";
        check(&[(1, "a", "10.0.0.1"), (2, "b", "::1")], why);
        check(&[(1, "a", "")], "550 5.4.4 example.com: no mail host has an address");
        let target = go(&router(true, &[]), &answer(&[(1, "a", "10.0.0.1")]));
        assert_eq!(told(&target), "a [10.0.0.1:25]");
    }

    #[test]
    fn time_to_live_is_kept_within_reason() {
        for (ttl, fresh) in [(0, 30), (29, 30), (300, 300), (1 << 31, 3600)] {
            let answer = Answer { ttl: Duration::from_secs(ttl), ..answer(&[(1, "a", "1.1.1.1")]) };
            let target = go(&router(false, &[]), &answer);
            assert_eq!(target.fresh_until, Mono(0).plus(Duration::from_secs(fresh)));
        }
    }

    #[test]
    fn of_all_routes_that_match_the_first_is_gone_by() {
        let exact = |domain: &str| DomainPattern::Exact(domain.into());
        let below = |suffix: &str| DomainPattern::Below(suffix.into());
        let patterns = [
            exact("a.example"),
            below(".a.example"),
            exact("b.a.example"),
            exact("a.example"),
            exact("c.example"),
            DomainPattern::Any,
            exact("d.example"),
        ];
        let via = |port: u16| NextHop::Address(SocketAddr::new([192, 0, 2, 1].into(), port));
        let routes: Vec<_> = patterns.into_iter().zip((0..).map(via)).collect();
        let expected = [("a.example", 0), ("b.a.example", 1), ("c.example", 4), ("d.example", 5)];
        for (domain, at) in expected {
            assert_eq!(router(false, &routes).next_hop(domain), Some(&via(at)), "{domain}");
        }
        assert_eq!(router(false, &routes[..5]).next_hop("d.example"), None);
        assert_eq!(router(false, &routes[6..]).next_hop("d.example"), Some(&via(6)));
    }

    #[test]
    fn a_route_beats_the_domain_and_is_believed() {
        let to: SocketAddr = "10.1.1.1:2525".parse().unwrap();
        let via_host = NextHop::Host("relay.lan".into(), 587);
        let router = router(
            false,
            &[
                (DomainPattern::Exact("a.com".into()), NextHop::Address(to)),
                (DomainPattern::Exact("b.com".into()), via_host),
                (
                    DomainPattern::Exact("c.com".into()),
                    NextHop::Address("127.0.0.1:25".parse().unwrap()),
                ),
            ],
        );
        let Ask::Ready(target) = router.ask("a.com") else {
            panic!("an address needs no resolver")
        };
        assert_eq!(told(&target), "10.1.1.1 [10.1.1.1:2525]");
        assert_eq!(target.site, SiteKey::NextHop("10.1.1.1:2525".into()));
        assert_eq!(router.ask("b.com"), Ask::Question(Question::Host("relay.lan".into())));
        let found = answer(&[(0, "relay.lan", "192.168.1.1")]);
        let target = router.target("b.com", &found, Mono(0), &mut Prng::new(1));
        assert_eq!(told(&target), "relay.lan [192.168.1.1:587]");
        let lost = failure(DnsFailure::NoSuchDomain);
        let target = router.target("b.com", &lost, Mono(0), &mut Prng::new(1));
        assert!(matches!(target.way, Way::Deferred(_)), "a slip of the operator bounces nothing");
        assert_eq!(target.site, SiteKey::NextHop("relay.lan:587".into()));
        let Ask::Ready(target) = router.ask("c.com") else {
            panic!("an address needs no resolver")
        };
        assert!(told(&target).starts_with("554 5.4.6"));
        assert_eq!(router.ask("d.com"), Ask::Question(Question::MailHosts("d.com".into())));
    }

    #[test]
    fn a_literal_is_an_explicit_host_under_the_address_rules() {
        let router = router(false, &[]);
        let check = |domain: &str, expected: &str| {
            let Ask::Ready(target) = router.ask(domain) else { panic!("asked about {domain}") };
            assert_eq!(told(&target), expected);
        };
        check("[1.2.3.4]", "1.2.3.4 [1.2.3.4:25]");
        check("[ipv6:2606:4700::1]", "2606:4700::1 [[2606:4700::1]:25]");
        check("[8.8.4.4]", "554 5.4.6 mail for 8.8.4.4:25 loops back to myself");
        check(
            "[127.0.0.1]",
            "550 5.4.4 [127.0.0.1]: mail host address 127.0.0.1 is refused: loopback",
        );
        for bad in ["[1.2.3]", "[", "[]", "[ipv6:1.2.3.4]", "[1.2.3.4"] {
            check(bad, "550 5.1.3 not an address literal");
        }
        check("", "550 5.1.3 the address has no domain");
    }
}
