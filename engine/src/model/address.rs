//! Mail addresses as the engine keeps them: bytes as given, domain in lower case.

use std::fmt;

/// The longest path RFC 5321 §4.5.3.1.3 allows, without the angle brackets.
pub const ADDRESS_BYTES_MAX: usize = 254;

/// A mailbox, or the null sender. The local part is kept byte for byte (RFC 5321 §2.4); the
/// domain is in lower case. Its grammar is checked where it enters (`wire::smtp::command`).
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Box<str>);

impl Address {
    /// The null sender `<>`.
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }

    /// Takes a checked `local@domain`.
    #[must_use]
    pub fn from_checked(text: &str) -> Self {
        match text.rfind('@') {
            Some(at) => {
                let mut owned = String::with_capacity(text.len());
                owned.push_str(&text[..=at]);
                owned.push_str(&text[at + 1..].to_ascii_lowercase());
                Self(owned.into_boxed_str())
            }
            None => Self(text.into()),
        }
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last `@`; empty for the null sender and for a bare `postmaster`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rfind('@').map_or("", |at| &self.0[at + 1..])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_domain_is_lowered() {
        let address = Address::from_checked("\"A@b\"@Example.ORG");
        assert_eq!(address.as_str(), "\"A@b\"@example.org");
        assert_eq!(address.domain(), "example.org");
        assert_eq!(Address::null().domain(), "");
    }
}
