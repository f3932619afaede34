//! An outcome is on disk soon: what the engine knows to be delivered is delivered again after a
//! crash only if it learned of it less than 5 ms before, disk and notes between shards apart.
//!
//! Time counts only while the engine runs and nothing keeps outcomes off the disk: no write is
//! under way, no new file is waited for, and none was refused. So a slow, busy or full disk gives
//! no excuse beyond its own time: once it is quiet for longer than the engine may wait, everything
//! known before that was written.

use std::collections::{BTreeMap, BTreeSet};

use postrider_engine::model::message::MessageId;

use super::{Checker, Seen};
use crate::sim::clock::MS;
use crate::sim::ledger::{Kind, Ledger, Spooled};

/// How long outcomes may wait for others (promise 2), and for two notes of at most 2 ms between
/// shards and the turns that take them.
const QUIET_MAX: u64 = 5 * MS + 2 * 2 * MS + MS;

#[derive(Debug, Default)]
pub(super) struct OutcomesInTime {
    /// What was delivered by takes not yet confirmed.
    unconfirmed: BTreeMap<u64, Vec<String>>,
    /// What the engine of this run knows to be delivered, and the quiet time when it learned it.
    known: BTreeMap<String, u64>,
    /// The engine has stopped in order: all it knew is on disk.
    is_stopped: bool,
    is_rotten: bool,
    /// Whose mail was damaged on the disk: it is set aside, and can never be sent again.
    damaged: BTreeSet<String>,
    /// What those messages say their recipients are may be another's address.
    rotten: BTreeSet<MessageId>,
    judged: u64,
}

impl OutcomesInTime {
    fn judge(&mut self, spooled: &[Spooled], quiet: u64) -> Result<(), String> {
        let is_late = |known: &u64| self.is_stopped || quiet - known > QUIET_MAX;
        self.judged += self.known.values().filter(|known| is_late(known)).count() as u64;
        let sound = spooled.iter().filter(|message| !self.rotten.contains(&message.id));
        for pending in sound.flat_map(|message| &message.pending) {
            let address = &pending.address;
            if self.damaged.contains(address) {
                continue;
            }
            if let Some(known) = self.known.get(address).filter(|known| is_late(known)) {
                let late = (quiet - known) / 1000;
                return Err(format!(
                    "<{address}> was delivered, the engine knows it for {late} us of a quiet disk \
                     (stopped in order: {}), and after a crash it would be delivered again",
                    self.is_stopped
                ));
            }
        }
        Ok(())
    }
}

impl Checker for OutcomesInTime {
    fn name(&self) -> &'static str {
        "outcomes in time"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Taken(taking) => {
                // A second report about the same failure is a message of its own, and cannot be
                // told from the first: only mails of clients are followed.
                if let Kind::Mail(_) = ledger.identify(taking) {
                    self.unconfirmed.insert(taking.take, taking.recipients.clone());
                }
            }
            Seen::Confirmed { take, quiet } => {
                for address in self.unconfirmed.remove(take).unwrap_or_default() {
                    self.known.entry(address).or_insert(*quiet);
                }
            }
            Seen::Ended { in_order, is_disk_good } => self.is_stopped = *in_order && *is_disk_good,
            // A damaged outcome may repeat a delivery.
            Seen::Rotten { messages, may_hit_outcome, pending, .. } => {
                self.rotten.extend(messages.iter().copied());
                self.is_rotten |= may_hit_outcome;
                self.damaged.extend(pending.iter().cloned());
            }
            Seen::Recovered { spooled, quiet, is_restart, .. } => {
                if !self.is_rotten {
                    self.judge(spooled, *quiet)?;
                }
                if *is_restart {
                    self.known.clear();
                    self.unconfirmed.clear();
                    self.is_stopped = false;
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

#[cfg(test)]
mod tests {
    use postrider_engine::model::flow::Flow;

    use super::*;
    use crate::sim::ledger::{Pending, Taking};

    const ADDRESS: &str = "r@d.sim";

    /// What the checker says if the address still is pending after so much quiet time.
    fn pending_after(quiet: u64, ends: Option<bool>) -> Result<(), String> {
        let mut ledger = Ledger::default();
        ledger.add(String::new(), vec![(ADDRESS.to_owned(), None)], Vec::new());
        let mut checker = OutcomesInTime::default();
        let recipients = vec![ADDRESS.to_owned()];
        let sender = String::new();
        let taking = Taking { take: 1, at: 0, run: 1, sender, recipients, content: Vec::new() };
        checker.see(&ledger, &Seen::Taken(&taking))?;
        checker.see(&ledger, &Seen::Confirmed { take: 1, quiet: 0 })?;
        if let Some(is_disk_good) = ends {
            checker.see(&ledger, &Seen::Ended { in_order: true, is_disk_good })?;
        }
        let pending = vec![Pending { address: ADDRESS.to_owned(), attempts: 0, due: None }];
        let (sender, reports) = (String::new(), Vec::new());
        let flow = Flow::default();
        let spooled = [Spooled { id: MessageId(1), sender, flow, pending, reports }];
        let seen = Seen::Recovered { spooled: &spooled, is_restart: true, run: 2, quiet, at: 0 };
        checker.see(&ledger, &seen)
    }

    #[test]
    fn an_outcome_may_be_unwritten_for_the_bound_and_no_longer() {
        assert!(pending_after(QUIET_MAX, None).is_ok());
        assert!(pending_after(QUIET_MAX + 1, None).is_err());
    }

    #[test]
    fn after_a_stop_in_order_everything_known_is_written() {
        assert!(pending_after(0, Some(true)).is_err());
        assert!(pending_after(0, Some(false)).is_ok(), "the disk had no room");
    }
}
