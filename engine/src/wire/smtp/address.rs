//! The address grammar of RFC 5321 §4.1.2, taken strictly: what passes here is safe to store, to
//! log and to send on.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::address::ADDRESS_BYTES_MAX;

/// RFC 5321 §4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2.
const DOMAIN_BYTES_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.3: brackets, source route and all.
const PATH_BYTES_MAX: usize = ADDRESS_BYTES_MAX + 2;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// A reverse-path or forward-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `<>`: nobody wants to hear of failures.
    Null,
    /// `<postmaster>` without a domain, in any case.
    Postmaster,
    Mailbox(Mailbox<'a>),
}

/// A checked `local@domain`, as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    text: &'a str,
    at: usize,
}

/// Why bytes are not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Against the grammar.
    Syntax,
    /// Bytes above 127, which need SMTPUTF8; told apart because it has a reply of its own.
    EightBit,
    /// A local part, label, domain or path longer than the RFC allows.
    TooLong,
}

impl<'a> Path<'a> {
    /// Reads the path at the start of `text`: the path, and what stands behind its `>`.
    ///
    /// A source route is checked and dropped, as RFC 5321 appendix C asks.
    ///
    /// # Errors
    /// Whatever [`AddressError`] names; nothing of `text` may then be used.
    pub fn parse(text: &'a str) -> Result<(Self, &'a str), AddressError> {
        if !text.is_ascii() {
            return Err(AddressError::EightBit);
        }
        let inside = text.strip_prefix('<').ok_or(AddressError::Syntax)?;
        if let Some(rest) = inside.strip_prefix('>') {
            return Ok((Self::Null, rest));
        }
        if let Some(rest) = bare_postmaster(inside) {
            return Ok((Self::Postmaster, rest));
        }
        let (mailbox, behind) = Mailbox::at_start(after_route(inside)?)?;
        let rest = behind.strip_prefix('>').ok_or(AddressError::Syntax)?;
        if text.len() - rest.len() > PATH_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        Ok((Self::Mailbox(mailbox), rest))
    }
}

impl<'a> Mailbox<'a> {
    /// Takes `text` as one address, without brackets.
    ///
    /// # Errors
    /// Whatever [`AddressError`] names.
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        if !text.is_ascii() {
            return Err(AddressError::EightBit);
        }
        match Self::at_start(text)? {
            (_, rest) if !rest.is_empty() => Err(AddressError::Syntax),
            _ if text.len() > ADDRESS_BYTES_MAX => Err(AddressError::TooLong),
            (mailbox, _) => Ok(mailbox),
        }
    }

    /// The mailbox `text` begins with, and what follows it.
    fn at_start(text: &'a str) -> Result<(Self, &'a str), AddressError> {
        let at = local_part(text)?;
        let behind = text[at..].strip_prefix('@').ok_or(AddressError::Syntax)?;
        let domain_bytes = domain_or_literal(behind)?;
        let end = at + 1 + domain_bytes;
        Ok((Self { text: &text[..end], at }, &text[end..]))
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.text
    }

    #[must_use]
    pub fn local(self) -> &'a str {
        &self.text[..self.at]
    }

    #[must_use]
    pub fn domain(self) -> &'a str {
        &self.text[self.at + 1..]
    }
}

/// What follows `postmaster>`, if that is what stands here.
fn bare_postmaster(inside: &str) -> Option<&str> {
    const NAME: &str = "postmaster";
    let (name, rest) = inside.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then(|| rest.strip_prefix('>'))?
}

/// Skips `@one,@two:`.
fn after_route(text: &str) -> Result<&str, AddressError> {
    let mut rest = text;
    if !rest.starts_with('@') {
        return Ok(rest);
    }
    loop {
        rest = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
        rest = &rest[domain(rest)?..];
        match rest.as_bytes().first() {
            Some(b':') => return Ok(&rest[1..]),
            Some(b',') => rest = &rest[1..],
            _ => return Err(AddressError::Syntax),
        }
    }
}

/// Length of the local part at the start of `text`.
fn local_part(text: &str) -> Result<usize, AddressError> {
    let bytes = if text.starts_with('"') { quoted_string(text)? } else { dot_string(text)? };
    if bytes > LOCAL_BYTES_MAX { Err(AddressError::TooLong) } else { Ok(bytes) }
}

/// `"` *(qtext / `\` any) `"`.
fn quoted_string(text: &str) -> Result<usize, AddressError> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        at += match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'"'), _) => return Ok(at + 1),
            (Some(b'\\'), Some(b' '..=b'~')) => 2,
            (Some(b' '..=b'[' | b']'..=b'~'), _) => 1,
            _ => return Err(AddressError::Syntax),
        };
    }
}

/// Atoms with single dots between them.
fn dot_string(text: &str) -> Result<usize, AddressError> {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|b| *b != b'.' && !is_atext(*b)).unwrap_or(bytes.len());
    let parts = &text[..end];
    if parts.split('.').any(str::is_empty) {
        return Err(AddressError::Syntax);
    }
    Ok(end)
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn domain_or_literal(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('[') { literal(text) } else { domain(text) }
}

