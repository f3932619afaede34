//! Message text as it arrives: is it lines ended by CRLF, free of NUL, each of bearable length?

/// RFC 5321 §4.5.3.1.6 asks for 1000 bytes, and much mail that people want has more (HTML in one
/// line). Beyond 64 KiB no mail program is at work, and whoever reads by line must hold a line.
pub const TEXT_LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 64;

/// Looks at message text in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct TextScan {
    place: Place,
    /// Bytes of the present line so far.
    line_bytes: usize,
    facts: TextFacts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    LineStart,
    InLine,
    AfterCr,
}

/// What is known of a text so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// The first thing that makes it no mail; nothing of such a text may be passed on.
    pub flaw: Option<Flaw>,
    /// Some line begins with a dot, so sending it by DATA takes stuffing.
    pub leading_dots: bool,
}

/// What makes a text no mail (RFC 5321 §2.3.8, §4.5.2; RFC 5322 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    BareCr,
    BareLf,
    Nul,
    /// A line longer than [`TEXT_LINE_BYTES_MAX`].
    LongLine,
}

impl Flaw {
    /// The reply, without its CRLF.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self {
            Self::BareCr | Self::BareLf => "550 5.6.11 Bare CR or LF in the message is not allowed",
            Self::Nul => "550 5.6.0 NUL in the message is not allowed",
            Self::LongLine => "554 5.6.0 A line of the message is too long",
        }
    }
}

impl TextScan {
    /// Looks at all of `text`.
    pub fn feed(&mut self, mut text: &[u8]) {
        loop {
            text = &text[self.until_dot(text)..];
            if text.is_empty() {
                return;
            }
            self.take_dot();
            text = &text[1..];
        }
    }

    /// Looks at `text` up to the first dot that begins a line, or all of it; how much that was.
    pub fn until_dot(&mut self, text: &[u8]) -> usize {
        let mut at = 0;
        while at < text.len() {
            at += match self.place {
                Place::LineStart if text[at] == b'.' => break,
                Place::LineStart => self.enter_line(),
                Place::AfterCr => self.after_cr(text[at]),
                Place::InLine => self.in_line(&text[at..]),
            };
        }
        at
    }

    /// Counts a dot at the start of a line as text.
    pub fn take_dot(&mut self) {
        debug_assert_eq!(self.place, Place::LineStart);
        self.facts.leading_dots = true;
        self.place = Place::InLine;
        self.line_bytes = 1;
    }

    /// Leaves the start of a line without a byte of text: a stuffing dot stood there.
    pub fn enter_line(&mut self) -> usize {
        self.place = Place::InLine;
        0
    }

    /// Whether the text so far ends with CRLF, or is empty.
    #[must_use]
    pub fn is_at_line_start(&self) -> bool {
        self.place == Place::LineStart
    }

    /// The verdict on a text that ends here.
    #[must_use]
    pub fn finish(mut self) -> TextFacts {
        if self.place == Place::AfterCr {
            self.note(Flaw::BareCr);
        }
        self.facts
    }

    #[must_use]
    pub fn facts(&self) -> TextFacts {
        self.facts
    }

    fn after_cr(&mut self, byte: u8) -> usize {
        if byte != b'\n' {
            self.note(Flaw::BareCr);
            self.place = Place::InLine;
            return 0;
        }
        self.place = Place::LineStart;
        self.line_bytes = 0;
        1
    }

    /// On behind what is plain, or to the next byte that matters.
    fn in_line(&mut self, text: &[u8]) -> usize {
        let plain = self.plain(text);
        if plain > 0 { plain } else { self.end_of_line(text) }
    }

    /// Passes over a byte and whole blocks in which there is nothing to note; how many bytes that was. No
    /// line is too long in as many bytes as the present one may still have.
    fn plain(&mut self, text: &[u8]) -> usize {
        let bearable = TEXT_LINE_BYTES_MAX.saturating_sub(self.line_bytes).min(text.len());
        let text = &text[..bearable];
        let Some((first, behind)) = text.split_first() else { return 0 };
        if matches!(first, 0 | b'\n') {
            return 0;
        }
        let (blocks, before) = (behind.as_chunks().0, text.as_chunks().0);
        let count = blocks.iter().zip(before).take_while(|(block, before)| is_plain(block, before));
        let plain = match count.count() {
            0 => return 0,
            count => &text[..=count * BLOCK_BYTES],
        };
        self.line_bytes = match memchr::memrchr(b'\n', plain) {
            Some(end) => plain.len() - end - 1,
            None => self.line_bytes + plain.len(),
        };
        self.place = match plain.last() {
            Some(b'\n') => Place::LineStart,
            Some(b'\r') => Place::AfterCr,
            _ => Place::InLine,
        };
        plain.len()
    }

