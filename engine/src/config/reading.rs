//! A settings file into its shape: a key that is wrong is reported and taken out, and the rest is
//! read again, so one run finds every unknown key and every value of a wrong type.

use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::problem::{Finding, PROBLEMS_MAX, likest, suggest};

/// Tables whose entries have names of the operator's choice.
const NAMED: [&str; 5] = ["site", "provider", "source", "pool", "tenant"];

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
        return Finding::invalid(at.path(), span, label).with_help(suggest(given, &names));
    }
    let mistyped =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mistyped.and_then(|what| what.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let label = format!("expected {}, found {found}", plain_type(expected));
            Finding::invalid(at.path(), span, label)
        }
        None => Finding::invalid(at.path(), span, message),
    }
}

fn unknown_key(span: Range<usize>, at: &Removed, names: &[&str]) -> Finding {
    let named = at.table.split_once('.').filter(|(table, _)| at.was_table && NAMED.contains(table));
    let help = match (named, likest(&at.key, names)) {
        // `[site.example.com]` without quotes is a table `com` in a site `example`.
        (Some((table, name)), None) => format!("quote the name: [{table}.\"{name}.{}\"]", at.key),
        _ => suggest(&at.key, names),
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