/// Labels of letters, digits and inner hyphens, with single dots between them.
fn domain(text: &str) -> Result<usize, AddressError> {
    let is_domain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    let end = text.bytes().position(|b| !is_domain(&b)).unwrap_or(text.len());
    let name = &text[..end];
    if end > DOMAIN_BYTES_MAX || name.split('.').any(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(AddressError::TooLong);
    }
    let bad = |label: &str| label.is_empty() || label.starts_with('-') || label.ends_with('-');
    if name.split('.').any(bad) {
        return Err(AddressError::Syntax);
    }
    Ok(end)
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]`; no other kind has ever been registered.
fn literal(text: &str) -> Result<usize, AddressError> {
    let end = text.find(']').ok_or(AddressError::Syntax)?;
    let inside = &text[1..end];
    let known = match inside.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        _ => inside.parse::<Ipv4Addr>().is_ok(),
    };
    if known { Ok(end + 1) } else { Err(AddressError::Syntax) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<&str, AddressError>) {
        let found = Path::parse(path).map(|(path, rest)| {
            assert_eq!(rest, "", "all of the path is read");
            match path {
                Path::Null => "",
                Path::Postmaster => "postmaster",
                Path::Mailbox(mailbox) => mailbox.as_str(),
            }
        });
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn good_paths_pass_as_given() {
        check("<>", Ok(""));
        check("<PostMaster>", Ok("postmaster"));
        check("<a@b>", Ok("a@b"));
        check("<Joe.Q.Public@Example.ORG>", Ok("Joe.Q.Public@Example.ORG"));
        check("<o'brien+tag=x/y@a-b.example>", Ok("o'brien+tag=x/y@a-b.example"));
        check("<\"a b\\\"@>\"@c.example>", Ok("\"a b\\\"@>\"@c.example"));
        check("<\"\"@c.example>", Ok("\"\"@c.example"));
        check("<a@[192.0.2.1]>", Ok("a@[192.0.2.1]"));
        check("<a@[IPv6:2001:db8::1]>", Ok("a@[IPv6:2001:db8::1]"));
        check("<@one.example,@two.example:a@b.example>", Ok("a@b.example"));
        check("<a%b@c.example>", Ok("a%b@c.example"));
        check("<one!two!a@c.example>", Ok("one!two!a@c.example"));
    }

    #[test]
    fn bad_paths_are_refused() {
        let forms = [
            "",
            "<",
            "a@b",
            "<a@b",
            "a@b>",
            "<a>",
            "<@b>",
            "<a@>",
            "<a@@b>",
            "<a@b@c>",
            "< a@b>",
            "<a@b >",
            "<a b@c>",
            "<a..b@c>",
            "<.a@c>",
            "<a.@c>",
            "<a@b..c>",
            "<a@.b>",
            "<a@b.>",
            "<a@-b>",
            "<a@b->",
            "<a@b_c>",
            "<\"a@b>",
            "<a\"b@c>",
            "<\"a\"b@c>",
            "<\"a\u{7}\"@c>",
            "<\"a\\",
            "<a@[1.2.3]>",
            "<a@[1.2.3.256]>",
            "<a@[01.2.3.4]>",
            "<a@[1.2.3.4>",
            "<a@[IPv6:1]>",
            "<a@[IPv6:]>",
            "<a@[x:y]>",
            "<a@1.2.3.4]>",
            "<a(c)@b>",
            "<a@b(c)>",
            "<a;b@c>",
            "<a:b@c>",
            "<:include:/etc/passwd>",
            "<@a:@b:c@d>",
            "<@a c@d>",
            "<@a,c@d>",
            "<@a:>",
            "<a,b@c>",
            "<a\\@b@c>",
            "<a\u{0}b@c>",
            "<postmaster@>",
            "<postmasters>",
        ];
        for form in forms {
            let expected = Err(AddressError::Syntax);
            assert_eq!(Path::parse(form).map(|found| found.0), expected, "{form:?}");
        }
    }

    #[test]
    fn eight_bit_text_is_told_apart() {
        for form in ["<\u{fc}@b>", "<a\u{fc}@b>", "<a@b\u{fc}>", "<\"\u{fc}\"@b>", "<a@\u{fc}>"] {
            assert_eq!(Path::parse(form), Err(AddressError::EightBit), "{form}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_standard() {
        let local = |n| format!("<{}@b.example>", "a".repeat(n));
        assert!(Path::parse(&local(64)).is_ok());
        assert_eq!(Path::parse(&local(65)), Err(AddressError::TooLong));
        let label = |n| format!("<a@{}.example>", "b".repeat(n));
        assert!(Path::parse(&label(63)).is_ok());
        assert_eq!(Path::parse(&label(64)), Err(AddressError::TooLong));
        let path = |n: usize| format!("<a@{}{}>", "b.".repeat((n - 6) / 2), "c".repeat(2 + n % 2));
        assert_eq!(path(256).len(), 256);
        assert!(Path::parse(&path(256)).is_ok());
        assert_eq!(Path::parse(&path(257)), Err(AddressError::TooLong));
        assert_eq!(Path::parse(&path(600)), Err(AddressError::TooLong));
        let bare = |n| path(n)[1..n - 1].to_owned();
        assert!(Mailbox::parse(&bare(256)).is_ok());
        assert_eq!(Mailbox::parse(&bare(257)), Err(AddressError::TooLong));
    }

    #[test]
    fn a_mailbox_knows_its_parts() {
        let mailbox = Mailbox::parse("\"a@b\"@C.example").unwrap();
        assert_eq!((mailbox.local(), mailbox.domain()), ("\"a@b\"", "C.example"));
        assert_eq!(Mailbox::parse("a@b>"), Err(AddressError::Syntax));
    }
}
