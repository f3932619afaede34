//! What the headers alone tell: enough to take mail in before the rest of the spool is read.
//!
//! The spares are known, and the names that new messages may take. What else lies there is older than
//! all that is written from now on, so it may come to the shards at any time ([`Spool::adopt`]).
//!
//! [`Spool::adopt`]: super::Spool::adopt

use super::files::FileId;
use super::footer::FooterView;
use super::plan::RecoveredShard;
use super::record::{Kind, RecordHeader};
use super::recovery::{Finding, SegmentUse, header_finding, segment_use, spare_of};
use super::segment::{SegmentState, Slots};
use crate::model::connection::ShardId;

/// A start, as far as it needs headers only.
#[derive(Debug)]
pub struct Opening {
    /// The spares of each shard of this run.
    pub shards: Vec<RecoveredShard>,
    /// The first sequence that no segment ever had.
    pub next_sequence: u64,
    /// The files that hold something: they are to be scanned.
    pub in_use: Vec<FileId>,
    /// What is wrong with spares.
    pub findings: Vec<Finding>,
}

/// Looks at the headers of all files.
#[must_use]
pub fn open(headers: &[(FileId, Slots)], shards: u16) -> Opening {
    let shards = shards.max(1);
    let newest = headers.iter().map(|(_, slots)| slots.header.tag.sequence.0).max().unwrap_or(0);
    let mut opening = Opening {
        shards: (0..shards).map(|_| RecoveredShard::default()).collect(),
        next_sequence: newest + 1,
        in_use: Vec::new(),
        findings: Vec::new(),
    };
    for (file, slots) in headers {
        if segment_use(slots) != SegmentUse::Spare {
            opening.in_use.push(*file);
            continue;
        }
        let ShardId(shard) = slots.header.shard;
        opening.shards[usize::from(shard % shards)].spares.push(spare_of(*file, &slots.header));
        opening.findings.extend(header_finding(*file, slots));
    }
    opening
}

/// A stretch of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub offset: u32,
    pub bytes: u32,
}

/// Where the index of a sealed segment lies; `None`: it has none, so all of it is to be read.
#[must_use]
pub fn index_of(slots: &Slots) -> Option<Stretch> {
    match slots.header.state {
        SegmentState::Sealed { footer: Some(place) } => {
            Some(Stretch { offset: place.offset, bytes: place.bytes })
        }
        _ => None,
    }
}

/// The records that the index says are to be read, which [`super::recovery::scan_by_index`] looks
/// at beside it. `None`: the index is damaged.
#[must_use]
pub fn to_read(slots: &Slots, index: Stretch, file: &[u8]) -> Option<Vec<Stretch>> {
    let record = file.get(index.offset as usize..)?;
    let header = RecordHeader::read(record, &slots.header.tag, index.offset)?;
    let is_inside = header.record_bytes() <= u64::from(index.bytes);
    if header.kind() != Some(Kind::Footer) || !is_inside {
        return None;
    }
    let view = FooterView::parse(header.payload(record)?)?;
    let marks = view.marks().filter(|mark| mark.listed == 0);
    Some(marks.map(|mark| Stretch { offset: mark.offset, bytes: mark.bytes }).collect())
}
