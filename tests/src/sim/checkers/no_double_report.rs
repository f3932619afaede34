//! No double report: a failure is reported once, and never of what was delivered, as far as the
//! engine could know.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Seen};
use crate::sim::ledger::{Kind, Ledger, Spooled};

#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// The engine knows that it was delivered, in this run.
    delivered: Option<u32>,
    /// The engine knows that a report about it was taken, in this run.
    reported: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct NoDoubleReport {
    fates: BTreeMap<String, Fate>,
    /// Takes not yet confirmed: (addresses, whether as a report, run).
    unconfirmed: BTreeMap<u64, (Vec<String>, bool, u32)>,
    /// The last run in which a write failed: its reports may have been written twice.
    is_excused: bool,
    /// A crash left a report and lost the failure that it tells of, which had not yet been said to be
    /// on disk: the engine cannot know that the one belongs to the other.
    is_repeated: BTreeSet<String>,
    judged: u64,
}

impl NoDoubleReport {
    fn repeat(&mut self, spooled: &[Spooled]) {
        let pending = || spooled.iter().flat_map(|message| &message.pending);
        for reported in spooled.iter().flat_map(|message| &message.reports) {
            if pending().any(|pending| pending.address == *reported) {
                self.is_repeated.insert(reported.clone());
            }
        }
    }
}

impl Checker for NoDoubleReport {
    fn name(&self) -> &'static str {
        "no double report"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Rotten { .. } | Seen::DiskFailed => self.is_excused = true,
            Seen::Recovered { spooled, is_restart: true, .. } => self.repeat(spooled),
            Seen::Taken(taking) => {
                let (addresses, is_report) = match ledger.identify(taking) {
                    Kind::Mail(_) => (taking.recipients.clone(), false),
                    Kind::Report(about) => {
                        let name = |number: usize| ledger.recipients[number].address.clone();
                        (about.into_iter().map(name).collect(), true)
                    }
                    Kind::Unknown => return Ok(()),
                };
                if is_report {
                    self.judged += 1;
                }
                for address in &addresses {
                    let fate = self.fates.get(address).copied().unwrap_or_default();
                    let run = Some(taking.run);
                    let is_repeated = self.is_repeated.contains(address);
                    if is_report && fate.reported == run && !self.is_excused && !is_repeated {
                        return Err(format!("<{address}> was reported twice"));
                    }
                    if is_report && fate.delivered == run && !self.is_excused {
                        return Err(format!("<{address}> was delivered, and reported as failed"));
                    }
                }
                self.unconfirmed.insert(taking.take, (addresses, is_report, taking.run));
            }
            Seen::Confirmed { take } => {
                let Some((addresses, is_report, run)) = self.unconfirmed.remove(take) else {
                    return Ok(());
                };
                for address in addresses {
                    let fate = self.fates.entry(address).or_default();
                    let known = if is_report { &mut fate.reported } else { &mut fate.delivered };
                    *known = Some(run);
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
