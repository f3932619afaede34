//! The envelope as it is stored in front of a message.
//!
//! All numbers are little-endian.
//!
//! ```text
//!  0  version u8         1
//!  1  flags u8           bits of `EnvelopeFlags`; unknown bits are ignored
//!  2  recipients u16     at least 1
//!  4  groups u16         runs of recipients that share a domain; at least 1
//!  6  listener u16       the listener it came in by
//!  8  accepted u64       wall clock, ns since 1970
//! 16  client ip [16]     IPv6, or IPv4 mapped into it
//! 32  client port u16
//! 34  sender bytes u16   0: the null sender
//! 36  helo bytes u16
//! 38  zero u16
//! 40  text bytes u32
//! 44  group table        groups x u16: how many recipients each has; their sum is `recipients`
//!  .  recipient table    recipients x u32: where each ends in the text
//!  .  text               sender, helo, recipients; ASCII, nothing between them
//! ```
//! Groups stand in the order in which their domains first appeared, and recipients of a group in
//! the order in which they were given. Domains are in lower case; no recipient stands twice.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use hashbrown::HashTable;

use crate::base::map::stable_hash;
use crate::base::time::Wall;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 44;
/// What an emptied builder keeps of its text for the next message: some hundred recipients.
const TEXT_BYTES_KEPT: usize = 8 * 1024;
/// The same for its tables.
const RECIPIENTS_KEPT: usize = 256;

/// What the way out must know of a body without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeFlags(u8);

impl EnvelopeFlags {
    /// The client declared BODY=8BITMIME.
    pub const DECLARED_8BIT: Self = Self(1);
    /// The message, chunks included, holds bytes above 127.
    pub const HAS_8BIT: Self = Self(2);
    /// Some line begins with a dot: DATA needs stuffing.
    pub const LEADING_DOTS: Self = Self(4);

    #[must_use]
    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// These flags, and `flag` as well if `is_set`.
    #[must_use]
    pub fn with(self, flag: Self, is_set: bool) -> Self {
        if is_set { Self(self.0 | flag.0) } else { self }
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub peer: SocketAddr,
    pub listener: u16,
    pub accepted: Wall,
}

/// An envelope that is being filled; emptied by [`Envelope::clear`], it is filled again without
/// allocating.
#[derive(Debug, Default)]
pub struct Envelope {
    sender: String,
    flags: EnvelopeFlags,
    /// Recipients in the order given, one behind the other.
    text: String,
    recipients: Vec<Recipient>,
    groups: Vec<Group>,
    /// Index into `recipients`, by address.
    by_address: HashTable<u16>,
    /// Index into `groups`, by domain.
    by_domain: HashTable<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Recipient {
    from: u32,
    bytes: u16,
    /// Where its domain begins.
    domain_at: u16,
    group: u16,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    /// The recipient that brought the domain in.
    first: u16,
    count: u16,
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// It was there already; it stands once.
    Again,
    /// The envelope counts no further than `u16::MAX`.
    Full,
}

impl Envelope {
    /// Forgets all but the memory, and that too beyond what an ordinary message needs.
    pub fn clear(&mut self) {
        self.sender.clear();
        self.flags = EnvelopeFlags::default();
        self.text.clear();
        self.text.shrink_to(TEXT_BYTES_KEPT);
        self.groups.clear();
        if self.recipients.len() > RECIPIENTS_KEPT {
            self.recipients = Vec::new();
            self.groups = Vec::new();
            self.by_address = HashTable::new();
            self.by_domain = HashTable::new();
        }
        self.recipients.clear();
        self.by_address.clear();
        self.by_domain.clear();
    }

    /// Takes a checked address, or "" for the null sender.
    pub fn set_sender(&mut self, address: &str) {
        self.sender.clear();
        push_address(&mut self.sender, address);
    }

    pub fn set_flags(&mut self, flags: EnvelopeFlags) {
        self.flags = flags;
    }

    #[must_use]
    pub fn flags(&self) -> EnvelopeFlags {
        self.flags
    }

    /// Takes a checked address with a domain, at most `ADDRESS_BYTES_MAX` long.
    pub fn add_recipient(&mut self, address: &str) -> Added {
        let from = self.text.len();
        push_address(&mut self.text, address);
        let added = self.index_from(from);
        if added != Added::New {
            self.text.truncate(from);
        }
        added
    }

    #[must_use]
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// Recipients, each counted once.
    #[must_use]
    pub fn count(&self) -> usize {
        self.recipients.len()
    }

    /// What the builder holds in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + self.sender.len() + self.recipients.len() * size_of::<Recipient>()
    }

