//! What names a message and where its bytes lie.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base::block::Block;
use crate::base::digits::{Digits, hex};

/// Bits of a [`MessageId`] that count messages within one segment.
const ORDINAL_BITS: u32 = 24;

/// The most messages one segment can name.
pub const ORDINAL_MAX: u32 = (1 << ORDINAL_BITS) - 1;

/// Names one segment for ever: a process-wide sequence of 40 bits, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSeq(pub u64);

/// Names one accepted message for as long as the spool holds it: (segment sequence u40, ordinal u24).
/// A copy of the message keeps the name, so it survives cleaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    #[must_use]
    pub fn new(segment: SegmentSeq, ordinal: u32) -> Self {
        assert!(ordinal <= ORDINAL_MAX && segment.0 < 1 << (64 - ORDINAL_BITS));
        Self(segment.0 << ORDINAL_BITS | u64::from(ordinal))
    }

    /// The segment it was accepted into.
    #[must_use]
    pub fn segment(self) -> SegmentSeq {
        SegmentSeq(self.0 >> ORDINAL_BITS)
    }

    #[must_use]
    pub fn ordinal(self) -> u32 {
        u32::try_from(self.0 & u64::from(ORDINAL_MAX)).unwrap_or(0)
    }

    /// Appends it as people see it.
    pub fn append_to(self, out: &mut Vec<u8>) {
        let (segment, ordinal) = self.digits();
        out.extend_from_slice(segment.as_bytes());
        out.push(b'-');
        out.extend_from_slice(ordinal.as_bytes());
    }

    /// What stands before and behind the hyphen.
    fn digits(self) -> (Digits, Digits) {
        (hex(self.segment().0, 1), hex(self.ordinal().into(), 6))
    }
}

/// As people see it: in the 250 reply, the Received header, logs and tools.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, ordinal) = self.digits();
        f.write_str(segment.as_str())?;
        f.write_str("-")?;
        f.write_str(ordinal.as_str())
    }
}

/// A text that is no message's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message is named so: names look like 1A-00000A")]
pub struct NotAnId;

impl FromStr for MessageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (segment, ordinal) = text.split_once('-').ok_or(NotAnId)?;
        let number = |digits: &str, max: u64| {
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number <= max);
            number.filter(|_| is_hex).ok_or(NotAnId)
        };
        let segment = number(segment, (1 << (64 - ORDINAL_BITS)) - 1)?;
        Ok(Self(segment << ORDINAL_BITS | number(ordinal, u64::from(ORDINAL_MAX))?))
    }
}

/// Where a record lies: the whole record, header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentSeq,
    /// Bytes from the start of the segment file; a multiple of 64.
    pub offset: u32,
    /// Length of the record in bytes, header included, padding not.
    pub bytes: u32,
}

/// Bytes inside a frozen block, shared without copying.
#[derive(Clone, Debug)]
pub struct Slice {
    pub block: Arc<Block>,
    pub at: u32,
    pub bytes: u32,
}

impl Slice {
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes()[self.at as usize..self.at as usize + self.bytes as usize]
    }

    /// A part of this slice; `at` counts from its start.
    #[must_use]
    pub fn part(&self, at: u32, bytes: u32) -> Self {
        assert!(at + bytes <= self.bytes, "a part lies inside its whole");
        Self { block: Arc::clone(&self.block), at: self.at + at, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_segment_and_ordinal() {
        let id = MessageId::new(SegmentSeq(0xff_ffff_ffff), ORDINAL_MAX);
        assert_eq!((id.segment(), id.ordinal()), (SegmentSeq(0xff_ffff_ffff), ORDINAL_MAX));
        assert_eq!(MessageId::new(SegmentSeq(26), 10).to_string(), "1A-00000A");
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = MessageId::new(SegmentSeq(0xff_ffff_ffff), 7);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1A", "-", "1A-", "+1-000001", "1-1000000", "10000000000-0", "1-0-0"] {
            assert_eq!(text.parse::<MessageId>(), Err(NotAnId), "{text}");
        }
    }
}
