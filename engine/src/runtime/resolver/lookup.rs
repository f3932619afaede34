//! From a question to an answer: which records are asked, and what they mean for mail.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::table::TTL_MIN;
use crate::model::route::{ADDRESSES_MAX, Answer, DnsFailure, HOSTS_MAX, Question, ResolvedHost};
use crate::model::settings::DnsSettings;

/// Queries under way at once; one lookup may ask for 20 hosts' addresses.
pub(crate) const QUERIES_MAX: usize = 256;

/// Sockets that [`QUERIES_MAX`] queries may hold: each may ask two servers at a time.
pub(crate) const SOCKETS_MAX: usize = 2 * QUERIES_MAX;

/// Responses that hickory keeps, so that domains with a common mail host ask for it once.
const RESPONSES_MAX: u64 = 32_768;

/// Tries of one query, at the next server or the same.
const TRIES: u32 = 3;

const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long "no such domain" and the like are believed.
const NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// How long failing servers are left alone for this question.
const TEMPORARY_TTL: Duration = Duration::from_secs(15);

/// How long an answer is used that lacks a host whose addresses could not be had this time.
const INCOMPLETE_TTL: Duration = Duration::from_secs(60);

/// The servers, and how many queries they get at once.
pub(super) struct Dns {
    resolver: TokioResolver,
    queries: Semaphore,
    timeout: Duration,
}

/// There is nobody to ask.
#[derive(Debug)]
pub(crate) struct ResolverError(NetError);

/// The records of one name and type.
enum Records<T> {
    /// At least one, with the shortest TTL on the way.
    Some(Vec<T>, Duration),
    /// The name exists without them.
    None,
    NoSuchName,
    Temporary(Box<str>),
}

/// The addresses of one host.
enum Addresses {
    Some(Vec<IpAddr>, Duration),
    None,
    NoSuchName,
    Temporary(Box<str>),
}

/// A usable MX record; hosts compare as they are to be tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mx {
    preference: u16,
    host: Box<str>,
}

