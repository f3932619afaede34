//! The settings as plain values, units in the names; `config` reads and checks them, once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Everything an operator can set. Immutable; a reload makes a new one with the next generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub generation: u64,
    /// Our name in the banner, EHLO, Received and DSNs.
    pub hostname: Box<str>,
    pub engine: EngineSettings,
    pub spool: SpoolSettings,
    pub listeners: Vec<ListenerSettings>,
    pub limits: LimitSettings,
    pub dns: DnsSettings,
    pub egress: EgressSettings,
    /// In order; the first match wins, no match means MX.
    pub routes: Vec<RouteSettings>,
    pub sites: SiteTable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    pub shards: ShardChoice,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardChoice {
    /// One per usable core.
    Auto,
    Count(u16),
    /// These cores, one shard each.
    Cores(Vec<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    pub path: PathBuf,
    pub segment_bytes: u32,
    pub outcomes: OutcomeDurability,
}

/// When an outcome is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeDurability {
    /// With the next commit, after 5 ms at the latest.
    Grouped,
    /// Before the final dot of the next message on that connection.
    Strict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    pub address: SocketAddr,
    /// Clients in these networks may send to any domain; others get 550 5.7.1.
    pub relay_from: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    pub message_bytes: u64,
    /// RCPT commands per message.
    pub recipients: u16,
    /// Connections in, per shard.
    pub connections_in: u32,
    /// Connections out, per shard.
    pub connections_out: u32,
    /// Record bytes kept in memory for deliveries not yet sent, all shards together.
    pub body_memory_bytes: u64,
    /// Bytes of messages being received, per shard.
    pub intake_memory_bytes: u64,
    /// Time without a command or data before 421 (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub idle_timeout: Duration,
    /// Total time for one message from DATA to its final dot.
    pub data_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Empty: the system's resolvers.
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSettings {
    /// Port of MX hosts.
    pub port: u16,
    /// Whether MX hosts may have loopback, private, link-local or multicast addresses.
    pub allow_private: bool,
    pub tls: TlsMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// STARTTLS where offered; in clear where not, or where the handshake fails.
    Opportunistic,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    pub domain: DomainPattern,
    pub via: NextHop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    Any,
    /// This domain only; lower case.
    Exact(Box<str>),
    /// Any domain below this one, not itself; stored with its leading dot, lower case.
    Below(Box<str>),
}

impl DomainPattern {
    /// Whether `domain`, in lower case, matches.
    #[must_use]
    pub fn matches(&self, domain: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => domain == &**exact,
            Self::Below(suffix) => domain.len() > suffix.len() && domain.ends_with(&**suffix),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    Address(SocketAddr),
    /// A host name, resolved to addresses (no MX), and a port.
    Host(Box<str>, u16),
}

/// How a site is treated.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteSettings {
    /// Simultaneous connections, over all shards together.
    pub connections: u32,
    pub messages_per_connection: u32,
    /// Waits between attempts; the last one repeats.
    pub retry: Vec<Duration>,
    /// Time from acceptance to giving up.
    pub expire: Duration,
    /// How long a connection without work is kept.
    pub idle_timeout: Duration,
    pub timeouts: StageTimeouts,
}

/// Total deadlines for the stages of an outgoing conversation (RFC 5321 §4.5.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageTimeouts {
    pub connect: Duration,
    pub greeting: Duration,
    /// EHLO, MAIL, RCPT, RSET.
    pub command: Duration,
    pub data: Duration,
    /// Sending the body: total per message.
    pub body: Duration,
    /// From the final dot to its reply.
    pub dot: Duration,
    pub quit: Duration,
    pub tls: Duration,
}

/// Site settings by recipient domain.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteTable {
    pub default: SiteSettings,
    /// Lower-case domain to its whole settings (defaults already filled in); sorted.
    pub by_domain: Vec<(Box<str>, SiteSettings)>,
}

impl SiteTable {
    #[must_use]
    pub fn for_domain(&self, domain: &str) -> &SiteSettings {
        self.by_domain
            .binary_search_by(|(name, _)| (**name).cmp(domain))
            .map_or(&self.default, |index| &self.by_domain[index].1)
    }
}

impl Default for StageTimeouts {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            command: minutes(5),
            data: minutes(2),
            body: minutes(10),
            dot: minutes(10),
            quit: Duration::from_secs(5),
            tls: Duration::from_secs(60),
        }
    }
}

impl Default for SiteSettings {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            connections: 20,
            messages_per_connection: 1000,
            retry: vec![minutes(5), minutes(10), minutes(20), minutes(40), minutes(60)],
            expire: Duration::from_secs(5 * 24 * 3600),
            idle_timeout: Duration::from_secs(5),
            timeouts: StageTimeouts::default(),
        }
    }
}
