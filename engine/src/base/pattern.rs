//! Regular expressions over one line of printable ASCII: linear time, bounded size.

use std::borrow::Cow;

use regex::bytes::{RegexSet, RegexSetBuilder};

/// Bytes of one pattern; a list of thirty phrases fits.
pub const PATTERN_BYTES_MAX: usize = 2048;

/// Bytes of one pattern compiled. `.{0,500}` takes a tenth; what takes more is a mistake that
/// every match would pay for.
pub const PROGRAM_BYTES_MAX: usize = 256 << 10;

/// The same for all patterns of a set: what a search walks through at worst.
pub const SET_BYTES_MAX: usize = 16 << 20;

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern has at most {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    #[error("the pattern would take more than {PROGRAM_BYTES_MAX} bytes: make its repeats smaller")]
    TooLarge,
    #[error("all patterns together would take more than {SET_BYTES_MAX} bytes")]
    SetTooLarge,
    /// What the `regex` crate says; it may have several lines.
    #[error("{0}")]
    NotAPattern(String),
}

/// Patterns that are looked for together, in one pass. A clone shares the program and has scratch
/// memory of its own: one for each thread, and they never meet.
#[derive(Clone, Debug)]
pub struct PatternSet(RegexSet);

/// Whether `text` can be a pattern.
///
/// # Errors
/// Show the text of the error to whoever wrote the pattern.
pub fn check(text: &str) -> Result<(), PatternError> {
    adapted(text).map(drop)
}

/// The pattern as it is compiled: with Unicode only if it is none without, as `\p{L}`.
fn adapted(text: &str) -> Result<Cow<'_, str>, PatternError> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::TooLong);
    }
    let Err(error) = compile(&[text], PROGRAM_BYTES_MAX) else { return Ok(text.into()) };
    if let regex::Error::CompiledTooBig(_) = error {
        return Err(PatternError::TooLarge);
    }
    let with_unicode = format!("(?u:{text})");
    match compile(&[&with_unicode], PROGRAM_BYTES_MAX) {
        Ok(_) => Ok(with_unicode.into()),
        Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::TooLarge),
        Err(_) => Err(PatternError::NotAPattern(error.to_string())),
    }
}

impl PatternSet {
    /// # Errors
    /// The first pattern that is none, by its index; all of them where each alone would do.
    pub fn new(texts: &[&str]) -> Result<Self, (usize, PatternError)> {
        let each = texts.iter().enumerate();
        let adapted = each.map(|(index, text)| adapted(text).map_err(|error| (index, error)));
        let adapted: Vec<Cow<'_, str>> = adapted.collect::<Result<_, _>>()?;
        let last = texts.len().saturating_sub(1);
        compile(&adapted, SET_BYTES_MAX).map(Self).map_err(|_| (last, PatternError::SetTooLarge))
    }

    /// Whether any pattern is found in `line`: stops at the first.
    #[must_use]
    pub fn any(&self, line: &str) -> bool {
        self.0.is_match(line.as_bytes())
    }

    /// The patterns found in `line`, by index, ascending.
    pub fn found(&self, line: &str) -> impl Iterator<Item = usize> + use<> {
        self.0.matches(line.as_bytes()).into_iter()
    }
}

/// Without Unicode: the line has none, and its character classes are a hundred times larger.
fn compile(texts: &[impl AsRef<str>], bytes_max: usize) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(texts).unicode(false).size_limit(bytes_max).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_of_a_set_are_found_in_one_line() {
        let set = PatternSet::new(&["^421 ", r"\bTSS?04\b", "(?i)RATE", "^5"]).unwrap();
        let line = "421 4.7.0 [TSS04] rate limited";
        assert!(set.any(line) && !set.any("250 ok"));
        assert_eq!(set.found(line).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_empty_set_finds_nothing() {
        let set = PatternSet::new(&[]).unwrap();
        assert!(!set.any("421") && set.found("421").next().is_none());
    }

    #[test]
    fn what_is_no_pattern_is_named_by_its_place() {
        let Err((index, PatternError::NotAPattern(text))) = PatternSet::new(&["a", "(b"]) else {
            panic!("an open group is no pattern");
        };
        assert!(index == 1 && text.contains("unclosed group"), "{text}");
        // Look-around and back-references would not be linear.
        assert!(check("a(?=b)").is_err() && check(r"(a)\1").is_err());
    }

    #[test]
    fn a_pattern_that_asks_for_unicode_has_it() {
        let set = PatternSet::new(&[r"^\p{L}+$", r"a|\p{N}", "[\u{e4}x]"]).unwrap();
        assert_eq!(set.found("abc").collect::<Vec<_>>(), [0, 1]);
        assert_eq!(set.found("x1").collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_pattern_cannot_grow_without_bound() {
        assert_eq!(check(&"a".repeat(PATTERN_BYTES_MAX + 1)), Err(PatternError::TooLong));
        assert_eq!(check("(a{1000}){1000}"), Err(PatternError::TooLarge));
        assert_eq!(check("((a{100}){100}){100}"), Err(PatternError::TooLarge));
        assert_eq!(check(".{0,500}"), Ok(()));
        let large: Vec<String> = (0..4000).map(|at| format!("{at}.{{0,900}}")).collect();
        let texts: Vec<&str> = large.iter().map(String::as_str).collect();
        assert_eq!(PatternSet::new(&texts).unwrap_err().1, PatternError::SetTooLarge);
    }
}
