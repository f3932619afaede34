//! What is wrong with a settings file, where, and what to write instead.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// The most problems told at once; a file with more is the wrong file.
pub const PROBLEMS_MAX: usize = 20;

/// A name is taken for a misspelt one if at most one letter in this many is wrong, as rustc does.
const LETTERS_PER_SLIP: usize = 3;

/// Names listed where none is like the one given: more than any table has keys.
const NAMES_SHOWN_MAX: usize = 30;

/// One thing wrong with the settings. `Display` gives one line; [`render`] shows the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: Box<str>,
    pub place: Option<TextPlace>,
    /// What is wrong.
    pub title: String,
    /// What is wrong at the place; stands under the source line.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Where in the file, counted in characters from 1, and the bytes meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPlace {
    pub line: usize,
    pub column: usize,
    pub span: Range<usize>,
}

/// A problem as the checks find it, before it is known which file it is in.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Option<Range<usize>>,
    pub(super) title: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Finding {
    /// A value that cannot stand for `key`, and why.
    pub(super) fn invalid(
        key: impl fmt::Display,
        span: Range<usize>,
        label: impl fmt::Display,
    ) -> Self {
        Self {
            span: Some(span),
            title: format!("invalid value for `{key}`"),
            label: label.to_string(),
            help: None,
        }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn place(self, file: &str, text: &str) -> Problem {
        Problem {
            file: file.into(),
            place: self.span.map(|span| TextPlace::find(text, span)),
            title: self.title,
            label: self.label,
            help: self.help,
        }
    }
}

impl TextPlace {
    fn find(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let end = text.ceil_char_boundary(span.end.max(start));
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: start..end,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}", self.title)?;
        if !self.label.is_empty() {
            write!(f, ": {}", self.label)?;
        }
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Shows the problems with the lines of `text` they are on, as a compiler would.
#[must_use]
pub fn render(problems: &[Problem], text: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let rendered: Vec<String> =
        problems.iter().map(|problem| render_one(&renderer, problem, text)).collect();
    rendered.join("\n\n")
}

fn render_one(renderer: &Renderer, problem: &Problem, text: &str) -> String {
    let title = Level::ERROR.primary_title(&*problem.title);
    let mut group = match &problem.place {
        Some(place) => {
            let mark = AnnotationKind::Primary.span(place.span.clone()).label(&*problem.label);
            title.element(Snippet::source(text).path(&*problem.file).annotation(mark))
        }
        None => {
            let colon = if problem.label.is_empty() { "" } else { ": " };
            let note = format!("in {}{colon}{}", problem.file, problem.label);
            title.element(Level::NOTE.message(note))
        }
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(&**help));
    }
    renderer.render(&[group])
}

/// "did you mean" the likest of `names`, or else all of them.
pub(super) fn suggest(given: &str, names: &[&str]) -> String {
    if let Some(name) = likest(given, names) {
        return format!("did you mean `{name}`?");
    }
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join("`, `");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        _ if names.is_empty() => "there are none".to_owned(),
        0 => format!("there are: `{shown}`"),
        more => format!("there are: `{shown}` and {more} more"),
    }
}

/// The name of which `given` may be a misspelling.
pub(super) fn likest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), *name))
        .filter(|(slips, name)| slips * LETTERS_PER_SLIP <= given.len().max(name.len()))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let text = "a = 1\nü = \"x\"\n";
        let place = TextPlace::find(text, 11..14);
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(&text[place.span], "\"x\"");
    }

    #[test]
    fn a_span_past_the_end_or_inside_a_character_does_no_harm() {
        for (start, end) in [(1, 1), (900, 901), (5, 2)] {
            let place = TextPlace::find("\u{fc}", start..end);
            assert!(place.span.end <= 2 && place.line == 1);
        }
    }

    #[test]
    fn a_misspelt_name_finds_the_right_one() {
        let names = ["connections", "expire", "retry"];
        assert_eq!(suggest("conections", &names), "did you mean `connections`?");
        assert_eq!(suggest("rerty", &names), "did you mean `retry`?");
        assert_eq!(suggest("q", &names), "there are: `connections`, `expire`, `retry`");
        assert_eq!(suggest("q", &[]), "there are none");
        assert!(suggest("q", &["name"; 1000]).ends_with("and 970 more"));
    }

    #[test]
    fn a_problem_without_a_place_names_its_file() {
        let finding = Finding { span: None, title: "no".into(), label: "".into(), help: None };
        let problem = finding.place("a.toml", "");
        assert_eq!(problem.to_string(), "a.toml: no");
        assert!(render(&[problem], "", false).contains("in a.toml"));
    }
}
