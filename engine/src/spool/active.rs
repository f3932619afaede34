//! The segment that is being filled.

use super::COMMIT_BYTES_MAX;
use super::footer::FooterBuilder;
use super::group::Group;
use super::record::{RECORD_HEADER_BYTES, Tag, padded_record_bytes};
use super::segment::{self, data_end, to_pages};
use crate::model::message::ORDINAL_MAX;

/// Kept free for outcomes in a segment that takes no more messages.
const OUTCOMES_ROOM: usize = 16 << 10;
/// What a message may add to its segment's footer beyond its domain names, counted generously.
const FOOTER_MESSAGE_BYTES: usize = 128;
/// Domain names are a part of the envelope; what is beyond this makes the footer not fit at worst.
const FOOTER_NAMES_BYTES_MAX: usize = 4096;

/// The segment that is being filled.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) tag: Tag,
    /// Where the next commit begins.
    pub(super) write_at: u32,
    pub(super) data_end: u32,
    pub(super) next_ordinal: u32,
    pub(super) commits: u32,
    pub(super) footer: FooterBuilder,
}

impl Active {
    pub(super) fn new(tag: Tag, file_bytes: u32) -> Self {
        Self { tag, ..Self::ending_at(data_end(file_bytes)) }
    }

    pub(super) fn ending_at(data_end: u32) -> Self {
        Self {
            tag: Tag::default(),
            write_at: segment::DATA_START,
            data_end,
            next_ordinal: 0,
            commits: 0,
            footer: FooterBuilder::default(),
        }
    }

    /// A new group at the end of what is written.
    pub(super) fn group(&self, capacity: usize) -> Group {
        Group::new(self.tag, self.write_at, self.commits, capacity.min(COMMIT_BYTES_MAX))
    }

    /// Whether a record still fits behind `open_bytes`, with outcomes and footer behind it.
    pub(super) fn takes(&self, open_bytes: usize, payload_bytes: usize) -> bool {
        let names = payload_bytes.min(FOOTER_NAMES_BYTES_MAX) + FOOTER_MESSAGE_BYTES;
        let records = padded_record_bytes(payload_bytes) + OUTCOMES_ROOM;
        self.next_ordinal <= ORDINAL_MAX && self.holds(open_bytes.max(64) + records, names)
    }

    /// Whether a group of this length, and a footer that grew by so much behind it, end in time.
    pub(super) fn holds(&self, group_bytes: usize, footer_growth: usize) -> bool {
        let footer = 2 * RECORD_HEADER_BYTES + self.footer.payload_bytes() + footer_growth;
        let end = u64::from(self.write_at)
            + u64::from(to_pages(group_bytes))
            + u64::from(to_pages(footer));
        end <= u64::from(self.data_end)
    }
}
