//! The envelope read in place, from bytes that may be anything.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::{EnvelopeFlags, HEADER_BYTES, LABELS_AT, Labels, Origin, VERSION};
use crate::base::time::Wall;
use crate::model::flow::Flow;

/// An envelope read in place.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeView<'a> {
    header: &'a [u8; HEADER_BYTES],
    groups: &'a [[u8; 2]],
    ends: &'a [[u8; 4]],
    text: &'a str,
    labels: &'a str,
    /// Bytes of sender and helo in front of the recipients.
    recipients_at: usize,
}

/// The recipients of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientGroup<'a> {
    pub domain: &'a str,
    pub first: u16,
    pub count: u16,
}

/// Why bytes are not an envelope; the message must be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the envelope is cut off")]
    Short,
    #[error("the envelope has format version {0}, which this program does not read")]
    Version(u8),
    #[error("the envelope contradicts itself")]
    Inconsistent,
}

impl<'a> EnvelopeView<'a> {
    /// Reads the envelope at the start of `bytes`: the view, and how long the envelope is.
    ///
    /// Everything is checked here, in one pass, so that no getter can fail on any bytes.
    ///
    /// # Errors
    /// Whatever [`EnvelopeError`] names.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, usize), EnvelopeError> {
        let (header, rest) = bytes.split_first_chunk().ok_or(EnvelopeError::Short)?;
        let header: &[u8; HEADER_BYTES] = header;
        if header[0] != VERSION {
            return Err(EnvelopeError::Version(header[0]));
        }
        let (groups, rest) = table::<2>(rest, usize::from(u16_at(header, 4)))?;
        let (ends, rest) = table::<4>(rest, usize::from(u16_at(header, 2)))?;
        let text_bytes = u32::from_le_bytes([header[40], header[41], header[42], header[43]]);
        let (text, rest) =
            rest.split_at_checked(text_bytes as usize).ok_or(EnvelopeError::Short)?;
        let label_bytes = usize::from(u16_at(header, LABELS_AT));
        let (labels, rest) = rest.split_at_checked(label_bytes).ok_or(EnvelopeError::Short)?;
        let (text, labels) = (ascii(text)?, ascii(labels)?);
        if Labels::parse(labels).is_none() {
            return Err(EnvelopeError::Inconsistent);
        }
        let recipients_at = usize::from(u16_at(header, 34)) + usize::from(u16_at(header, 36));
        let view = Self { header, groups, ends, text, labels, recipients_at };
        view.check()?;
        Ok((view, bytes.len() - rest.len()))
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        let counts = self.groups.iter().map(|count| usize::from(u16::from_le_bytes(*count)));
        let mut grouped = 0;
        for count in counts {
            if count == 0 {
                return Err(EnvelopeError::Inconsistent);
            }
            grouped += count;
        }
        let mut before = self.recipients_at;
        for end in self.ends.iter().map(|end| u32::from_le_bytes(*end) as usize) {
            if end <= before {
                return Err(EnvelopeError::Inconsistent);
            }
            before = end;
        }
        let is_whole = before == self.text.len() && grouped == self.ends.len() && grouped > 0;
        if is_whole { Ok(()) } else { Err(EnvelopeError::Inconsistent) }
    }

    #[must_use]
    pub fn flags(&self) -> EnvelopeFlags {
        EnvelopeFlags(self.header[1])
    }

    /// The sender, "" if it is the null sender.
    #[must_use]
    pub fn sender(&self) -> &'a str {
        &self.text[..usize::from(u16_at(self.header, 34))]
    }

    /// What the client called itself.
    #[must_use]
    pub fn helo(&self) -> &'a str {
        &self.text[usize::from(u16_at(self.header, 34))..self.recipients_at]
    }

    /// Whose mail it is, and how urgent.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Labels::parse(self.labels).unwrap_or_default().to_flow()
    }

    /// The flow in its stored form, which names it as well; empty: the flow that says nothing.
    #[must_use]
    pub fn labels(&self) -> &'a str {
        self.labels
    }

    #[must_use]
    pub fn origin(&self) -> Origin {
        let header = self.header;
        let mut ip = [0; 16];
        ip.copy_from_slice(&header[16..32]);
        let mut accepted = [0; 8];
        accepted.copy_from_slice(&header[8..16]);
        let peer = (Ipv6Addr::from(ip).to_canonical(), u16_at(header, 32)).into();
        let accepted = Wall(u64::from_le_bytes(accepted));
        Origin { peer, listener: u16_at(header, 6), accepted }
    }

    /// How many recipients there are; at least one.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16_at(self.header, 2)
    }

    /// The recipient with this index, which must be below [`EnvelopeView::count`].
    #[must_use]
    pub fn recipient(&self, index: u16) -> &'a str {
        let index = usize::from(index);
        let from = index.checked_sub(1).map_or(self.recipients_at, |before| self.end(before));
        &self.text[from..self.end(index)]
    }

    pub fn recipients(&self, range: Range<u16>) -> impl Iterator<Item = &'a str> + use<'a> {
        let view = *self;
        range.map(move |index| view.recipient(index))
    }

    /// The domains and their recipients, in the order of the recipients.
    pub fn groups(&self) -> impl Iterator<Item = RecipientGroup<'a>> + use<'a> {
        let view = *self;
        let mut first = 0;
        view.groups.iter().map(move |count| {
            let count = u16::from_le_bytes(*count);
            let group = RecipientGroup { domain: domain(view.recipient(first)), first, count };
            // The counts add up to a u16; only behind the last group could this wrap, unused.
            first = first.wrapping_add(count);
            group
        })
    }

    fn end(&self, index: usize) -> usize {
        u32::from_le_bytes(self.ends[index]) as usize
    }
}

/// The labels of a stored envelope without a look at the rest of it, which must be read before
/// anything is made of them. `None`: there should be some, and they are cut off or no text.
#[must_use]
pub fn labels_of(envelope: &[u8]) -> Option<&str> {
    let Some(header) = envelope.first_chunk::<HEADER_BYTES>() else { return Some("") };
    let bytes = usize::from(u16_at(header, LABELS_AT));
    if bytes == 0 || header[0] != VERSION {
        return Some("");
    }
    let tables = usize::from(u16_at(header, 4)) * 2 + usize::from(u16_at(header, 2)) * 4;
    let text = u32::from_le_bytes([header[40], header[41], header[42], header[43]]);
    let at = HEADER_BYTES + tables + text as usize;
    std::str::from_utf8(envelope.get(at..)?.get(..bytes)?).ok()
}

fn ascii(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
    text.ok_or(EnvelopeError::Inconsistent)
}

fn domain(address: &str) -> &str {
    address.rfind('@').map_or("", |at| &address[at + 1..])
}

/// The first `count` entries of `N` bytes.
fn table<const N: usize>(bytes: &[u8], count: usize) -> Result<(&[[u8; N]], &[u8]), EnvelopeError> {
    let (table, rest) = bytes.split_at_checked(count * N).ok_or(EnvelopeError::Short)?;
    Ok((table.as_chunks().0, rest))
}

fn u16_at(header: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}
