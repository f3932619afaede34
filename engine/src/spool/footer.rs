//! The payload of a Footer record, byte by byte: what a restart needs, without reading bodies.
//!
//! ```text
//! counts   0 4 messages   4 4 groups   8 4 chunks   12 4 marks   16 4 domains   20 4 name bytes
//! then     message ... | group ... | chunk ... | mark ... | domain ... | names | outcome ...
//! message  0 8 id   8 8 accepted   16 4 offset   20 4 record bytes   24 4 first group
//!          28 4 first chunk   32 2 groups   34 2 chunks   36 2 recipients
//!          38 2 1: the group behind its own, which is not counted, names its flow; else 0
//! group    0 4 domain   4 2 first   6 2 count; for a flow its labels in place of a domain, and zeros
//! chunk    as in message.rs
//! mark     0 4 offset   4 4 record bytes   8 1 kind   9 3 zero
//!         12 4 outcomes of this record that are listed: all, or none
//! domain   0 4 end of its name in names; it begins where the one before ends
//! outcome  0 8 message id   8 8 next try (deferred only, else 0)   16 2 first   18 2 count
//!         20 2 attempts   22 1 result, as in outcomes.rs   23 1 zero
//! ```
//! Marks name the records a restart reads in full: Outcomes that are not listed, Copy, State, Fence.
//! Outcomes are listed in the order of their marks, without the replies, which stay where they are.
//! A reader that knows no lists reads the records, and finds the same; one that knows no flows finds
//! all but those.

use std::sync::Arc;

use super::bytes::{len16, len32, put, u16_at, u32_at, u64_at, wall_at};
use super::message::{ChunkRef, MessageParts};
use super::outcomes::{EntryResult, OutcomeEntry, entries};
use super::record::Kind;
use super::recovery::Groups;
use super::replies::Spot;
use crate::base::index::Index;
use crate::base::time::Wall;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::wire::envelope::{Labels, labels_of};

const COUNTS_BYTES: usize = 24;
const MESSAGE_BYTES: usize = 40;
const GROUP_BYTES: usize = 8;
const CHUNK_BYTES: usize = 16;
const MARK_BYTES: usize = 16;
const DOMAIN_BYTES: usize = 4;
const OUTCOME_BYTES: usize = 24;

/// Gathers the footer while the segment is filled.
#[derive(Debug, Default)]
pub(super) struct FooterBuilder {
    messages: Vec<u8>,
    groups: Vec<u8>,
    chunks: Vec<u8>,
    marks: Vec<u8>,
    ends: Vec<u8>,
    names: Vec<u8>,
    outcomes: Vec<u8>,
    /// The domains by their names.
    numbers: Index,
}

impl FooterBuilder {
    pub(super) fn add_message(
        &mut self,
        id: MessageId,
        place: Place,
        accepted: Wall,
        parts: &MessageParts<'_>,
    ) {
        let mut entry = [0; MESSAGE_BYTES];
        put(&mut entry, 0, &id.0.to_le_bytes());
        put(&mut entry, 8, &accepted.0.to_le_bytes());
        put(&mut entry, 16, &place.offset.to_le_bytes());
        put(&mut entry, 20, &place.bytes.to_le_bytes());
        put(&mut entry, 24, &len32(self.groups.len() / GROUP_BYTES).to_le_bytes());
        put(&mut entry, 28, &len32(self.chunks.len() / CHUNK_BYTES).to_le_bytes());
        put(&mut entry, 32, &len16(parts.groups.len()).to_le_bytes());
        put(&mut entry, 34, &len16(parts.chunks.len()).to_le_bytes());
        put(&mut entry, 36, &parts.recipients.to_le_bytes());
        let labels = labels_of(parts.envelope).unwrap_or_default();
        put(&mut entry, HAS_FLOW_AT, &u16::from(!labels.is_empty()).to_le_bytes());
        self.messages.extend_from_slice(&entry);
        for group in parts.groups {
            self.add_group(group.domain, group.first, group.count);
        }
        if !labels.is_empty() {
            self.add_group(labels, 0, 0);
        }
        for chunk in parts.chunks {
            self.chunks.extend_from_slice(&chunk.to_bytes());
        }
    }

