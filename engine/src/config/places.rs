//! The text of a settings file by its lines: where a setting was made, and what stands there.

use std::ops::Range;

use crate::model::settings::Origin;

/// A file's name and text.
#[derive(Debug)]
pub(super) struct Places<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line ends; a file may have a hundred thousand tables, each with its place.
    newlines: Vec<usize>,
}

impl<'a> Places<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { file, text, newlines }
    }

    /// What a table that begins at `span` gives as its origin.
    pub(super) fn origin(&self, table: impl Into<Box<str>>, span: &Range<usize>) -> Origin {
        let line = self.newlines.partition_point(|newline| *newline < span.start) + 1;
        Origin { table: table.into(), place: format!("{}:{line}", self.file).into() }
    }

    /// The place of `part`, a range of the string `value` that is written at `span`. `None` if
    /// escapes shift the one against the other.
    pub(super) fn inside(
        &self,
        span: &Range<usize>,
        value: &str,
        part: &Range<usize>,
    ) -> Option<Range<usize>> {
        let before = self.text.get(span.clone())?.find(value)?;
        let start = span.start + before;
        Some(start + part.start..start + part.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_file_and_a_line_from_one() {
        let places = Places::new("a.toml", "a\nbc\n\nd");
        let line = |at: usize| places.origin("t", &(at..at + 1)).place;
        assert_eq!(
            [line(0), line(2), line(3), line(6)].map(|place| place.to_string()),
            ["a.toml:1", "a.toml:2", "a.toml:2", "a.toml:4"]
        );
    }

    #[test]
    fn a_part_of_a_string_is_found_in_the_text_unless_escapes_shift_it() {
        let places = Places::new("a.toml", r#"a = 'x(y' b = "\\d(" "#);
        assert_eq!(places.inside(&(4..9), "x(y", &(1..2)), Some(6..7));
        assert_eq!(places.inside(&(14..20), r"\d(", &(2..3)), Some(18..19));
        assert_eq!(places.inside(&(14..20), "\u{1}(", &(1..2)), None);
        assert_eq!(places.inside(&(14..999), "x", &(0..1)), None);
    }
}
