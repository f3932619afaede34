//! Replies of a remote server, read as they arrive, and the commands that ask for them.
//!
//! ```text
//! reply = *( code "-" [text] end ) code [ SP text ] end      code = 200..=599, the same on each line
//! end   = CR LF | LF
//! ```
//! A lone LF ends a line, as every common client has it: a reply is read by us alone, so a lax
//! server fools nobody but itself. A lone CR is text, and is not kept.

use crate::base::digits::{Digits, decimal};
use crate::model::outcome::{Enhanced, REPLY_TEXT_BYTES_MAX, Reply};

/// Bytes of one line with its end. RFC 5321 §4.5.3.1.5 allows 512; real servers write long URLs.
pub const REPLY_LINE_BYTES_MAX: usize = 4096;
/// Bytes of a whole reply: what a hostile server can make one connection hold.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Lines of a whole reply: no EHLO lists more than a few dozen capabilities.
pub const REPLY_LINES_MAX: usize = 512;
/// Memory that a reader keeps between replies; an ordinary EHLO fits.
const KEPT_BYTES: usize = 1024;

/// Why the bytes of a server are not a reply. None is mendable: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("a reply began with no code of 200 to 599")]
    BadCode,
    #[error("the lines of a reply bore different codes")]
    MixedCodes,
    #[error("a line of a reply was longer than {REPLY_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("a reply did not end within {REPLY_LINES_MAX} lines and {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

/// Takes a server's bytes, in any cut, and holds the reply read last.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// The texts of the whole lines, each ended by LF, then the bytes of the line under way.
    text: Vec<u8>,
    /// Where the line under way begins in `text`.
    line_at: usize,
    lines: usize,
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing of the next reply was read.
    #[default]
    Empty,
    /// Inside the first line.
    First,
    /// Behind a line that said more follow.
    More(u16),
    /// The reply is whole; the next byte begins another.
    Whole(u16),
}

impl ReplyReader {
    /// Takes bytes up to the end of one reply, and leaves the rest in `bytes`.
    /// `true`: a reply is whole, and stays readable until the next call.
    ///
    /// # Errors
    /// What the server sends is no reply; nothing after it can be trusted.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<bool, ReplyError> {
        while !bytes.is_empty() {
            self.begin();
            let (part, ended) = match memchr::memchr(b'\n', bytes) {
                Some(at) => (&bytes[..=at], true),
                None => (*bytes, false),
            };
            self.take(part)?;
            *bytes = &bytes[part.len()..];
            if ended && self.end_line()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether some bytes of a reply were read, but not all.
    #[must_use]
    pub fn is_mid_reply(&self) -> bool {
        matches!(self.state, State::First | State::More(_))
    }

    /// The code of the whole reply; 0 while there is none.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self.state {
            State::Whole(code) => code,
            _ => 0,
        }
    }

    /// The enhanced status code (RFC 2034) of the first line, if its class is that of the code.
    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        let first = self.lines().next()?;
        split_enhanced(first, self.code()).map(|(enhanced, _)| enhanced)
    }

    /// The texts of the lines, without code and end.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text[..self.line_at].split_inclusive(|byte| *byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        })
    }

    /// The reply as it is kept: lines joined by a space, the enhanced code taken out.
    #[must_use]
    pub fn to_reply(&self) -> Reply {
        let mut text = String::new();
        for line in self.lines() {
            if text.len() >= REPLY_TEXT_BYTES_MAX {
                break;
            }
            let rest = split_enhanced(line, self.code()).map_or(line, |(_, rest)| rest);
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&String::from_utf8_lossy(rest));
        }
        Reply::remote(self.code(), self.enhanced(), &text)
    }

    /// Forgets the reply before, and the memory that a large one took.
    fn begin(&mut self) {
        if let State::Whole(_) | State::Empty = self.state {
            self.text.clear();
            self.text.shrink_to(KEPT_BYTES);
            (self.line_at, self.lines, self.bytes) = (0, 0, 0);
            self.state = State::First;
        }
    }

    fn take(&mut self, part: &[u8]) -> Result<(), ReplyError> {
        self.bytes += part.len();
        if self.text.len() - self.line_at + part.len() > REPLY_LINE_BYTES_MAX {
            return Err(ReplyError::LineTooLong);
        }
        if self.bytes > REPLY_BYTES_MAX || self.lines >= REPLY_LINES_MAX {
            return Err(ReplyError::TooLong);
        }
        self.text.extend_from_slice(part);
        Ok(())
    }

    /// Reads the code of the line just ended and keeps its text; `true`: it was the last line.
    fn end_line(&mut self) -> Result<bool, ReplyError> {
        let (code, is_last, head) = split_code(&self.text[self.line_at..])?;
        if matches!(self.state, State::More(before) if before != code) {
            return Err(ReplyError::MixedCodes);
        }
        self.text.drain(self.line_at..self.line_at + head);
        self.line_at = self.text.len();
        self.lines += 1;
        self.state = if is_last { State::Whole(code) } else { State::More(code) };
        Ok(is_last)
    }
}

