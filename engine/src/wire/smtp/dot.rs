//! Transparency (RFC 5321 §4.5.2): taking stuffing dots out of DATA, and putting them in.

use std::ops::Range;

use super::text::{TextFacts, TextScan};

/// Un-stuffs the text of one DATA, in pieces of any size. Its end is CRLF "." CRLF and nothing
/// else: what other servers may take for an end is text here, and flawed text at that.
#[derive(Clone, Debug, Default)]
pub struct Unstuffer {
    scan: TextScan,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Text,
    /// Behind a dot that began a line: the end, or stuffing.
    AfterDot,
    /// Behind such a dot and a CR.
    AfterDotCr,
}

/// How far one piece went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// All of it is text.
    More,
    /// The text ended behind this many bytes; what follows is commands.
    Ended { taken: usize },
}

impl Unstuffer {
    /// Takes the next piece and appends its text to `out`.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Fed {
        let mut at = 0;
        while at < piece.len() {
            match self.place {
                Place::Text => at += self.text(&piece[at..], out),
                Place::AfterDot => at += self.after_dot(piece[at], out),
                Place::AfterDotCr if piece[at] == b'\n' => {
                    self.place = Place::Text;
                    return Fed::Ended { taken: at + 1 };
                }
                Place::AfterDotCr => self.bare_cr(out),
            }
        }
        Fed::More
    }

    /// What is known of the text so far; all there is to know once it has ended.
    #[must_use]
    pub fn facts(&self) -> TextFacts {
        self.scan.facts()
    }

    fn text(&mut self, piece: &[u8], out: &mut Vec<u8>) -> usize {
        let taken = self.scan.until_dot(piece);
        out.extend_from_slice(&piece[..taken]);
        if taken == piece.len() {
            return taken;
        }
        self.place = Place::AfterDot;
        taken + 1
    }

    fn after_dot(&mut self, byte: u8, out: &mut Vec<u8>) -> usize {
        if byte == b'\r' {
            self.place = Place::AfterDotCr;
            return 1;
        }
        self.place = Place::Text;
        if byte == b'.' {
            self.scan.take_dot();
            out.push(b'.');
            return 1;
        }
        self.scan.enter_line();
        0
    }

    /// The CR behind the dot was text, and is followed by something else than LF: a flaw that the
    /// scan finds when it sees both.
    fn bare_cr(&mut self, out: &mut Vec<u8>) {
        self.place = Place::Text;
        self.scan.enter_line();
        self.scan.until_dot(b"\r");
        out.push(b'\r');
    }
}

