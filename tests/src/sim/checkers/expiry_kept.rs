//! No mail is given up before its time: expiry counts from acceptance, whatever the wall clock
//! does while the engine runs. Over a restart there is only the wall clock to go by.

use std::collections::BTreeMap;

use super::{Checker, Seen};
use crate::sim::clock::{MS, SECOND};
use crate::sim::ledger::{Kind, Ledger};

/// What the clocks of the engine may be off.
const TOLERANCE: u64 = SECOND;
/// What a report says of mail that was given up.
pub(super) const GIVEN_UP: &[u8] = b"delivery time expired";

#[derive(Debug, Default)]
pub(super) struct ExpiryKept {
    /// When and in which run each address was accepted.
    accepted: BTreeMap<String, (u64, u32)>,
    judged: u64,
}

impl Checker for ExpiryKept {
    fn name(&self) -> &'static str {
        "expiry kept"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Issued { stored: Some(stored), at, run, .. } => {
                for pending in &stored.pending {
                    self.accepted.insert(pending.address.clone(), (*at, *run));
                }
            }
            Seen::Taken(taking) => {
                let Kind::Report(about) = ledger.identify(taking) else { return Ok(()) };
                if !taking.content.windows(GIVEN_UP.len()).any(|some| some == GIVEN_UP) {
                    return Ok(());
                }
                for recipient in about {
                    let address = &ledger.recipients[recipient].address;
                    let Some((at, run)) = self.accepted.get(address) else { continue };
                    self.judged += 1;
                    let end = at + ledger.expire;
                    if *run == taking.run && taking.at + TOLERANCE < end {
                        let early = (end - taking.at) / MS;
                        return Err(format!("<{address}> was given up {early} ms before its time"));
                    }
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
