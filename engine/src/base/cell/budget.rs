//! A number of bytes that all shards draw on.

use crossbeam_utils::CachePadded;

use crate::base::cell::atomics::{AtomicU64, Ordering};

/// A budget of bytes that all shards draw on; it may be overdrawn by what one shard takes in one
/// step, never by more.
#[derive(Debug)]
pub struct Budget {
    used: CachePadded<AtomicU64>,
    limit: u64,
}

impl Budget {
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { used: CachePadded::new(AtomicU64::new(0)), limit }
    }

    pub fn take(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn give_back(&self, amount: u64) {
        let before = self.used.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before >= amount, "a budget got back more than was taken");
    }

    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_at_its_limit() {
        let budget = Budget::new(10);
        budget.take(9);
        assert!(!budget.is_spent());
        budget.take(1);
        assert!(budget.is_spent());
        budget.give_back(10);
        assert_eq!(budget.used(), 0);
    }
}
