//! Entries by the second at whose end they are due: for times that come in no order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::list::{Linked, List};
use crate::base::time::Mono;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Lists by the end of their bucket, in seconds of the monotonic clock. How many there are is
/// bounded by the width of buckets and the reach of the times, not by the entries.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by_end: BTreeMap<u32, List>,
}

/// The end of the bucket of `width` that `at` falls into.
pub(super) fn bucket_end(at: Mono, width: Duration) -> u32 {
    let width = width.as_secs().max(1);
    let seconds = at.0.div_ceil(NANOS_PER_SECOND).next_multiple_of(width);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl Buckets {
    pub(super) fn add(&mut self, arena: &mut impl Linked, end: u32, id: u32) {
        self.by_end.entry(end).or_insert(List::EMPTY).push_back(arena, id);
    }

    pub(super) fn remove(&mut self, arena: &mut impl Linked, end: u32, id: u32) {
        let Some(list) = self.by_end.get_mut(&end) else { return };
        list.remove(arena, id);
        if list.is_empty() {
            self.by_end.remove(&end);
        }
    }

    /// An entry of the earliest bucket, if that has ended.
    pub(super) fn front_due(&self, now: Mono) -> Option<u32> {
        let (end, list) = self.by_end.first_key_value()?;
        if moment(*end) > now { None } else { list.front() }
    }

    /// When the latest bucket ends.
    pub(super) fn last(&self) -> Option<Mono> {
        self.by_end.last_key_value().map(|(end, _)| moment(*end))
    }

    /// When the earliest bucket ends.
    pub(super) fn next(&self) -> Option<Mono> {
        self.by_end.first_key_value().map(|(end, _)| moment(*end))
    }
}

fn moment(end: u32) -> Mono {
    Mono(u64::from(end) * NANOS_PER_SECOND)
}
