//! The bytes of what outlives the process: keys and values of state items.
//!
//! ```text
//! text     length u16 | UTF-8
//! site     kind u8: 0 next hop, 1 MX set, 2 unroutable | text
//! scope    kind u8: 0 site, 1 source, 2 tenant, 3 campaign of a tenant, 255 all mail | text ...
//! Learned     key site | text source                    value control/learned.rs
//! Hold        key scope                                 value 1 | as_of u64 | until u64 (0: none) | text by
//! Cancel      key scope                                 value 1 | first u64 | shards u16 | newest u64 ...
//! RuleEffect  key 0 | scope                             value as of a Hold; by the rule's name
//!             key 1 | site | text source                value 1 | as_of u64 | count u8 | effect ...
//! effect   until u64 | text rule | 0
//!                                | 1 connections u32
//!                                | 2 units u64, nanoseconds u64, burst u64
//!                                | 3 text host
//! ```
//! Little-endian; times are wall times, `as_of` the one at which the item was written: a clock that was
//! set back since prolongs nothing beyond what was left then. What cannot be read is as if it were not there.

use std::time::Duration;

use super::rules::Restraint;
use crate::base::time::Wall;
use crate::model::hold::Scope;
use crate::model::message::MessageId;
use crate::model::route::SiteKey;
use crate::model::settings::Rate;

pub(super) const VERSION: u8 = 1;
const ALL_MAIL: u8 = 255;
/// In front of the key of a rule's work: what it is on.
pub(super) const ON_SCOPE: u8 = 0;
pub(super) const ON_PATH: u8 = 1;

/// Appends values.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn done(self) -> Box<[u8]> {
        self.0.into()
    }

    pub(super) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn number16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn number32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn number64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A longer text than any name is cut, and then is nobody's name.
    pub(super) fn text(self, text: &str) -> Self {
        let bytes = text.as_bytes().get(..usize::from(u16::MAX)).unwrap_or(text.as_bytes());
        let mut with = self.number16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        with.0.extend_from_slice(bytes);
        with
    }

    fn site(self, key: &SiteKey) -> Self {
        let kind = match key {
            SiteKey::NextHop(_) => 0,
            SiteKey::MxSet(_) => 1,
            SiteKey::Unroutable(_) => 2,
        };
        self.byte(kind).text(key.name())
    }

    pub(super) fn path(self, site: &SiteKey, source: &str) -> Self {
        self.site(site).text(source)
    }

    pub(super) fn scope(self, scope: Option<&Scope>) -> Self {
        match scope {
            Some(Scope::Site(name)) => self.byte(0).text(name),
            Some(Scope::Source(name)) => self.byte(1).text(name),
            Some(Scope::Tenant(name)) => self.byte(2).text(name),
            Some(Scope::Campaign { tenant, campaign }) => self.byte(3).text(tenant).text(campaign),
            None => self.byte(ALL_MAIL),
        }
    }

    pub(super) fn restraint(self, restraint: &Restraint) -> Self {
        match restraint {
            Restraint::Stop => self.byte(0),
            Restraint::Connections(limit) => self.byte(1).number32(*limit),
            Restraint::MessageRate(Rate { units, per, burst }) => {
                let nanos = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
                self.byte(2).number64(*units).number64(nanos).number64(*burst)
            }
            Restraint::Host(host) => self.byte(3).text(host),
        }
    }
}

/// Takes values off the front; bytes may be anything.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Whether all was read.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// The version that this engine writes.
    pub(super) fn version(&mut self) -> Option<()> {
        (self.byte()? == VERSION).then_some(())
    }

    pub(super) fn number16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_le_bytes)
    }

    pub(super) fn number32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    pub(super) fn number64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().copied().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let bytes = self.number16()?;
        std::str::from_utf8(self.take(bytes.into())?).ok()
    }

    fn site(&mut self) -> Option<SiteKey> {
        let kind = match self.byte()? {
            0 => SiteKey::NextHop,
            1 => SiteKey::MxSet,
            2 => SiteKey::Unroutable,
            _ => return None,
        };
        self.text().map(|name| kind(name.into()))
    }

    /// A site and the name of a source, and nothing behind them.
    pub(super) fn path(&mut self) -> Option<(SiteKey, &'a str)> {
        let path = (self.site()?, self.text()?);
        self.end()?;
        Some(path)
    }

    /// A scope, and nothing behind it; `Some(None)`: all mail.
    #[expect(clippy::option_option, reason = "no scope is a scope of its own")]
    pub(super) fn scope(&mut self) -> Option<Option<Scope>> {
        let scope = match self.byte()? {
            0 => Some(Scope::Site(self.text()?.into())),
            1 => Some(Scope::Source(self.text()?.into())),
            2 => Some(Scope::Tenant(self.text()?.into())),
            3 => {
                let (tenant, campaign) = (self.text()?.into(), self.text()?.into());
                Some(Scope::Campaign { tenant, campaign })
            }
            ALL_MAIL => None,
            _ => return None,
        };
        self.end()?;
        Some(scope)
    }

    pub(super) fn restraint(&mut self) -> Option<Restraint> {
        Some(match self.byte()? {
            0 => Restraint::Stop,
            1 => Restraint::Connections(self.number32()?),
            2 => {
                let (units, nanos, burst) = (self.number64()?, self.number64()?, self.number64()?);
                let rate = Rate { units, per: Duration::from_nanos(nanos), burst };
                // What settings would not be taken for would stop, or overrun, the arithmetic.
                (units > 0 && nanos > 0 && burst > 0).then_some(())?;
                Restraint::MessageRate(rate)
            }
            3 => Restraint::Host(self.text()?.into()),
            _ => return None,
        })
    }
}

