//! What the scheduler knows beside the mail, and should know after a restart: small values by key.
//!
//! The spool keeps them without a look inside. Times in a value are durable wall times.

/// Bytes of a key: the names of a site of twenty hosts, and of a source.
pub const KEY_BYTES_MAX: usize = 6 << 10;
/// Bytes of a value: all that rules may ask for at one path, with the names of hosts and rules.
pub const VALUE_BYTES_MAX: usize = 32 << 10;
/// Items of one spool, some 100 MiB of memory at worst: as many paths as one machine has a use for.
/// Beyond, what was learned longest ago makes room for what is learned now; the rest always finds some.
pub const ITEMS_MAX: usize = 200_000;

/// What an item is about. Keys of different topics have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// How much a site takes from a source, as far as it was found out.
    Learned,
    /// What an operator holds.
    Hold,
    /// What an operator does not want delivered any more.
    Cancel,
    /// What a rule did, and until when.
    RuleEffect,
    /// What a source has sent to a provider, day by day.
    WarmUp,
    /// Of a later version: carried along, not understood.
    Other(u16),
}

impl Topic {
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Learned => 1,
            Self::Hold => 2,
            Self::Cancel => 3,
            Self::RuleEffect => 4,
            Self::WarmUp => 5,
            Self::Other(code) => code,
        }
    }

    #[must_use]
    pub fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Learned,
            2 => Self::Hold,
            3 => Self::Cancel,
            4 => Self::RuleEffect,
            5 => Self::WarmUp,
            other => Self::Other(other),
        }
    }

    /// Whether mail fares differently without it: an order counts, an experience can be had again.
    #[must_use]
    pub fn is_order(self) -> bool {
        matches!(self, Self::Hold | Self::Cancel)
    }
}

/// One value under its key. An empty value says that the key is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateItem {
    pub topic: Topic,
    pub key: Box<[u8]>,
    pub value: Box<[u8]>,
}

impl StateItem {
    #[must_use]
    pub fn new(topic: Topic, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) -> Self {
        Self { topic, key: key.into(), value: value.into() }
    }

    /// That nothing is known any more under this key.
    #[must_use]
    pub fn forgotten(topic: Topic, key: impl Into<Box<[u8]>>) -> Self {
        Self::new(topic, key, [])
    }

    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether it is within its bounds: what is not, is not kept.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.key.len() <= KEY_BYTES_MAX && self.value.len() <= VALUE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_reads_back() {
        for code in 0..=u16::MAX {
            assert_eq!(Topic::from_code(code).code(), code);
        }
    }
}
