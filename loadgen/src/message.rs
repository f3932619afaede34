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
//! `check` the token itself.

use std::io;

use crc_fast::{CrcAlgorithm, Digest};

use crate::seed::{Seeded, choose, mix};

/// Recipients of one message: what RFC 5321 4.5.3.1.8 obliges every server to take.
pub const RECIPIENTS_MAX: usize = 100;
/// The start of the token line.
pub const TOKEN_NAME: &[u8] = b"X-Loadgen: ";
/// Text of a line without its end (RFC 5321 4.5.3.1.6).
const LINE_BYTES_MAX: usize = 998;
/// Memory for all filler variants of a run together.
const FILLER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// More variants would only cool the caches.
const VARIANTS_MAX: usize = 64;
/// A filler line takes at least its end.
const FILLER_BYTES_MIN: usize = 2;
const TAIL_BYTES: usize = "end seq= run=\r\n".len() + 2 * DECIMAL_BYTES;
const DECIMAL_BYTES: usize = 20;

/// Writes the messages of one run, stuffed for DATA, without allocating per message.
#[derive(Clone)]
pub struct Composer {
    run: u64,
    seed: u64,
    sender: String,
    variants: Vec<Filler>,
}

#[derive(Clone)]
struct Filler {
    stuffed: Vec<u8>,
    digest: Digest,
}