/// What an order to cancel reaches: by name, so that a step of a clock changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// All messages that are named after an older segment: those of earlier runs.
    pub first: u64,
    /// By shard of the run that it was given in: the newest message it had accepted.
    pub newest: Box<[u64]>,
}

/// Shards that one engine may have, by far.
const SHARDS_MAX: usize = 4096;

impl Reached {
    #[must_use]
    pub fn has(&self, id: MessageId) -> bool {
        let Some(since) = id.segment().0.checked_sub(self.first) else { return true };
        let shards = self.newest.len() as u64;
        let shard = since.checked_rem(shards).and_then(|shard| usize::try_from(shard).ok());
        shard.and_then(|shard| self.newest.get(shard)).is_some_and(|newest| id.0 <= *newest)
    }

    #[must_use]
    pub fn encode(&self) -> Box<[u8]> {
        let shards = u16::try_from(self.newest.len()).unwrap_or(u16::MAX);
        let head = Writer::default().byte(VERSION).number64(self.first).number16(shards);
        self.newest.iter().fold(head, |with, newest| with.number64(*newest)).done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let first = reader.number64()?;
        let shards = usize::from(reader.number16()?);
        if shards > SHARDS_MAX {
            return None;
        }
        let newest = (0..shards).map(|_| reader.number64()).collect::<Option<_>>()?;
        reader.end()?;
        Some(Self { first, newest })
    }
}

/// What is left now of something that lasted until `until` when that was written.
#[must_use]
pub(super) fn left(now: Wall, as_of: Wall, until: Wall) -> Duration {
    until.since(now).min(until.since(as_of))
}

/// A stop, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptHold {
    pub(super) as_of: Wall,
    pub(super) until: Option<Wall>,
    pub(super) by: Box<str>,
}

impl KeptHold {
    pub(super) fn encode(&self) -> Box<[u8]> {
        let until = self.until.map_or(0, |until| until.0.max(1));
        Writer::default().byte(VERSION).number64(self.as_of.0).number64(until).text(&self.by).done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.version()?;
        let as_of = Wall(reader.number64()?);
        let until = reader.number64()?;
        let by = reader.text()?.into();
        reader.end()?;
        Some(Self { as_of, until: (until > 0).then_some(Wall(until)), by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::SegmentSeq;

    #[test]
    fn scopes_read_back_and_cuts_are_none() {
        let campaign = Scope::Campaign { tenant: "acme".into(), campaign: "".into() };
        let scopes = [
            None,
            Some(Scope::Site("mx.a.example,mx.b.example".into())),
            Some(Scope::Source("ip4".into())),
            Some(Scope::Tenant("".into())),
            Some(campaign),
        ];
        for scope in scopes {
            let bytes = Writer::default().scope(scope.as_ref()).done();
            assert_eq!(Reader(&bytes).scope(), Some(scope));
            for cut in 0..bytes.len() {
                assert_eq!(Reader(&bytes[..cut]).scope(), None);
            }
        }
    }

    #[test]
    fn a_hold_reads_back_and_hostile_bytes_are_none() {
        for until in [None, Some(Wall(77))] {
            let hold = KeptHold { as_of: Wall(5), until, by: "operator: storm".into() };
            let bytes = hold.encode();
            assert_eq!(KeptHold::decode(&bytes), Some(hold));
            for cut in 0..bytes.len() {
                assert_eq!(KeptHold::decode(&bytes[..cut]), None);
            }
        }
        assert_eq!(KeptHold::decode(&[2; 40]), None);
    }

    #[test]
    fn a_clock_that_was_set_back_prolongs_nothing() {
        let left = |now| left(Wall(now), Wall(100), Wall(160)).as_nanos();
        assert_eq!([10, 100, 130, 160, 999].map(left), [60, 60, 30, 0, 0]);
    }

    #[test]
    fn an_order_reaches_what_was_accepted_before_it_and_nothing_else() {
        let id = |segment, ordinal| MessageId::new(SegmentSeq(segment), ordinal);
        // Two shards of a run that began at segment 10: 10, 12, .. and 11, 13, ..
        let reached = Reached { first: 10, newest: [id(12, 5).0, id(11, 3).0].into() };
        let read = Reached::decode(&reached.encode()).unwrap();
        assert_eq!(read, reached);
        for (message, is_reached) in [
            (id(9, 99), true),
            (id(10, 99), true),
            (id(12, 5), true),
            (id(12, 6), false),
            (id(11, 3), true),
            (id(11, 4), false),
            (id(13, 0), false),
            // Of a later run with other shards.
            (id(40, 0), false),
            (id(41, 0), false),
        ] {
            assert_eq!(read.has(message), is_reached, "{message}");
        }
        let nothing = Reached { first: 0, newest: Box::default() };
        assert!(!nothing.has(id(3, 0)));
    }
}
