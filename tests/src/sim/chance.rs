//! Chance, in separate streams that one seed decides: what one part draws shifts no other part.

use postrider_engine::base::prng::Prng;

/// Who draws.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    Options = 1,
    Workload,
    Network,
    Disk,
    Hosts,
    Names,
    Scheduling,
    Faults,
    Engine,
    /// Whether there are later troubles in a world, and how they go.
    Later,
    LaterCourse,
    /// Whether clients say whose mail it is, and what.
    Labels,
    /// What binds the mail beside connections, and how that changes.
    Bounds,
    BoundsCourse,
    /// Rates in bytes of what sites share.
    Bytes,
    /// Whether there is more mail than hosts take.
    Crowds,
    /// What operators order, and when.
    Orders,
    OrdersCourse,
    /// Which sources are new, and when midnight is.
    WarmUp,
    /// Whether the hosts of a site have little in common.
    Uneven,
    /// What operators ask, and when.
    Asking,
    AskingCourse,
    /// Which warm-up days hold many messages.
    LongDays,
    /// Which hosts take chunks.
    Chunking,
}

/// One stream of chance.
#[derive(Debug)]
pub struct Chance(Prng);

impl Chance {
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let salt = Prng::new(stream as u64).next_u64();
        Self(Prng::new(seed ^ salt))
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// A number in `low..=high`, small ones far more often: every order of magnitude alike.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let bits = u64::BITS - (high - low).leading_zeros();
        let reach = 1u64 << self.below(u64::from(bits) + 1).min(63);
        low + self.below(reach.min(high - low + 1))
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index is a usize")
    }

    /// A length in `low..=high`.
    pub fn length(&mut self, low: usize, high: usize) -> usize {
        low + self.index(high - low + 1)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// True so often in a thousand.
    pub fn permille(&mut self, often: u32) -> bool {
        often > 0 && self.below(1000) < u64::from(often)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}
