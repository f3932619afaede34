//! Where mail goes out from, and for whom.

use std::net::IpAddr;

use super::sites::{Caps, Origin};
use crate::model::flow::MailClass;

/// The pool of mail that names none; it holds every source unless it is configured.
pub const DEFAULT_POOL: &str = "default";

/// One egress address.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSettings {
    pub name: Box<str>,
    /// Bound before connecting; hosts of a family without one are passed over. Both `None`: the
    /// kernel chooses.
    pub address_v4: Option<IpAddr>,
    pub address_v6: Option<IpAddr>,
    /// EHLO name; `None`: the engine's hostname.
    pub hostname: Option<Box<str>>,
    /// Over all sites together.
    pub caps: Caps,
    pub warm_up: Option<WarmUp>,
    pub origin: Origin,
}

/// How much a new source may send to each provider (sites without one: to each site) on its first
/// days. A day counts only if at least half of its messages were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Messages of day 1, 2, ...; behind the last the source is warm.
    pub days: Vec<u32>,
    /// Where the rest goes.
    pub overflow: Overflow,
    /// The day is repeated if more than this share of at least `freeze_sample` messages was
    /// throttled or refused by policy.
    pub freeze_percent: u8,
    pub freeze_sample: u32,
}

/// What becomes of mail above a warm-up day's cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It goes out by the other sources of its pool; if there are none, it waits.
    Pool,
    /// It waits for the next day.
    Wait,
}

/// Sources that share mail by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    pub name: Box<str>,
    pub members: Vec<PoolMember>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolMember {
    /// Index into [`super::Settings::sources`].
    pub source: u16,
    /// 1 to 1000.
    pub weight: u16,
}

/// One sender of many.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantSettings {
    pub name: Box<str>,
    /// Index into [`super::Settings::pools`]; `None`: the default pool.
    pub pool: Option<u16>,
    /// Share of a site among tenants, 1 to 1000.
    pub weight: u16,
    /// The class of its mail that names none; `None`: the listener's.
    pub class: Option<MailClass>,
    /// Over all sites together; `connections` counts deliveries under way.
    pub caps: Caps,
    pub origin: Origin,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            name: Box::default(),
            pool: None,
            weight: 1,
            class: None,
            caps: Caps::default(),
            origin: Origin::default(),
        }
    }
}
