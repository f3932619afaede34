//! No attempt before its time: what was put off waits as long as its site's settings say.

use std::collections::BTreeMap;

use super::{Checker, Seen};
use crate::sim::clock::MS;
use crate::sim::ledger::Ledger;

/// What clocks that count in ticks of 4 ms may be off, and never in the other direction.
const TOLERANCE: u64 = MS;

#[derive(Debug, Default)]
pub(super) struct BackoffKept {
    waits: BTreeMap<String, Wait>,
    judged: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Wait {
    attempts: usize,
    until: u64,
}

impl BackoffKept {
    fn deferred(&mut self, ledger: &Ledger, address: &str, at: u64) {
        let Some(recipient) = ledger.recipient(address) else { return };
        let Some(group) = ledger.recipients[recipient].group else { return };
        let retry = &ledger.retry[group];
        let wait = self.waits.entry(address.to_owned()).or_default();
        let set = retry.get(wait.attempts).or_else(|| retry.last()).copied().unwrap_or(0);
        wait.attempts += 1;
        // Jitter takes an eighth at most.
        wait.until = at + set / 8 * 7;
    }
}

impl Checker for BackoffKept {
    fn name(&self) -> &'static str {
        "backoff kept"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Deferred { addresses, at } => {
                for address in *addresses {
                    self.deferred(ledger, address, *at);
                }
            }
            Seen::Tried { address, at } => {
                let Some(wait) = self.waits.get(*address) else { return Ok(()) };
                self.judged += 1;
                if at + TOLERANCE < wait.until {
                    let early = (wait.until - at) / MS;
                    return Err(format!("{address} was tried {early} ms before its time"));
                }
            }
            // What the disk knows is what counts from then on.
            Seen::Recovered { spooled, is_restart: true, .. } => {
                self.waits.clear();
                let own = |address: &str| ledger.recipient(address).is_some();
                let pending = spooled.iter().flat_map(|message| &message.pending);
                // Reports about one mail share an address, each with a clock of its own.
                for pending in pending.filter(|pending| own(&pending.address)) {
                    let until = pending.due.unwrap_or(0);
                    let attempts = usize::from(pending.attempts);
                    self.waits.insert(pending.address.clone(), Wait { attempts, until });
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
