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
//! 38  label bytes u16   0: the flow that says nothing
//! 40  text bytes u32
//! 44  group table        groups x u16: how many recipients each has; their sum is `recipients`
//!  .  recipient table    recipients x u32: where each ends in the text
//!  .  text               sender, helo, recipients; ASCII, nothing between them
//!  .  labels             the flow, as `labels.rs` writes it; programs that know of none stop before
//! ```
//! Groups stand in the order in which their domains first appeared, and recipients of a group in
//! the order in which they were given. Domains are in lower case; no recipient stands twice.

mod builder;
mod labels;
mod view;

use std::net::SocketAddr;

use crate::base::time::Wall;

pub use builder::{Added, Envelope};
pub use labels::{Labels, is_name};
pub use view::{EnvelopeError, EnvelopeView, RecipientGroup, labels_of};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 44;
/// Where the header says how long the labels are.
const LABELS_AT: usize = 38;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::flow::Flow;

    fn domain(address: &str) -> &str {
        address.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    fn origin() -> Origin {
        Origin { peer: "192.0.2.7:999".parse().unwrap(), listener: 3, accepted: Wall(77) }
    }

    fn encoded(recipients: &[&str]) -> Vec<u8> {
        encoded_with(recipients, Labels::default())
    }

    fn encoded_with(recipients: &[&str], labels: Labels<'_>) -> Vec<u8> {
        let mut envelope = Envelope::default();
        envelope.set_labels(labels);
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
    fn a_flow_is_kept() {
        let labels = Labels { tenant: "acme", campaign: "spring", ..Labels::default() };
        let bytes = [&encoded_with(&["a@b"], labels)[..], b"message"].concat();
        let (view, used) = EnvelopeView::parse(&bytes).unwrap();
        assert_eq!((view.flow(), &bytes[used..]), (labels.to_flow(), &b"message"[..]));
        assert_eq!((view.labels(), view.recipient(0)), ("bulk\n\nacme\nspring", "a@b"));
        assert_eq!(labels_of(&bytes), Some(view.labels()));
        let without = encoded(&["a@b"]);
        assert_eq!(EnvelopeView::parse(&without).unwrap().0.flow(), Flow::default());
        assert_eq!((labels_of(&without), labels_of(b"none")), (Some(""), Some("")));
    }

    /// What programs did that knew of no labels: they took no notice of the two bytes.
    #[test]
    fn labels_lie_behind_all_that_was_before() {
        let labels = Labels { tenant: "acme", ..Labels::default() };
        let mut bytes = encoded_with(&["a@b", "c@d"], labels);
        bytes[LABELS_AT..LABELS_AT + 2].fill(0);
        let (view, used) = EnvelopeView::parse(&bytes).unwrap();
        assert_eq!((view.count(), view.recipient(1)), (2, "c@d"));
        assert_eq!(&bytes[used..], b"bulk\n\nacme\n");
    }

    #[test]
    fn labels_that_are_none_make_the_envelope_none() {
        let labels = Labels { tenant: "acme", ..Labels::default() };
        let bytes = encoded_with(&["a@b"], labels);
        for (at, byte) in [(1, b'\r'), (1, 0xff), (11, b'x'), (5, b'\n'), (7, 0)] {
            let mut changed = bytes.clone();
            let from_end = changed.len() - at;
            changed[from_end] = byte;
            let parsed = EnvelopeView::parse(&changed).err();
            assert_eq!(parsed, Some(EnvelopeError::Inconsistent), "{at} {byte}");
        }
    }

    #[test]
    fn a_cleared_envelope_is_as_new() {
        let mut envelope = Envelope::default();
        envelope.set_labels(Labels { tenant: "acme", ..Labels::default() });
        envelope.set_sender("x@y");
        for index in 0..1000 {
            assert_eq!(envelope.add_recipient(&format!("u{index}@d{}", index % 7)), Added::New);
        }
        assert_eq!((envelope.add_recipient("u5@D5"), envelope.count()), (Added::Again, 1000));
        envelope.clear();
        assert_eq!((envelope.add_recipient("u5@d5"), envelope.count()), (Added::New, 1));
        assert_eq!(envelope.sender(), "");
        let mut bytes = Vec::new();
        envelope.encode("h", origin(), &mut bytes);
        assert_eq!(EnvelopeView::parse(&bytes).unwrap().0.labels(), "");
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
        let labels = Labels { tenant: "acme", ..Labels::default() };
        let bytes = encoded_with(&["a@b", "c@d"], labels);
        for cut in 0..bytes.len() {
            assert_eq!(EnvelopeView::parse(&bytes[..cut]).err(), Some(EnvelopeError::Short));
            assert!(cut < HEADER_BYTES || labels_of(&bytes[..cut]).is_none());
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
            let (_origin, flow) = (view.origin(), view.flow());
            assert_eq!(Labels::parse(view.labels()), Some(Labels::from(&flow)));
        }
    }

    #[test]
    fn no_changed_byte_makes_reading_panic() {
        let labels = Labels { tenant: "acme", campaign: "spring", ..Labels::default() };
        let bytes = encoded_with(&["a@b", "c@d", "e@b"], labels);
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
            for name in given.iter().map(|address| domain(address)) {
                if !domains.contains(&name) {
                    domains.push(name);
                }
            }
            for group in &domains {
                for address in given.iter().filter(|address| domain(address) == *group) {
                    if !expected.contains(address) {
                        expected.push(*address);
                    }
                }
            }
            prop_assert_eq!(view.recipients(0..view.count()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(view.groups().map(|g| g.domain).collect::<Vec<_>>(), domains);
        }
    }
}