    /// Appends the envelope to `out`, in the form this file's head describes.
    pub fn encode(&self, helo: &str, origin: Origin, out: &mut Vec<u8>) {
        assert!(!self.recipients.is_empty(), "a message has a recipient");
        let text_bytes = self.sender.len() + helo.len() + self.text.len();
        out.extend([VERSION, self.flags.0]);
        out.extend(to_u16(self.recipients.len()).to_le_bytes());
        out.extend(to_u16(self.groups.len()).to_le_bytes());
        out.extend(origin.listener.to_le_bytes());
        out.extend(origin.accepted.0.to_le_bytes());
        out.extend(mapped(origin.peer.ip()).octets());
        out.extend(origin.peer.port().to_le_bytes());
        out.extend(to_u16(self.sender.len()).to_le_bytes());
        out.extend(to_u16(helo.len()).to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend(to_u32(text_bytes).to_le_bytes());
        out.extend(self.groups.iter().flat_map(|group| group.count.to_le_bytes()));
        self.encode_recipients(helo, out);
    }

    fn encode_recipients(&self, helo: &str, out: &mut Vec<u8>) {
        let order = self.order();
        let mut end = to_u32(self.sender.len() + helo.len());
        for recipient in order.iter() {
            end += u32::from(recipient.bytes);
            out.extend(end.to_le_bytes());
        }
        out.extend_from_slice(self.sender.as_bytes());
        out.extend_from_slice(helo.as_bytes());
        for recipient in order.iter() {
            out.extend_from_slice(text_of(&self.text, recipient).as_bytes());
        }
    }

    /// The recipients, those of a group together.
    fn order(&self) -> std::borrow::Cow<'_, [Recipient]> {
        if self.recipients.is_sorted_by_key(|recipient| recipient.group) {
            return self.recipients.as_slice().into();
        }
        let mut order = self.recipients.clone();
        order.sort_by_key(|recipient| recipient.group);
        order.into()
    }

    /// Enters what `text` holds from `from` on as a recipient.
    fn index_from(&mut self, from: usize) -> Added {
        let address = &self.text[from..];
        let hash = stable_hash(address.as_bytes());
        let (text, recipients) = (&self.text, &self.recipients);
        let at = |index: u16| text_of(text, &recipients[usize::from(index)]);
        if self.by_address.find(hash, |index| at(*index) == address).is_some() {
            return Added::Again;
        }
        let Ok(index) = u16::try_from(recipients.len()) else { return Added::Full };
        if index == u16::MAX {
            return Added::Full;
        }
        let rehash = |index: &u16| stable_hash(at(*index).as_bytes());
        self.by_address.insert_unique(hash, index, rehash);
        let domain_at = to_u16(address.rfind('@').map_or(address.len(), |at| at + 1));
        let (bytes, from) = (to_u16(address.len()), to_u32(from));
        self.recipients.push(Recipient { from, bytes, domain_at, group: 0 });
        self.recipients[usize::from(index)].group = self.join_group(index);
        Added::New
    }

    /// Counts a recipient into the group of its domain.
    fn join_group(&mut self, recipient: u16) -> u16 {
        let (text, recipients, groups) = (&self.text, &self.recipients, &self.groups);
        let domain_of = |index: u16| {
            let recipient = &recipients[usize::from(index)];
            &text_of(text, recipient)[usize::from(recipient.domain_at)..]
        };
        let of_group = |group: u16| domain_of(groups[usize::from(group)].first);
        let domain = domain_of(recipient);
        let hash = stable_hash(domain.as_bytes());
        if let Some(group) = self.by_domain.find(hash, |group| of_group(*group) == domain) {
            let group = *group;
            self.groups[usize::from(group)].count += 1;
            return group;
        }
        let group = to_u16(groups.len());
        let rehash = |group: &u16| stable_hash(of_group(*group).as_bytes());
        self.by_domain.insert_unique(hash, group, rehash);
        self.groups.push(Group { first: recipient, count: 1 });
        group
    }
}

fn push_address(out: &mut String, address: &str) {
    let domain_at = address.rfind('@').map_or(address.len(), |at| at + 1);
    let from = out.len();
    out.push_str(address);
    out[from + domain_at..].make_ascii_lowercase();
}

fn text_of<'a>(text: &'a str, recipient: &Recipient) -> &'a str {
    let from = recipient.from as usize;
    &text[from..from + usize::from(recipient.bytes)]
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn to_u16(number: usize) -> u16 {
    u16::try_from(number).expect("lengths and counts of an envelope are checked as they come in")
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).expect("65535 addresses of 254 bytes are far below 4 GiB")
}