impl Dns {
    pub(super) fn new(settings: &DnsSettings) -> Result<Self, ResolverError> {
        let servers = if settings.servers.is_empty() {
            // Only the servers: search domains would send mail to names nobody wrote.
            read_system_conf().map_err(ResolverError)?.0.name_servers
        } else {
            settings.servers.iter().map(|address| server(*address)).collect()
        };
        let config = ResolverConfig::from_name_servers(servers);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options(settings.timeout))
            .build()
            .map_err(ResolverError)?;
        let queries = Semaphore::new(QUERIES_MAX);
        Ok(Self { resolver, queries, timeout: settings.timeout })
    }

    pub(super) async fn answer(self: &Arc<Self>, question: &Question) -> Answer {
        match question {
            Question::MailHosts(domain) => self.mail_hosts(domain).await,
            Question::Host(host) => self.own_addresses(host).await,
        }
    }

    async fn mail_hosts(self: &Arc<Self>, domain: &str) -> Answer {
        match self.query(domain, RecordType::MX, mx).await {
            Records::Some(exchanges, ttl) => match choose(exchanges) {
                Ok(hosts) => self.addresses_of(hosts, ttl).await,
                Err(failure) => no(failure),
            },
            // The implicit MX (RFC 5321 §5.1).
            Records::None => self.own_addresses(domain).await,
            Records::NoSuchName => no(DnsFailure::NoSuchDomain),
            Records::Temporary(cause) => not_now(cause),
        }
    }

    /// The name as its own only host.
    async fn own_addresses(&self, name: &str) -> Answer {
        let name = bare(name);
        match self.addresses(&name).await {
            Addresses::Some(addresses, ttl) => {
                let host = ResolvedHost { preference: 0, name, addresses };
                Answer { result: Ok(vec![host]), ttl: clamp(ttl) }
            }
            Addresses::None => no(DnsFailure::NoAddress),
            Addresses::NoSuchName => no(DnsFailure::NoSuchDomain),
            Addresses::Temporary(cause) => not_now(cause),
        }
    }

    /// Asks for all hosts at once; those without address are left out.
    async fn addresses_of(self: &Arc<Self>, hosts: Vec<Mx>, mut ttl: Duration) -> Answer {
        let mut lookups = JoinSet::new();
        for host in hosts {
            let dns = Arc::clone(self);
            lookups.spawn(async move {
                let found = dns.addresses(&host.host).await;
                (host, found)
            });
        }
        let mut found = Vec::new();
        let mut failed = None;
        while let Some(Ok((host, addresses))) = lookups.join_next().await {
            match addresses {
                Addresses::Some(addresses, hosts_ttl) => {
                    ttl = ttl.min(hosts_ttl);
                    found.push((host, addresses));
                }
                Addresses::Temporary(cause) => failed = Some(cause),
                Addresses::None | Addresses::NoSuchName => {}
            }
        }
        if found.is_empty() {
            return failed.map_or_else(|| no(DnsFailure::NoAddress), not_now);
        }
        if failed.is_some() {
            ttl = ttl.min(INCOMPLETE_TTL);
        }
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let resolved = |(mx, addresses): (Mx, _)| ResolvedHost {
            preference: mx.preference,
            name: mx.host,
            addresses,
        };
        Answer { result: Ok(found.into_iter().map(resolved).collect()), ttl: clamp(ttl) }
    }

    /// A and AAAA together; one family is enough, since some servers fail for the other.
    async fn addresses(&self, host: &str) -> Addresses {
        if let Ok(address) = host.parse() {
            return Addresses::Some(vec![address], TTL_MAX);
        }
        let (four, six) = tokio::join!(
            self.query(host, RecordType::A, address),
            self.query(host, RecordType::AAAA, address)
        );
        match (four, six) {
            (Records::Some(four, ttl), Records::Some(six, other_ttl)) => {
                Addresses::Some(alternate(&four, &six), ttl.min(other_ttl))
            }
            (Records::Some(mut found, ttl), _) | (_, Records::Some(mut found, ttl)) => {
                found.truncate(ADDRESSES_MAX);
                Addresses::Some(found, ttl)
            }
            (Records::Temporary(cause), _) | (_, Records::Temporary(cause)) => {
                Addresses::Temporary(cause)
            }
            (Records::NoSuchName, Records::NoSuchName) => Addresses::NoSuchName,
            _ => Addresses::None,
        }
    }

    async fn query<T>(
        &self,
        name: &str,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Records<T> {
        // No such name can exist: too long, an empty label, or bytes that are no host name.
        let Some(name) = absolute(name) else { return Records::NoSuchName };
        let Ok(_permit) = self.queries.acquire().await else {
            return Records::Temporary("the resolver is shutting down".into());
        };
        let lookup = self.resolver.lookup(name.clone(), kind);
        match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Ok(lookup)) => records(&lookup, take),
            Ok(Err(error)) => no_records(&name, kind, &error),
            Err(_) => {
                let seconds = self.timeout.as_secs();
                Records::Temporary(format!("{kind} of {name}: no answer in {seconds} s").into())
            }
        }
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// `timeout` is for a query with all its tries.
fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = timeout / TRIES;
    options.attempts = TRIES as usize - 1;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = RESPONSES_MAX;
    options.try_tcp_on_error = true;
    options
}

fn records<T>(lookup: &Lookup, take: impl Fn(&RData) -> Option<T>) -> Records<T> {
    let found: Vec<T> = lookup.answers().iter().filter_map(|record| take(&record.data)).collect();
    if found.is_empty() {
        // An alias that leads nowhere.
        let code = lookup.message().metadata.response_code;
        return if code == ResponseCode::NXDomain { Records::NoSuchName } else { Records::None };
    }
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Records::Some(found, Duration::from_secs(ttl.into()))
}

