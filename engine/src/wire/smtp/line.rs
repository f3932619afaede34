//! Command lines out of a byte stream: ended by CRLF and by nothing else.

/// RFC 5321 §4.5.3.1.4 asks for 512 and extensions add to it; RFC 4954 asks for 12288 with AUTH,
/// which is not offered.
pub const LINE_BYTES_MAX: usize = 2048;

/// Collects lines that arrive in pieces; holds at most [`LINE_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub struct LineReader {
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    InLine,
    /// The line in `partial` was handed out.
    Lent,
    /// The line was refused; the rest of it is dropped up to its CRLF.
    Eating { after_cr: bool },
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// A whole line, without its CRLF; it may hold bare CRs and any other byte but LF.
    Line(&'a [u8]),
    /// No line: answer this now, what is left of it is dropped as it arrives.
    Refused(LineError),
    /// All bytes are taken, the line goes on.
    More,
}

/// Why a line is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// An LF without its CR. Whatever stands behind it, up to the next CRLF, is not a command.
    BareLf,
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
}

impl LineError {
    /// The reply, without its CRLF.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self {
            Self::BareLf => "500 5.5.2 Lines must end with CR LF",
            Self::TooLong => "500 5.5.2 Line too long",
        }
    }
}

impl LineReader {
    /// Takes from the front of `bytes` what belongs to the next line.
    pub fn take<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Taken<'a> {
        match self.place {
            Place::InLine => {}
            Place::Lent => self.begin(),
            Place::Eating { after_cr } => self.eat(bytes, after_cr),
        }
        if bytes.is_empty() { Taken::More } else { self.take_line(bytes) }
    }

    fn begin(&mut self) {
        self.partial.clear();
        self.place = Place::InLine;
    }

    fn take_line<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Taken<'a> {
        let Some(lf) = memchr::memchr(b'\n', bytes) else { return self.keep(bytes) };
        let (line, rest) = (&bytes[..lf], &bytes[lf + 1..]);
        *bytes = rest;
        let ended = line.last().or_else(|| self.partial.last()) == Some(&b'\r');
        if self.partial.len() + line.len() >= LINE_BYTES_MAX {
            return self.refuse(LineError::TooLong, ended);
        }
        if !ended {
            return self.refuse(LineError::BareLf, false);
        }
        if self.partial.is_empty() {
            return Taken::Line(&line[..line.len() - 1]);
        }
        self.partial.extend_from_slice(line);
        self.place = Place::Lent;
        Taken::Line(&self.partial[..self.partial.len() - 1])
    }

    /// Keeps the beginning of a line. The bound is the one of `take_line`, so that the reply does
    /// not depend on where the network cut the stream.
    fn keep(&mut self, bytes: &mut &[u8]) -> Taken<'static> {
        let all = std::mem::take(bytes);
        if self.partial.len() + all.len() >= LINE_BYTES_MAX {
            let refused = self.refuse(LineError::TooLong, false);
            self.place = Place::Eating { after_cr: all.last() == Some(&b'\r') };
            return refused;
        }
        self.partial.extend_from_slice(all);
        Taken::More
    }

    /// `ended`: the CRLF of the refused line is already behind us.
    fn refuse(&mut self, error: LineError, ended: bool) -> Taken<'static> {
        self.partial = Vec::new();
        self.place = if ended { Place::InLine } else { Place::Eating { after_cr: false } };
        Taken::Refused(error)
    }

    /// Drops bytes up to the next CRLF.
    fn eat(&mut self, bytes: &mut &[u8], mut after_cr: bool) {
        while let Some(lf) = memchr::memchr(b'\n', bytes) {
            let ended = if lf == 0 { after_cr } else { bytes[lf - 1] == b'\r' };
            *bytes = &bytes[lf + 1..];
            if ended {
                return self.begin();
            }
            after_cr = false;
        }
        if let Some(last) = bytes.last() {
            after_cr = *last == b'\r';
        }
        *bytes = &[];
        self.place = Place::Eating { after_cr };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of `stream` when it arrives in the given pieces.
    fn read(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, LineError>> {
        let mut reader = LineReader::default();
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match reader.take(&mut rest) {
                    Taken::Line(line) => out.push(Ok(line.to_vec())),
                    Taken::Refused(error) => out.push(Err(error)),
                    Taken::More => break,
                }
            }
            assert!(reader.partial.len() < LINE_BYTES_MAX);
        }
        out
    }

    fn check(stream: &[u8], expected: &[Result<&[u8], LineError>]) {
        let owned: Vec<_> = expected.iter().map(|line| line.map(<[u8]>::to_vec)).collect();
        for cut in 0..=stream.len() {
            assert_eq!(read(&[&stream[..cut], &stream[cut..]]), owned, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), owned);
    }

    #[test]
    fn only_crlf_ends_a_line() {
        check(b"NOOP\r\n\r\nQUIT\r\nRS", &[Ok(b"NOOP"), Ok(b""), Ok(b"QUIT")]);
        check(b"a\rb\r\r\nc\r\n", &[Ok(b"a\rb\r"), Ok(b"c")]);
        check(b"a\nRSET\n\nb\r\nc\r\n", &[Err(LineError::BareLf), Ok(b"c")]);
        check(b"\nx\ry\n\r\nc\r\n", &[Err(LineError::BareLf), Ok(b"c")]);
    }

    #[test]
    fn a_line_too_long_is_refused_once_and_eaten_whole() {
        let line = |n: usize, end: &[u8]| [&vec![b'x'; n][..], end, b"c\r\n"].concat();
        let fits = vec![b'x'; LINE_BYTES_MAX - 2];
        check(&line(LINE_BYTES_MAX - 2, b"\r\n"), &[Ok(&fits), Ok(b"c")]);
        for end in [&b"\r\n"[..], b"\nRSET\r\n", b"\r\r\n"] {
            for more in [0, 1, 700] {
                let stream = line(LINE_BYTES_MAX + more, end);
                check(&stream, &[Err(LineError::TooLong), Ok(b"c")]);
            }
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            stream in prop::collection::vec(prop::sample::select(&b"a\r\n"[..]), 0..60),
            cut in 0usize..60,
        ) {
            let cut = cut.min(stream.len());
            prop_assert_eq!(read(&[&stream]), read(&[&stream[..cut], &stream[cut..]]));
        }
    }
}