impl Composer {
    /// Prepares messages of `size` bytes, header block and body, before dot stuffing.
    pub fn new(run: u64, seed: u64, sender: &str, size: usize) -> io::Result<Self> {
        let mut composer = Self { run, seed, sender: sender.to_owned(), variants: Vec::new() };
        let fixed_bytes = composer.head_bytes() + TAIL_BYTES;
        let Some(filler_bytes) = size.checked_sub(fixed_bytes).filter(|n| *n >= FILLER_BYTES_MIN)
        else {
            let smallest = fixed_bytes + FILLER_BYTES_MIN;
            let text = format!("a message of {size} bytes is too small: {smallest} are needed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let count = (FILLER_BYTES_MAX / filler_bytes).clamp(1, VARIANTS_MAX);
        let mut seeded = Seeded::new(seed);
        composer.variants = (0..count).map(|_| Filler::new(&mut seeded, filler_bytes)).collect();
        Ok(composer)
    }

    /// Appends one message with its final dot.
    pub fn write(&self, out: &mut Vec<u8>, sequence: u64, recipients: usize, intended_ns: u64) {
        let filler = &self.variants[choose(mix(self.seed ^ mix(sequence)), self.variants.len())];
        let tail = TailLine::new(sequence, self.run);
        let mut digest = filler.digest;
        digest.update(tail.bytes());
        let token_at = out.len();
        out.resize(token_at + Token::LINE_BYTES, 0);
        let head_at = out.len();
        self.write_head(out, sequence);
        let token = Token {
            run: self.run,
            sequence,
            recipients,
            sent_ns: intended_ns,
            body_crc: finish(&digest),
            head_crc: crc32c(&out[head_at..]),
        };
        token.write(&mut out[token_at..head_at]);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&filler.stuffed);
        out.extend_from_slice(tail.bytes());
        out.extend_from_slice(b".\r\n");
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

impl Filler {
    /// Makes lines of exactly `bytes` bytes before stuffing: mostly prose, with the cases that
    /// relays get wrong (empty lines, lines of dots, dots at the start, the longest line).
    fn new(seeded: &mut Seeded, bytes: usize) -> Self {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut stuffed = Vec::with_capacity(bytes + bytes / 16);
        let mut line = Vec::with_capacity(LINE_BYTES_MAX + 2);
        let mut left = bytes;
        while left > 0 {
            line.clear();
            let length = line_length(seeded, left);
            fill_line(seeded, &mut line, length);
            line.extend_from_slice(b"\r\n");
            left -= line.len();
            digest.update(&line);
            if line[0] == b'.' {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(&line);
        }
        Self { stuffed, digest }
    }
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
    match left - 2 {
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

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub run: u64,
    pub sequence: u64,
    pub recipients: usize,
    /// The intended start, CLOCK_MONOTONIC.
    pub sent_ns: u64,
    pub body_crc: u32,
    pub head_crc: u32,
}

impl Token {
    const LAYOUT: &[u8] =
        b"X-Loadgen: run=00000000000000000000 seq=00000000000000000000 rcpts=000 \
        sent=00000000000000000000 body-crc=00000000 head-crc=00000000 check=00000000\r\n";
    const LINE_BYTES: usize = Self::LAYOUT.len();
    const RUN_AT: usize = 15;
    const SEQUENCE_AT: usize = 40;
    const RECIPIENTS_AT: usize = 67;
    const SENT_AT: usize = 76;
    const BODY_CRC_AT: usize = 106;
    const HEAD_CRC_AT: usize = 124;
    const CHECK_AT: usize = 139;

    fn write(&self, line: &mut [u8]) {
        line.copy_from_slice(Self::LAYOUT);
        put_decimal(&mut line[Self::RUN_AT..][..20], self.run);
        put_decimal(&mut line[Self::SEQUENCE_AT..][..20], self.sequence);
        put_decimal(&mut line[Self::RECIPIENTS_AT..][..3], self.recipients as u64);
        put_decimal(&mut line[Self::SENT_AT..][..20], self.sent_ns);
        put_hex(&mut line[Self::BODY_CRC_AT..][..8], self.body_crc);
        put_hex(&mut line[Self::HEAD_CRC_AT..][..8], self.head_crc);
        let check = crc32c(&line[..Self::CHECK_AT]);
        put_hex(&mut line[Self::CHECK_AT..][..8], check);
    }

    /// Reads the token line at the start of `text`; also says where the line ends.
    pub fn read(text: &[u8]) -> Result<(Self, usize), &'static str> {
        let line = text.get(..Self::LINE_BYTES).ok_or("its token line is cut")?;
        let check = take_hex(&line[Self::CHECK_AT..][..8]);
        if check != Some(crc32c(&line[..Self::CHECK_AT])) || !line.ends_with(b"\r\n") {
            return Err("its token line was changed");
        }
        let token = || {
            Some(Self {
                run: take_decimal(&line[Self::RUN_AT..][..20])?,
                sequence: take_decimal(&line[Self::SEQUENCE_AT..][..20])?,
                recipients: usize::try_from(take_decimal(&line[Self::RECIPIENTS_AT..][..3])?)
                    .ok()?,
                sent_ns: take_decimal(&line[Self::SENT_AT..][..20])?,
                body_crc: take_hex(&line[Self::BODY_CRC_AT..][..8])?,
                head_crc: take_hex(&line[Self::HEAD_CRC_AT..][..8])?,
            })
        };
        token().map(|token| (token, Self::LINE_BYTES)).ok_or("its token line does not read")
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

fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let at = out.len();
    out.resize(at + DECIMAL_BYTES, b'0');
    put_decimal(&mut out[at..], number);
}

fn push_short_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [b'0'; DECIMAL_BYTES];
    put_decimal(&mut digits, number);
    let first = digits.iter().position(|digit| *digit != b'0').unwrap_or(DECIMAL_BYTES - 1);
    out.extend_from_slice(&digits[first..]);
}

fn put_decimal(digits: &mut [u8], number: u64) {
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
    }
}

fn put_hex(digits: &mut [u8], number: u32) {
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(left & 0xf) as usize];
        left >>= 4;
    }
}

fn take_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(value)
    })
}

fn take_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |sum, digit| Some((sum << 4) | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_layout_matches_its_offsets() {
        let token = Token {
            run: 7,
            sequence: u64::MAX,
            recipients: 100,
            sent_ns: 123,
            body_crc: 0xdead_beef,
            head_crc: 1,
        };
        let mut line = [0; Token::LINE_BYTES];
        token.write(&mut line);
        assert_eq!(Token::read(&line), Ok((token, Token::LINE_BYTES)));
        for at in TOKEN_NAME.len()..Token::LINE_BYTES {
            line[at] ^= 1;
            assert!(Token::read(&line).is_err(), "a flip at {at} went unnoticed");
            line[at] ^= 1;
        }
    }

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
