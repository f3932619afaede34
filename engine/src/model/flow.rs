//! Whose mail it is, and how urgent: what order within a site goes by.

use std::fmt;
use std::time::Duration;

/// Bytes of a tenant's or campaign's name.
pub const LABEL_MAX: usize = 128;

/// Who is served first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MailClass {
    /// Someone waits for it: a code, a receipt.
    Transactional,
    #[default]
    Bulk,
}

/// Tenant and campaign in printable ASCII of at most [`LABEL_MAX`] bytes; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    pub class: MailClass,
    pub tenant: Box<str>,
    pub campaign: Box<str>,
    /// Time from acceptance to giving up, if shorter than that of its domain. Whole seconds.
    pub expire: Option<Duration>,
}

impl MailClass {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Bulk => "bulk",
        }
    }

    /// The class of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Transactional, Self::Bulk].into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for MailClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
