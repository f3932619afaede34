//! The replies of a server, found in what has been received.

/// A reply that is longer is taken for a fault of the server.
pub(super) const REPLY_BYTES_MAX: usize = 8 * 1024;

/// One whole reply.
pub(super) struct Reply<'a> {
    pub(super) code: u16,
    /// All its lines.
    pub(super) text: &'a [u8],
}

/// Why bytes are not a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAReply;

impl<'a> Reply<'a> {
    /// Takes the first reply of `bytes`, if it is whole.
    pub(super) fn take(bytes: &'a [u8]) -> Result<Option<Self>, NotAReply> {
        let mut line_at = 0;
        loop {
            let Some(length) = memchr::memchr(b'\n', &bytes[line_at..]) else {
                let too_long = bytes.len() > REPLY_BYTES_MAX;
                return if too_long { Err(NotAReply) } else { Ok(None) };
            };
            let line = &bytes[line_at..line_at + length];
            line_at += length + 1;
            let code = code(line).ok_or(NotAReply)?;
            if line.get(3) != Some(&b'-') {
                return Ok(Some(Self { code, text: &bytes[..line_at] }));
            }
        }
    }

    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Says whether a line of an EHLO reply names `keyword`, with `parameter` if one is wanted.
    pub(super) fn offers(&self, keyword: &[u8], parameter: Option<&[u8]>) -> bool {
        self.text.split(|byte| *byte == b'\n').any(|line| {
            let mut words = line.get(4..).unwrap_or(&[]).trim_ascii().split(|byte| *byte == b' ');
            words.next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
                && parameter
                    .is_none_or(|wanted| words.any(|word| word.eq_ignore_ascii_case(wanted)))
        })
    }

    /// The first line, for people.
    pub(super) fn first_line(&self) -> String {
        let line = self.text.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
    }
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(line.get(..3)?).ok()?;
    digits.parse().ok().filter(|code| (200..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: Result<Option<(u16, usize)>, NotAReply>) {
        let taken = Reply::take(bytes.as_bytes());
        assert_eq!(taken.map(|reply| reply.map(|r| (r.code, r.text.len()))), expected);
    }

    #[test]
    fn reply_is_taken_only_when_whole() {
        check("250 ok", Ok(None));
        check("250 ok\r\n354 go", Ok(Some((250, 8))));
        check("250-one\r\n250 two\r\n", Ok(Some((250, 18))));
        check("250-one\r\n", Ok(None));
        check("abc\r\n", Err(NotAReply));
    }

    #[test]
    fn offers_are_found_with_their_parameters() {
        let text = b"250-a.test\r\n250-SIZE 1000\r\n250-auth LOGIN plain\r\n250 CHUNKING\r\n";
        let reply = Reply::take(text).unwrap().unwrap();
        assert!(reply.offers(b"CHUNKING", None) && reply.offers(b"SIZE", None));
        assert!(reply.offers(b"AUTH", Some(b"PLAIN")) && !reply.offers(b"AUTH", Some(b"XOAUTH2")));
        assert!(!reply.offers(b"PIPELINING", None));
    }
}
