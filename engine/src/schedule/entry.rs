//! A waiting delivery in 64 bytes, and the slab that holds all of them.
//!
//! Ten million deferred deliveries are 640 MB: what can be worked out from a neighbour is not kept.

use super::list::{Linked, Links, NONE};
use super::order::cost_of;
use super::tick::Tick;
use crate::base::time::{Mono, Wall};
use crate::model::connection::ShardId;
use crate::model::delivery::Delivery;
use crate::model::message::{MessageId, Place, SegmentSeq};

/// The two top bits of [`Entry::wait`] say what the others mean.
const KIND_SHIFT: u32 = 30;
const VALUE_MASK: u32 = (1 << KIND_SHIFT) - 1;
const KIND_READY: u32 = 0;
const KIND_RETRY: u32 = 1;
const KIND_RESTORED: u32 = 2;

/// The low six bits of an offset, which are zero in every record's, say how much of a body lies in
/// pieces: rounded up, so that no rate in bytes is exceeded.
const PIECES_MASK: u32 = 63;
/// Up to a MiB in steps of 64 KiB, from there on in quarters of a power of two.
const PIECES_EVEN: u32 = 16;
const PIECES_STEP_SHIFT: u32 = 16;

/// Where an entry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// In the lane of its home; the number of its record, if that is still in memory.
    Ready(Option<u32>),
    /// In the FIFO of its attempt and jitter lane.
    Retry(Tick),
    /// Deferred before a restart, due at any time.
    Restored(Tick),
}

/// One delivery that waits. Its site is that of its course.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: MessageId,
    pub(super) accepted: Wall,
    pub(super) queue: Links,
    pub(super) expiring: Links,
    /// The end of its expiry bucket, in seconds of the monotonic clock.
    pub(super) expires: u32,
    pub(super) course: u32,
    wait: u32,
    /// The low half of the segment's sequence: the message's own segment is never 2^31 away.
    segment_low: u32,
    offset_and_pieces: u32,
    bytes: u32,
    first: u16,
    count: u16,
    pub(super) attempts: u16,
    pub(super) home: ShardId,
}

const _: () = assert!(size_of::<Entry>() == 64, "an entry is one cache line");

impl Entry {
    /// Keeps everything of `delivery` but its record.
    pub(super) fn new(delivery: &Delivery, course: u32, wait: Wait, expires: u32) -> Self {
        Self {
            message: delivery.message,
            accepted: delivery.accepted,
            queue: Links::ALONE,
            expiring: Links::ALONE,
            expires,
            course,
            wait: pack(wait),
            segment_low: low_half(delivery.place.segment.0),
            offset_and_pieces: delivery.place.offset | pieces_class(delivery.in_pieces),
            bytes: delivery.place.bytes,
            first: delivery.first,
            count: delivery.count,
            attempts: delivery.attempts,
            home: delivery.home,
        }
    }

    /// The delivery again, without a record.
    pub(super) fn delivery(&self) -> Delivery {
        let segment = SegmentSeq(near(self.message.segment().0, self.segment_low));
        Delivery {
            message: self.message,
            home: self.home,
            place: Place {
                segment,
                offset: self.offset_and_pieces & !PIECES_MASK,
                bytes: self.bytes,
            },
            in_pieces: pieces_bytes(self.offset_and_pieces & PIECES_MASK),
            first: self.first,
            count: self.count,
            attempts: self.attempts,
            accepted: self.accepted,
            record: None,
        }
    }

    pub(super) fn wait(&self) -> Wait {
        let value = self.wait & VALUE_MASK;
        match self.wait >> KIND_SHIFT {
            KIND_READY => Wait::Ready((value != VALUE_MASK).then_some(value)),
            KIND_RETRY => Wait::Retry(Tick(value)),
            _ => Wait::Restored(Tick(value)),
        }
    }

    /// When a deferred one is due.
    pub(super) fn due(&self, now: Mono) -> Option<Mono> {
        match self.wait() {
            Wait::Retry(tick) | Wait::Restored(tick) => Some(tick.moment(now)),
            Wait::Ready(_) => None,
        }
    }

    /// The same in ticks, of one that is known to be deferred.
    pub(super) fn tick(&self) -> Tick {
        Tick(self.wait & VALUE_MASK)
    }

    /// Of its record and of the pieces of its body.
    pub(super) fn bytes(&self) -> u32 {
        self.bytes.saturating_add(pieces_bytes(self.offset_and_pieces & PIECES_MASK))
    }

    /// What it costs its flow.
    pub(super) fn cost(&self) -> u32 {
        cost_of(self.count, self.bytes())
    }

    /// What tells older from younger where lanes are compared.
    pub(super) fn age(&self) -> (Wall, MessageId, u16) {
        (self.accepted, self.message, self.first)
    }
}

fn pack(wait: Wait) -> u32 {
    let (kind, value) = match wait {
        Wait::Ready(record) => (KIND_READY, record.unwrap_or(VALUE_MASK)),
        Wait::Retry(Tick(due)) => (KIND_RETRY, due),
        Wait::Restored(Tick(due)) => (KIND_RESTORED, due),
    };
    assert!(value <= VALUE_MASK, "an entry keeps 30 bits of its wait");
    kind << KIND_SHIFT | value
}

/// The most that lies in pieces of this class.
fn pieces_bytes(class: u32) -> u32 {
    if class <= PIECES_EVEN {
        return class << PIECES_STEP_SHIFT;
    }
    let beyond = class - PIECES_EVEN;
    let quarters = u64::from(4 + beyond % 4) << (beyond / 4);
    u32::try_from(quarters << (PIECES_STEP_SHIFT + 2)).unwrap_or(u32::MAX)
}