fn no_records<T>(name: &Name, kind: RecordType, error: &NetError) -> Records<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Records::NoSuchName,
            ResponseCode::NoError => Records::None,
            code => Records::Temporary(format!("{kind} of {name}: {code}").into()),
        },
        error => Records::Temporary(format!("{kind} of {name}: {error}").into()),
    }
}

fn mx(data: &RData) -> Option<(u16, Name)> {
    match data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.clone())),
        _ => None,
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// The hosts to ask for, best first, each once.
fn choose(exchanges: Vec<(u16, Name)>) -> Result<Vec<Mx>, DnsFailure> {
    if exchanges.iter().all(|(_, name)| name.is_root()) {
        return Err(DnsFailure::NullMx);
    }
    let usable = |(preference, name): (u16, Name)| {
        let host = bare(&name.to_ascii());
        is_host_name(&host).then_some(Mx { preference, host })
    };
    let mut hosts: Vec<Mx> = exchanges.into_iter().filter_map(usable).collect();
    // Best preference first within a name, so that the duplicates that go are the worse ones.
    hosts.sort_unstable_by(|one, other| {
        (&one.host, one.preference).cmp(&(&other.host, other.preference))
    });
    hosts.dedup_by(|later, earlier| later.host == earlier.host);
    hosts.sort_unstable();
    hosts.truncate(HOSTS_MAX);
    if hosts.is_empty() { Err(DnsFailure::NoAddress) } else { Ok(hosts) }
}

/// Letters, digits, hyphens, and the underscore that some use: safe in logs, SNI and site keys.
/// An address in place of a name is none (RFC 5321 §5.1), nor is the root of a null MX.
fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.bytes().all(is_plain) && name.parse::<IpAddr>().is_err()
}

/// Lower case, without the trailing dot.
pub(super) fn bare(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// The name as one that no search domain is appended to.
pub(super) fn absolute(name: &str) -> Option<Name> {
    if bare(name).is_empty() {
        return None;
    }
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Both families in turn, so that neither is cut off.
fn alternate(four: &[IpAddr], six: &[IpAddr]) -> Vec<IpAddr> {
    let rounds = 0..four.len().max(six.len());
    let both = rounds.flat_map(|round| [four.get(round), six.get(round)]);
    both.flatten().copied().take(ADDRESSES_MAX).collect()
}

fn clamp(ttl: Duration) -> Duration {
    ttl.clamp(TTL_MIN, TTL_MAX)
}

fn no(failure: DnsFailure) -> Answer {
    Answer { result: Err(failure), ttl: NEGATIVE_TTL }
}

fn not_now(cause: Box<str>) -> Answer {
    Answer { result: Err(DnsFailure::Temporary(cause)), ttl: TEMPORARY_TTL }
}

impl fmt::Display for ResolverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no DNS servers: set dns.servers, or repair /etc/resolv.conf ({})", self.0)
    }
}

