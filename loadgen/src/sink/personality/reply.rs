//! Refusals in words: a few known ones by name, or any that is a well-formed reply.

use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

/// A reply line without its end (RFC 5321 4.5.3.1.5).
const LINE_BYTES_MAX: usize = 510;
/// More lines than any server says.
const LINES_MAX: usize = 20;

/// Texts as large receivers word them, in our own words where theirs carry links; enhanced codes
/// by RFC 3463, RFC 7372 and the registry of IANA.
const KNOWN: &[(&str, &str)] = &[
    ("throttle", "421 4.7.0 too much at once, try later"),
    ("try-later", "451 4.3.0 try again later"),
    ("greylisted", "451 4.7.1 greylisted"),
    ("no-such-user", "550 5.1.1 no such user"),
    ("refused", "554 5.7.1 refused"),
    ("busy", "421 4.3.2 Service not available, closing transmission channel"),
    ("congested", "451 4.4.5 Server congested, please retry"),
    (
        "unusual-rate",
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail\n\
         4.7.28 originating from your IP address. To protect our users, mail from\n\
         4.7.28 your IP address has been temporarily rate limited.",
    ),
    (
        "user-rate",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that\n\
         4.2.1 prevents additional messages from being delivered. Please resend later.",
    ),
    (
        "deferred-complaints",
        "421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume or user complaints",
    ),
    ("server-busy", "451 4.7.500 Server busy. Please try again later from this address"),
    ("too-many-connections", "421 4.7.0 Too many concurrent SMTP connections from your address"),
    ("too-many-recipients", "452 4.5.3 Too many recipients"),
    ("full-for-now", "452 4.2.2 The recipient's inbox is out of storage space and inactive"),
    ("full", "552 5.2.2 Mailbox full"),
    ("disabled", "550 5.2.1 The mailbox is disabled, not accepting messages"),
    (
        "blocked",
        "550 5.7.1 Messages from your address were not sent: part of your network is on our block list",
    ),
    (
        "unauthenticated",
        "550 5.7.26 Your email has been blocked because the sender is unauthenticated.\n\
         5.7.26 The sender must authenticate with at least one of SPF or DKIM.",
    ),
    ("spam", "554 5.7.1 The message was identified as spam and was not accepted"),
    ("too-large", "552 5.3.4 Message size exceeds fixed maximum message size"),
];

/// A refusal as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Reply {
    code: u16,
    wire: Arc<[u8]>,
}

impl Reply {
    pub fn code(&self) -> u16 {
        self.code
    }

    /// All its lines, with their ends.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// A 421 ends the connection (RFC 5321 3.8).
    pub(in crate::sink) fn closes(&self) -> bool {
        self.code == 421
    }

    pub(in crate::sink) fn throttle() -> Self {
        Self::known("throttle")
    }

    pub(in crate::sink) fn try_later() -> Self {
        Self::known("try-later")
    }

    pub(in crate::sink) fn greylisted() -> Self {
        Self::known("greylisted")
    }

    pub(in crate::sink) fn no_such_user() -> Self {
        Self::known("no-such-user")
    }

    pub(in crate::sink) fn refused() -> Self {
        Self::known("refused")
    }

    fn known(name: &str) -> Self {
        name.parse().expect("every known text is a reply")
    }
}

impl FromStr for Reply {
    type Err = String;

    /// Reads a known name, or `451 4.3.2 text`; lines after the first may stand behind `\n`.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = KNOWN.iter().find(|(name, _)| *name == text);
        let text = known.map_or(text, |(_, text)| *text);
        let (code, rest) = text.split_once(' ').ok_or_else(|| unknown(text))?;
        let number: u16 = code.parse().map_err(|_| unknown(text))?;
        if code.len() != 3 || !(400..600).contains(&number) {
            return Err(format!("{code} refuses nothing: a refusal is 4xx or 5xx"));
        }
        check_enhanced(code, rest.split(' ').next().unwrap_or_default())?;
        let lines: Vec<&str> = rest.split('\n').map(str::trim).collect();
        if lines.len() > LINES_MAX {
            return Err(format!("a reply of {} lines: at most {LINES_MAX}", lines.len()));
        }
        let mut wire = String::new();
        for (at, line) in lines.iter().enumerate() {
            check_line(line)?;
            let mark = if at + 1 == lines.len() { ' ' } else { '-' };
            wire.push_str(&format!("{code}{mark}{line}\r\n"));
        }
        Ok(Self { code: number, wire: wire.into_bytes().into() })
    }
}

fn unknown(text: &str) -> String {
    let names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
    format!("{text:?} is no reply: `451 4.3.2 text`, or one of {}", names.join(", "))
}

/// Class and code must agree (RFC 3463 2): 4.x.x in a 4xx.
fn check_enhanced(code: &str, enhanced: &str) -> Result<(), String> {
    let parts: Vec<_> = enhanced.split('.').collect();
    let is_number = |part: &&str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if parts.len() != 3 || !parts.iter().all(is_number) || parts[0] != &code[..1] {
        return Err(format!(
            "{enhanced:?} is no enhanced code of a {code}: {}.3.2 would be",
            &code[..1]
        ));
    }
    Ok(())
}

fn check_line(line: &str) -> Result<(), String> {
    if line.len() + 4 > LINE_BYTES_MAX {
        return Err(format!("a line of {} bytes: at most {}", line.len(), LINE_BYTES_MAX - 4));
    }
    if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(format!("{line:?} holds what no reply may: printable ASCII only"));
    }
    Ok(())
}

impl TryFrom<String> for Reply {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_text_is_a_whole_reply() {
        for (name, _) in KNOWN {
            let reply: Reply = name.parse().unwrap();
            let lines: Vec<_> = reply.wire().split_inclusive(|byte| *byte == b'\n').collect();
            let code = reply.code().to_string();
            for (at, line) in lines.iter().enumerate() {
                let mark = if at + 1 == lines.len() { b' ' } else { b'-' };
                assert!(line.starts_with(code.as_bytes()) && line[3] == mark, "{name}");
                // RFC 2034 4: every line bears the code.
                assert_eq!(line[4], code.as_bytes()[0], "{name}");
                assert!(line.ends_with(b"\r\n"), "{name}");
            }
        }
    }

    #[test]
    fn a_text_that_no_server_may_say_is_refused() {
        let check = |text: &str, part: &str| {
            let said = text.parse::<Reply>().unwrap_err();
            assert!(said.contains(part), "{said}");
        };
        check("250 2.0.0 ok", "refuses nothing");
        check("451 5.3.0 no", "enhanced");
        check("451 soon", "enhanced");
        check("451 4.3.1000 no", "enhanced");
        check("greylist", "greylisted");
        check("451 4.3.0 a\rb", "printable");
        check(&format!("451 4.3.0 {}", "x".repeat(600)), "bytes");
        assert_eq!("550 5.1.1 no".parse::<Reply>().unwrap().wire(), b"550 5.1.1 no\r\n");
    }
}
