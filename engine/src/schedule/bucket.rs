//! Entries by the second at whose end their time is over: those that end together, in one list.

use std::time::Duration;

use smallvec::SmallVec;

use super::list::{Linked, List};
use crate::base::time::Mono;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Lists by the end of their bucket, in seconds of the monotonic clock, sorted. There are few: what
/// arrives later ends later, and how many there can be is bounded by the width of buckets and the
/// reach of the times, not by the entries.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by_end: SmallVec<[(u32, List); 1]>,
}

/// The end of the bucket of `width` that `at` falls into.
pub(super) fn bucket_end(at: Mono, width: Duration) -> u32 {
    let width = width.as_secs().max(1);
    let seconds = at.0.div_ceil(NANOS_PER_SECOND).next_multiple_of(width);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The moment at which a bucket ends.
pub(super) fn moment(end: u32) -> Mono {
    Mono(u64::from(end) * NANOS_PER_SECOND)
}

impl Buckets {
    pub(super) fn add(&mut self, arena: &mut impl Linked, end: u32, id: u32) {
        let at = self.find(end).unwrap_or_else(|at| {
            self.by_end.insert(at, (end, List::EMPTY));
            at
        });
        self.by_end[at].1.push_back(arena, id);
    }

    pub(super) fn remove(&mut self, arena: &mut impl Linked, end: u32, id: u32) {
        let Ok(at) = self.find(end) else { return };
        let list = &mut self.by_end[at].1;
        list.remove(arena, id);
        if list.is_empty() {
            self.by_end.remove(at);
        }
    }

    /// An entry of the earliest bucket, if that has ended.
    pub(super) fn front_due(&self, now: Mono) -> Option<u32> {
        let (end, list) = self.by_end.first()?;
        if moment(*end) > now { None } else { list.front() }
    }

    /// When the earliest bucket ends.
    pub(super) fn next(&self) -> Option<Mono> {
        self.by_end.first().map(|(end, _)| moment(*end))
    }

    fn find(&self, end: u32) -> Result<usize, usize> {
        self.by_end.binary_search_by_key(&end, |(end, _)| *end)
    }
}