    pub(super) fn add_mark(&mut self, offset: u32, bytes: u32, kind: Kind) {
        let mut mark = [0; MARK_BYTES];
        put(&mut mark, 0, &offset.to_le_bytes());
        put(&mut mark, 4, &bytes.to_le_bytes());
        put(&mut mark, 8, &[kind as u8]);
        self.marks.extend_from_slice(&mark);
    }

    /// Marks an Outcomes record, and lists what is in it.
    pub(super) fn add_outcomes(&mut self, offset: u32, bytes: u32, payload: &[u8]) {
        self.add_mark(offset, bytes, Kind::Outcomes);
        let before = self.outcomes.len();
        for entry in entries(payload) {
            self.outcomes.extend_from_slice(&listed(&entry));
        }
        let count = len32((self.outcomes.len() - before) / OUTCOME_BYTES);
        let mark = self.marks.len() - MARK_BYTES;
        put(&mut self.marks, mark + LISTED_AT, &count.to_le_bytes());
    }

    /// Gives up the lists of outcomes: the footer is shorter, and a restart reads the records.
    pub(super) fn drop_lists(&mut self) {
        self.outcomes.clear();
        for mark in self.marks.chunks_exact_mut(MARK_BYTES) {
            put(mark, LISTED_AT, &0u32.to_le_bytes());
        }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        let tables = self.tables().iter().map(|table| table.len()).sum::<usize>();
        COUNTS_BYTES + tables + self.outcomes.len()
    }

    pub(super) fn to_payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.payload_bytes());
        for (table, entry_bytes) in self.tables().into_iter().zip([
            MESSAGE_BYTES,
            GROUP_BYTES,
            CHUNK_BYTES,
            MARK_BYTES,
            DOMAIN_BYTES,
            1,
        ]) {
            payload.extend_from_slice(&len32(table.len() / entry_bytes).to_le_bytes());
        }
        for table in self.tables() {
            payload.extend_from_slice(table);
        }
        payload.extend_from_slice(&self.outcomes);
        payload
    }

    fn tables(&self) -> [&[u8]; 6] {
        [&self.messages, &self.groups, &self.chunks, &self.marks, &self.ends, &self.names]
    }

    fn add_group(&mut self, name: &str, first: u16, count: u16) {
        let domain = self.domain(name);
        self.groups.extend_from_slice(&domain.to_le_bytes());
        self.groups.extend_from_slice(&first.to_le_bytes());
        self.groups.extend_from_slice(&count.to_le_bytes());
    }

    fn domain(&mut self, name: &str) -> u32 {
        let Self { numbers, ends, names, .. } = self;
        let added = numbers.find(&Some(name.as_bytes()), |domain| name_of(names, ends, domain));
        if let Some(domain) = added {
            return domain;
        }
        let domain = len32(ends.len() / DOMAIN_BYTES);
        names.extend_from_slice(name.as_bytes());
        ends.extend_from_slice(&len32(names.len()).to_le_bytes());
        numbers.insert(domain, |domain| name_of(names, ends, domain));
        domain
    }
}

/// The name of a domain, which begins where that of the one before it ends; `None` where there is none.
fn name_of<'a>(names: &'a [u8], ends: &[u8], domain: u32) -> Option<&'a [u8]> {
    let end_of = |domain: u32| Some(u32_at(ends, domain as usize * DOMAIN_BYTES)? as usize);
    let start = domain.checked_sub(1).map_or(Some(0), end_of)?;
    names.get(start..end_of(domain)?)
}

/// Where a message tells whether its flow is named.
const HAS_FLOW_AT: usize = 38;
/// Where a mark tells how many outcomes are listed.
const LISTED_AT: usize = 12;

fn listed(entry: &OutcomeEntry<'_>) -> [u8; OUTCOME_BYTES] {
    let (result, next) = match entry.result {
        EntryResult::Delivered => (0, 0),
        EntryResult::Deferred { next } => (1, next.0),
        EntryResult::Failed => (2, 0),
    };
    let mut bytes = [0; OUTCOME_BYTES];
    put(&mut bytes, 0, &entry.message.0.to_le_bytes());
    put(&mut bytes, 8, &next.to_le_bytes());
    put(&mut bytes, 16, &entry.first.to_le_bytes());
    put(&mut bytes, 18, &entry.count.to_le_bytes());
    put(&mut bytes, 20, &entry.attempts.to_le_bytes());
    put(&mut bytes, 22, &[result]);
    bytes
}

