//! A marked message: its text follows from the seed and the sequence, and its token proves it.
//!
//! ```text
//! X-Loadgen: run=<20 digits> seq=<20 digits> rcpts=<3 digits> sent=<20 digits>
//!            body-crc=<8 hex> head-crc=<8 hex> check=<8 hex>        (one line)
//! From: ... To: ... Subject: ... Date: ... Message-ID: ... MIME ...
//!
//! filler                    one of a few variants, chosen by seed and sequence
//! end seq=<20 digits> run=<20 digits>
//! ```
//! Every field has a fixed width, so each text of a run is exactly as long as the plan says.
//! `head-crc` covers the header lines below the token, `body-crc` all after the blank line,
//! `check` the token itself. Below the token of a corpus message stands that message as it was found.

mod digits;
mod text;
mod token;

use std::io;

use crc_fast::Digest;

use crate::seed::{Seeded, choose, mix};
use digits::{DECIMAL_BYTES, push_decimal, push_short_decimal, put_decimal, take_decimal};
use text::{FILLER_BYTES_MIN, Framed, Text};

pub use token::Token;

/// Recipients of one message: what RFC 5321 4.5.3.1.8 obliges every server to take.
pub const RECIPIENTS_MAX: usize = 100;
/// The start of the token line.
pub const TOKEN_NAME: &[u8] = b"X-Loadgen: ";
/// Memory for all filler variants of a run together.
const FILLER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// More variants of one size would only cool the caches.
const VARIANTS_MAX: usize = 64;
const TAIL_BYTES: usize = "end seq= run=\r\n".len() + 2 * DECIMAL_BYTES;

/// Writes the messages of one run, framed for DATA or BDAT, without allocating per message.
#[derive(Clone)]
pub struct Composer {
    run: u64,
    seed: u64,
    sender: String,
    chunking: bool,
    texts: Vec<Text>,
}

/// How the end of a text is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Dots,
    Chunk,
}

impl Composer {
    /// Prepares messages of `size` bytes, header block and body, before dot stuffing.
    pub fn new(run: u64, seed: u64, sender: &str, size: usize) -> io::Result<Self> {
        Self::without_texts(run, seed, sender).with_size(size)
    }

    /// One to be given its texts; none is written before.
    pub(crate) fn without_texts(run: u64, seed: u64, sender: &str) -> Self {
        Self { run, seed, sender: sender.to_owned(), chunking: false, texts: Vec::new() }
    }

    /// Prepares for [`Composer::write_chunk`] too; to be called before the texts are given.
    pub(crate) fn with_chunking(mut self, chunking: bool) -> Self {
        assert!(self.texts.is_empty(), "texts are framed when they are made");
        self.chunking = chunking;
        self
    }

    pub(crate) fn with_size(self, size: usize) -> io::Result<Self> {
        let filler_bytes = self.filler_bytes(size)?;
        let count = (FILLER_BYTES_MAX / filler_bytes).clamp(1, VARIANTS_MAX);
        self.with_sizes(&vec![size; count])
    }

    /// Prepares messages of these sizes, each as likely; as many as fit in the memory for filler.
    pub(crate) fn with_sizes(mut self, sizes: &[usize]) -> io::Result<Self> {
        let mut seeded = Seeded::new(self.seed);
        // Every n-th of an ordered list still stands for the whole of it.
        let nth = sizes.iter().sum::<usize>().div_ceil(FILLER_BYTES_MAX).clamp(1, sizes.len());
        for size in sizes.iter().skip(nth / 2).step_by(nth) {
            let filler_bytes = self.filler_bytes(*size)?;
            self.texts.push(Text::make(&mut seeded, filler_bytes, self.chunking));
        }
        Ok(self)
    }

