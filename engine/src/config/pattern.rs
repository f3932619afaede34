//! The regular expression of a rule, compiled once to see that it can be.

use std::ops::Range;

use regex::{Error, RegexBuilder};
use toml::Spanned;

use super::bounds::Checks;
use super::problem::Finding;
use crate::model::settings::RULE_PROGRAM_BYTES_MAX;

/// A reply is kept with 512 characters; more than this is not meant for one.
const PATTERN_BYTES_MAX: usize = 2048;

pub(super) fn pattern(checks: &mut Checks<'_>, given: &Spanned<String>) -> Option<Box<str>> {
    let pattern: &str = given.get_ref();
    let whole = |label: String| Finding::invalid("rule.reply", given.span(), label);
    let finding = match compile(pattern) {
        _ if pattern.is_empty() => {
            whole("it would match every reply".to_owned()).with_help("for all deferrals: '^4'")
        }
        _ if pattern.len() > PATTERN_BYTES_MAX => {
            whole(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"))
        }
        Ok(()) => return Some(pattern.into()),
        Err(Wrong::TooLarge) => whole("too large a pattern once it is compiled".to_owned())
            .with_help("make the repetitions shorter, or split the rule"),
        Err(Wrong::At { part, why }) => {
            let inside = part.and_then(|part| checks.places.inside(&given.span(), pattern, &part));
            Finding::invalid("rule.reply", inside.unwrap_or_else(|| given.span()), why)
        }
    };
    checks.note(finding);
    None
}

enum Wrong {
    TooLarge,
    /// The bytes of the pattern that are meant, if that can be said.
    At {
        part: Option<Range<usize>>,
        why: String,
    },
}

fn compile(pattern: &str) -> Result<(), Wrong> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(Wrong::TooLarge);
    }
    match RegexBuilder::new(pattern).size_limit(RULE_PROGRAM_BYTES_MAX).build() {
        Ok(_) => Ok(()),
        Err(Error::Syntax(message)) => Err(told(pattern, &message)),
        Err(_) => Err(Wrong::TooLarge),
    }
}

/// Reads the place from the words of `regex`: the pattern, a line of `^` below what is meant, and the
/// reason. It gives it in no other way; the tests hold the words still.
fn told(pattern: &str, message: &str) -> Wrong {
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
    Wrong::At { part, why }
}

/// Spaces in front of the pattern and the marks.
const INDENT: usize = 4;