/// An envelope read in place.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeView<'a> {
    header: &'a [u8; HEADER_BYTES],
    groups: &'a [[u8; 2]],
    ends: &'a [[u8; 4]],
    text: &'a str,
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
        if !text.is_ascii() {
            return Err(EnvelopeError::Inconsistent);
        }
        let text = std::str::from_utf8(text).map_err(|_| EnvelopeError::Inconsistent)?;
        let recipients_at = usize::from(u16_at(header, 34)) + usize::from(u16_at(header, 36));
        let view = Self { header, groups, ends, text, recipients_at };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin { peer: "192.0.2.7:999".parse().unwrap(), listener: 3, accepted: Wall(77) }
    }

    fn encoded(recipients: &[&str]) -> Vec<u8> {
        let mut envelope = Envelope::default();
        envelope.set_sender("Me@Home.example");
        envelope.set_flags(EnvelopeFlags::default().with(EnvelopeFlags::LEADING_DOTS, true));
        for recipient in recipients {
            envelope.add_recipient(recipient);
        }
        let mut out = Vec::new();
        envelope.encode("client.example", origin(), &mut out);
        out
    }

    #[test]
    fn what_was_stored_is_read_back() {
        let bytes = [&encoded(&["a@b.example"])[..], b"message"].concat();
        let (view, used) = EnvelopeView::parse(&bytes).unwrap();
        assert_eq!(&bytes[used..], b"message");
        assert_eq!((view.sender(), view.helo()), ("Me@home.example", "client.example"));
        assert_eq!(view.origin(), origin());
        assert!(view.flags().has(EnvelopeFlags::LEADING_DOTS));
        assert!(!view.flags().has(EnvelopeFlags::HAS_8BIT));
        assert_eq!((view.count(), view.recipient(0)), (1, "a@b.example"));
    }

    #[test]
    fn recipients_of_a_domain_stand_together_and_once() {
        let bytes = encoded(&["z@B", "a@a", "Z@b", "y@A", "z@b", "x@c", "\"q@b\"@a"]);
        let (view, _) = EnvelopeView::parse(&bytes).unwrap();
        let all: Vec<&str> = view.recipients(0..view.count()).collect();
        assert_eq!(all, ["z@b", "Z@b", "a@a", "y@a", "\"q@b\"@a", "x@c"]);
        let groups: Vec<_> = view.groups().map(|g| (g.domain, g.first, g.count)).collect();
        assert_eq!(groups, [("b", 0, 2), ("a", 2, 3), ("c", 5, 1)]);
    }

    #[test]
    fn a_cleared_envelope_is_as_new() {
        let mut envelope = Envelope::default();
        envelope.set_sender("x@y");
        for index in 0..1000 {
            assert_eq!(envelope.add_recipient(&format!("u{index}@d{}", index % 7)), Added::New);
        }
        assert_eq!((envelope.add_recipient("u5@D5"), envelope.count()), (Added::Again, 1000));
        envelope.clear();
        assert_eq!((envelope.add_recipient("u5@d5"), envelope.count()), (Added::New, 1));
        assert_eq!(envelope.sender(), "");
    }

    #[test]
    fn counting_stops_where_the_format_does() {
        let mut envelope = Envelope::default();
        for index in 0..u16::MAX {
            assert_eq!(envelope.add_recipient(&format!("{index}@a")), Added::New);
        }
        assert_eq!(envelope.add_recipient("one@more"), Added::Full);
        let mut bytes = Vec::new();
        envelope.encode("h", origin(), &mut bytes);
        let (view, _) = EnvelopeView::parse(&bytes).unwrap();
        assert_eq!(view.recipient(u16::MAX - 1), "65534@a");
        assert_eq!(view.groups().count(), 1);
    }

    #[test]
    fn a_cut_envelope_is_no_envelope() {
        let bytes = encoded(&["a@b", "c@d"]);
        for cut in 0..bytes.len() {
            assert_eq!(EnvelopeView::parse(&bytes[..cut]).err(), Some(EnvelopeError::Short));
        }
    }

    /// Reads everything a view has.
    fn exercise(bytes: &[u8]) {
        if let Ok((view, used)) = EnvelopeView::parse(bytes) {
            assert!(used <= bytes.len());
            let text: usize = view.recipients(0..view.count()).map(str::len).sum();
            let grouped: usize = view.groups().map(|group| usize::from(group.count)).sum();
            assert_eq!(grouped, usize::from(view.count()));
            assert!(text + view.sender().len() + view.helo().len() <= bytes.len());
            let _origin = view.origin();
        }
    }

    #[test]
    fn no_changed_byte_makes_reading_panic() {
        let bytes = encoded(&["a@b", "c@d", "e@b"]);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x10] {
                let mut changed = bytes.clone();
                changed[at] = value;
                exercise(&changed);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(mut bytes in prop::collection::vec(0u8..6, 0..120)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            exercise(&bytes);
        }

        #[test]
        fn every_recipient_is_kept(names in prop::collection::vec("[a-c]{1,2}@[d-f]", 1..30)) {
            let given: Vec<&str> = names.iter().map(String::as_str).collect();
            let bytes = encoded(&given);
            let (view, _) = EnvelopeView::parse(&bytes).unwrap();
            let mut expected = Vec::new();
            let mut domains: Vec<&str> = Vec::new();
            given.iter().map(|a| domain(a)).for_each(|d| if !domains.contains(&d) { domains.push(d) });
            for group in &domains {
                for address in given.iter().filter(|address| domain(address) == *group) {
                    if !expected.contains(address) { expected.push(*address) }
                }
            }
            prop_assert_eq!(view.recipients(0..view.count()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(view.groups().map(|g| g.domain).collect::<Vec<_>>(), domains);
        }
    }
}
