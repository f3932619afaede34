//! Deferred entries whose due times come in no order: a binary heap of four bytes an entry. Each knows
//! its place in it, so that any of them can leave.

use super::entry::Entries;
use crate::base::time::Mono;

/// Entries, the first to be due in front. One that waits here is in no list: its links are free, and
/// the first of them is its place.
#[derive(Debug, Default)]
pub(super) struct Due {
    heap: Vec<u32>,
    /// When the last of all is due that came since there was none.
    latest: Mono,
}

impl Due {
    pub(super) fn first(&self) -> Option<u32> {
        self.heap.first().copied()
    }

    /// When all that wait here are due.
    pub(super) fn latest(&self) -> Mono {
        if self.heap.is_empty() { Mono::default() } else { self.latest }
    }

    pub(super) fn add(&mut self, entries: &mut Entries, id: u32, due: Mono) {
        self.latest = self.latest().max(due);
        self.heap.push(id);
        self.rise(entries, self.heap.len() - 1);
    }

    pub(super) fn remove(&mut self, entries: &mut Entries, id: u32) {
        let at = entries[id].queue.prev as usize;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.rise(entries, at);
            self.sink(entries, at);
        }
    }

    /// Moves what is due before its parent up.
    fn rise(&mut self, entries: &mut Entries, mut at: usize) {
        while at > 0 && self.is_before(entries, at, (at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            self.settle(entries, at);
            at = (at - 1) / 2;
        }
        self.settle(entries, at);
    }

    /// Moves what is due behind a child down.
    fn sink(&mut self, entries: &mut Entries, mut at: usize) {
        loop {
            let children = (2 * at + 1..self.heap.len()).take(2);
            let first = children
                .reduce(|one, other| if self.is_before(entries, other, one) { other } else { one });
            match first {
                Some(child) if self.is_before(entries, child, at) => {
                    self.heap.swap(at, child);
                    self.settle(entries, at);
                    at = child;
                }
                _ => break,
            }
        }
        self.settle(entries, at);
    }

    /// Tells an entry its place.
    fn settle(&self, entries: &mut Entries, at: usize) {
        let place = u32::try_from(at).expect("there are fewer entries than numbers");
        entries[self.heap[at]].queue.prev = place;
    }

    fn is_before(&self, entries: &Entries, one: usize, other: usize) -> bool {
        let tick = |at: usize| entries[self.heap[at]].tick();
        tick(one).is_before(tick(other))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, Wait};
    use super::super::tick::Tick;
    use super::*;
    use crate::base::prng::Prng;
    use crate::base::time::Wall;
    use crate::model::connection::ShardId;
    use crate::model::delivery::Delivery;
    use crate::model::message::{MessageId, Place, SegmentSeq};

    /// Shortly before the ticks of [`Tick`] begin anew.
    const START: Mono = Mono(((1 << 30) - 500) << 22);

    fn insert(entries: &mut Entries, heap: &mut Due, due: Mono) -> u32 {
        let delivery = Delivery {
            message: MessageId::new(SegmentSeq(1), 1),
            home: ShardId(0),
            place: Place { segment: SegmentSeq(1), offset: 64, bytes: 100 },
            in_pieces: 0,
            first: 0,
            count: 1,
            attempts: 1,
            accepted: Wall(0),
            record: None,
        };
        let (tick, moment) = Tick::at_or_after(due);
        let id = entries.insert(Entry::new(&delivery, 0, Wait::Restored(tick), 0));
        heap.add(entries, id, moment);
        id
    }

    #[test]
    fn what_is_due_first_comes_first_whatever_left_meanwhile() {
        let (mut entries, mut heap, mut prng) = (Entries::new(), Due::default(), Prng::new(7));
        let mut waiting = Vec::new();
        for _ in 0..300 {
            let due = Mono(START.0 + (prng.below(1000) << 22));
            waiting.push((due, insert(&mut entries, &mut heap, due)));
        }
        for _ in 0..150 {
            let at = usize::try_from(prng.below(waiting.len() as u64)).unwrap();
            let (_, id) = waiting.swap_remove(at);
            heap.remove(&mut entries, id);
            entries.remove(id);
        }
        let mut dues: Vec<Mono> = waiting.iter().map(|(due, _)| *due).collect();
        dues.sort_unstable();
        for due in dues {
            let id = heap.first().unwrap();
            assert_eq!(entries[id].due(START), Some(due));
            heap.remove(&mut entries, id);
            entries.remove(id);
        }
        assert_eq!((heap.first(), heap.latest()), (None, Mono::default()));
    }

    #[test]
    fn the_latest_is_that_of_those_that_wait() {
        let (mut entries, mut heap) = (Entries::new(), Due::default());
        let day = Mono(86_400 << 30);
        let id = insert(&mut entries, &mut heap, day);
        insert(&mut entries, &mut heap, Mono(5 << 30));
        assert_eq!(heap.latest(), day);
        heap.remove(&mut entries, id);
        let last = heap.first().unwrap();
        heap.remove(&mut entries, last);
        insert(&mut entries, &mut heap, Mono(7 << 30));
        assert_eq!(heap.latest(), Mono(7 << 30));
    }
}
