//! A limit is never exceeded: no site, path, provider, source or address ever counts more connections
//! than its settings allow, as the hosts count them.
//!
//! A limit lowered by a reload counts once no permit of the old one can be under way; what is open
//! then may stay, and nothing is opened above it.

use std::collections::BTreeMap;

use super::{Checker, Seen};
use crate::sim::bounds::Key;
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct LimitsKept {
    open: BTreeMap<Key, u32>,
    judged: u64,
}

impl Checker for LimitsKept {
    fn name(&self) -> &'static str {
        "limits kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Opened { limits, .. } => {
                for (key, limit) in *limits {
                    let open = self.open.entry(*key).or_default();
                    *open += 1;
                    self.judged += u64::from(*limit < u32::MAX);
                    if *open > *limit {
                        return Err(format!(
                            "{key:?} counts {open} connections, the limit is {limit}"
                        ));
                    }
                }
            }
            Seen::Closed { limits, .. } => {
                for (key, _) in *limits {
                    let open = self.open.entry(*key).or_default();
                    *open = open.saturating_sub(1);
                }
            }
            // Hosts count per run of the engine: what a crash left behind is not held against it.
            Seen::Ended { .. } => self.open.clear(),
            Seen::Rest => {
                if let Some((key, open)) = self.open.iter().find(|(_, open)| **open > 0) {
                    return Err(format!("at rest, {key:?} still counts {open} connections"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
