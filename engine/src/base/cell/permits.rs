//! A cap that several shards share: permits, and their hand-over to whoever waits.
//!
//! ```text
//! word = cap 24 | in_use 24          line = one bit per waiting shard
//! ```
//! - **acquire**: room, then one more in use. Else stand in line, *read the word again*, and wait.
//! - **release**: if a shard stands in line, it gets the permit and nothing is freed between.
//!   Else one less in use, then *read the line again*.
//!
//! Who waits writes the line and reads the word; who frees writes the word and reads the line. All
//! changes are SeqCst, so one of the two sees the other: no wake-up is lost, and room never
//! coexists with a waiter once the calls have returned. One permit freed wakes one shard.

use crate::base::cell::atomics::{AtomicU64, Ordering, read_after_change};
use crate::base::cell::waiters::Waiters;

/// The largest cap. With it a cell counts without limiting, as one must that will get a cap while
/// it is in use: without any cap nothing is counted.
pub const CAP_MAX: u32 = (1 << FIELD_BITS) - 2;

const FIELD_BITS: u32 = 24;
const UNCAPPED: u64 = (1 << FIELD_BITS) - 1;

/// One shared cap, what is in use of it, and who waits.
#[derive(Debug)]
pub struct PermitsCell {
    word: AtomicU64,
    line: Waiters,
}

/// The right to one connection; it goes back by [`PermitsCell::release`] when the peer's end is
/// known, to the cell it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is dropped is never free again"]
pub struct Permit {
    counted: bool,
}

/// A permit on its way to a shard that waits; in use until that shard accepts or declines it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a grant that is not sent is a permit lost and a shard that waits for ever"]
pub struct Grant {
    pub to: u16,
}

/// What becomes of a wish for a permit.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    Taken(Permit),
    /// The shard stands in line: a [`Grant`] will come. It parks the site in its own queue for this
    /// cell, holding no permit of any other.
    Parked,
}

impl PermitsCell {
    /// A cell with nothing in use, for the shards `0..shards`.
    #[must_use]
    pub fn new(shards: u16, cap: Option<u32>) -> Self {
        let word = Word(0).with_cap(cap);
        Self { word: AtomicU64::new(word.0), line: Waiters::new(shards) }
    }

    /// Takes a permit, or stands in line for one. A shard that has more sites parked here than the
    /// grant it just accepted serves calls this again for the next of them.
    pub fn acquire(&self, shard: u16) -> Answer {
        // No order is needed: nobody counts here.
        if Word(self.word.load(Ordering::Relaxed)).is_uncapped() {
            return Answer::Taken(Permit { counted: false });
        }
        // Ends: each round more means that another shard moved the word.
        loop {
            if self.take_room() {
                return Answer::Taken(Permit { counted: true });
            }
            // Who stood there before has read the word since, below.
            if self.line.stand(shard) || !self.has_room() {
                return Answer::Parked;
            }
            // Room after all, made by one who may not have seen us. If we are out of the line
            // already, the permit is on its way.
            if !self.line.leave(shard) {
                return Answer::Parked;
            }
        }
    }

    /// Gives a permit back. What is returned must reach its shard.
    pub fn release(&self, permit: Permit) -> Option<Grant> {
        if permit.counted { self.pass_on() } else { None }
    }

    /// Turns a grant into the permit it stands for, unless the cap was cut below what is in use
    /// since: then the shard stands in line again.
    pub fn accept(&self, grant: Grant) -> Answer {
        if self.drop_excess() {
            return self.acquire(grant.to);
        }
        Answer::Taken(Permit { counted: true })
    }

    /// Passes a grant on that nobody wants any more: its site is gone or was refused elsewhere, or
    /// the shard's mailbox is full (then it must try all it has parked again).
    pub fn decline(&self, _: Grant) -> Option<Grant> {
        self.pass_on()
    }

    /// Leaves the line: no site of the shard is parked here any more. A grant may be on its way all
    /// the same; it is declined when it comes.
    pub fn leave(&self, shard: u16) {
        self.line.leave(shard);
    }

    /// Counts what was begun while there was no cap, or was not known to fall under it, now that it
    /// does, even above the cap. Each shard does so for its open connections when it learns of that.
    pub fn adopt(&self, permit: &mut Permit) {
        let more = |word: Word| (!word.is_uncapped()).then(|| word.with_one_more());
        if !permit.counted {
            permit.counted = self.change(more);
        }
    }

    /// The permit of what was begun without one, to be adopted.
    pub fn without() -> Permit {
        Permit { counted: false }
    }

