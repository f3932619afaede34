//! No attempt before its time: what was put off waits as long as its site's settings say; and what
//! the disk once knew of attempts made, it knows until the mail is over.

use std::collections::BTreeMap;

use postrider_engine::model::message::MessageId;

use super::{Checker, Seen};
use crate::sim::clock::MS;
use crate::sim::ledger::{Ledger, Spooled};

/// What clocks that count in ticks of 4 ms may be off, and never in the other direction.
const TOLERANCE: u64 = MS;

#[derive(Debug, Default)]
pub(super) struct BackoffKept {
    waits: BTreeMap<String, Wait>,
    /// Attempts that recovery found, by mail and address.
    found: BTreeMap<(MessageId, String), u16>,
    is_rotten: bool,
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
        // Jitter only adds.
        wait.until = at + set;
    }
}

impl BackoffKept {
    fn remember(&mut self, spooled: &[Spooled]) -> Result<(), String> {
        for message in spooled {
            for pending in &message.pending {
                let known = self.found.entry((message.id, pending.address.clone())).or_default();
                if pending.attempts < *known && !self.is_rotten {
                    let (id, address, attempts) = (message.id, &pending.address, pending.attempts);
                    return Err(format!("<{address}> of {id}: {known} attempts became {attempts}"));
                }
                *known = pending.attempts;
            }
        }
        Ok(())
    }

    /// What the disk knows is what counts from then on.
    fn restart(&mut self, ledger: &Ledger, spooled: &[Spooled]) {
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
            Seen::Rotten { may_hit_outcome, .. } => self.is_rotten |= may_hit_outcome,
            Seen::Recovered { spooled, is_restart, .. } => {
                self.remember(spooled)?;
                if *is_restart {
                    self.restart(ledger, spooled);
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