/// A footer whose checksum held.
#[derive(Clone, Copy, Debug)]
pub(super) struct FooterView<'a> {
    messages: &'a [u8],
    groups: &'a [u8],
    chunks: &'a [u8],
    marks: &'a [u8],
    ends: &'a [u8],
    names: &'a [u8],
    outcomes: &'a [u8],
}

/// A message as its footer names it.
#[derive(Debug)]
pub(super) struct FooterMessage {
    pub(super) id: MessageId,
    pub(super) place: Place,
    pub(super) accepted: Wall,
    pub(super) recipients: u16,
    pub(super) groups: Groups,
    pub(super) chunks: Vec<ChunkRef>,
    /// Its labels, if it has any.
    pub(super) labels: Option<Arc<str>>,
}

/// A record that a restart reads in full, unless its outcomes are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) kind: u8,
    pub(super) listed: u32,
}

/// An outcome as its footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FooterOutcome {
    /// Of the record it is in.
    pub(super) spot: Spot,
    pub(super) message: MessageId,
    pub(super) first: u16,
    pub(super) count: u16,
    pub(super) attempts: u16,
    pub(super) result: EntryResult,
}

impl<'a> FooterView<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut rest = payload.get(COUNTS_BYTES..)?;
        let mut table = |index: usize, entry_bytes: usize| {
            let bytes = (u32_at(payload, index * 4)? as usize).checked_mul(entry_bytes)?;
            let (table, behind) = rest.split_at_checked(bytes)?;
            rest = behind;
            Some(table)
        };
        let view = Self {
            messages: table(0, MESSAGE_BYTES)?,
            groups: table(1, GROUP_BYTES)?,
            chunks: table(2, CHUNK_BYTES)?,
            marks: table(3, MARK_BYTES)?,
            ends: table(4, DOMAIN_BYTES)?,
            names: table(5, 1)?,
            outcomes: rest,
        };
        let listed: u64 = view.marks().map(|mark| u64::from(mark.listed)).sum();
        let is_whole = listed.checked_mul(OUTCOME_BYTES as u64) == Some(rest.len() as u64);
        is_whole.then_some(view)
    }

    /// The domains by their numbers, which many messages share.
    pub(super) fn domains(&self) -> Option<Vec<Arc<str>>> {
        let name = |domain| {
            let name = name_of(self.names, self.ends, domain)?;
            std::str::from_utf8(name).ok().map(Into::into)
        };
        (0..len32(self.ends.len() / DOMAIN_BYTES)).map(name).collect()
    }

    /// The messages of the segment; `None` in place of one that is not well formed.
    pub(super) fn messages(
        &self,
        segment: SegmentSeq,
        domains: &[Arc<str>],
    ) -> impl Iterator<Item = Option<FooterMessage>> {
        let entries = self.messages.chunks_exact(MESSAGE_BYTES);
        entries.map(move |entry| self.message(segment, domains, entry))
    }

    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.marks.chunks_exact(MARK_BYTES).filter_map(|mark| {
            Some(Mark {
                offset: u32_at(mark, 0)?,
                bytes: u32_at(mark, 4)?,
                kind: *mark.get(8)?,
                listed: u32_at(mark, LISTED_AT)?,
            })
        })
    }

    /// The listed outcomes; `None` in place of one that is not well formed.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Option<FooterOutcome>> {
        let spot = |mark: Mark| Spot::new(mark.offset, mark.bytes);
        let records = self.marks().flat_map(move |mark| (0..mark.listed).map(move |_| spot(mark)));
        let listed = self.outcomes.chunks_exact(OUTCOME_BYTES);
        records.zip(listed).map(|(spot, entry)| outcome(spot?, entry))
    }

    fn message(
        &self,
        segment: SegmentSeq,
        domains: &[Arc<str>],
        entry: &[u8],
    ) -> Option<FooterMessage> {
        let place = Place { segment, offset: u32_at(entry, 16)?, bytes: u32_at(entry, 20)? };
        let groups = part(self.groups, u32_at(entry, 24)?, u16_at(entry, 32)?, GROUP_BYTES)?;
        let chunks = part(self.chunks, u32_at(entry, 28)?, u16_at(entry, 34)?, CHUNK_BYTES)?;
        let labels = match u16_at(entry, HAS_FLOW_AT)? {
            0 => None,
            _ => {
                let behind = u32_at(entry, 24)?.checked_add(u32::from(u16_at(entry, 32)?))?;
                let (labels, _, _) =
                    of_domain(domains, part(self.groups, behind, 1, GROUP_BYTES)?)?;
                Labels::parse(&labels)?;
                Some(labels)
            }
        };
        Some(FooterMessage {
            id: MessageId(u64_at(entry, 0)?),
            place,
            accepted: wall_at(entry, 8)?,
            recipients: u16_at(entry, 36)?,
            groups: groups
                .chunks_exact(GROUP_BYTES)
                .map(|group| of_domain(domains, group))
                .collect::<Option<_>>()?,
            chunks: chunks.chunks_exact(CHUNK_BYTES).filter_map(ChunkRef::from_bytes).collect(),
            labels,
        })
    }
}

