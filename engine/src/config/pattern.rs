//! The regular expression of a rule, compiled once to see that it can be.

use std::ops::Range;

use toml::Spanned;

use super::bounds::Checks;
use super::problem::Finding;
use crate::base::pattern::{PatternError, PatternSet, check};
use crate::model::settings::RuleSettings;

pub(super) fn pattern(checks: &mut Checks<'_>, given: &Spanned<String>) -> Option<Box<str>> {
    let pattern: &str = given.get_ref();
    let whole = |label: String| Finding::invalid("rule.reply", given.span(), label);
    let finding = match check(pattern) {
        _ if pattern.is_empty() => {
            whole("it would match every reply".to_owned()).with_help("for all deferrals: '^4'")
        }
        Ok(()) => return Some(pattern.into()),
        Err(PatternError::NotAPattern(message)) => {
            let Told { part, why } = told(pattern, &message);
            let inside = part.and_then(|part| checks.places.inside(&given.span(), pattern, &part));
            Finding::invalid("rule.reply", inside.unwrap_or_else(|| given.span()), why)
        }
        Err(PatternError::TooLarge) => whole("too large a pattern once it is compiled".to_owned())
            .with_help("make the repetitions shorter, or split the rule"),
        Err(error) => whole(error.to_string()),
    };
    checks.note(finding);
    None
}

/// All rules are looked for in one pass, in a program of bounded size.
pub(super) fn whole_set(checks: &mut Checks<'_>, rules: &[RuleSettings]) {
    let patterns: Vec<&str> = rules.iter().map(|rule| &*rule.reply).collect();
    if let Err((_, error)) = PatternSet::new(&patterns) {
        checks.note_relation(Finding {
            span: None,
            title: format!("the patterns of all rules: {error}"),
            label: String::new(),
            help: Some("make some shorter, or leave some out".to_owned()),
        });
    }
}

/// What the `regex` crate has against a pattern.
struct Told {
    /// The bytes of the pattern that are meant, if that can be said.
    part: Option<Range<usize>>,
    why: String,
}

/// Reads the place from the words of `regex`: the pattern, a line of `^` below what is meant, and the
/// reason. It gives it in no other way; the tests hold the words still.
fn told(pattern: &str, message: &str) -> Told {
    let why = message.lines().find_map(|line| line.strip_prefix("error: "));
    let why = why.unwrap_or("not a regular expression").to_owned();
    let marks = message.lines().skip_while(|line| line.trim_start() != pattern.trim_start()).nth(1);
    let part = marks.and_then(|marks| {
        let marks = marks.get(INDENT..)?;
        let first = marks.find('^')?;
        let count = marks[first..].chars().take_while(|mark| *mark == '^').count();
        let byte =
            |column: usize| pattern.char_indices().nth(column).map_or(pattern.len(), |(at, _)| at);
        Some(byte(first)..byte(first + count))
    });
    Told { part, why }
}

/// Spaces in front of the pattern and the marks.
const INDENT: usize = 4;
