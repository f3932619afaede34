//! The line in front of a cell: which shards wait, one bit each, served in turn.

use crate::base::cell::atomics::{AtomicU64, Hint, Ordering, read_after_change};

/// More shards than this would need a wider line; a machine has at most so many cores for mail.
pub const SHARDS_MAX: u16 = 256;

const SHARDS_PER_WORD: u16 = 64;
const WORDS_MAX: usize = (SHARDS_MAX / SHARDS_PER_WORD) as usize;

/// A shard stands here once, however many of its sites are parked.
#[derive(Debug)]
pub(super) struct Waiters {
    bits: [AtomicU64; WORDS_MAX],
    /// The shard served last, so that those behind it come next.
    served: Hint,
    shards: u16,
}

impl Waiters {
    pub(super) fn new(shards: u16) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards), "{shards} shards do not fit one line");
        let bits = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bits, served: Hint::new(shards - 1), shards }
    }

    /// Stands in line; whether the shard stood there already.
    pub(super) fn stand(&self, shard: u16) -> bool {
        let (word, bit) = self.place(shard);
        self.bits[word].fetch_or(bit, Ordering::SeqCst) & bit != 0
    }

    /// Leaves the line; whether the shard still stood there. If not, it is being served.
    pub(super) fn leave(&self, shard: u16) -> bool {
        let (word, bit) = self.place(shard);
        self.bits[word].fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Whether anybody stands in line.
    pub(super) fn any(&self) -> bool {
        self.words().iter().any(|word| read_after_change(word) != 0)
    }

    pub(super) fn len(&self) -> u32 {
        self.words().iter().map(|word| read_after_change(word).count_ones()).sum()
    }

    /// Takes the next shard out of the line: the first after the one served last. `None` may miss
    /// who comes meanwhile; whoever makes room asks [`Waiters::any`] again after that.
    pub(super) fn serve(&self) -> Option<u16> {
        let first = self.served.load(Ordering::Relaxed).wrapping_add(1) % self.shards;
        let words = self.words().len();
        let (start, below) = (usize::from(first / SHARDS_PER_WORD), (1 << (first % 64)) - 1);
        let next = self.claim(start, !below).or_else(|| {
            let others = (1..words).find_map(|step| self.claim((start + step) % words, u64::MAX));
            others.or_else(|| self.claim(start, below))
        })?;
        self.served.store(next, Ordering::Relaxed);
        Some(next)
    }

    /// Takes the lowest bit under `mask` that is still set when it is cleared.
    fn claim(&self, word: usize, mask: u64) -> Option<u16> {
        let mut standing = if mask == 0 { 0 } else { read_after_change(&self.bits[word]) & mask };
        // Ends: each round that loses its bit to another has one bit fewer to try.
        while standing != 0 {
            let bit = standing & standing.wrapping_neg();
            let before = self.bits[word].fetch_and(!bit, Ordering::SeqCst);
            if before & bit != 0 {
                return Some(shard_at(word, bit));
            }
            standing &= before;
        }
        None
    }

    fn place(&self, shard: u16) -> (usize, u64) {
        assert!(shard < self.shards, "shard {shard} of {}", self.shards);
        (usize::from(shard / SHARDS_PER_WORD), 1 << (shard % SHARDS_PER_WORD))
    }

    /// The words in use, so that a small engine reads one.
    fn words(&self) -> &[AtomicU64] {
        &self.bits[..usize::from(self.shards.div_ceil(SHARDS_PER_WORD))]
    }
}

fn shard_at(word: usize, bit: u64) -> u16 {
    let shard = word * usize::from(SHARDS_PER_WORD) + bit.trailing_zeros() as usize;
    u16::try_from(shard).unwrap_or(SHARDS_MAX)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn all_are_served_in_turn_across_words() {
        let line = Waiters::new(SHARDS_MAX);
        for shard in [200, 3, 64, 255, 63, 0] {
            assert!(!line.stand(shard));
        }
        assert!(line.stand(64), "it stood there");
        let served: Vec<_> = std::iter::from_fn(|| line.serve()).collect();
        assert_eq!(served, [0, 3, 63, 64, 200, 255]);
        assert!(!line.any());
    }

    #[test]
    fn who_was_served_and_comes_back_waits_for_the_others() {
        let line = Waiters::new(5);
        (0..5).for_each(|shard| assert!(!line.stand(shard)));
        let served: Vec<_> = (0..20)
            .map(|_| {
                let shard = line.serve().unwrap();
                line.stand(shard);
                shard
            })
            .collect();
        assert_eq!(served, [0, 1, 2, 3, 4].repeat(4));
    }

    #[test]
    fn who_leaves_is_not_served() {
        let line = Waiters::new(2);
        line.stand(1);
        assert!(line.leave(1));
        assert!(!line.leave(1));
        assert_eq!(line.serve(), None);
    }
}
