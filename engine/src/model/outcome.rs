//! What became of a recipient: delivered, deferred or failed, with the reply that says why.

use std::fmt;

use crate::base::time::Wall;

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// A reply as it is kept: code, enhanced status code if there was one, text in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub enhanced: Option<Enhanced>,
    /// Printable ASCII, at most [`REPLY_TEXT_BYTES_MAX`], lines joined by a space.
    pub text: Box<str>,
}

/// What of a remote's text is kept for logs, DSNs and explain.
pub const REPLY_TEXT_BYTES_MAX: usize = 512;

impl Reply {
    /// A reply of our own making, for causes that never were on a wire.
    #[must_use]
    pub fn local(code: u16, enhanced: Enhanced, text: &str) -> Self {
        Self { code, enhanced: Some(enhanced), text: clean(text) }
    }

    /// A reply as a remote gave it; `text` may hold anything.
    #[must_use]
    pub fn remote(code: u16, enhanced: Option<Enhanced>, text: &str) -> Self {
        Self { code, enhanced, text: clean(text) }
    }

    /// The status for a DSN: the enhanced code, else one made from the reply code's class.
    #[must_use]
    pub fn status(&self) -> Enhanced {
        self.enhanced.unwrap_or(match self.code / 100 {
            2 => Enhanced(2, 0, 0),
            5 => Enhanced(5, 0, 0),
            _ => Enhanced(4, 0, 0),
        })
    }

    /// Whether a mail address may stand in its text: such a reply is for those it answers alone.
    #[must_use]
    pub fn names_an_address(&self) -> bool {
        self.text.contains('@')
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text)
    }
}

/// What happened to one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered {
        reply: Reply,
    },
    Deferred {
        reply: Reply,
        next: Wall,
    },
    /// Final: refused for good, expired, or undeliverable by routing.
    Failed {
        reply: Reply,
    },
    /// Final, and nobody is told: an operator took it back. The reply is our own.
    Cancelled {
        reply: Reply,
    },
}

impl Outcome {
    /// Whether nothing more will be tried.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Deferred { .. })
    }
}

/// The outcome of a run of recipients that shared it: `first..first + count` of the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOutcome {
    pub first: u16,
    pub count: u16,
    /// Attempts of the message's own made so far, this one included.
    pub attempts: u16,
    pub outcome: Outcome,
}

/// One line of printable ASCII: anything else becomes `?`, so that no control byte of a remote
/// reaches a log, a terminal or a DSN.
fn clean(text: &str) -> Box<str> {
    let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.trim_end().chars().take(REPLY_TEXT_BYTES_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_of_a_remote_are_not_kept() {
        let reply = Reply::remote(550, None, "no\r\n\u{1b}[31m\u{2028}such user \r\n");
        assert_eq!(&*reply.text, "no???[31m?such user");
        assert_eq!(reply.status(), Enhanced(5, 0, 0));
        assert_eq!(Reply::local(451, Enhanced(4, 3, 0), "later").to_string(), "451 4.3.0 later");
    }
}
