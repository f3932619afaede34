//! The table of a reply rule.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::Given;
use crate::config::percent::Percent;
use crate::config::rates::{Pace, Units};
use crate::config::units::Period;
use crate::model::settings::Subject;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rule {
    pub(crate) name: Given<String>,
    pub(crate) reply: Given<String>,
    pub(crate) provider: Given<Names>,
    pub(crate) domain: Given<Names>,
    pub(crate) mx: Given<Names>,
    pub(crate) source: Given<Names>,
    pub(crate) count: Given<i64>,
    pub(crate) share: Given<Percent>,
    pub(crate) sample: Given<i64>,
    pub(crate) within: Given<Period>,
    pub(crate) action: Given<ActionName>,
    pub(crate) wait: Given<Period>,
    pub(crate) limit: Given<Limit>,
    #[serde(rename = "for")]
    pub(crate) lasts: Given<Period>,
    pub(crate) suspend: Given<SubjectName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ActionName {
    Throttle,
    Backoff,
    Connections,
    #[serde(rename = "message_rate")]
    MessageRate,
    Suspend,
    SkipHost,
    Bounce,
    Defer,
    OtherSource,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectName {
    Site,
    Path,
    Source,
    Tenant,
    Campaign,
}

/// One name, or a list of them.
#[derive(Debug)]
pub(crate) enum Names {
    One(String),
    Several(Vec<Spanned<String>>),
}

/// A number of connections, or a rate of messages.
#[derive(Debug)]
pub(crate) enum Limit {
    Number(i64),
    Rate(Pace<Units>),
}

impl From<SubjectName> for Subject {
    fn from(name: SubjectName) -> Self {
        match name {
            SubjectName::Site => Self::Site,
            SubjectName::Path => Self::Path,
            SubjectName::Source => Self::Source,
            SubjectName::Tenant => Self::Tenant,
            SubjectName::Campaign => Self::Campaign,
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a list of names")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
        Ok(Names::One(name.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Names, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Names::Several)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl<'de> Visitor<'de> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of connections, or a rate such as \"10/min\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Limit, E> {
        Ok(Limit::Number(number))
    }

    fn visit_str<E: de::Error>(self, rate: &str) -> Result<Limit, E> {
        rate.parse().map(|speed| Limit::Rate(Pace::Plain(speed))).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limit, A::Error> {
        Pace::deserialize(MapAccessDeserializer::new(map)).map(Limit::Rate)
    }
}