/// The code, whether the line is the last, and how many bytes come before its text.
fn split_code(line: &[u8]) -> Result<(u16, bool, usize), ReplyError> {
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return Err(ReplyError::BadCode);
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    let code = digit(*a) * 100 + digit(*b) * 10 + digit(*c);
    match rest {
        [b' ', ..] => Ok((code, true, 4)),
        [b'-', ..] => Ok((code, false, 4)),
        b"\n" | b"\r\n" => Ok((code, true, 3)),
        _ => Err(ReplyError::BadCode),
    }
}

/// The enhanced status code in front of a text, and what follows it.
fn split_enhanced(text: &[u8], code: u16) -> Option<(Enhanced, &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let mut numbers = text[..end].split(|byte| *byte == b'.');
    let class = number(numbers.next()?)?;
    let (subject, detail) = (number(numbers.next()?)?, number(numbers.next()?)?);
    let is_fitting = numbers.next().is_none() && class == code / 100 && matches!(class, 2 | 4 | 5);
    let class = u8::try_from(class).ok().filter(|_| is_fitting)?;
    Some((Enhanced(class, subject, detail), text[end..].trim_ascii_start()))
}

/// One to three digits.
fn number(digits: &[u8]) -> Option<u16> {
    let is_number = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

/// What a server said in its EHLO reply that it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub pipelining: bool,
    pub eight_bit_mime: bool,
    pub starttls: bool,
    pub chunking: bool,
    pub enhanced_status_codes: bool,
    pub smtp_utf8: bool,
    pub size: SizeLimit,
}

/// What a server said about message sizes (RFC 1870).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeLimit {
    /// SIZE is not offered and must not be declared.
    #[default]
    Unknown,
    /// SIZE is offered, without a limit or with one that is no number.
    Unlimited,
    /// No message above this many bytes.
    Bytes(u64),
}

impl Capabilities {
    /// Reads the EHLO reply that `reader` holds; the first line is the greeting. Its reader's
    /// bounds are the bounds of this.
    #[must_use]
    pub fn parse(reader: &ReplyReader) -> Self {
        let mut found = Self::default();
        for line in reader.lines().skip(1) {
            let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            if let Some(keyword) = words.next() {
                found.note(&keyword.to_ascii_uppercase(), words.next());
            }
        }
        found
    }

    fn note(&mut self, keyword: &[u8], parameter: Option<&[u8]>) {
        match keyword {
            b"PIPELINING" => self.pipelining = true,
            b"8BITMIME" => self.eight_bit_mime = true,
            b"STARTTLS" => self.starttls = true,
            b"CHUNKING" => self.chunking = true,
            b"ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            b"SMTPUTF8" => self.smtp_utf8 = true,
            b"SIZE" => self.size = size_limit(parameter),
            _ => {}
        }
    }
}