/// Splits a text at each dot that begins a line: send the ranges in order with one "." between
/// each two. `at_line_start` is true for the first piece of a text, and for a later one if the
/// piece before it ended with LF. Not needed for a text without leading dots.
pub fn stuffed_slices(text: &[u8], at_line_start: bool) -> impl Iterator<Item = Range<usize>> {
    let first = (at_line_start && text.first() == Some(&b'.')).then_some(0);
    let later = memchr::memmem::find_iter(text, b"\n.").map(|at| at + 1);
    let mut from = 0;
    let cuts = first.into_iter().chain(later).chain(std::iter::once(text.len()));
    cuts.map(move |cut| std::mem::replace(&mut from, cut)..cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::text::Flaw;
    use super::*;

    /// The text, its facts, and what was left behind its end.
    fn unstuff(pieces: &[&[u8]]) -> (Vec<u8>, TextFacts, Option<Vec<u8>>) {
        let (mut unstuffer, mut text) = (Unstuffer::default(), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            if let Fed::Ended { taken } = unstuffer.feed(piece, &mut text) {
                let rest = [&piece[taken..], &pieces[index + 1..].concat()].concat();
                return (text, unstuffer.facts(), Some(rest));
            }
        }
        (text, unstuffer.facts(), None)
    }

    fn stuff(text: &[u8]) -> Vec<u8> {
        let slices: Vec<&[u8]> = stuffed_slices(text, true).map(|range| &text[range]).collect();
        [&slices.join(&b'.')[..], b".\r\n"].concat()
    }

    fn check(wire: &[u8], text: &[u8], flaw: Option<Flaw>, rest: Option<&[u8]>) {
        for cut in 0..=wire.len() {
            let (found, facts, left) = unstuff(&[&wire[..cut], &wire[cut..]]);
            assert_eq!((found.as_slice(), facts.flaw), (text, flaw), "{wire:?} cut at {cut}");
            assert_eq!(left.as_deref(), rest, "{wire:?} cut at {cut}");
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_text() {
        check(b".\r\nQUIT", b"", None, Some(b"QUIT"));
        check(b"a\r\n.\r\n", b"a\r\n", None, Some(b""));
        check(b"a.\r\nb\r\n.\r\n", b"a.\r\nb\r\n", None, Some(b""));
        check(b"..\r\n.a\r\n...\r\n.\r\n", b".\r\na\r\n..\r\n", None, Some(b""));
        check(b"a\r\n.", b"a\r\n", None, None);
        check(b"a\r\n.\r", b"a\r\n", None, None);
        check(b"a\n.\n", b"a\n.\n", Some(Flaw::BareLf), None);
        check(b"a\n.\r\n", b"a\n.\r\n", Some(Flaw::BareLf), None);
        check(b"a\r\n.\n", b"a\r\n\n", Some(Flaw::BareLf), None);
        check(b"a\r\n.\rb", b"a\r\n\rb", Some(Flaw::BareCr), None);
        check(b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", Some(Flaw::BareCr), Some(b""));
        check(b"a\r\r\n.\r\n", b"a\r\r\n", Some(Flaw::BareCr), Some(b""));
        check(b"a\r\n\0.\r\n", b"a\r\n\0.\r\n", Some(Flaw::Nul), None);
        check(b"\n.\r\n.\r\n", b"\n.\r\n", Some(Flaw::BareLf), Some(b""));
    }

    #[test]
    fn leading_dots_are_noticed_for_the_way_out() {
        assert!(unstuff(&[b"a\r\n..b\r\n.\r\n"]).1.leading_dots);
        assert!(!unstuff(&[b"a\r\n.b\r\n.\r\n"]).1.leading_dots);
    }

    #[test]
    fn pieces_of_a_text_are_stuffed_like_the_whole() {
        let text = b".a\r\n..b\r\nc\r\n.\r\n";
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            let pieces = [(head, true), (tail, cut == 0 || head.ends_with(b"\n"))];
            let mut wire = Vec::new();
            for (piece, at_line_start) in pieces {
                let slices: Vec<_> =
                    stuffed_slices(piece, at_line_start).map(|range| &piece[range]).collect();
                wire.extend(slices.join(&b'.'));
            }
            assert_eq!(wire, b"..a\r\n...b\r\nc\r\n..\r\n", "cut at {cut}");
        }
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec("[.a\u{fc}]{0,4}", 0..12)
            .prop_map(|lines| lines.iter().flat_map(|l| [l.as_bytes(), b"\r\n"].concat()).collect())
    }

    proptest! {
        #[test]
        fn stuffing_is_undone_at_every_cut(text in lines(), behind in "[.\r\nA]{0,6}") {
            let wire = [&stuff(&text), behind.as_bytes()].concat();
            for cut in 0..=wire.len() {
                let (found, facts, rest) = unstuff(&[&wire[..cut], &wire[cut..]]);
                prop_assert_eq!(&found, &text);
                prop_assert_eq!(rest.as_deref(), Some(behind.as_bytes()));
                prop_assert_eq!(facts.flaw, None);
                let dots = text.split(|b| *b == b'\n').any(|line| line.starts_with(b"."));
                prop_assert_eq!(facts.leading_dots, dots);
            }
        }

        /// The end is where a search of the whole stream finds it, whatever it is made of.
        #[test]
        fn the_end_is_the_first_true_one(
            wire in prop::collection::vec(prop::sample::select(&b".\r\n\0a"[..]), 0..40),
            cut in 0usize..40,
        ) {
            let whole = [b"\r\n", &wire[..]].concat();
            let end = memchr::memmem::find(&whole, b"\r\n.\r\n").map(|at| at + 3);
            let cut = cut.min(wire.len());
            let (_, facts, rest) = unstuff(&[&wire[..cut], &wire[cut..]]);
            prop_assert_eq!(rest.as_deref(), end.map(|at| &wire[at..]));
            let text = &wire[..end.unwrap_or(wire.len())];
            let bare = text.iter().enumerate().any(|(at, byte)| match byte {
                b'\n' => at == 0 || text[at - 1] != b'\r',
                b'\r' => text.get(at + 1).is_some_and(|next| *next != b'\n'),
                byte => *byte == 0,
            });
            prop_assert_eq!(facts.flaw.is_some(), bare);
        }
    }
}
