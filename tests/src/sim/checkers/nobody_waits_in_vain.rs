//! Nobody waits in vain: at no shared cap is there room and a waiter at once, and at rest nothing of
//! it is in use and nobody stands in line.

use super::{Checker, Seen};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct NobodyWaitsInVain {
    judged: u64,
}

impl Checker for NobodyWaitsInVain {
    fn name(&self) -> &'static str {
        "nobody waits in vain"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Cells { cells, is_at_rest } = seen else { return Ok(()) };
        for cell in *cells {
            let (key, permits) = (cell.key(), cell.permits());
            self.judged += u64::from(permits.cap().is_some());
            if permits.is_stuck() {
                return Err(format!("{key:?} has room, and a shard waits: {permits:?}"));
            }
            if *is_at_rest && permits.cap().is_some() && permits.in_use() > 0 {
                return Err(format!("at rest, {} of {key:?} are in use", permits.in_use()));
            }
            if *is_at_rest && permits.waiting() > 0 {
                return Err(format!("at rest, a shard waits for {key:?}"));
            }
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
