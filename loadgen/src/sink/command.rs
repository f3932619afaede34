//! The commands of a client, found in a line.

/// A line that is longer is no command (RFC 5321 4.5.3.1.4, with room for extensions).
pub(super) const LINE_BYTES_MAX: usize = 2048;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo,
    Helo,
    Mail,
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
            b"MAIL" if address(rest).is_some() => Self::Mail,
            b"RCPT" => address(rest).map_or(Self::Unknown, Self::Rcpt),
            b"DATA" if rest.trim_ascii().is_empty() => Self::Data,
            b"BDAT" => Self::read_chunk(rest).unwrap_or(Self::Unknown),
            b"RSET" => Self::Rset,
            b"NOOP" => Self::Noop,
            b"QUIT" => Self::Quit,
            _ => Self::Unknown,
        }
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
        check("Mail FROM:<> SIZE=10", Command::Mail);
        check("MAIL a@b.test", Command::Unknown);
        check("RCPT TO:<u1-0@d.test>", Command::Rcpt(b"u1-0@d.test"));
        check("BDAT 12 last", Command::Bdat { bytes: 12, last: true });
        check("BDAT -1", Command::Unknown);
        check("QUI", Command::Unknown);
    }
}
