//! The tables of sources, pools and tenants.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::Given;
use super::site::has_caps;
use crate::config::rates::{Pace, Units};
use crate::config::units::Size;
use crate::model::flow::MailClass;
use crate::model::settings::Overflow;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Source {
    pub(crate) address: Given<String>,
    pub(crate) addresses: Given<Vec<Spanned<String>>>,
    pub(crate) hostname: Given<String>,
    pub(crate) connections: Given<i64>,
    pub(crate) connection_rate: Given<Pace<Units>>,
    pub(crate) message_rate: Given<Pace<Units>>,
    pub(crate) byte_rate: Given<Pace<Size>>,
    pub(crate) warm_up: Given<WarmUp>,
}

has_caps!(Source);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WarmUp {
    pub(crate) days: Given<Vec<Spanned<i64>>>,
    pub(crate) overflow: Given<OverflowName>,
    pub(crate) freeze_percent: Given<i64>,
    pub(crate) freeze_sample: Given<i64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OverflowName {
    Pool,
    Wait,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pool {
    pub(crate) sources: Given<Vec<Spanned<Member>>>,
}

/// `"a"`, or `{ source = "a", weight = 3 }`.
#[derive(Debug)]
pub(crate) enum Member {
    Plain(String),
    Weighed(WeighedMember),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WeighedMember {
    pub(crate) source: Given<String>,
    pub(crate) weight: Given<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tenant {
    pub(crate) pool: Given<String>,
    pub(crate) weight: Given<i64>,
    pub(crate) class: Given<Class>,
    pub(crate) connections: Given<i64>,
    pub(crate) connection_rate: Given<Pace<Units>>,
    pub(crate) message_rate: Given<Pace<Units>>,
    pub(crate) byte_rate: Given<Pace<Size>>,
}

has_caps!(Tenant);

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    Transactional,
    Bulk,
}

impl From<OverflowName> for Overflow {
    fn from(name: OverflowName) -> Self {
        match name {
            OverflowName::Pool => Self::Pool,
            OverflowName::Wait => Self::Wait,
        }
    }
}

impl From<Class> for MailClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Transactional => Self::Transactional,
            Class::Bulk => Self::Bulk,
        }
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a source, or { source = \"a\", weight = 2 }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Member, E> {
        Ok(Member::Plain(name.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
        WeighedMember::deserialize(MapAccessDeserializer::new(map)).map(Member::Weighed)
    }
}
