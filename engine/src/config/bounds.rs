//! Single values against their bounds: what is out of bounds is noted, and a default goes on.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::document::{Given, Named};
use super::places::Places;
use super::problem::{Finding, PROBLEMS_MAX, suggest};
use super::units::{Period, Size};

/// Findings kept, of which the first [`PROBLEMS_MAX`] in the file are told. A file can hold millions.
const FINDINGS_MAX: usize = 10_000;

/// The findings so far, and the checks that add to them.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    pub(super) findings: Vec<Finding>,
    pub(super) places: Places<'a>,
    /// Whether nothing was left out in reading. If something was, what is missing or does not
    /// fit may be a mere consequence, and is not told.
    whole: bool,
}

impl<'a> Checks<'a> {
    /// Goes on from what was found in reading.
    pub(super) fn after_reading(findings: Vec<Finding>, places: Places<'a>) -> Self {
        Self { whole: findings.is_empty(), findings, places }
    }

    /// Notes something missing, or two values that do not fit each other.
    pub(super) fn note_relation(&mut self, finding: Finding) {
        if self.whole {
            self.note(finding);
        }
    }

    pub(super) fn note(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Notes a name that is not among `names`, which are sorted, and finds it otherwise.
    pub(super) fn known<'b, T>(
        &mut self,
        key: impl Display,
        name: &str,
        span: Range<usize>,
        names: &'b [T],
        name_of: impl Fn(&'b T) -> &'b str,
    ) -> Option<usize> {
        if let Ok(index) = names.binary_search_by(|entry| name_of(entry).cmp(name)) {
            return Some(index);
        }
        let finding = Finding::invalid(key, span, format!("there is no `{name}`"));
        // Looking for the likest takes time, and no more problems are told.
        let finding = match self.findings.len() {
            0..PROBLEMS_MAX => {
                let names: Vec<&str> = names.iter().map(name_of).collect();
                finding.with_help(suggest(name, &names))
            }
            _ => finding,
        };
        self.note_relation(finding);
        None
    }

    pub(super) fn number<T>(
        &mut self,
        key: impl Display,
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
        key: impl Display,
        given: &Given<Period>,
        allowed: &RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        given.as_ref().map_or(default, |given| self.one_period(key, given, allowed, default))
    }

    pub(super) fn one_period(
        &mut self,
        key: impl Display,
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
        key: impl Display,
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
        key: impl Display,
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
    pub(super) fn required<'b, T>(
        &mut self,
        key: impl Display,
        given: &'b Given<T>,
        entry: Range<usize>,
    ) -> Option<&'b Spanned<T>> {
        if given.is_none() {
            self.note_relation(Finding {
                span: Some(entry),
                title: format!("missing `{key}`"),
                label: "needed here".to_owned(),
                help: None,
            });
        }
        given.as_ref()
    }

    /// Notes a list that is longer than `max`.
    pub(super) fn count<T>(&mut self, what: &str, list: &[Spanned<T>], max: usize) {
        self.too_many(what, list.get(max).map(Spanned::span), max);
    }

    /// Notes more tables of one kind than `max`.
    pub(super) fn count_named<T>(&mut self, what: &str, tables: &Named<T>, max: usize) {
        let first_over = tables.keys().nth(max);
        self.too_many(what, first_over.map(Spanned::span), max);
    }

    fn too_many(&mut self, what: &str, first_over: Option<Range<usize>>, max: usize) {
        if let Some(span) = first_over {
            self.note(Finding {
                span: Some(span),
                title: format!("too many {what}"),
                label: format!("there may be at most {max}"),
                help: None,
            });
        }
    }

    pub(super) fn refuse<T, B: Display, G>(
        &mut self,
        key: impl Display,
        given: &Spanned<G>,
        allowed: &RangeInclusive<B>,
        default: T,
    ) -> T {
        let label = format!("allowed: {} to {}", allowed.start(), allowed.end());
        self.note(Finding::invalid(key, given.span(), label));
        default
    }
}
