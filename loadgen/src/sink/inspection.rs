//! Looks at one message as its text comes in: is it the one that the source wrote, or a report
//! that says which recipients could not be reached?

use crc_fast::{CrcAlgorithm, Digest};
use memchr::memmem::Finder;

use crate::message::{TOKEN_NAME, Token, crc32c, finish, read_recipient};

/// A header block that outgrows this is corrupted: relays add a few hundred bytes each.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a connection keeps of its head buffer between messages.
const HEAD_BYTES_KEPT: usize = 4 * 1024;

/// Kept of a message without a mark, to look for the recipients of a report in it.
const REPORT_BYTES_MAX: usize = 64 * 1024;
const REPORTED: &[u8] = b"final-recipient:";

/// The inspection of one message; reused for the next of the same connection.
pub(super) struct Inspection {
    head: Vec<u8>,
    /// The body, cut to its bound, of a message without a mark.
    report: Vec<u8>,
    part: Part,
    body: Digest,
    bytes: u64,
    ends: Finder<'static>,
    marks: Finder<'static>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Body,
    /// The body of a message without a mark.
    Report,
    Oversized,
}

/// What an inspection finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Intact(Token),
    /// It bears the mark, and is not what was written.
    Corrupted(&'static str),
    Unmarked,
}

impl Inspection {
    pub(super) fn new() -> Self {
        Self {
            head: Vec::new(),
            report: Vec::new(),
            part: Part::Head,
            body: Digest::new(CrcAlgorithm::Crc32Iscsi),
            bytes: 0,
            ends: Finder::new(b"\r\n\r\n"),
            marks: Finder::new(TOKEN_NAME),
        }
    }

    pub(super) fn begin(&mut self) {
        self.head.clear();
        self.head.shrink_to(HEAD_BYTES_KEPT);
        self.report = Vec::new();
        self.part = Part::Head;
        self.body.reset();
        self.bytes = 0;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn take(&mut self, text: &[u8]) {
        self.bytes += text.len() as u64;
        match self.part {
            Part::Head => self.take_head(text),
            Part::Body | Part::Report => self.take_body(text),
            Part::Oversized => {}
        }
    }

    /// The recipients that a report (RFC 3464) names, by sequence and index.
    pub(super) fn reported(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.report.split(|byte| *byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(REPORTED.len())?;
            if !name.eq_ignore_ascii_case(REPORTED) {
                return None;
            }
            let address = value.rsplit(|byte| *byte == b';').next()?.trim_ascii();
            read_recipient(address)
        })
    }

    fn take_report(&mut self, text: &[u8]) {
        let room = REPORT_BYTES_MAX - self.report.len();
        self.report.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// The blank line may be cut anywhere, so the search begins a little before the new text.
    fn take_head(&mut self, text: &[u8]) {
        let known = self.head.len();
        let room = HEAD_BYTES_MAX - known;
        self.head.extend_from_slice(&text[..text.len().min(room)]);
        let from = known.saturating_sub(3);
        if let Some(found) = self.ends.find(&self.head[from..]) {
            let head_bytes = from + found + 2;
            self.head.truncate(head_bytes);
            let is_marked = self.marks.find(&self.head).is_some();
            self.part = if is_marked { Part::Body } else { Part::Report };
            self.take_body(&text[head_bytes + 2 - known..]);
        } else if self.head.len() == HEAD_BYTES_MAX {
            self.part = Part::Oversized;
        }
    }

    fn take_body(&mut self, text: &[u8]) {
        if self.part == Part::Body {
            self.body.update(text);
        } else {
            self.take_report(text);
        }
    }

    pub(super) fn finish(&self) -> Finding {
        let Some(at) = self.mark() else {
            return Finding::Unmarked;
        };
        match self.part {
            Part::Head => return Finding::Corrupted("it ends inside the header block"),
            Part::Oversized => return Finding::Corrupted("its header block is too large"),
            Part::Body | Part::Report => {}
        }
        let text = &self.head[at..];
        match Token::read(text) {
            Err(reason) => Finding::Corrupted(reason),
            Ok((token, end)) if crc32c(&text[end..]) != token.head_crc => {
                Finding::Corrupted("its header lines were changed")
            }
            Ok((token, _)) if finish(&self.body) != token.body_crc => {
                Finding::Corrupted("its body was changed")
            }
            Ok((token, _)) => Finding::Intact(token),
        }
    }

    /// Where the token line begins: the mark at the start of a line.
    fn mark(&self) -> Option<usize> {
        self.marks.find_iter(&self.head).find(|at| *at == 0 || self.head[at - 1] == b'\n')
    }
}
