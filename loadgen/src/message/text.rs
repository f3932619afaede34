//! The texts that messages are made of: lines of filler of an exact size, or mail that was found.

use crc_fast::{CrcAlgorithm, Digest};

use super::{crc32c, finish};
use crate::seed::Seeded;

/// Text of a line without its end (RFC 5321 4.5.3.1.6).
const LINE_BYTES_MAX: usize = 998;
/// A filler line takes at least its end.
pub(super) const FILLER_BYTES_MIN: usize = 2;

/// A text in the forms that the wire wants.
#[derive(Clone, Default)]
pub(super) struct Framed {
    /// For DATA, without the final dot.
    pub(super) stuffed: Vec<u8>,
    /// For BDAT; empty unless chunks are wanted.
    pub(super) plain: Vec<u8>,
}

/// What stands below the token line of a message, but for what is the message's own.
#[derive(Clone)]
pub(super) enum Text {
    /// The body up to the line that makes it the message's own, and the checksum so far.
    Made { body: Framed, digest: Box<Digest> },
    /// Head, blank line and body.
    Found { whole: Framed, head_crc: u32, body_crc: u32 },
}

impl Framed {
    /// Takes a line with its end.
    fn push(&mut self, line: &[u8], chunking: bool) {
        if line.first() == Some(&b'.') {
            self.stuffed.push(b'.');
        }
        self.stuffed.extend_from_slice(line);
        if chunking {
            self.plain.extend_from_slice(line);
        }
    }
}

impl Text {
    /// Makes lines of exactly `bytes` bytes before stuffing: mostly prose, with the cases that
    /// relays get wrong (empty lines, lines of dots, dots at the start, the longest line).
    pub(super) fn make(seeded: &mut Seeded, bytes: usize, chunking: bool) -> Self {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut body = Framed::default();
        let mut line = Vec::with_capacity(LINE_BYTES_MAX + 2);
        let mut left = bytes;
        while left > 0 {
            line.clear();
            let length = line_length(seeded, left);
            fill_line(seeded, &mut line, length);
            line.extend_from_slice(b"\r\n");
            left -= line.len();
            digest.update(&line);
            body.push(&line, chunking);
        }
        Self::Made { body, digest: Box::new(digest) }
    }

    /// Takes a message as it was stored, with either kind of line end; says why it cannot be sent.
    pub(super) fn find(stored: &[u8], chunking: bool) -> Result<Self, &'static str> {
        let (mut head, mut body) = (Vec::new(), Vec::new());
        let mut whole = Framed::default();
        let mut blank_seen = false;
        for line in stored.split_inclusive(|byte| *byte == b'\n') {
            let mut line = without_end(line).to_vec();
            if memchr::memchr2(b'\r', 0, &line).is_some() {
                return Err("it has a bare CR or a NUL, which must not be sent");
            }
            if line.len() > LINE_BYTES_MAX {
                return Err("it has a line of more than 998 bytes");
            }
            let is_blank_line = line.is_empty() && !blank_seen;
            line.extend_from_slice(b"\r\n");
            whole.push(&line, chunking);
            if blank_seen {
                body.extend_from_slice(&line);
            } else if is_blank_line {
                blank_seen = true;
            } else {
                head.extend_from_slice(&line);
            }
        }
        if !blank_seen || head.is_empty() {
            return Err("it has no header block with a blank line behind it");
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&body);
        Ok(Self::Found { whole, head_crc: crc32c(&head), body_crc: finish(&digest) })
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A length without line end that leaves either nothing or room for another line.
fn line_length(seeded: &mut Seeded, left: usize) -> usize {
    let wish = match seeded.below(40) {
        0 => LINE_BYTES_MAX,
        1 => seeded.below(LINE_BYTES_MAX),
        2 | 3 => 0,
        4 => 1,
        5 => 2,
        _ => 40 + seeded.below(39),
    };
    match left - FILLER_BYTES_MIN {
        room if wish >= room && room <= LINE_BYTES_MAX => room,
        room if room - wish == 1 => wish.checked_sub(1).unwrap_or(1),
        _ => wish,
    }
}

fn fill_line(seeded: &mut Seeded, line: &mut Vec<u8>, length: usize) {
    const LETTERS: &[u8] = b"etaoinshrdlu etaoin shrdlu cmfwyp vbgkqjxz ETAOIN 0123456789 .,;=-";
    line.extend((0..length).map(|_| LETTERS[seeded.below(LETTERS.len())]));
    if length > 0 && (length <= 2 || seeded.below(8) == 0) {
        line[..length.min(2)].fill(b'.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_mail_gets_line_ends_and_stuffing_of_the_wire() {
        let Ok(Text::Found { whole, head_crc, body_crc }) = Text::find(b"A: b\n\n.x\r\n\ny", true)
        else {
            panic!("a plain message")
        };
        assert_eq!(whole.plain, b"A: b\r\n\r\n.x\r\n\r\ny\r\n");
        assert_eq!(whole.stuffed, b"A: b\r\n\r\n..x\r\n\r\ny\r\n");
        assert_eq!((head_crc, body_crc), (crc32c(b"A: b\r\n"), crc32c(b".x\r\n\r\ny\r\n")));
    }

    #[test]
    fn what_must_not_be_sent_is_refused() {
        let long = [b"A: b\n\n".as_slice(), &[b'x'; 999]].concat();
        for stored in [b"A: b\n".as_slice(), b"\nbody", b"A: b\n\nx\ry", b"A: b\n\n\0", &long] {
            assert!(Text::find(stored, false).is_err(), "{stored:?}");
        }
    }
}
