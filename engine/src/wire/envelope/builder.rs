//! The envelope while it is being filled.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashTable;

use super::{EnvelopeFlags, Labels, Origin, VERSION};
use crate::base::map::stable_hash;

/// What an emptied builder keeps of its text for the next message: some hundred recipients.
const TEXT_BYTES_KEPT: usize = 8 * 1024;
/// The same for its tables.
const RECIPIENTS_KEPT: usize = 256;

/// An envelope that is being filled; emptied by [`Envelope::clear`], it is filled again without
/// allocating.
#[derive(Debug, Default)]
pub struct Envelope {
    sender: String,
    flags: EnvelopeFlags,
    /// The flow in its stored form.
    labels: String,
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
        self.labels.clear();
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

    /// Takes names that [`super::is_name`] found to be some.
    pub fn set_labels(&mut self, labels: Labels<'_>) {
        self.labels.clear();
        labels.write(&mut self.labels);
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
        out.extend(to_u16(self.labels.len()).to_le_bytes());
        out.extend(to_u32(text_bytes).to_le_bytes());
        out.extend(self.groups.iter().flat_map(|group| group.count.to_le_bytes()));
        self.encode_recipients(helo, out);
        out.extend_from_slice(self.labels.as_bytes());
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
    fn order(&self) -> Cow<'_, [Recipient]> {
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