    fn end_of_line(&mut self, text: &[u8]) -> usize {
        let found = memchr::memchr3(b'\r', b'\n', 0, text);
        let taken = found.map_or(text.len(), |at| at + 1);
        self.line_bytes += taken;
        if self.line_bytes > TEXT_LINE_BYTES_MAX {
            self.note(Flaw::LongLine);
        }
        match found.map(|at| text[at]) {
            Some(b'\r') => self.place = Place::AfterCr,
            Some(b'\n') => self.note(Flaw::BareLf),
            Some(_) => self.note(Flaw::Nul),
            None => {}
        }
        taken
    }

    fn note(&mut self, flaw: Flaw) {
        self.facts.flaw.get_or_insert(flaw);
    }
}

/// Whether in a block there is no NUL, no CR and LF but as pairs, and no dot at the start of a line; `before`
/// is what stands a byte earlier. One answer for all bytes, so that they are compared many at a time.
fn is_plain(block: &[u8; BLOCK_BYTES], before: &[u8; BLOCK_BYTES]) -> bool {
    let flaws = block.iter().zip(before).fold(0, |flaws, (byte, before)| {
        let unpaired = u8::from(*byte == b'\n') ^ u8::from(*before == b'\r');
        let dot = u8::from(*byte == b'.') & u8::from(*before == b'\n');
        flaws | unpaired | dot | u8::from(*byte == 0)
    });
    flaws == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8], flaw: Option<Flaw>, leading_dots: bool, ends: bool) {
        for cut in 0..=text.len() {
            let mut scan = TextScan::default();
            scan.feed(&text[..cut]);
            scan.feed(&text[cut..]);
            assert_eq!(scan.is_at_line_start(), ends, "{text:?}");
            let facts = scan.finish();
            assert_eq!((facts.flaw, facts.leading_dots), (flaw, leading_dots), "{text:?}");
        }
    }

    #[test]
    fn flaws_are_found_at_any_cut() {
        check(b"", None, false, true);
        check(b"a\r\nb\r\n\r\n", None, false, true);
        check(b"a\r\n.b", None, true, false);
        check(b".", None, true, false);
        check(b"a.\r\n", None, false, true);
        check(b"a\nb\r\n", Some(Flaw::BareLf), false, true);
        check(b"a\n.\r\n", Some(Flaw::BareLf), false, true);
        check(b"a\rb\r\n", Some(Flaw::BareCr), false, true);
        check(b"a\r\r\n", Some(Flaw::BareCr), false, true);
        check(b"\n", Some(Flaw::BareLf), false, false);
        check(b"a\r", Some(Flaw::BareCr), false, false);
        check(b"a\0\n", Some(Flaw::Nul), false, false);
    }

    /// The rules by the byte, without blocks.
    fn facts_by_byte(text: &[u8]) -> TextFacts {
        let mut flaws = Vec::new();
        let mut line_bytes = 0;
        for (at, byte) in text.iter().enumerate() {
            let (before, behind) = (at.checked_sub(1).map(|at| text[at]), text.get(at + 1));
            line_bytes += 1;
            match byte {
                b'\n' if before == Some(b'\r') => line_bytes = 0,
                b'\n' => flaws.push((at, Flaw::BareLf)),
                // The next byte tells.
                b'\r' if behind != Some(&b'\n') => flaws.push((at + 1, Flaw::BareCr)),
                0 => flaws.push((at, Flaw::Nul)),
                _ => {}
            }
        }
        assert!(line_bytes <= TEXT_LINE_BYTES_MAX, "no long lines here");
        let flaw = flaws.into_iter().min_by_key(|(at, _)| *at).map(|(_, flaw)| flaw);
        let dots = memchr::memmem::find(text, b"\r\n.").is_some();
        TextFacts { flaw, leading_dots: dots || text.starts_with(b".") }
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            40 => "[a-z .]{0,90}\r\n".prop_map(String::into_bytes),
            2 => "[a-z]{0,200}".prop_map(String::into_bytes),
            1 => prop::sample::select(vec![&b"\r"[..], b"\n", b"\0", b".", b"\r\n", b"\r\n."])
                .prop_map(<[u8]>::to_vec),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn blocks_find_what_bytes_find(text in any_text(), cut: prop::sample::Index) {
            let cut = cut.index(text.len() + 1);
            let mut scan = TextScan::default();
            scan.feed(&text[..cut]);
            scan.feed(&text[cut..]);
            let is_at_line_start = text.is_empty() || text.ends_with(b"\r\n");
            prop_assert_eq!(scan.is_at_line_start(), is_at_line_start);
            prop_assert_eq!(scan.finish(), facts_by_byte(&text));
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
        let text = |n| [&vec![b'x'; n][..], b"\r\n"].concat();
        let flaw = |text: &[u8]| {
            let mut scan = TextScan::default();
            text.chunks(1000).for_each(|piece| scan.feed(piece));
            scan.finish().flaw
        };
        // The CR counts.
        assert_eq!(flaw(&text(TEXT_LINE_BYTES_MAX - 1)), None);
        assert_eq!(flaw(&text(TEXT_LINE_BYTES_MAX)), Some(Flaw::LongLine));
    }
}
