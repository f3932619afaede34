//! A table of the file, entry by entry, as it stands there.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::target::{Pace, Time};
use super::values::{self, Throttle};

/// One key with its value; `path` names it in remarks.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) path: String,
    pub(super) key: &'a str,
    pub(super) at: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

/// The entries of a table in the order of the file.
pub(super) fn entries<'a>(above: &str, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> =
        table.iter().map(|(key, value)| entry(above, key, value)).collect();
    entries.sort_by_key(|entry| entry.at.start);
    entries
}

fn entry<'a>(
    above: &str,
    key: &'a Spanned<std::borrow::Cow<'a, str>>,
    value: &'a Spanned<DeValue<'a>>,
) -> Entry<'a> {
    let name: &str = key.get_ref();
    let path = if above.is_empty() { name.to_owned() } else { format!("{above}: {name}") };
    Entry { path, key: name, at: key.span(), value: value.get_ref() }
}

impl<'a> Entry<'a> {
    pub(super) fn table(&self) -> Result<&'a DeTable<'a>, String> {
        self.value.as_table().ok_or_else(|| self.expected("a table"))
    }

    /// The elements of an array; of a single value, that one.
    pub(super) fn one_or_many(&self) -> Vec<Self> {
        let Some(array) = self.value.as_array() else { return vec![self.clone()] };
        let element = |element: &'a Spanned<DeValue<'a>>| Self {
            at: element.span(),
            value: element.get_ref(),
            ..self.clone()
        };
        array.iter().map(element).collect()
    }

    /// The name and content of `"Name"` or `{Name = content}`.
    pub(super) fn variant(&self) -> Result<(&'a str, Option<Self>), String> {
        if let Some(name) = self.value.as_str() {
            return Ok((name, None));
        }
        let table = self.value.as_table().filter(|table| table.len() == 1);
        let content = table.and_then(|table| entries(&self.path, table).pop());
        let content = content.ok_or_else(|| self.expected("a name, or a table with one key"))?;
        Ok((content.key, Some(content)))
    }

    pub(super) fn text(&self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    pub(super) fn is_true(&self) -> Result<bool, String> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// A whole number, perhaps as text with `local:` before it.
    pub(super) fn number(&self, allowed: RangeInclusive<u32>) -> Result<u32, String> {
        let number = match self.value {
            DeValue::String(text) => values::limit(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.expected("a whole number"))?;
        let fits = u32::try_from(number).ok().filter(|number| allowed.contains(number));
        fits.ok_or_else(|| format!("ours is {} to {}", allowed.start(), allowed.end()))
    }

    pub(super) fn throttle(&self) -> Result<Throttle, String> {
        let expected = || self.expected("a rate such as \"100/min\"");
        values::throttle(self.text().map_err(|_| expected())?).ok_or_else(expected)
    }

    pub(super) fn pace(&self, sources: u32) -> Result<Pace, String> {
        self.throttle()?.pace(sources)
    }

    /// A duration in words, or a number of seconds.
    pub(super) fn time(&self, allowed: RangeInclusive<Duration>) -> Result<Time, String> {
        let expected = || self.expected("a duration such as \"5m\"");
        let duration = match self.value {
            DeValue::String(text) => values::duration(text),
            DeValue::Integer(number) => number.as_str().parse().ok().map(Duration::from_secs),
            _ => None,
        };
        let duration = duration.ok_or_else(expected)?;
        let (least, most) = (values::time(*allowed.start()), values::time(*allowed.end()));
        match allowed.contains(&duration) {
            true => Ok(values::time(duration)),
            false => Err(format!("ours is {} to {}", least.0, most.0)),
        }
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what}, not a value of type {}", self.value.type_str())
    }
}
