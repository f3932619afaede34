//! No mail waits in vain: what is over its time is given up, and where hosts take mail, nothing is
//! given up without having been tried.
//!
//! Both are judged within one run of the engine: over a restart expiry goes by the wall clock alone.

use std::collections::BTreeMap;

use postrider_engine::shard::Fact;

use super::expiry_kept::GIVEN_UP;
use super::{Checker, Seen};
use crate::sim::clock::{HOUR, MINUTE};
use crate::sim::ledger::{Kind, Ledger, Spooled};

/// What is under way when its time is over may still end well: the longest that a host may keep
/// us, reply for reply, and the report's own way to the disk.
const UNDER_WAY_MAX: u64 = HOUR;
/// A site that could not be reached is looked at again after half an hour at the latest.
const PROBE_MAX: u64 = 30 * MINUTE;

#[derive(Debug, Default)]
pub(super) struct ServedInTime {
    /// When and in which run each address was accepted.
    accepted: BTreeMap<String, (u64, u32)>,
    /// When a host last was asked to take something for an address.
    tried: BTreeMap<String, u64>,
    /// The quiet time when an address was first seen waiting beyond its own.
    overdue: BTreeMap<String, u64>,
    calm_since: Option<u64>,
    run: u32,
    /// What was set aside, or found damaged, waits for the operator.
    is_excused: bool,
    judged: u64,
}

impl ServedInTime {
    /// Hosts behave since `calm_since`: by then everything has had another try.
    fn patience(ledger: &Ledger) -> u64 {
        let longest = ledger.retry.iter().flatten().max().copied().unwrap_or(0);
        longest + longest / 4 + PROBE_MAX + ledger.held_up
    }

    fn given_up(&mut self, ledger: &Ledger, address: &str, run: u32) -> Result<(), String> {
        let (Some((accepted, of)), Some(calm)) = (self.accepted.get(address), self.calm_since)
        else {
            return Ok(());
        };
        let end = accepted + ledger.expire;
        if *of != run || end < calm.max(*accepted) + Self::patience(ledger) {
            return Ok(());
        }
        self.judged += 1;
        if self.tried.get(address).is_none_or(|tried| *tried < calm) {
            return Err(format!("<{address}> was given up, and its hosts would have taken it"));
        }
        Ok(())
    }

    fn late_try(&self, ledger: &Ledger, address: &str, at: u64) -> Result<(), String> {
        let Some((accepted, of)) = self.accepted.get(address) else { return Ok(()) };
        let end = accepted + ledger.expire;
        if *of == self.run && at > end + UNDER_WAY_MAX {
            let late = (at - end) / MINUTE;
            return Err(format!("<{address}> was tried {late} minutes beyond its time"));
        }
        Ok(())
    }

    fn wait(
        &mut self,
        ledger: &Ledger,
        spooled: &[Spooled],
        now: (u64, u32),
        quiet: u64,
    ) -> Result<(), String> {
        let (at, run) = now;
        for pending in spooled.iter().flat_map(|message| &message.pending) {
            let address = &pending.address;
            let Some((accepted, of)) = self.accepted.get(address) else { continue };
            if *of != run || at < accepted + ledger.expire {
                continue;
            }
            self.judged += 1;
            let since = *self.overdue.entry(address.clone()).or_insert(quiet);
            if quiet - since > UNDER_WAY_MAX {
                let late = (quiet - since) / MINUTE;
                return Err(format!("<{address}> waits {late} minutes beyond its time"));
            }
        }
        Ok(())
    }
}

impl Checker for ServedInTime {
    fn name(&self) -> &'static str {
        "served in time"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Issued { stored: Some(stored), at, run, .. } => {
                for pending in &stored.pending {
                    self.accepted.insert(pending.address.clone(), (*at, *run));
                }
            }
            Seen::Tried { address, at } => {
                self.tried.insert((*address).to_owned(), *at);
                self.late_try(ledger, address, *at)?;
            }
            Seen::Recovered { is_restart: true, run, .. } => self.run = *run,
            Seen::Calm { at } => self.calm_since = Some(*at),
            Seen::Rotten { .. }
            | Seen::ReadFailed
            | Seen::Told { fact: Fact::MessageSetAside { .. }, .. } => self.is_excused = true,
            Seen::Taken(taking) if !self.is_excused => {
                let Kind::Report(about) = ledger.identify(taking) else { return Ok(()) };
                if taking.content.windows(GIVEN_UP.len()).any(|some| some == GIVEN_UP) {
                    for recipient in about {
                        let address = ledger.recipients[recipient].address.clone();
                        self.given_up(ledger, &address, taking.run)?;
                    }
                }
            }
            Seen::Recovered { spooled, run, quiet, at, .. } if !self.is_excused => {
                self.wait(ledger, spooled, (*at, *run), *quiet)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
