//! The shape of a settings file, before any value is checked against another.
//!
//! A key that is wrong is reported and taken out, and the rest is read again: so one run finds
//! every unknown key and every value of a wrong type.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Finding, PROBLEMS_MAX, suggest};
use super::units::{CpuList, Period, Size};
use crate::model::settings::{OutcomeDurability, TlsMode};

/// An optional key, with the place of its value.
pub(super) type Given<T> = Option<Spanned<T>>;

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
    pub(super) site: BTreeMap<Spanned<String>, Site>,
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
pub(super) struct Site {
    pub(super) connections: Given<i64>,
    pub(super) messages_per_connection: Given<i64>,
    pub(super) retry: Given<Vec<Spanned<Period>>>,
    pub(super) expire: Given<Period>,
    pub(super) idle_timeout: Given<Period>,
    pub(super) connect_timeout: Given<Period>,
    pub(super) greeting_timeout: Given<Period>,
    pub(super) command_timeout: Given<Period>,
    pub(super) data_timeout: Given<Period>,
    pub(super) body_timeout: Given<Period>,
    pub(super) dot_timeout: Given<Period>,
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

/// Reads the text, leaving out what cannot be read; what was left out is in the findings.
pub(super) fn read(text: &str) -> (Document, Vec<Finding>) {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What a parser guesses behind a syntax error would only mislead.
        let findings = errors.iter().take(PROBLEMS_MAX).map(syntax_finding).collect();
        return (Document::default(), findings);
    }
    let mut findings = Vec::new();
    while findings.len() < PROBLEMS_MAX {
        let error = match Document::deserialize(toml::Deserializer::from(root.clone())) {
            Ok(document) => return (document, findings),
            Err(error) => error,
        };
        let removed = error.span().and_then(|span| remove_at(root.get_mut(), &span));
        let known_place = removed.is_some();
        findings.push(shape_finding(&error, &removed.unwrap_or_default()));
        if !known_place {
            break;
        }
    }
    (Document::default(), findings)
}

fn syntax_finding(error: &toml::de::Error) -> Finding {
    Finding {
        span: error.span(),
        title: "this is not TOML".to_owned(),
        label: error.message().to_owned(),
        help: None,
    }
}

/// An entry that was taken out of the document.
#[derive(Default)]
struct Removed {
    /// The dotted path of the table it was in; empty for the top.
    table: String,
    key: String,
    was_table: bool,
}

impl Removed {
    fn path(&self) -> String {
        match &*self.table {
            "" => self.key.clone(),
            table => format!("{table}.{}", self.key),
        }
    }

    fn inside(self, outer: &str) -> Self {
        let table = match &*self.table {
            "" => outer.to_owned(),
            table => format!("{outer}.{table}"),
        };
        Self { table, ..self }
    }
}

/// Takes the innermost entry out that `span` lies in.
fn remove_at(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<Removed> {
    for (key, value) in table.iter_mut() {
        if let Some(removed) = remove_below(value.get_mut(), span) {
            return Some(removed.inside(key.get_ref()));
        }
    }
    let hit = |place: Range<usize>| place.start <= span.start && span.end <= place.end;
    let (key, value) = table.iter().find(|(key, value)| hit(key.span()) || hit(value.span()))?;
    let was_table = value.get_ref().is_table();
    let key = key.get_ref().clone().into_owned();
    table.remove(&*key);
    Some(Removed { table: String::new(), key, was_table })
}

fn remove_below(value: &mut DeValue<'_>, span: &Range<usize>) -> Option<Removed> {
    match value {
        DeValue::Table(table) => remove_at(table, span),
        DeValue::Array(items) => {
            items.iter_mut().find_map(|item| remove_below(item.get_mut(), span))
        }
        _ => None,
    }
}

/// Puts serde's words into ours. They are the only place where it names what it would have taken;
/// the tests of this directory hold them still.
fn shape_finding(error: &toml::de::Error, at: &Removed) -> Finding {
    let message = error.message();
    let names = names_expected(message);
    let span = error.span().unwrap_or_default();
    if message.starts_with("unknown field") {
        return unknown_key(span, at, &names);
    }
    if message.starts_with("unknown variant") {
        let given = message.split('`').nth(1).unwrap_or_default();
        let label = format!("allowed: \"{}\"", names.join("\", \""));
        return Finding::invalid(&at.path(), span, label).with_help(suggest(given, &names));
    }
    let mistyped =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mistyped.and_then(|what| what.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let label = format!("expected {}, found {found}", plain_type(expected));
            Finding::invalid(&at.path(), span, label)
        }
        None => Finding::invalid(&at.path(), span, message),
    }
}

fn unknown_key(span: Range<usize>, at: &Removed, names: &[&str]) -> Finding {
    let site = at.table.strip_prefix("site.").filter(|_| at.was_table);
    let help = match site {
        // `[site.example.com]` without quotes is a table `com` in a site `example`.
        Some(site) => format!("quote a domain: [site.\"{site}.{}\"]", at.key),
        None => suggest(&at.key, names),
    };
    let label = match &*at.table {
        "" => "not a setting".to_owned(),
        table => format!("not a setting of `{table}`"),
    };
    let title = format!("unknown key `{}`", at.key);
    Finding { span: Some(span), title, label, help: Some(help) }
}

/// The names serde lists behind "expected", each in backquotes.
fn names_expected(message: &str) -> Vec<&str> {
    let listed = message.rsplit_once(", expected ").map_or("", |(_, listed)| listed);
    listed.split('`').skip(1).step_by(2).collect()
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") || expected == "a map" => "a table",
        _ => expected,
    }
}
