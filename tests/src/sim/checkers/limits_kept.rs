//! A limit is never exceeded: no site ever counts more connections than its settings allow.

use std::collections::BTreeMap;

use super::{Checker, Seen};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct LimitsKept {
    open: BTreeMap<usize, u32>,
    judged: u64,
}

impl Checker for LimitsKept {
    fn name(&self) -> &'static str {
        "limits kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Opened { site, limit } => {
                let open = self.open.entry(*site).or_default();
                *open += 1;
                self.judged += 1;
                if *open > *limit {
                    return Err(format!(
                        "site {site} counts {open} connections, the limit is {limit}"
                    ));
                }
            }
            Seen::Closed { site } => {
                let open = self.open.entry(*site).or_default();
                *open = open.saturating_sub(1);
            }
            // Hosts count per run of the engine: what a crash left behind is not held against it.
            Seen::Ended { .. } => self.open.clear(),
            Seen::Rest => {
                if let Some((site, open)) = self.open.iter().find(|(_, open)| **open > 0) {
                    return Err(format!("at rest, site {site} still counts {open} connections"));
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
