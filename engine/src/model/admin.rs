//! What an operator asks of a running engine, and what he is told: plain values, as JSON has them.
//!
//! Times are told in seconds from the answer, so that they mean the same to whoever reads them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flow::Flow;
use super::hold::Scope;
use super::message::MessageId;
use super::route::SiteKey;

/// Lines of one answer: more than anybody reads, and an answer stays below a few megabytes.
pub const LINES_MAX: usize = 1000;
/// Paths, that is sources, told of one site.
pub const PATHS_MAX: usize = 100;
/// Holds told in one answer.
pub const HOLDS_TOLD_MAX: usize = 100;

/// Asked of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The sites with most mail.
    Sites {
        most: usize,
    },
    /// One site by its name.
    Site {
        name: Box<str>,
    },
    /// The sites that have mail for a domain: all courses are looked at.
    SitesOf {
        domain: Box<str>,
    },
    /// Mail by class, tenant and campaign.
    Queue {
        most: usize,
    },
    /// A message; only its home knows it.
    Message(MessageId),
    /// What a delivery waits for; only the owner of its site knows.
    Wait(Wanted),
    Steer(Steer),
}

/// A delivery as the owner of its site can find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub site: SiteKey,
    pub domain: Arc<str>,
    pub flow: Arc<Flow>,
    pub message: MessageId,
}

/// What is to be done with some of the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steer {
    pub verb: Verb,
    pub reach: Reach,
    /// Only count what would be concerned.
    pub dry_run: bool,
    /// Tells it from the other orders of this run, and is not 0.
    pub order: u64,
    /// Of a hold; `None`: until it is released.
    pub lasts: Option<Duration>,
    pub reason: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Nothing of it is given out; it expires all the same.
    Hold,
    /// Ends a hold.
    Release,
    /// What is deferred is due now.
    Flush,
    /// Never given out again, and reported to nobody.
    Cancel,
    /// Its routes are looked up anew.
    Reroute,
}

impl Verb {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Flush => "flush",
            Self::Cancel => "cancel",
            Self::Reroute => "reroute",
        }
    }
}

/// Which mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reach {
    All,
    Site(Box<str>),
    Source(Box<str>),
    Tenant(Box<str>),
    Campaign { tenant: Box<str>, campaign: Box<str> },
}

impl Reach {
    /// The same as something that can be held; `None` for everything.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        Some(match self {
            Self::All => return None,
            Self::Site(name) => Scope::Site(name.clone()),
            Self::Source(name) => Scope::Source(name.clone()),
            Self::Tenant(name) => Scope::Tenant(name.clone()),
            Self::Campaign { tenant, campaign } => {
                Scope::Campaign { tenant: tenant.clone(), campaign: campaign.clone() }
            }
        })
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => write!(f, "all mail"),
            Self::Site(name) => write!(f, "site {name}"),
            Self::Source(name) => write!(f, "source {name}"),
            Self::Tenant(name) => write!(f, "tenant {name:?}"),
            Self::Campaign { tenant, campaign } => {
                write!(f, "campaign {campaign:?} of tenant {tenant:?}")
            }
        }
    }
}

/// The body of a request that steers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerRequest {
    pub scope: Reach,
    #[serde(default)]
    pub dry_run: bool,
    /// How long a hold lasts; none: until it is released.
    #[serde(default)]
    pub for_seconds: Option<u64>,
    #[serde(default)]
    pub reason: Box<str>,
}

/// What one shard answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Sites(SiteList),
    Site(Vec<SiteReport>),
    Queue(QueueReport),
    /// `None`: not homed here, or over.
    Message(Option<Box<MessageFound>>),
    /// Not known yet: what the spool held at the start is still being read.
    NotYet,
    Wait(Option<Box<Waiting>>),
    Steered(Steered),
}

/// Deliveries by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Due, and waiting for their turn.
    pub ready: u64,
    /// Waiting for their next try.
    pub deferred: u64,
    /// Given to a connection.
    pub in_flight: u64,
}

impl Amounts {
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.ready + self.deferred
    }

    pub fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.deferred += other.deferred;
        self.in_flight += other.in_flight;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteList {
    /// Most mail first.
    pub sites: Vec<SiteLine>,
    /// Sites that are known and not in the list.
    pub left_out: u64,
    pub total: Amounts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteLine {
    pub site: String,
    #[serde(flatten)]
    pub amounts: Amounts,
    pub connections: u32,
    pub connections_max: u32,
    pub waits_for: Option<Binding>,
}

/// What keeps mail from going out at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// One word: `held`, `throttled`, `connections`, `message_rate` ...
    pub what: String,
    /// As a sentence.
    pub text: String,
    /// Where a limit is a number, and how much of it is in use.
    pub limit: Option<u64>,
    pub used: Option<u64>,
    /// Who set it: a table with its file and line, a rule, the control loop, an operator.
    pub origin: Option<String>,
    /// When it is over at the latest, where that is known.
    pub until_seconds: Option<u64>,
}

