//! What an operator or a rule may stop, and for how long.

use crate::base::time::Mono;

/// Mail that is stopped together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// By the name of its key: a next hop, or an MX set.
    Site(Box<str>),
    /// An egress source, at all sites.
    Source(Box<str>),
    Tenant(Box<str>),
    Campaign {
        tenant: Box<str>,
        campaign: Box<str>,
    },
}

/// A stop that lasts until it is released, or until its time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// `operator`, or `rule NAME`.
    pub by: Box<str>,
    pub until: Option<Mono>,
}
