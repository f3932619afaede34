//! What a reply makes the engine do.

use std::time::Duration;

use super::DomainPattern;
use super::sites::{Origin, Rate};

/// One `[[rule]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSettings {
    pub name: Box<str>,
    /// A regular expression of the `regex` crate, matched against `code enhanced text` of a reply, as
    /// `421 4.7.0 [TSS04] Messages ... deferred`.
    pub reply: Box<str>,
    pub scope: RuleScope,
    pub trigger: Trigger,
    pub action: Action,
    pub origin: Origin,
}

/// Which replies a rule looks at; empty lists: any. All that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleScope {
    /// Names of providers.
    pub providers: Vec<Box<str>>,
    pub domains: Vec<DomainPattern>,
    /// Mail hosts of the site.
    pub mx: Vec<DomainPattern>,
    /// Names of sources.
    pub sources: Vec<Box<str>>,
}

/// When the action is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At each reply that matches.
    Each,
    /// At the `count`th within `within`.
    Count { count: u32, within: Duration },
    /// Once more than `percent` of at least `sample` answered deliveries within `within` matched.
    Share { percent: u8, sample: u32, within: Duration },
}

/// Whom a suspension stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Site,
    /// The source at this site.
    Path,
    /// The source at all sites of the provider.
    Source,
    Tenant,
    Campaign,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The site asked to slow down, whatever the code says.
    Throttle,
    /// The path is left alone for so long.
    Backoff {
        wait: Duration,
    },
    /// The path has at most so many connections for a time.
    Connections {
        limit: u32,
        lasts: Duration,
    },
    /// The path sends at most at this rate for a time.
    MessageRate {
        limit: Rate,
        lasts: Duration,
    },
    Suspend {
        what: Subject,
        lasts: Duration,
    },
    /// The host that replied is passed over for a time.
    SkipHost {
        lasts: Duration,
    },
    /// The recipient fails, whatever the code says.
    Bounce,
    /// The recipient is tried again, whatever the code says.
    Defer,
    /// The delivery goes back to the queue and is tried from another source of its pool, if it has
    /// one; else deferred.
    OtherSource,
}
