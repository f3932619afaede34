//! The commands of a client, found in a line.

/// A line that is longer is no command (RFC 5321 4.5.3.1.4, with room for extensions).
pub(super) const LINE_BYTES_MAX: usize = 2048;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo,
    Helo,
    Starttls,
    /// With the address between its angle brackets, and the size it announces (RFC 1870).
    Mail {
        sender: &'a [u8],
        size: Option<u64>,
    },
    /// With the address between its angle brackets.
    Rcpt(&'a [u8]),
    Data,
    Bdat {
        bytes: u64,
        last: bool,
    },
    Rset,
    Noop,
    Quit,
    Unknown,
}

impl<'a> Command<'a> {
    /// Reads a line without its end.
    pub(super) fn read(line: &'a [u8]) -> Self {
        let mut verb = [0; 4];
        verb.copy_from_slice(line.get(..4).unwrap_or(b"none"));
        verb.make_ascii_uppercase();
        let rest = line.get(4..).unwrap_or(&[]);
        match &verb {
            b"EHLO" => Self::Ehlo,
            b"HELO" => Self::Helo,
            b"STAR" if rest.trim_ascii_end().eq_ignore_ascii_case(b"TTLS") => Self::Starttls,
            b"MAIL" => Self::read_mail(rest).unwrap_or(Self::Unknown),
            b"RCPT" => address(rest).map_or(Self::Unknown, Self::Rcpt),
            b"DATA" if rest.trim_ascii().is_empty() => Self::Data,
            b"BDAT" => Self::read_chunk(rest).unwrap_or(Self::Unknown),
            b"RSET" => Self::Rset,
            b"NOOP" => Self::Noop,
            b"QUIT" => Self::Quit,
            _ => Self::Unknown,
        }
    }

    fn read_mail(rest: &'a [u8]) -> Option<Self> {
        let sender = address(rest)?;
        let close = memchr::memchr(b'>', rest)?;
        let words = rest[close + 1..].split(|byte| *byte == b' ');
        let size = words.filter_map(|word| word.split_at_checked(5)).find_map(|(name, value)| {
            let value = name.eq_ignore_ascii_case(b"SIZE=").then_some(value)?;
            std::str::from_utf8(value).ok()?.parse().ok()
        });
        Some(Self::Mail { sender, size })
    }

    fn read_chunk(rest: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
        let bytes = words.next()?.parse().ok()?;
        match words.next() {
            None => Some(Self::Bdat { bytes, last: false }),
            Some(word) if word.eq_ignore_ascii_case("LAST") => {
                Some(Self::Bdat { bytes, last: true })
            }
            Some(_) => None,
        }
    }
}

fn address(rest: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'<', rest)? + 1;
    let close = open + memchr::memchr(b'>', &rest[open..])?;
    Some(&rest[open..close])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        let check = |line: &str, command| assert_eq!(Command::read(line.as_bytes()), command);
        check("ehlo a.test", Command::Ehlo);
        check("Mail FROM:<> BODY=8BITMIME size=10", Command::Mail { sender: b"", size: Some(10) });
        check("MAIL FROM:<a@b.test>", Command::Mail { sender: b"a@b.test", size: None });
        check("starttls", Command::Starttls);
        check("STARTTLS now", Command::Unknown);
        check("MAIL a@b.test", Command::Unknown);
        check("RCPT TO:<u1-0@d.test>", Command::Rcpt(b"u1-0@d.test"));
        check("BDAT 12 last", Command::Bdat { bytes: 12, last: true });
        check("BDAT -1", Command::Unknown);
        check("QUI", Command::Unknown);
    }
}