fn pieces_class(bytes: u32) -> u32 {
    (0..PIECES_MASK).find(|class| pieces_bytes(*class) >= bytes).unwrap_or(PIECES_MASK)
}

fn low_half(wide: u64) -> u32 {
    u32::try_from(wide & u64::from(u32::MAX)).unwrap_or(0)
}

/// The number nearest to `anchor` whose low half is `low`.
fn near(anchor: u64, low: u32) -> u64 {
    let ahead = low.wrapping_sub(low_half(anchor)).cast_signed();
    anchor.wrapping_add_signed(i64::from(ahead))
}

/// All waiting deliveries of one owner. Vacant slots are chained through their queue links.
#[derive(Debug)]
pub(super) struct Entries {
    slots: Vec<Entry>,
    vacant: u32,
    len: usize,
    /// How often an entry was read.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<usize>,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: NONE,
            len: 0,
            #[cfg(test)]
            looked_at: std::cell::Cell::new(0),
        }
    }

    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        self.len += 1;
        if self.vacant == NONE {
            let id = u32::try_from(self.slots.len()).unwrap_or(NONE);
            assert!(id != NONE, "one shard holds fewer than 2^32 deliveries");
            self.slots.push(entry);
            return id;
        }
        let id = self.vacant;
        let slot = &mut self.slots[id as usize];
        self.vacant = slot.queue.next;
        *slot = entry;
        id
    }

    /// Frees the slot; the entry must have left both of its lists.
    pub(super) fn remove(&mut self, id: u32) {
        self.len -= 1;
        let slot = &mut self.slots[id as usize];
        slot.queue = Links { prev: NONE, next: self.vacant };
        slot.course = NONE;
        self.vacant = id;
    }

    /// Slots, vacant ones included: what a sweep goes through.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NONE)
    }

    pub(super) fn is_vacant(&self, id: u32) -> bool {
        self.slots.get(id as usize).is_none_or(|slot| slot.course == NONE)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Seen as members of ready lanes and retry FIFOs.
    pub(super) fn queued(&mut self) -> Queued<'_> {
        Queued(self)
    }

    /// Seen as members of expiry buckets.
    pub(super) fn expiring(&mut self) -> Expiring<'_> {
        Expiring(self)
    }
}

impl std::ops::Index<u32> for Entries {
    type Output = Entry;

    fn index(&self, id: u32) -> &Entry {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
        &self.slots[id as usize]
    }
}

impl std::ops::IndexMut<u32> for Entries {
    fn index_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.slots[id as usize]
    }
}

pub(super) struct Queued<'a>(&'a mut Entries);

impl Linked for Queued<'_> {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self.0[id].queue
    }
}

pub(super) struct Expiring<'a>(&'a mut Entries);

impl Linked for Expiring<'_> {
    fn links(&mut self, id: u32) -> &mut Links {
        &mut self.0[id].expiring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(own_segment: u64, place_segment: u64) -> Delivery {
        Delivery {
            message: MessageId::new(SegmentSeq(own_segment), 9),
            home: ShardId(3),
            place: Place { segment: SegmentSeq(place_segment), offset: 640, bytes: 77 },
            in_pieces: 3 << 16,
            first: 2,
            count: 5,
            attempts: 4,
            accepted: Wall(123_456_789_012),
            record: None,
        }
    }

    #[test]
    fn an_entry_gives_the_delivery_back_whole() {
        for (own, place) in [(1, 1), (5, 2), (0xffff_ffff, 0x1_0000_0002), (0x1_0000_0002, 7)] {
            let given = delivery(own, place.max(own.saturating_sub(1 << 30)));
            let back = Entry::new(&given, 0, Wait::Ready(None), 0).delivery();
            assert_eq!(format!("{back:?}"), format!("{given:?}"));
        }
    }

    #[test]
    fn what_lies_in_pieces_is_never_told_too_small_and_at_most_a_quarter_too_large() {
        assert!((0..63).all(|class| pieces_bytes(class) < pieces_bytes(class + 1)));
        for bytes in [0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 10_000_000, 2_000_000_000] {
            let told = pieces_bytes(pieces_class(bytes));
            let most = (u64::from(bytes) * 5).div_ceil(4).max(65_536);
            assert!(
                told >= bytes && u64::from(told) <= most.max(u64::from(bytes) + 65_536),
                "{bytes}"
            );
        }
    }

    #[test]
    fn an_entry_remembers_where_it_waits() {
        let waits = [
            Wait::Ready(None),
            Wait::Ready(Some(0)),
            Wait::Retry(Tick(7)),
            Wait::Restored(Tick(0)),
        ];
        for wait in waits {
            assert_eq!(Entry::new(&delivery(1, 1), 0, wait, 0).wait(), wait);
        }
    }

    #[test]
    fn vacant_slots_are_used_again() {
        let mut entries = Entries::new();
        let entry = || Entry::new(&delivery(1, 1), 0, Wait::Ready(None), 0);
        let ids: Vec<u32> = (0..3).map(|_| entries.insert(entry())).collect();
        entries.remove(ids[1]);
        entries.remove(ids[0]);
        assert_eq!([entries.insert(entry()), entries.insert(entry())], [ids[0], ids[1]]);
        assert_eq!(entries.len(), 3);
    }
}
