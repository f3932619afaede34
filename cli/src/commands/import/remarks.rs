//! What an import says about the file: what it left out, and what is carried but means another thing.

use std::fmt;
use std::ops::Range;

#[derive(Debug)]
pub(super) struct Remarks {
    /// Where each line of the file begins.
    line_starts: Vec<usize>,
    list: Vec<Remark>,
}

#[derive(Debug)]
pub(super) struct Remark {
    line: usize,
    kind: Kind,
    /// The table and key, or what else is meant.
    what: String,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LeftOut,
    Note,
}

impl Remarks {
    pub(super) fn on(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { line_starts, list: Vec::new() }
    }

    /// Something has no counterpart, or cannot be read.
    pub(super) fn leave_out(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.add(Kind::LeftOut, at, what.into(), why.into());
    }

    /// Something is carried, and the reader should know how.
    pub(super) fn note(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.add(Kind::Note, at, what.into(), why.into());
    }

    pub(super) fn is_anything_left_out(&self) -> bool {
        self.list.iter().any(|remark| remark.kind == Kind::LeftOut)
    }

    pub(super) fn in_file_order(&self) -> impl Iterator<Item = &Remark> {
        let mut all: Vec<&Remark> = self.list.iter().collect();
        all.sort_by_key(|remark| remark.line);
        all.into_iter()
    }

    fn add(&mut self, kind: Kind, at: &Range<usize>, what: String, why: String) {
        let line = self.line_starts.partition_point(|start| *start <= at.start);
        self.list.push(Remark { line, kind, what, why });
    }
}

/// One line, whatever was in the file.
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::LeftOut => "left out",
            Kind::Note => "note",
        };
        let (what, why) = (self.what.escape_debug(), self.why.replace(char::is_control, " "));
        write!(f, "{}: {kind}: {what}: {why}", self.line)
    }
}