    /// Changes the cap; `None` is no cap. What is in use above a lower cap stays until it is
    /// released, and nothing is taken meanwhile. Room made by a higher one is granted here.
    #[must_use = "grants must reach their shards"]
    pub fn set_cap(&self, cap: Option<u32>) -> Vec<Grant> {
        self.change(|word| Some(word.with_cap(cap)));
        let mut grants = Vec::new();
        // Ends: each round takes a permit of the room that was made.
        while self.line.any() && self.take_room() {
            let Some(grant) = self.pass_on() else { break };
            grants.push(grant);
        }
        grants
    }

    /// The cap, if there is one.
    #[must_use]
    pub fn cap(&self) -> Option<u32> {
        let word = self.read();
        (!word.is_uncapped()).then(|| narrow(word.cap()))
    }

    /// Permits out and on their way; none are counted while there is no cap.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        narrow(self.read().in_use())
    }

    /// How many shards stand in line. While there are any, a connection that could be kept for
    /// more work is better closed in time: its permit is wanted elsewhere.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.line.len()
    }

    /// Whether a shard waits though there is room: never, between two calls.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.has_room() && self.line.any()
    }

    /// Gives the permit in hand to the next in line, or makes room of it.
    fn pass_on(&self) -> Option<Grant> {
        // Ends: each round more means that another shard took what we freed, and freed it again.
        loop {
            // Above a cap that was cut nobody may have it.
            if self.drop_excess() {
                return None;
            }
            if let Some(to) = self.line.serve() {
                return Some(Grant { to });
            }
            let before = Word(self.word.fetch_sub(1, Ordering::SeqCst));
            assert!(before.in_use() > 0, "a permit came back that nobody had");
            // Who came meanwhile may have read the word before it had room.
            if !self.line.any() || !self.take_room() {
                return None;
            }
        }
    }

    fn take_room(&self) -> bool {
        self.change(|word| word.has_room().then(|| word.with_one_more()))
    }

    fn drop_excess(&self) -> bool {
        self.change(|word| word.is_over().then(|| word.with_one_less()))
    }

    fn has_room(&self) -> bool {
        self.read().has_room()
    }

    fn read(&self) -> Word {
        Word(read_after_change(&self.word))
    }

    /// Changes the word unless `step` has no next value for it.
    fn change(&self, step: impl Fn(Word) -> Option<Word>) -> bool {
        let step = |word| step(Word(word)).map(|next| next.0);
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).is_ok()
    }
}

/// Cap and use in one number, so that no one sees the one without the other.
#[derive(Clone, Copy, Debug)]
struct Word(u64);

impl Word {
    fn cap(self) -> u64 {
        self.0 >> FIELD_BITS
    }

    fn in_use(self) -> u64 {
        self.0 & UNCAPPED
    }

    fn is_uncapped(self) -> bool {
        self.cap() == UNCAPPED
    }

    fn has_room(self) -> bool {
        self.in_use() < self.cap()
    }

    fn is_over(self) -> bool {
        self.in_use() > self.cap()
    }

    fn with_cap(self, cap: Option<u32>) -> Self {
        let cap = cap.map_or(UNCAPPED, |cap| u64::from(cap.min(CAP_MAX)));
        Self(cap << FIELD_BITS | self.in_use())
    }

    fn with_one_more(self) -> Self {
        assert!(self.in_use() < UNCAPPED, "more connections than any machine has");
        Self(self.0 + 1)
    }

    fn with_one_less(self) -> Self {
        Self(self.0 - 1)
    }
}

