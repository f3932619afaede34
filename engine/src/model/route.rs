//! Where mail for a domain goes: what the resolver answers, and the site that follows from it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::cell::LastSlot;
use crate::base::map::stable_hash;
use crate::base::time::Mono;
use crate::model::connection::ShardId;
use crate::model::flow::Flow;
use crate::model::outcome::Reply;

/// What a shard asks the resolver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The mail hosts of a domain: MX, else its own addresses (RFC 5321 §5.1).
    MailHosts(Box<str>),
    /// The addresses of an explicit next hop.
    Host(Box<str>),
}

/// The resolver's answer, one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub result: Result<Vec<ResolvedHost>, DnsFailure>,
    /// How long it may be used.
    pub ttl: Duration,
}

/// A host with its addresses; at most [`HOSTS_MAX`] of them, each with at most [`ADDRESSES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedHost {
    pub preference: u16,
    /// Lower case, without the trailing dot.
    pub name: Box<str>,
    pub addresses: Vec<IpAddr>,
}

/// Hosts taken from one MX answer; the rest, worst preference first, is left out.
pub const HOSTS_MAX: usize = 20;
/// Addresses taken of one host.
pub const ADDRESSES_MAX: usize = 8;

/// Why there is no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsFailure {
    /// The name does not exist (NXDOMAIN): 5.1.2.
    NoSuchDomain,
    /// It exists, but has neither MX nor address, or no MX host has an address: 5.4.4.
    NoAddress,
    /// A null MX (RFC 7505): 5.1.10.
    NullMx,
    /// SERVFAIL, time-out, no server: 4.4.3. The text says which.
    Temporary(Box<str>),
}

/// What is paced together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteKey {
    /// An explicit next hop, as `host:port`.
    NextHop(Box<str>),
    /// All domains whose mail hosts are these: names, sorted, joined by commas.
    MxSet(Box<str>),
    /// A domain that has no usable route at present.
    Unroutable(Box<str>),
}

impl SiteKey {
    /// The shard that owns the queue and the permits of this site.
    #[must_use]
    pub fn owner(&self, shards: u16) -> ShardId {
        let shard = stable_hash(self.name().as_bytes()) % u64::from(shards.max(1));
        ShardId(u16::try_from(shard).unwrap_or(0))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NextHop(name) | Self::MxSet(name) | Self::Unroutable(name) => name,
        }
    }
}

/// Where mail for one domain goes, until when that is believed.
///
/// In the order in which it lies: what each message looks at first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    pub fresh_until: Mono,
    /// Where its owner keeps the site.
    pub last_slot: LastSlot,
    pub way: Way,
    pub site: SiteKey,
}

impl Target {
    #[must_use]
    pub fn new(site: SiteKey, way: Way, fresh_until: Mono) -> Self {
        Self { site, way, fresh_until, last_slot: LastSlot::default() }
    }
}

/// Hosts to try, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// In order of trial; never empty, no host without address.
    Hosts(Vec<MailHost>),
    /// Try to resolve again later: the deliveries wait.
    Deferred(Reply),
    /// Undeliverable: the deliveries fail.
    Failed(Reply),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHost {
    /// As its MX record says; hosts of equal preference stand in for each other.
    pub preference: u16,
    pub name: Box<str>,
    pub addresses: Vec<SocketAddr>,
}

/// A domain, whose mail it is, and where it goes: what a delivery carries to the owner of its site.
#[derive(Clone, Debug)]
pub struct Bearing {
    pub domain: Arc<str>,
    pub flow: Arc<Flow>,
    pub target: Arc<Target>,
}