fn of_domain(domains: &[Arc<str>], group: &[u8]) -> Option<(Arc<str>, u16, u16)> {
    let domain = domains.get(u32_at(group, 0)? as usize)?;
    Some((Arc::clone(domain), u16_at(group, 4)?, u16_at(group, 6)?))
}

fn outcome(spot: Spot, entry: &[u8]) -> Option<FooterOutcome> {
    let result = match entry.get(22)? {
        0 => EntryResult::Delivered,
        1 => EntryResult::Deferred { next: wall_at(entry, 8)? },
        2 => EntryResult::Failed,
        _ => return None,
    };
    Some(FooterOutcome {
        spot,
        message: MessageId(u64_at(entry, 0)?),
        first: u16_at(entry, 16)?,
        count: u16_at(entry, 18)?,
        attempts: u16_at(entry, 20)?,
        result,
    })
}

/// `count` entries of a table from the `first` on.
fn part(table: &[u8], first: u32, count: u16, entry_bytes: usize) -> Option<&[u8]> {
    let start = (first as usize).checked_mul(entry_bytes)?;
    table.get(start..)?.get(..usize::from(count) * entry_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::{Outcome, RangeOutcome, Reply};
    use crate::spool::message::DomainRange;
    use crate::spool::outcomes::append_entry;
    use crate::wire::envelope::{Envelope, Origin};

    fn outcomes() -> Vec<u8> {
        let mut payload = Vec::new();
        let reply = || Reply::remote(451, None, "later");
        for (ordinal, outcome) in (0u16..).zip([
            Outcome::Delivered { reply: reply() },
            Outcome::Deferred { reply: reply(), next: Wall(77) },
            Outcome::Failed { reply: reply() },
        ]) {
            let id = MessageId::new(SegmentSeq(4), ordinal.into());
            let range = RangeOutcome { first: ordinal, count: 2, attempts: 9, outcome };
            append_entry(&mut payload, id, ordinal, 2, &range);
        }
        payload
    }

    fn envelope(tenant: &str) -> Vec<u8> {
        let mut envelope = Envelope::default();
        envelope.add_recipient("a@a.example");
        envelope.set_labels(Labels { tenant, ..Labels::default() });
        let origin = Origin { peer: ([192, 0, 2, 1], 25).into(), listener: 0, accepted: Wall(1) };
        let mut bytes = Vec::new();
        envelope.encode("client.example", origin, &mut bytes);
        bytes
    }

    fn footer() -> FooterBuilder {
        let mut footer = FooterBuilder::default();
        for ordinal in 0..3u16 {
            let groups = [
                DomainRange { domain: "a.example", first: 0, count: 1 },
                DomainRange { domain: "b.example", first: 1, count: ordinal + 1 },
            ];
            let chunks = [ChunkRef { segment: SegmentSeq(4), offset: 4160, bytes: 9 }];
            let parts = MessageParts {
                envelope: &envelope(if ordinal > 0 { "acme" } else { "" }),
                recipients: ordinal + 2,
                groups: &groups,
                trace: b"",
                chunks: &chunks[..usize::from(ordinal % 2)],
                body: b"",
            };
            let id = MessageId::new(SegmentSeq(5), u32::from(ordinal));
            let place = Place { segment: SegmentSeq(5), offset: 4160, bytes: 100 };
            footer.add_message(id, place, Wall(u64::from(ordinal)), &parts);
        }
        footer.add_outcomes(8256, 300, &outcomes());
        footer.add_mark(9280, 64, Kind::Fence);
        footer
    }

    fn payload() -> Vec<u8> {
        let footer = footer();
        let payload = footer.to_payload();
        assert_eq!(payload.len(), footer.payload_bytes());
        payload
    }

    #[test]
    fn labels_that_are_none_make_the_index_none() {
        let mut payload = payload();
        let at = memchr::memmem::find(&payload, b"bulk").unwrap();
        payload[at] = b'B';
        let view = FooterView::parse(&payload).unwrap();
        let domains = view.domains().unwrap();
        let read: Vec<_> = view.messages(SegmentSeq(5), &domains).collect();
        assert!(read[0].is_some() && read[1].is_none() && read[2].is_none());
    }

    #[test]
    fn a_footer_reads_back() {
        let payload = payload();
        let view = FooterView::parse(&payload).unwrap();
        let domains = view.domains().unwrap();
        let messages: Vec<_> = view.messages(SegmentSeq(5), &domains).map(Option::unwrap).collect();
        assert_eq!(messages.len(), 3);
        let groups = [("a.example".into(), 0, 1), ("b.example".into(), 1, 2)];
        assert_eq!(messages[1].groups[..], groups);
        assert_eq!(messages[1].chunks.len(), 1);
        assert!(messages[2].chunks.is_empty());
        assert_eq!((messages[2].recipients, messages[2].accepted), (4, Wall(2)));
        let labels: Vec<_> = messages.iter().map(|message| message.labels.as_deref()).collect();
        assert_eq!(labels, [None, Some("bulk\n\nacme\n"), Some("bulk\n\nacme\n")]);
        assert_eq!(domains.len(), 3, "equal flows are named once");
        let marks: Vec<_> = view.marks().map(|mark| (mark.offset, mark.listed)).collect();
        assert_eq!(marks, [(8256, 3), (9280, 0)]);
    }

    #[test]
    fn listed_outcomes_are_those_of_their_record() {
        let (payload, record) = (payload(), outcomes());
        let view = FooterView::parse(&payload).unwrap();
        let listed: Vec<_> = view.outcomes().map(Option::unwrap).collect();
        let written: Vec<_> = entries(&record)
            .map(|entry| FooterOutcome {
                spot: Spot::new(8256, 300).unwrap(),
                message: entry.message,
                first: entry.first,
                count: entry.count,
                attempts: entry.attempts,
                result: entry.result,
            })
            .collect();
        assert_eq!(listed, written);
        assert_eq!(listed.len(), 3);
    }

    #[test]
    fn a_footer_without_its_lists_names_the_same_records() {
        let mut footer = footer();
        let with_lists = footer.payload_bytes();
        footer.drop_lists();
        assert_eq!(footer.payload_bytes(), with_lists - 3 * OUTCOME_BYTES);
        let payload = footer.to_payload();
        let view = FooterView::parse(&payload).unwrap();
        let marks: Vec<_> = view.marks().map(|mark| (mark.offset, mark.listed)).collect();
        assert_eq!((marks, view.outcomes().count()), (vec![(8256, 0), (9280, 0)], 0));
    }

    #[test]
    fn no_cut_or_flip_makes_the_reader_panic() {
        let payload = payload();
        for cut in 0..payload.len() {
            assert!(FooterView::parse(&payload[..cut]).is_none());
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = payload.clone();
                bad[cut] = value;
                if let Some(view) = FooterView::parse(&bad) {
                    let domains = view.domains().unwrap_or_default();
                    let _ = view.messages(SegmentSeq(5), &domains).count() + view.marks().count();
                    let _ = view.outcomes().count();
                }
            }
        }
    }
}
