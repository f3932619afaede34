//! When a deferred delivery is tried again: waits by attempt, spread by jitter lanes, in FIFOs
//! that are sorted because everyone in one of them waits equally long.

use std::time::Duration;

use super::entry::Entries;
use super::list::List;
use super::tick::WAIT_MAX;
use crate::base::map::stable_hash;
use crate::base::planted::{Bug, planted};
use crate::base::time::Mono;
use crate::model::message::MessageId;
use crate::model::settings::RETRIES_MAX;

/// Messages deferred together come back in eight groups, not as one herd.
pub(super) const JITTER_LANES: u64 = 8;
/// Attempts beyond this share FIFOs: they wait equally long.
const ATTEMPT_CLASSES: u16 = 32;
const _: () = assert!(RETRIES_MAX <= ATTEMPT_CLASSES as usize);
/// The last lane waits a quarter longer than the first.
const LANE_PARTS: u64 = 4 * (JITTER_LANES - 1);

/// Names one FIFO of a site: attempt class and jitter lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FifoKey(u16);

/// Deliveries that wait equally long; the first is due first.
#[derive(Debug)]
pub(super) struct Fifo {
    key: FifoKey,
    pub(super) list: List,
    /// When its alarm rings.
    pub(super) armed: Mono,
    /// Takes a pointer until an operator flushes it.
    flushed: Option<Box<Flushed>>,
}

/// What an operator did not want to wait for.
#[derive(Debug, Default)]
struct Flushed {
    /// What is due up to then is let go at once.
    to: Mono,
    /// What is due up to then was here when a part of the mail was flushed, whatever reloads did to the
    /// waits.
    swept_to: Mono,
}

impl Fifo {
    /// When one may be due at the soonest: not before those in front, even if a reload has made the
    /// waits shorter, and not with those that are let go.
    pub(super) fn soonest(&self, entries: &Entries, now: Mono) -> Mono {
        let flushed = self.flushed_to().max(self.swept_to()).plus(Duration::from_nanos(1));
        self.last(entries, now).max(flushed)
    }

    pub(super) fn flushed_to(&self) -> Mono {
        self.flushed.as_ref().map_or_else(Mono::default, |flushed| flushed.to)
    }

    pub(super) fn swept_to(&self) -> Mono {
        self.flushed.as_ref().map_or_else(Mono::default, |flushed| flushed.swept_to)
    }

    /// When the last one is due.
    fn last(&self, entries: &Entries, now: Mono) -> Mono {
        self.list.back().and_then(|id| entries[id].due(now)).unwrap_or_default()
    }
}

/// The FIFOs of one site that hold something: few, sorted by key.
#[derive(Debug, Default)]
pub(super) struct Fifos(Vec<Fifo>);

impl FifoKey {
    pub(super) fn new(message: MessageId, attempts: u16) -> Self {
        let class = attempts.clamp(1, ATTEMPT_CLASSES) - 1;
        let lane = u16::try_from(lane_of(message)).unwrap_or(0);
        Self(class * 8 + lane)
    }
}

impl Fifos {
    pub(super) fn get(&mut self, key: FifoKey) -> Option<&mut Fifo> {
        let index = self.find(key).ok()?;
        Some(&mut self.0[index])
    }

    pub(super) fn get_or_add(&mut self, key: FifoKey) -> &mut Fifo {
        let index = self.find(key).unwrap_or_else(|index| {
            let fifo = Fifo { key, list: List::EMPTY, armed: Mono::NEVER, flushed: None };
            self.0.insert(index, fifo);
            index
        });
        &mut self.0[index]
    }

    /// The first of each.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|fifo| fifo.list.front())
    }

    /// Lets go of all that they hold; their keys.
    pub(super) fn flush(&mut self, entries: &Entries, now: Mono) -> Vec<FifoKey> {
        for fifo in &mut self.0 {
            let last = fifo.last(entries, now);
            fifo.flushed.get_or_insert_default().to = last;
        }
        self.0.iter().map(|fifo| fifo.key).collect()
    }

    /// Tells what they hold from what comes later, for a sweep.
    pub(super) fn mark(&mut self, entries: &Entries, now: Mono) {
        for fifo in &mut self.0 {
            let last = fifo.last(entries, now);
            fifo.flushed.get_or_insert_default().swept_to = last;
        }
    }

    /// Forgets a FIFO that holds nothing.
    pub(super) fn drop_if_empty(&mut self, key: FifoKey) {
        if let Ok(index) = self.find(key)
            && self.0[index].list.is_empty()
        {
            self.0.remove(index);
        }
    }

    fn find(&self, key: FifoKey) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |fifo| fifo.key)
    }
}

/// The jitter lane of a message: the same for all its attempts.
pub(super) fn lane_of(message: MessageId) -> u64 {
    stable_hash(&message.0.to_le_bytes()) % JITTER_LANES
}

/// The wait after the `attempts`th failed attempt, with the jitter of `lane`: lanes lie evenly from
/// the set wait to a quarter above it. Never below: who sets five minutes has a greylist in mind.
pub(super) fn wait_after(retry: &[Duration], attempts: u16, lane: u64) -> Duration {
    /// A retry list is never empty where settings were checked; if one is, wait as Postfix does.
    const WAIT_WITHOUT_LIST: Duration = Duration::from_secs(300);
    assert!(attempts > 0, "the first attempt needs no wait");
    let set =
        retry.get(usize::from(attempts) - 1).or_else(|| retry.last()).unwrap_or(&WAIT_WITHOUT_LIST);
    let set = u64::try_from((*set).min(WAIT_MAX).as_nanos()).unwrap_or(u64::MAX);
    let set = if planted(Bug::BackoffHalved) { set / 2 } else { set };
    Duration::from_nanos(set / LANE_PARTS * (LANE_PARTS + lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_adds_up_to_a_quarter_and_the_last_wait_repeats() {
        let retry = [Duration::from_millis(500), Duration::from_secs(300)];
        for (attempts, set) in
            [(1, 500_000), (2, 300_000_000), (3, 300_000_000), (900, 300_000_000)]
        {
            let waits: Vec<u128> = (0..JITTER_LANES)
                .map(|lane| wait_after(&retry, attempts, lane).as_micros())
                .collect();
            assert!(waits.is_sorted() && waits[0] < waits[7]);
            assert!(waits[0].abs_diff(set) <= 1 && waits[7].abs_diff(set * 5 / 4) <= 1);
        }
    }

    #[test]
    fn lanes_are_used_evenly() {
        let mut used = [0; 8];
        for id in 0..8000 {
            used[usize::try_from(lane_of(MessageId(id))).unwrap()] += 1;
        }
        assert!(used.iter().all(|count| (800..1200).contains(count)), "{used:?}");
    }
}
