//! The shape of a settings file, before any value is checked against another.

mod rule;
mod site;
mod source;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

pub(super) use rule::{ActionName, Limit, Names, Rule};
pub(super) use site::{GivenCaps, Provider, Site};
pub(super) use source::{Class, Member, Pool, Source, Tenant, WarmUp};

use super::percent::Percent;
use super::units::{CpuList, Period, Size};
use crate::model::settings::{OutcomeDurability, TlsMode};

/// An optional key, with the place of its value.
pub(super) type Given<T> = Option<Spanned<T>>;

/// Tables by names of the operator's choice.
pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) hostname: Given<String>,
    pub(super) engine: Engine,
    pub(super) spool: Spool,
    pub(super) listen: Vec<Spanned<Listen>>,
    pub(super) limits: Limits,
    pub(super) dns: Dns,
    pub(super) egress: Egress,
    pub(super) route: Vec<Spanned<Route>>,
    pub(super) site: Named<Site>,
    pub(super) provider: Named<Provider>,
    pub(super) source: Named<Source>,
    pub(super) pool: Named<Pool>,
    pub(super) tenant: Named<Tenant>,
    pub(super) rule: Vec<Spanned<Rule>>,
    pub(super) starter_rules: Given<bool>,
    pub(super) order: Order,
    pub(super) admin: Given<Admin>,
}

/// The entries in the order of the file: a map has them by name.
pub(super) fn in_file_order<T>(named: &Named<T>) -> Vec<(&Spanned<String>, &T)> {
    let mut entries: Vec<_> = named.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Engine {
    pub(super) shards: Given<Shards>,
}

/// `"auto"`, a number, or a CPU list.
#[derive(Debug)]
pub(super) enum Shards {
    Auto,
    Count(i64),
    Cores(CpuList),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Spool {
    pub(super) path: Given<String>,
    pub(super) segment_size: Given<Size>,
    pub(super) outcomes: Given<Outcomes>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcomes {
    Grouped,
    Strict,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) address: Given<String>,
    pub(super) relay_from: Option<Vec<Spanned<String>>>,
    pub(super) tenant: Given<String>,
    pub(super) campaign: Given<String>,
    pub(super) class: Given<Class>,
    pub(super) trust_headers_from: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_size: Given<Size>,
    pub(super) recipients: Given<i64>,
    pub(super) connections_in: Given<i64>,
    pub(super) connections_out: Given<i64>,
    pub(super) body_memory: Given<Size>,
    pub(super) intake_memory: Given<Size>,
    pub(super) idle_timeout: Given<Period>,
    pub(super) data_timeout: Given<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dns {
    pub(super) servers: Vec<Spanned<String>>,
    pub(super) timeout: Given<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Egress {
    pub(super) port: Given<i64>,
    pub(super) allow_private: Option<bool>,
    pub(super) tls: Given<Tls>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tls {
    Opportunistic,
    Off,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Route {
    pub(super) domain: Given<String>,
    pub(super) via: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Order {
    pub(super) bulk_floor: Given<Percent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) socket: Given<String>,
}

impl From<Outcomes> for OutcomeDurability {
    fn from(outcomes: Outcomes) -> Self {
        match outcomes {
            Outcomes::Grouped => Self::Grouped,
            Outcomes::Strict => Self::Strict,
        }
    }
}

impl From<Tls> for TlsMode {
    fn from(tls: Tls) -> Self {
        match tls {
            Tls::Opportunistic => Self::Opportunistic,
            Tls::Off => Self::Off,
        }
    }
}

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShardsVisitor)
    }
}

struct ShardsVisitor;

impl Visitor<'_> for ShardsVisitor {
    type Value = Shards;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\", a number of shards, or a CPU list such as \"0-7\"")
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Shards, E> {
        Ok(Shards::Count(count))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Shards, E> {
        match text {
            "auto" => Ok(Shards::Auto),
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => {
                text.parse().map(Shards::Cores).map_err(E::custom)
            }
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}
