//! The payload of an Outcomes record, byte by byte: what became of recipients, packed.
//!
//! ```text
//! entry    0 8 message id   8 2 first   10 2 count   12 2 attempts   14 1 result
//!         15 1 flags: bit 0 = the reply had an enhanced status code
//!         16 8 next try, wall time (deferred only, else 0)
//!         24 2 reply code   26 2, 28 2, 30 2 enhanced status code   32 2 text bytes   34 .. text
//! result  0 delivered   1 deferred   2 failed
//! ```
//! What an operator cancelled is written as delivered, with a reply code of 5xx: it is as final, and
//! as silent, for whoever reads the spool.
//! The last entry that defers a recipient holds the last reply to it (`replies.rs`): a restart finds
//! its record, and reads the words when they are wanted. As a message is copied, the entries that
//! hold its last replies are written again behind the Copy, in the same commit, with the attempts and
//! next tries of its states: so they tell a reader nothing new but their place.
//! Entries follow each other without padding, in the order in which they happened.

use super::bytes::{len16, u16_at, u64_at, wall_at};
use super::index::Run;
use crate::base::time::Wall;
use crate::model::message::MessageId;
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};

const ENTRY_BYTES: usize = 34;
const ENHANCED: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryResult {
    Delivered,
    Deferred { next: Wall },
    Failed,
}

/// One entry as it lies in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeEntry<'a> {
    pub message: MessageId,
    pub first: u16,
    pub count: u16,
    pub attempts: u16,
    pub result: EntryResult,
    pub code: u16,
    pub enhanced: Option<Enhanced>,
    pub text: &'a [u8],
}

impl OutcomeEntry<'_> {
    /// Whom it is about.
    pub(super) fn run(&self) -> Run {
        Run { first: self.first, count: self.count }
    }

    /// What the remote said.
    pub(super) fn reply(&self) -> Reply {
        Reply::remote(self.code, self.enhanced, &String::from_utf8_lossy(self.text))
    }

    /// The entry as the nouns of mail have it.
    #[must_use]
    pub fn to_range_outcome(&self) -> RangeOutcome {
        let reply = self.reply();
        let outcome = match self.result {
            EntryResult::Delivered if self.code / 100 == 5 => Outcome::Cancelled { reply },
            EntryResult::Delivered => Outcome::Delivered { reply },
            EntryResult::Deferred { next } => Outcome::Deferred { reply, next },
            EntryResult::Failed => Outcome::Failed { reply },
        };
        RangeOutcome { first: self.first, count: self.count, attempts: self.attempts, outcome }
    }
}

/// Appends the entry for `count` recipients from `first`, which share the rest of `outcome`.
pub(super) fn append_entry(
    payload: &mut Vec<u8>,
    message: MessageId,
    first: u16,
    count: u16,
    outcome: &RangeOutcome,
) {
    let (result, next, reply) = match &outcome.outcome {
        Outcome::Delivered { reply } | Outcome::Cancelled { reply } => (0, Wall(0), reply),
        Outcome::Deferred { reply, next } => (1, *next, reply),
        Outcome::Failed { reply } => (2, Wall(0), reply),
    };
    let Enhanced(class, subject, detail) = reply.enhanced.unwrap_or(Enhanced(0, 0, 0));
    let flags = if reply.enhanced.is_some() { ENHANCED } else { 0 };
    payload.reserve(ENTRY_BYTES + reply.text.len());
    payload.extend_from_slice(&message.0.to_le_bytes());
    for number in [first, count, outcome.attempts, u16::from_le_bytes([result, flags])] {
        payload.extend_from_slice(&number.to_le_bytes());
    }
    payload.extend_from_slice(&next.0.to_le_bytes());
    let text_bytes = len16(reply.text.len());
    for number in [reply.code, u16::from(class), subject, detail, text_bytes] {
        payload.extend_from_slice(&number.to_le_bytes());
    }
    payload.extend_from_slice(reply.text.as_bytes());
}

/// Bytes of an entry.
pub(super) fn entry_bytes(outcome: &RangeOutcome) -> usize {
    let (Outcome::Delivered { reply }
    | Outcome::Deferred { reply, .. }
    | Outcome::Failed { reply }
    | Outcome::Cancelled { reply }) = &outcome.outcome;
    ENTRY_BYTES + reply.text.len()
}

/// The entries of a payload, up to the first that is not well formed.
pub fn entries(payload: &[u8]) -> impl Iterator<Item = OutcomeEntry<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (entry, behind) = read_entry(rest)?;
        rest = behind;
        Some(entry)
    })
}

fn read_entry(bytes: &[u8]) -> Option<(OutcomeEntry<'_>, &[u8])> {
    let (text, rest) =
        bytes.get(ENTRY_BYTES..)?.split_at_checked(usize::from(u16_at(bytes, 32)?))?;
    let result = match bytes.get(14)? {
        0 => EntryResult::Delivered,
        1 => EntryResult::Deferred { next: wall_at(bytes, 16)? },
        2 => EntryResult::Failed,
        _ => return None,
    };
    let class = u8::try_from(u16_at(bytes, 26)?).ok()?;
    let enhanced = Enhanced(class, u16_at(bytes, 28)?, u16_at(bytes, 30)?);
    let entry = OutcomeEntry {
        message: MessageId(u64_at(bytes, 0)?),
        first: u16_at(bytes, 8)?,
        count: u16_at(bytes, 10)?,
        attempts: u16_at(bytes, 12)?,
        result,
        code: u16_at(bytes, 24)?,
        enhanced: (bytes.get(15)? & ENHANCED != 0).then_some(enhanced),
        text,
    };
    Some((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::SegmentSeq;

    fn outcomes() -> Vec<RangeOutcome> {
        let reply = |code, enhanced| Reply::remote(code, enhanced, "some text");
        vec![
            RangeOutcome {
                first: 0,
                count: 2,
                attempts: 1,
                outcome: Outcome::Delivered { reply: reply(250, Some(Enhanced(2, 0, 0))) },
            },
            RangeOutcome {
                first: 2,
                count: 1,
                attempts: 3,
                outcome: Outcome::Deferred { reply: reply(451, None), next: Wall(123) },
            },
            RangeOutcome {
                first: 3,
                count: 9,
                attempts: 4,
                outcome: Outcome::Failed { reply: reply(550, Some(Enhanced(5, 1, 1))) },
            },
        ]
    }

    fn payload() -> Vec<u8> {
        let mut payload = Vec::new();
        for (ordinal, outcome) in (0..).zip(outcomes()) {
            let id = MessageId::new(SegmentSeq(1), ordinal);
            append_entry(&mut payload, id, outcome.first, outcome.count, &outcome);
        }
        payload
    }

    #[test]
    fn outcomes_read_back() {
        let payload = payload();
        let read: Vec<_> = entries(&payload).map(|entry| entry.to_range_outcome()).collect();
        assert_eq!(read, outcomes());
        let ids: Vec<_> = entries(&payload).map(|entry| entry.message.ordinal()).collect();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn every_cut_keeps_the_whole_entries_before_it() {
        let payload = payload();
        let each = ENTRY_BYTES + "some text".len();
        for cut in 0..=payload.len() {
            assert_eq!(entries(&payload[..cut]).count(), cut / each);
        }
    }
}