impl std::error::Error for ResolverError {}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    use super::super::zone::{Zone, settings, start_server};
    use super::*;

    async fn resolve(zone: Zone, question: Question) -> Answer {
        let server = start_server(zone).await;
        Arc::new(Dns::new(&settings(&server)).unwrap()).answer(&question).await
    }

    async fn mail_hosts(zone: Zone, domain: &str) -> Answer {
        resolve(zone, Question::MailHosts(domain.into())).await
    }

    fn host(preference: u16, name: &str, addresses: &[&str]) -> ResolvedHost {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        ResolvedHost { preference, name: name.into(), addresses }
    }

    fn is_temporary(answer: &Answer) -> bool {
        matches!(answer.result, Err(DnsFailure::Temporary(_)))
    }

    #[tokio::test]
    async fn hosts_come_in_order_of_preference_with_the_shortest_ttl() {
        let zone = Zone::default()
            .mx("a.test", 20, "MX2.a.test")
            .mx("a.test", 10, "mx1.a.test")
            .mx("a.test", 30, "mx2.a.test")
            .mx("a.test", 40, "none.a.test")
            .a("mx1.a.test", [192, 0, 2, 1])
            .a("mx1.a.test", [192, 0, 2, 2])
            .aaaa("mx1.a.test", "2001:db8::1")
            .a("mx2.a.test", [192, 0, 2, 3]);
        let answer = mail_hosts(zone, "a.test").await;
        let expected = vec![
            host(10, "mx1.a.test", &["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
            host(20, "mx2.a.test", &["192.0.2.3"]),
        ];
        assert_eq!(answer.result, Ok(expected));
        assert_eq!(answer.ttl, Duration::from_secs(100));
    }

    #[tokio::test]
    async fn without_mx_the_domain_is_its_own_host() {
        let zone = || Zone::default().a("a.test", [192, 0, 2, 1]);
        let own = vec![host(0, "a.test", &["192.0.2.1"])];
        assert_eq!(mail_hosts(zone(), "a.test").await.result, Ok(own.clone()));
        assert_eq!(mail_hosts(zone(), "A.test.").await.result, Ok(own.clone()));
        assert_eq!(resolve(zone(), Question::Host("a.test".into())).await.result, Ok(own));
    }

    #[tokio::test]
    async fn an_explicit_host_is_not_asked_for_mx() {
        let zone = Zone::default().mx("a.test", 0, "mx.a.test").a("a.test", [192, 0, 2, 1]);
        let answer = resolve(zone, Question::Host("a.test".into())).await;
        assert_eq!(answer.result, Ok(vec![host(0, "a.test", &["192.0.2.1"])]));
    }

    #[tokio::test]
    async fn a_null_mx_means_no_mail_unless_it_has_company() {
        let null = Zone::default().mx("a.test", 0, ".").a("a.test", [192, 0, 2, 1]);
        assert_eq!(mail_hosts(null, "a.test").await.result, Err(DnsFailure::NullMx));
        let mixed = Zone::default()
            .mx("a.test", 0, ".")
            .mx("a.test", 5, "mx.a.test")
            .a("mx.a.test", [192, 0, 2, 1]);
        let expected = vec![host(5, "mx.a.test", &["192.0.2.1"])];
        assert_eq!(mail_hosts(mixed, "a.test").await.result, Ok(expected));
    }

    #[tokio::test]
    async fn what_does_not_exist_is_told_from_what_has_no_address() {
        let answer = mail_hosts(Zone::default(), "a.test").await;
        assert_eq!((answer.result, answer.ttl), (Err(DnsFailure::NoSuchDomain), NEGATIVE_TTL));
        let no_address = [
            Zone::default().mx("a.test", 0, "mx.a.test"),
            Zone::default().mx("a.test", 0, "192.0.2.1"),
            Zone::default().mx("a.test", 0, "mx.a.test").mx("mx.a.test", 0, "a.test"),
        ];
        for zone in no_address {
            assert_eq!(mail_hosts(zone, "a.test").await.result, Err(DnsFailure::NoAddress));
        }
        let no_records = Zone::default().mx("a.test", 0, "mx.a.test");
        let answer = resolve(no_records, Question::Host("a.test".into())).await;
        assert_eq!(answer.result, Err(DnsFailure::NoAddress));
    }

    #[tokio::test]
    async fn a_failing_server_is_a_reason_to_wait_and_never_to_bounce() {
        let zone = Zone::default().a("a.test", [192, 0, 2, 1]).failing("a.test", RecordType::MX);
        let answer = mail_hosts(zone, "a.test").await;
        assert!(is_temporary(&answer), "{answer:?}");
        assert_eq!(answer.ttl, TEMPORARY_TTL);
        let zone = Zone::default()
            .mx("a.test", 0, "mx1.a.test")
            .mx("a.test", 1, "mx2.a.test")
            .failing("mx2.a.test", RecordType::A);
        let answer = mail_hosts(zone, "a.test").await;
        assert!(is_temporary(&answer), "{answer:?}");
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_had_now_is_asked_for_again_soon() {
        let zone = Zone::default()
            .mx("a.test", 0, "mx1.a.test")
            .mx("a.test", 1, "mx2.a.test")
            .a("mx1.a.test", [192, 0, 2, 1])
            .failing("mx1.a.test", RecordType::AAAA)
            .failing("mx2.a.test", RecordType::A);
        let answer = mail_hosts(zone, "a.test").await;
        assert_eq!(answer.result, Ok(vec![host(0, "mx1.a.test", &["192.0.2.1"])]));
        assert_eq!(answer.ttl, INCOMPLETE_TTL);
    }

    #[tokio::test]
    async fn an_alias_is_followed() {
        let zone = Zone::default()
            .alias("a.test", "b.test")
            .mx("b.test", 0, "mx.b.test")
            .a("mx.b.test", [192, 0, 2, 1]);
        let answer = mail_hosts(zone, "a.test").await;
        assert_eq!(answer.result, Ok(vec![host(0, "mx.b.test", &["192.0.2.1"])]));
        assert_eq!(answer.ttl, Duration::from_secs(50));
    }

    #[tokio::test]
    async fn an_answer_too_long_for_a_datagram_is_fetched_whole() {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP: try another then.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((bytes, peer)) = udp.recv_from(&mut buffer).await {
                let mut cut = Zone::default()
                    .mx("a.test", 0, "mx.a.test")
                    .respond(&Message::from_vec(&buffer[..bytes]).unwrap());
                cut.answers.clear();
                cut.metadata.truncation = true;
                udp.send_to(&cut.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        tokio::spawn(async move {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let exchange = |zone: Zone, n| zone.mx("a.test", n, &format!("mx{n}.{n}.a.test"));
            let zone = (0..200).fold(Zone::default(), exchange).a("mx7.7.a.test", [192, 0, 2, 7]);
            while let Ok(bytes) = stream.read_u16().await {
                let mut query = vec![0; usize::from(bytes)];
                stream.read_exact(&mut query).await.unwrap();
                let response = zone.respond(&Message::from_vec(&query).unwrap()).to_vec().unwrap();
                stream.write_u16(response.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&response).await.unwrap();
            }
        });
        let settings = DnsSettings { servers: vec![address], timeout: Duration::from_secs(6) };
        let dns = Arc::new(Dns::new(&settings).unwrap());
        let answer = dns.answer(&Question::MailHosts("a.test".into())).await;
        assert_eq!(answer.result, Ok(vec![host(7, "mx7.7.a.test", &["192.0.2.7"])]));
    }

    #[tokio::test]
    async fn a_silent_server_costs_no_more_than_the_timeout() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let timeout = Duration::from_millis(600);
        let settings = DnsSettings { servers: vec![socket.local_addr().unwrap()], timeout };
        let dns = Arc::new(Dns::new(&settings).unwrap());
        let question = Question::MailHosts("a.test".into());
        let answer = tokio::time::timeout(timeout * 3, dns.answer(&question)).await.unwrap();
        assert!(is_temporary(&answer), "{answer:?}");
    }

    #[tokio::test]
    async fn impossible_names_are_not_asked() {
        let long = "a".repeat(64);
        for name in ["", ".", "a..test", &long] {
            let answer = mail_hosts(Zone::default(), name).await;
            assert_eq!(answer.result, Err(DnsFailure::NoSuchDomain), "{name:?}");
        }
    }

    #[test]
    fn hosts_and_addresses_are_bounded() {
        let exchange = |n: u16| (n, absolute(&format!("mx{n}.test")).unwrap());
        let hosts = choose((0..100).rev().map(exchange).collect()).unwrap();
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert!(hosts.iter().all(|host| usize::from(host.preference) < HOSTS_MAX));
        let four: Vec<IpAddr> = (0..20).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert_eq!(alternate(&four, &four[..2]).len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_host_name_holds_nothing_that_could_harm() {
        for bad in ["", "192.0.2.1", "a b.test", "a\\000.test", "é.test", "*.test"] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
        assert!(is_host_name("mx_1.a-b.test"));
    }
}
