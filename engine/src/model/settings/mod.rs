//! The settings as plain values, units in the names; `config` reads and checks them, once.

mod rules;
mod sites;
mod sources;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::flow::Flow;

pub use rules::{Action, RuleScope, RuleSettings, Subject, Trigger};
pub use sites::{
    Caps, DEFAULT_SITE, LimitOrigins, Origin, ProviderMatch, ProviderSettings, RETRIES_MAX,
    RampSettings, Rate, STARTER_RULES, SiteSettings, SiteTable, StageTimeouts,
};
pub use sources::{
    DEFAULT_POOL, Overflow, PoolMember, PoolSettings, SourceSettings, TenantSettings, WarmUp,
};

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
    /// In order; the first that matches a site is its provider.
    pub providers: Vec<ProviderSettings>,
    /// Sorted by name. Empty: the kernel chooses the address.
    pub sources: Vec<SourceSettings>,
    /// Sorted by name.
    pub pools: Vec<PoolSettings>,
    /// Sorted by name; a tenant that is not among them has what `TenantSettings::default` says.
    pub tenants: Vec<TenantSettings>,
    /// In order; all that match a reply apply, of the same kind of action the first.
    pub rules: Vec<RuleSettings>,
    pub order: OrderSettings,
    /// `None`: no administration.
    pub admin: Option<AdminSettings>,
}

/// How classes share a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderSettings {
    /// Share of a site's deliveries that bulk mail gets at least while transactional mail waits, in
    /// percent: 0 to 50.
    pub bulk_floor_percent: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// A unix socket; who may open it may do everything. Mode 0600.
    pub socket: PathBuf,
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
    /// Tenant, campaign and class of what comes in here and does not say otherwise.
    pub flow: Flow,
    /// Clients whose `X-Tenant`, `X-Campaign`, `X-Class` and `X-Expire` fields count. From others they
    /// are removed unread.
    pub trust_headers_from: Vec<IpNet>,
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

impl Default for OrderSettings {
    fn default() -> Self {
        Self { bulk_floor_percent: 10 }
    }
}
