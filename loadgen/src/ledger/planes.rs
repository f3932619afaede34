//! One byte for every (sequence, recipient index), in pages, since sequences are dense.

use std::collections::BTreeMap;

/// Sequences in a page: 4 KiB of bytes.
const PAGE_SEQUENCES: u64 = 1 << 12;
const PAGE_BYTES: usize = 1 << 12;

/// A byte per recipient; zero is "never heard of".
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Planes {
    /// Key: recipient index, then page number.
    pages: BTreeMap<(usize, u64), Box<[u8; PAGE_BYTES]>>,
}

impl Planes {
    pub(crate) fn at(&mut self, sequence: u64, index: usize) -> &mut u8 {
        let page = self
            .pages
            .entry((index, sequence / PAGE_SEQUENCES))
            .or_insert_with(|| Box::new([0; PAGE_BYTES]));
        &mut page[place(sequence)]
    }

    pub(crate) fn value(&self, sequence: u64, index: usize) -> u8 {
        let page = self.pages.get(&(index, sequence / PAGE_SEQUENCES));
        page.map_or(0, |page| page[place(sequence)])
    }

    /// Every recipient whose byte is not zero: (sequence, index, byte).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, usize, u8)> + '_ {
        self.pages.iter().flat_map(|((index, page), bytes)| {
            let first = page * PAGE_SEQUENCES;
            let known = (0..).zip(bytes.iter()).filter(|(_, byte)| **byte != 0);
            known.map(move |(place, byte)| (first + place, *index, *byte))
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.iter().count() as u64
    }
}

fn place(sequence: u64) -> usize {
    (sequence % PAGE_SEQUENCES) as usize
}