    /// Adds a message as it was stored; says why one cannot be sent.
    pub(crate) fn add_found(&mut self, stored: &[u8]) -> Result<(), &'static str> {
        self.texts.push(Text::find(stored, self.chunking)?);
        Ok(())
    }

    fn filler_bytes(&self, size: usize) -> io::Result<usize> {
        let fixed_bytes = self.head_bytes() + TAIL_BYTES;
        size.checked_sub(fixed_bytes).filter(|n| *n >= FILLER_BYTES_MIN).ok_or_else(|| {
            let smallest = fixed_bytes + FILLER_BYTES_MIN;
            let text = format!("a message of {size} bytes is too small: {smallest} are needed");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// Appends one message with its final dot.
    pub fn write(&self, out: &mut Vec<u8>, sequence: u64, recipients: usize, intended_ns: u64) {
        self.write_text(out, sequence, recipients, intended_ns, Framing::Dots);
        out.extend_from_slice(b".\r\n");
    }

    /// Appends one message as the only chunk of its BDAT (RFC 3030 2).
    pub(crate) fn write_chunk(
        &self,
        out: &mut Vec<u8>,
        sequence: u64,
        recipients: usize,
        intended_ns: u64,
    ) {
        assert!(self.chunking, "chunks are prepared before they are written");
        out.extend_from_slice(b"BDAT ");
        let bytes = match self.text(sequence) {
            Text::Made { body, .. } => self.head_bytes() + body.plain.len() + TAIL_BYTES,
            Text::Found { whole, .. } => Token::LINE_BYTES + whole.plain.len(),
        };
        push_short_decimal(out, bytes as u64);
        out.extend_from_slice(b" LAST\r\n");
        self.write_text(out, sequence, recipients, intended_ns, Framing::Chunk);
    }

    fn text(&self, sequence: u64) -> &Text {
        &self.texts[choose(mix(self.seed ^ mix(sequence)), self.texts.len())]
    }

    fn write_text(
        &self,
        out: &mut Vec<u8>,
        sequence: u64,
        recipients: usize,
        intended_ns: u64,
        framing: Framing,
    ) {
        let token_at = out.len();
        out.resize(token_at + Token::LINE_BYTES, 0);
        let head_at = out.len();
        let (head_crc, body_crc) = match self.text(sequence) {
            Text::Made { body, digest } => {
                self.write_head(out, sequence);
                let head_crc = crc32c(&out[head_at..]);
                let tail = TailLine::new(sequence, self.run);
                let mut digest = **digest;
                digest.update(tail.bytes());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(body.framed(framing));
                out.extend_from_slice(tail.bytes());
                (head_crc, finish(&digest))
            }
            Text::Found { whole, head_crc, body_crc } => {
                out.extend_from_slice(whole.framed(framing));
                (*head_crc, *body_crc)
            }
        };
        let (run, sent_ns) = (self.run, intended_ns);
        let token = Token { run, sequence, recipients, sent_ns, body_crc, head_crc };
        token.write(&mut out[token_at..head_at]);
    }

    fn write_head(&self, out: &mut Vec<u8>, sequence: u64) {
        out.extend_from_slice(b"From: <");
        out.extend_from_slice(self.sender.as_bytes());
        out.extend_from_slice(b">\r\nTo: undisclosed-recipients:;\r\nSubject: Load, message ");
        push_decimal(out, sequence);
        out.extend_from_slice(b"\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <");
        push_decimal(out, sequence);
        out.push(b'.');
        push_decimal(out, self.run);
        out.extend_from_slice(b"@loadgen.test>\r\nMIME-Version: 1.0\r\n");
        out.extend_from_slice(b"Content-Type: text/plain; charset=us-ascii\r\n");
    }

    /// The token, the head and the blank line.
    fn head_bytes(&self) -> usize {
        let mut head = Vec::new();
        self.write_head(&mut head, 0);
        Token::LINE_BYTES + head.len() + 2
    }
}

impl Framed {
    fn framed(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Dots => &self.stuffed,
            Framing::Chunk => &self.plain,
        }
    }
}

/// The last line of a body, which makes every body its own.
struct TailLine([u8; TAIL_BYTES]);

impl TailLine {
    fn new(sequence: u64, run: u64) -> Self {
        let mut line = *b"end seq=00000000000000000000 run=00000000000000000000\r\n";
        put_decimal(&mut line[8..28], sequence);
        put_decimal(&mut line[33..53], run);
        Self(line)
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends `u<sequence>-<index>`, the local part of a recipient.
pub fn push_local_part(out: &mut Vec<u8>, sequence: u64, index: usize) {
    out.push(b'u');
    push_short_decimal(out, sequence);
    out.push(b'-');
    push_short_decimal(out, index as u64);
}

/// Reads `u<sequence>-<index>@domain` back.
pub fn read_recipient(address: &[u8]) -> Option<(u64, usize)> {
    let at = memchr::memrchr(b'@', address)?;
    let local = address[..at].strip_prefix(b"u")?;
    let dash = memchr::memchr(b'-', local)?;
    let index = usize::try_from(take_decimal(&local[dash + 1..])?).ok()?;
    (index < RECIPIENTS_MAX).then_some((take_decimal(&local[..dash])?, index))
}

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C that a digest has come to.
#[expect(clippy::cast_possible_truncation, reason = "a CRC-32 fills the lower half only")]
pub(crate) fn finish(digest: &Digest) -> u32 {
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_the_size_asked_for() {
        for size in (1_000..1_200).chain([4_096, 65_536]) {
            let composer = Composer::new(1, 2, "sender@source.test", size).unwrap();
            for sequence in 0..5 {
                let mut out = Vec::new();
                composer.write(&mut out, sequence, 1, 0);
                let stuffed = out.windows(3).filter(|w| w == b"\n..").count();
                assert_eq!(out.len() - 3 - stuffed, size);
            }
        }
    }

    #[test]
    fn a_chunk_says_its_length_and_holds_the_unstuffed_text() {
        let made = Composer::without_texts(1, 2, "a@b.test").with_chunking(true);
        let mut found = made.clone();
        found.add_found(b"Subject: x\n\n.dot\nend\n").unwrap();
        for composer in [made.with_sizes(&[1_000, 4_096]).unwrap(), found] {
            for sequence in 0..5 {
                let (mut chunk, mut text) = (Vec::new(), Vec::new());
                composer.write_chunk(&mut chunk, sequence, 1, 9);
                composer.write(&mut text, sequence, 1, 9);
                let line_end = memchr::memchr(b'\n', &chunk).unwrap() + 1;
                let plain = chunk.split_off(line_end);
                assert_eq!(chunk, format!("BDAT {} LAST\r\n", plain.len()).into_bytes());
                let lines = text.strip_suffix(b".\r\n").unwrap().split_inclusive(|b| *b == b'\n');
                let unstuffed: Vec<u8> =
                    lines.flat_map(|l| l.strip_prefix(b".").unwrap_or(l)).copied().collect();
                assert_eq!(plain, unstuffed);
            }
        }
    }

    #[test]
    fn recipients_read_back() {
        let mut local = Vec::new();
        push_local_part(&mut local, 120, 7);
        local.extend_from_slice(b"@d1.test");
        assert_eq!(local, b"u120-7@d1.test");
        assert_eq!(read_recipient(&local), Some((120, 7)));
        assert_eq!(read_recipient(b"postmaster@d1.test"), None);
        assert_eq!(read_recipient(b"u1-100@d1.test"), None);
    }
}
