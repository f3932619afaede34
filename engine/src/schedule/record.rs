//! Records of ready deliveries that are kept in memory, within a budget all shards share.

use std::sync::Arc;

use slab::Slab;

use crate::base::cell::Budget;
use crate::base::planted::{Bug, planted};
use crate::model::delivery::RecordInMemory;

/// Kept records by number. Whatever is kept is taken from the budget, and given back when it goes.
#[derive(Debug)]
pub(super) struct Records {
    kept: Slab<(RecordInMemory, u32)>,
    budget: Arc<Budget>,
}

/// Numbers fit the 30 bits an entry has for them; one is left for "none".
const RECORDS_MAX: usize = (1 << 30) - 1;

impl Records {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { kept: Slab::new(), budget }
    }

    /// Keeps `record` of `bytes` bytes unless the budget is spent. The newcomer is due last in its
    /// queue, so it is the one to be read again from the spool.
    pub(super) fn keep(&mut self, record: Option<RecordInMemory>, bytes: u32) -> Option<u32> {
        let record = record?;
        if self.budget.is_spent() || self.kept.len() >= RECORDS_MAX {
            return None;
        }
        self.budget.take(u64::from(bytes));
        u32::try_from(self.kept.insert((record, bytes))).ok()
    }

    /// Hands a record over.
    pub(super) fn take(&mut self, number: u32) -> RecordInMemory {
        let (record, bytes) = self.kept.remove(number as usize);
        if !planted(Bug::MemoryKept) {
            self.budget.give_back(u64::from(bytes));
        }
        record
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        for (_, (_, bytes)) in &self.kept {
            self.budget.give_back(u64::from(*bytes));
        }
    }
}
