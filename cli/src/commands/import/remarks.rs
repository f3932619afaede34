//! What an import says about the files: what it left out, and what means another thing here.

use std::fmt;
use std::ops::Range;

#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// The names of the files read so far.
    files: Vec<String>,
    /// Where each line of the last file begins.
    line_starts: Vec<usize>,
    list: Vec<Remark>,
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    file: usize,
    line: usize,
}

#[derive(Debug)]
pub(super) struct Remark {
    place: Place,
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
    /// What follows is about this file.
    pub(super) fn begin(&mut self, file: &str, text: &str) {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        self.line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        self.files.push(file.to_owned());
    }

    pub(super) fn place(&self, at: &Range<usize>) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= at.start);
        Place { file: self.files.len().saturating_sub(1), line }
    }

    /// Something has no counterpart, or cannot be read.
    pub(super) fn leave_out(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.leave_out_at(self.place(at), what, why);
    }

    /// The same, found out only later.
    pub(super) fn leave_out_at(
        &mut self,
        place: Place,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        let (what, why) = (what.into(), why.into());
        self.list.push(Remark { place, kind: Kind::LeftOut, what, why });
    }

    /// Something is carried, and the reader should know how.
    pub(super) fn note(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        let (place, what, why) = (self.place(at), what.into(), why.into());
        self.list.push(Remark { place, kind: Kind::Note, what, why });
    }

    pub(super) fn is_anything_left_out(&self) -> bool {
        self.list.iter().any(|remark| remark.kind == Kind::LeftOut)
    }

    /// As lines to be printed.
    pub(super) fn in_file_order(&self) -> impl Iterator<Item = String> {
        let mut all: Vec<&Remark> = self.list.iter().collect();
        all.sort_by_key(|remark| remark.place);
        all.into_iter().map(|remark| {
            let file = self.files.get(remark.place.file).map_or("", |name| name);
            format!("{file}:{}: {remark}", remark.place.line)
        })
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
        write!(f, "{kind}: {what}: {why}")
    }
}
