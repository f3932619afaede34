//! The token line of a message: which it is, when it was meant to start, and what it must look like.

use super::crc32c;
use super::digits::{put_decimal, put_hex, take_decimal, take_hex};

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
    pub(super) const LINE_BYTES: usize = Self::LAYOUT.len();
    const RUN_AT: usize = 15;
    const SEQUENCE_AT: usize = 40;
    const RECIPIENTS_AT: usize = 67;
    const SENT_AT: usize = 76;
    const BODY_CRC_AT: usize = 106;
    const HEAD_CRC_AT: usize = 124;
    const CHECK_AT: usize = 139;

    pub(super) fn write(&self, line: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    use super::super::TOKEN_NAME;
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
}