/// A zero means "no limit" (RFC 1870 §4); nonsense is read the same way, as the server will judge
/// the message itself.
fn size_limit(parameter: Option<&[u8]>) -> SizeLimit {
    let digits = parameter.and_then(|digits| std::str::from_utf8(digits).ok());
    match digits.and_then(|digits| digits.parse().ok()) {
        None | Some(0) => SizeLimit::Unlimited,
        Some(bytes) => SizeLimit::Bytes(bytes),
    }
}

/// A value with CR, LF, NUL or another control byte: the command was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value holds a control byte")]
pub struct UnsafeValue;

/// Parameters of MAIL; each is sent only where its extension was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    pub size: Option<u64>,
    pub eight_bit: bool,
}

/// Writes `EHLO name` or `HELO name`.
///
/// # Errors
/// `name` cannot be sent; nothing was written.
pub fn write_hello(out: &mut Vec<u8>, verb: &str, name: &str) -> Result<(), UnsafeValue> {
    write_line(out, &[verb, " ", name])
}

/// Writes `MAIL FROM:<sender>` with its parameters.
///
/// # Errors
/// `sender` cannot be sent; nothing was written.
pub fn write_mail(
    out: &mut Vec<u8>,
    sender: &str,
    parameters: MailParameters,
) -> Result<(), UnsafeValue> {
    let size = parameters.size.map(decimal);
    let body = if parameters.eight_bit { " BODY=8BITMIME" } else { "" };
    let label = if size.is_some() { " SIZE=" } else { "" };
    write_line(
        out,
        &["MAIL FROM:<", sender, ">", label, size.as_ref().map_or("", Digits::as_str), body],
    )
}

/// Writes `RCPT TO:<recipient>`.
///
/// # Errors
/// `recipient` cannot be sent; nothing was written.
pub fn write_rcpt(out: &mut Vec<u8>, recipient: &str) -> Result<(), UnsafeValue> {
    write_line(out, &["RCPT TO:<", recipient, ">"])
}

/// Writes `BDAT bytes` or `BDAT bytes LAST`.
pub fn write_bdat(out: &mut Vec<u8>, bytes: u64, is_last: bool) {
    out.extend_from_slice(b"BDAT ");
    out.extend_from_slice(decimal(bytes).as_bytes());
    out.extend_from_slice(if is_last { b" LAST\r\n" } else { b"\r\n" });
}

