//! Single values against their bounds: what is out of bounds is noted, and a default goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::document::Given;
use super::problem::Finding;
use super::units::{Period, Size};

/// The findings so far, and the checks that add to them.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) findings: Vec<Finding>,
    /// Whether nothing was left out in reading. If something was, what is missing or does not
    /// fit may be a mere consequence, and is not told.
    whole: bool,
}

impl Checks {
    /// Goes on from what was found in reading.
    pub(super) fn after_reading(findings: Vec<Finding>) -> Self {
        Self { whole: findings.is_empty(), findings }
    }

    /// Notes something missing, or two values that do not fit each other.
    pub(super) fn note_relation(&mut self, finding: Finding) {
        if self.whole {
            self.note(finding);
        }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn number<T>(
        &mut self,
        key: &str,
        given: &Given<i64>,
        allowed: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(given) = given else { return default };
        match T::try_from(*given.get_ref()).ok().filter(|number| allowed.contains(number)) {
            Some(number) => number,
            None => self.refuse(key, given, &allowed, default),
        }
    }

    pub(super) fn period(
        &mut self,
        key: &str,
        given: &Given<Period>,
        allowed: &RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        given.as_ref().map_or(default, |given| self.one_period(key, given, allowed, default))
    }

    pub(super) fn one_period(
        &mut self,
        key: &str,
        given: &Spanned<Period>,
        allowed: &RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        if allowed.contains(&given.get_ref().0) {
            return given.get_ref().0;
        }
        let shown = Period(*allowed.start())..=Period(*allowed.end());
        self.refuse(key, given, &shown, default)
    }

    pub(super) fn size(
        &mut self,
        key: &str,
        given: &Given<Size>,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(given) = given else { return default };
        if allowed.contains(&given.get_ref().0) {
            return given.get_ref().0;
        }
        let shown = Size(*allowed.start())..=Size(*allowed.end());
        self.refuse(key, given, &shown, default)
    }

    /// Reads a text by `parse`, whose error is the label under it.
    pub(super) fn text<T>(
        &mut self,
        key: &str,
        given: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(given.get_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.note(Finding::invalid(key, given.span(), why));
                None
            }
        }
    }

    /// A key that an entry cannot do without; the place is the entry.
    pub(super) fn required<'a, T>(
        &mut self,
        key: &str,
        given: &'a Given<T>,
        entry: &Spanned<impl Sized>,
    ) -> Option<&'a Spanned<T>> {
        if given.is_none() {
            self.note_relation(Finding {
                span: Some(entry.span()),
                title: format!("missing `{key}`"),
                label: "needed here".to_owned(),
                help: None,
            });
        }
        given.as_ref()
    }

    /// Notes a list that is longer than `max`.
    pub(super) fn count<T>(&mut self, what: &str, list: &[Spanned<T>], max: usize) {
        if let Some(first_over) = list.get(max) {
            self.note(Finding {
                span: Some(first_over.span()),
                title: format!("too many {what}"),
                label: format!("there may be at most {max}"),
                help: None,
            });
        }
    }

    fn refuse<T, B: Display, G>(
        &mut self,
        key: &str,
        given: &Spanned<G>,
        allowed: &RangeInclusive<B>,
        default: T,
    ) -> T {
        let label = format!("allowed: {} to {}", allowed.start(), allowed.end());
        self.note(Finding::invalid(key, given.span(), label));
        default
    }
}