/// One site, as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    pub site: String,
    /// The shard that owns it.
    pub shard: u16,
    #[serde(flatten)]
    pub amounts: Amounts,
    pub provider: Option<String>,
    pub connections: u32,
    pub connections_max: u32,
    /// Where the settings come from that bind its connections.
    pub origin: String,
    pub waits_for: Option<Binding>,
    pub next_try_seconds: Option<u64>,
    pub last_reply: Option<String>,
    pub paths: Vec<PathReport>,
}

/// A site from one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// Empty: the kernel's choice.
    pub source: String,
    pub connections: u32,
    pub in_flight: u32,
    /// Connections that the control loop allows.
    pub window: u32,
    pub slow_start: bool,
    /// Messages a second, where the control loop found that no more is taken.
    pub learned_rate: Option<f64>,
    pub door: Door,
    /// When a closed door is tried again.
    pub door_until_seconds: Option<u64>,
    /// Closings since the last success.
    pub closed_in_a_row: u8,
    /// Where the site was found to end each connection after so many.
    #[serde(default)]
    pub messages_per_connection: Option<u32>,
    /// Of a source that is not warm yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUpReport>,
    pub waits_for: Option<Binding>,
}

/// Where a source stands in its warm-up, over all sites of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUpReport {
    /// From 1.
    pub day: u32,
    pub days: u64,
    /// Messages of the day, and those sent.
    pub limit: u32,
    pub sent: u32,
    pub answers: u32,
    /// Throttled, or refused for who we are.
    pub bad_answers: u32,
    /// When the date changes.
    pub until_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    Open,
    Closed,
    Probing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    pub total: Amounts,
    /// Most mail first.
    pub flows: Vec<FlowLine>,
    /// Flows that are known and not in the list; with `at_least`, no more than so many.
    pub left_out: u64,
    /// Some shard has more flows than it tells of: mail of the flows here may be missing in their
    /// figures, never in `total`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    pub holds: Vec<HoldLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLine {
    pub class: String,
    pub tenant: String,
    pub campaign: String,
    #[serde(flatten)]
    pub amounts: Amounts,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldLine {
    pub scope: String,
    pub by: String,
    pub until_seconds: Option<u64>,
}

/// What the home of a message knows.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFound {
    pub message: MessageId,
    pub flow: Arc<Flow>,
    pub age_seconds: u64,
    pub bytes: u32,
    pub parts: Vec<PartFound>,
}

/// Pending recipients of one domain with one history.
#[derive(Clone, Debug, PartialEq)]
pub struct PartFound {
    pub domain: Arc<str>,
    pub recipients: u16,
    pub attempts: u16,
    pub next_try_seconds: Option<u64>,
    /// Where its mail went when last looked up.
    pub site: Option<SiteKey>,
}

/// What the owner of a site knows of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// On a connection right now.
    pub in_flight: bool,
    /// Of the same domain and flow.
    pub amounts: Amounts,
    pub binding: Option<Binding>,
    pub last_reply: Option<String>,
}

/// A message as an operator is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReport {
    pub message: String,
    pub class: String,
    pub tenant: String,
    pub campaign: String,
    pub age_seconds: u64,
    /// Of its record.
    pub bytes: u32,
    pub parts: Vec<PartReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    pub domain: String,
    pub recipients: u16,
    /// Failed attempts of its own.
    pub attempts: u16,
    pub state: PartState,
    /// As was written when it was deferred; a flush may be sooner.
    pub next_try_seconds: Option<u64>,
    pub site: Option<String>,
    pub waits_for: Option<Binding>,
    /// The last complaint of the site, which may have been about other mail.
    pub site_last_reply: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Where its domain leads is being looked up, or it waits to be scheduled after a restart.
    Routing,
    Ready,
    Deferred,
    InFlight,
}

/// What a request concerned, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    #[serde(flatten)]
    pub amounts: Amounts,
    pub sites: u64,
    /// Whether anything is known by that name.
    pub known: bool,
    pub dry_run: bool,
    /// It is in force, but a restart would forget it: why it could not be written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Steered {
    pub fn add(&mut self, other: &Self) {
        self.amounts.add(&other.amounts);
        self.sites += other.sites;
        self.known |= other.known;
        self.dry_run |= other.dry_run;
        self.not_kept = self.not_kept.take().or_else(|| other.not_kept.clone());
        self.refused = self.refused.take().or_else(|| other.refused.clone());
    }
}