/// The one place where a value meets a line end: no control byte passes it.
fn write_line(out: &mut Vec<u8>, words: &[&str]) -> Result<(), UnsafeValue> {
    if words.iter().any(|word| word.bytes().any(|byte| byte.is_ascii_control())) {
        return Err(UnsafeValue);
    }
    words.iter().for_each(|word| out.extend_from_slice(word.as_bytes()));
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds all of `bytes` and returns the replies as text, or the error.
    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, ReplyError> {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                if reader.feed(&mut rest)? {
                    replies.push(reader.to_reply().to_string());
                }
            }
        }
        Ok(replies)
    }

    fn check(bytes: &[u8], replies: &[&str]) {
        let expected: Vec<String> = replies.iter().map(|reply| (*reply).to_owned()).collect();
        assert_eq!(read(&[bytes]), Ok(expected));
    }

    #[test]
    fn a_reply_is_code_status_and_joined_lines() {
        check(b"250 ok\r\n", &["250 ok"]);
        check(b"250\r\n", &["250 "]);
        check(b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", &["550 5.1.1 no such user"]);
        check(b"550 5.1.1\r\n354 go\r\n", &["550 5.1.1 ", "354 go"]);
        check(b"250-a\n250 b\n", &["250 a b"]);
        check(b"250 ok", &[]);
    }

    #[test]
    fn a_status_of_another_class_is_text() {
        check(b"250 5.1.1 odd\r\n", &["250 5.1.1 odd"]);
        assert_eq!(split_enhanced(b"5.1.1 odd", 250), None);
        assert_eq!(split_enhanced(b"5.1.1234 odd", 550), None);
        assert_eq!(split_enhanced(b"5.1.1.1 odd", 550), None);
        assert_eq!(split_enhanced(b"5.1 odd", 550), None);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let bad: [&[u8]; 12] = [
            b"25\r\n",
            b"2500 a\r\n",
            b"abc\r\n",
            b"999 a\r\n",
            b"000 a\r\n",
            b"199 a\r\n",
            b"\r\n",
            b"600 a\r\n",
            b"250x\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b" 250 a\r\n",
            b"250\t\r\n",
        ];
        for line in bad {
            assert_eq!(read(&[line]), Err(ReplyError::BadCode), "{line:?}");
        }
        assert_eq!(read(&[b"250-a\r\n251 b\r\n"]), Err(ReplyError::MixedCodes));
    }

    #[test]
    fn a_reply_without_end_is_cut_off() {
        let line = vec![b'2'; REPLY_LINE_BYTES_MAX + 1];
        assert_eq!(read(&[&line]), Err(ReplyError::LineTooLong));
        assert_eq!(read(&[&b"250-a\r\n".repeat(10_000)]), Err(ReplyError::TooLong));
        let long = [b"250-".as_slice(), &[b'a'; 4000], b"\r\n"].concat();
        assert_eq!(read(&[&long.repeat(20)]), Err(ReplyError::TooLong));
    }

    #[test]
    fn every_cut_reads_the_same() {
        let bytes = b"220-hi\r\n220 there\r\n250 2.0.0 ok\r\n421 4.7.0 bye\n";
        let whole = read(&[bytes]);
        assert_eq!(whole.as_ref().map(Vec::len), Ok(3));
        for cut in 0..=bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn capabilities_are_read_in_any_case_and_nonsense_is_no_limit() {
        let parse = |bytes: &[u8]| {
            let mut reader = ReplyReader::default();
            assert_eq!(reader.feed(&mut &*bytes), Ok(true));
            Capabilities::parse(&reader)
        };
        let some = parse(b"250-PIPELINING me\r\n250-8bitmime\r\n250-SIZE 1000\r\n250 STARTTLS\r\n");
        assert!(some.eight_bit_mime && some.starttls && !some.pipelining && !some.chunking);
        assert_eq!(some.size, SizeLimit::Bytes(1000));
        for nonsense in ["", " 0", " -1", " 99999999999999999999", " 1k"] {
            let reply = format!("250-x\r\n250-SIZE{nonsense}\r\n250 PIPELINING\r\n");
            assert_eq!(parse(reply.as_bytes()).size, SizeLimit::Unlimited, "{nonsense}");
        }
        assert_eq!(parse(b"250 x\r\n"), Capabilities::default());
    }

    #[test]
    fn no_value_brings_its_own_line_end() {
        let mut out = Vec::new();
        for evil in ["a\r\nRSET", "a\n", "a\0", "a\x7f", "a\x1b"] {
            assert_eq!(write_rcpt(&mut out, evil), Err(UnsafeValue));
            assert_eq!(write_mail(&mut out, evil, MailParameters::default()), Err(UnsafeValue));
            assert_eq!(write_hello(&mut out, "EHLO", evil), Err(UnsafeValue));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn commands_carry_what_was_offered() {
        let mut out = Vec::new();
        let all = MailParameters { size: Some(1234), eight_bit: true };
        assert_eq!(write_mail(&mut out, "a@b", all), Ok(()));
        assert_eq!(write_mail(&mut out, "", MailParameters::default()), Ok(()));
        assert_eq!(write_rcpt(&mut out, "c@d"), Ok(()));
        write_bdat(&mut out, u64::MAX, true);
        write_bdat(&mut out, 0, false);
        let expected = "MAIL FROM:<a@b> SIZE=1234 BODY=8BITMIME\r\nMAIL FROM:<>\r\n\
                        RCPT TO:<c@d>\r\nBDAT 18446744073709551615 LAST\r\nBDAT 0\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
