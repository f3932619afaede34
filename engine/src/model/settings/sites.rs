//! How sites and providers are treated.

use std::sync::Arc;
use std::time::Duration;

use super::DomainPattern;
pub use crate::base::gcra::Rate;

/// The name of the table that all others take from.
pub const DEFAULT_SITE: &str = "default";

/// What the file of providers and rules that comes with the engine is called in places.
pub const STARTER_RULES: &str = "starter rules";

/// Waits of a retry list. The scheduler tells so many attempts apart; those beyond wait equally long.
pub const RETRIES_MAX: usize = 32;

/// Where a setting was made, for explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The table: `site."example.com"`, `provider."big"`, or `built in`.
    pub table: Box<str>,
    /// `postrider.toml:12`; empty for what is built in.
    pub place: Box<str>,
}

impl Origin {
    /// Whether it comes with the engine, and not from the operator's settings.
    #[must_use]
    pub fn is_starter(&self) -> bool {
        self.place.starts_with(STARTER_RULES)
    }
}

/// Limits on what several shards or sites share. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Simultaneous connections.
    pub connections: Option<u32>,
    pub connection_rate: Option<Rate>,
    pub message_rate: Option<Rate>,
    /// Bytes of message text.
    pub byte_rate: Option<Rate>,
}

/// How the window of a path (source × site) moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RampSettings {
    /// Connections to begin with, and after a recovery.
    pub start: u32,
    /// Throttling never brings it below.
    pub floor: u32,
    /// `false`: the window is the limit, whatever the site says.
    pub adaptive: bool,
}

/// How a site is treated.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteSettings {
    /// Simultaneous connections, over all shards and sources together.
    pub connections: u32,
    /// The same for each source.
    pub connections_per_source: Option<u32>,
    /// The same for each address of the site, over all sites that share it.
    pub connections_per_ip: Option<u32>,
    /// New connections, over all sources.
    pub connection_rate: Option<Rate>,
    /// Messages (transactions), over all sources.
    pub message_rate: Option<Rate>,
    /// Bytes of message text, over all sources.
    pub byte_rate: Option<Rate>,
    pub messages_per_connection: u32,
    /// Recipients of one transaction; more become several.
    pub recipients_per_message: u16,
    /// A small message goes in one flight to hosts that offer CHUNKING and PIPELINING.
    pub chunking: bool,
    pub ramp: RampSettings,
    /// Waits between attempts, at most [`RETRIES_MAX`]; the last one repeats.
    pub retry: Vec<Duration>,
    /// Time from acceptance to giving up.
    pub expire: Duration,
    /// How long a connection without work is kept.
    pub idle_timeout: Duration,
    pub timeouts: StageTimeouts,
    /// The table these settings are of.
    pub origin: Origin,
    pub limits_from: LimitOrigins,
}

/// Where each limit of a site was set: in the table it takes it from, which may be another than its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitOrigins {
    pub connections: Arc<Origin>,
    pub connections_per_source: Arc<Origin>,
    pub connections_per_ip: Arc<Origin>,
    pub connection_rate: Arc<Origin>,
    pub message_rate: Arc<Origin>,
    pub byte_rate: Arc<Origin>,
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

/// Which sites belong to a provider: any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderMatch {
    /// Mail hosts: `mx.example.com`, or `.example.com` for all below. Lower case.
    pub mx: Vec<DomainPattern>,
    /// Recipient domains, the same way.
    pub domains: Vec<DomainPattern>,
}

/// Many sites that are one receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSettings {
    pub name: Box<str>,
    pub matches: ProviderMatch,
    /// Over all its sites and all sources together.
    pub caps: Caps,
    /// Over all its sites, for each source.
    pub caps_per_source: Caps,
    /// What each of its sites is treated by, unless its domain has settings of its own.
    pub site: SiteSettings,
    pub origin: Origin,
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
            connections_per_source: None,
            connections_per_ip: None,
            connection_rate: None,
            message_rate: None,
            byte_rate: None,
            messages_per_connection: 1000,
            recipients_per_message: 50,
            chunking: true,
            ramp: RampSettings::default(),
            retry: vec![minutes(5), minutes(10), minutes(20), minutes(40), minutes(60)],
            expire: Duration::from_secs(5 * 24 * 3600),
            idle_timeout: Duration::from_secs(5),
            timeouts: StageTimeouts::default(),
            origin: Origin::default(),
            limits_from: LimitOrigins::default(),
        }
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self { table: "built in".into(), place: Box::default() }
    }
}

impl Default for RampSettings {
    fn default() -> Self {
        Self { start: 5, floor: 1, adaptive: true }
    }
}