fn narrow(field: u64) -> u32 {
    u32::try_from(field).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn taken(answer: Answer) -> Permit {
        match answer {
            Answer::Taken(permit) => permit,
            Answer::Parked => panic!("there was room"),
        }
    }

    fn fill(cell: &PermitsCell, count: u32) -> Vec<Permit> {
        (0..count).map(|_| taken(cell.acquire(0))).collect()
    }

    #[test]
    fn a_freed_permit_goes_to_the_next_in_line_without_becoming_room() {
        let cell = PermitsCell::new(3, Some(1));
        let permit = taken(cell.acquire(0));
        assert_eq!(cell.acquire(2), Answer::Parked);
        assert_eq!(cell.acquire(1), Answer::Parked);
        let grant = cell.release(permit).unwrap();
        assert_eq!((grant.to, cell.in_use()), (1, 1));
        assert_eq!(cell.acquire(0), Answer::Parked, "no one gets in between");
        let permit = taken(cell.accept(grant));
        assert_eq!(cell.release(permit), Some(Grant { to: 2 }));
    }

    #[test]
    fn a_permit_nobody_waits_for_is_room() {
        let cell = PermitsCell::new(1, Some(1));
        let permit = taken(cell.acquire(0));
        assert_eq!(cell.release(permit), None);
        assert_eq!((cell.in_use(), cell.cap()), (0, Some(1)));
    }

    #[test]
    fn a_declined_grant_is_passed_on_and_then_freed() {
        let cell = PermitsCell::new(3, Some(1));
        let permit = taken(cell.acquire(0));
        assert_eq!(cell.acquire(1), Answer::Parked);
        assert_eq!(cell.acquire(2), Answer::Parked);
        let grant = cell.release(permit).unwrap();
        let grant = cell.decline(grant).unwrap();
        assert_eq!(grant.to, 2);
        assert_eq!(cell.decline(grant), None);
        assert_eq!(cell.in_use(), 0);
    }

    #[test]
    fn a_lower_cap_lets_nobody_in_until_it_is_kept() {
        let cell = PermitsCell::new(2, Some(3));
        let mut permits = fill(&cell, 3);
        assert_eq!(cell.set_cap(Some(1)), []);
        assert_eq!(cell.acquire(1), Answer::Parked);
        assert_eq!(cell.release(permits.remove(0)), None);
        assert_eq!(cell.release(permits.remove(0)), None);
        assert_eq!(cell.in_use(), 1);
        assert_eq!(cell.release(permits.remove(0)), Some(Grant { to: 1 }));
    }

    #[test]
    fn a_grant_that_a_cut_overtakes_waits_again() {
        let cell = PermitsCell::new(2, Some(2));
        let mut permits = fill(&cell, 2);
        assert_eq!(cell.acquire(1), Answer::Parked);
        let grant = cell.release(permits.remove(0)).unwrap();
        assert_eq!(cell.set_cap(Some(1)), []);
        assert_eq!(cell.accept(grant), Answer::Parked);
        assert_eq!(cell.in_use(), 1);
        assert_eq!(cell.release(permits.remove(0)), Some(Grant { to: 1 }));
    }

    #[test]
    fn a_higher_cap_grants_its_room_to_those_who_wait() {
        let cell = PermitsCell::new(4, Some(0));
        for shard in 0..4 {
            assert_eq!(cell.acquire(shard), Answer::Parked);
        }
        let granted: Vec<_> = cell.set_cap(Some(3)).iter().map(|grant| grant.to).collect();
        assert_eq!((granted, cell.in_use(), cell.waiting()), (vec![0, 1, 2], 3, 1));
        assert_eq!(cell.set_cap(None), [Grant { to: 3 }]);
        assert!(!cell.is_stuck());
    }

    #[test]
    fn without_a_cap_nothing_is_counted_until_it_is_adopted() {
        let cell = PermitsCell::new(1, None);
        let mut permits = fill(&cell, 2);
        assert_eq!((cell.in_use(), cell.cap()), (0, None));
        cell.adopt(&mut permits[0]);
        assert_eq!(cell.in_use(), 0, "there is no cap to count for");
        assert_eq!(cell.set_cap(Some(1)), []);
        permits.iter_mut().for_each(|permit| cell.adopt(permit));
        permits.iter_mut().for_each(|permit| cell.adopt(permit));
        assert_eq!(cell.in_use(), 2);
        assert_eq!(cell.acquire(0), Answer::Parked);
        assert_eq!(cell.release(permits.remove(0)), None);
        assert_eq!(cell.release(permits.remove(0)), Some(Grant { to: 0 }));
    }

    #[test]
    fn a_permit_taken_without_a_cap_goes_back_uncounted() {
        let cell = PermitsCell::new(1, None);
        let free = taken(cell.acquire(0));
        assert_eq!(cell.set_cap(Some(CAP_MAX)), []);
        let counted = taken(cell.acquire(0));
        assert_eq!(cell.release(free), None);
        assert_eq!(cell.in_use(), 1);
        assert_eq!(cell.release(counted), None);
    }

    #[test]
    fn who_left_the_line_gets_nothing() {
        let cell = PermitsCell::new(2, Some(1));
        let permit = taken(cell.acquire(0));
        assert_eq!(cell.acquire(1), Answer::Parked);
        cell.leave(1);
        assert_eq!(cell.release(permit), None);
        assert_eq!(cell.in_use(), 0);
    }
}
