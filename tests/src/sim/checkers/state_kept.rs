//! What an operator was answered binds after any crash: what he holds stays held until he lets it go,
//! what he cancelled is not tried again, and nothing else is cancelled with it.

use std::collections::{BTreeMap, BTreeSet};

use postrider_engine::model::admin::{Reach, Verb};
use postrider_engine::shard::Fact;

use super::{Begun, Checker, Seen};
use crate::sim::bounds::Of;
use crate::sim::ledger::Ledger;
use crate::sim::orders::{Course, Order};

#[derive(Debug, Default)]
pub(super) struct StateKept {
    /// The run that answered a hold without an end, by what is held.
    held: Vec<(Reach, u32)>,
    /// What was acknowledged, and whose it is.
    issued: BTreeMap<String, String>,
    /// By order that is under way: what was acknowledged before it was given.
    concerned: BTreeMap<u64, BTreeSet<String>>,
    /// What an answered order cancelled, and the run that answered.
    cancelled: BTreeMap<String, u32>,
    run: u32,
    /// A bit has flipped, which may have been one of what was kept.
    is_excused: bool,
    judged: u64,
}

/// Whether it reaches mail of a tenant, and of a campaign if one is told.
pub(super) fn reaches(reach: &Reach, tenant: &str, campaign: Option<&str>) -> bool {
    match reach {
        Reach::All => true,
        Reach::Tenant(of) => **of == *tenant,
        Reach::Campaign { tenant: of, campaign: named } => {
            **of == *tenant && campaign.is_some_and(|campaign| **named == *campaign)
        }
        Reach::Site(_) | Reach::Source(_) => false,
    }
}

impl StateKept {
    fn ordered(&mut self, order: &Order) {
        let steer = &order.steer;
        match steer.verb {
            Verb::Cancel => {
                let is_of = |(_, tenant): &(&String, &String)| reaches(&steer.reach, tenant, None);
                let of = self.issued.iter().filter(is_of).map(|(address, _)| address.clone());
                self.concerned.insert(steer.order, of.collect());
            }
            // From here on it may be held or not.
            _ => self.held.retain(|(reach, _)| *reach != steer.reach),
        }
    }

    fn ended(&mut self, order: &Order) {
        let steer = &order.steer;
        let concerned = self.concerned.remove(&steer.order).unwrap_or_default();
        if order.course != Course::Kept {
            return;
        }
        match steer.verb {
            Verb::Cancel => {
                self.cancelled.extend(concerned.into_iter().map(|address| (address, order.run)));
            }
            Verb::Hold if steer.lasts.is_none() => {
                self.held.push((steer.reach.clone(), order.run));
            }
            _ => {}
        }
    }

    fn begins(&mut self, begun: &Begun) -> Result<(), String> {
        let Begun { of: Of::Messages, flow: Some((tenant, campaign)), .. } = begun else {
            return Ok(());
        };
        for (reach, run) in &self.held {
            if *run < self.run {
                self.judged += 1;
                if reaches(reach, tenant, Some(campaign)) {
                    return Err(format!("{reach} is held since run {run}, and its mail begins"));
                }
            }
        }
        Ok(())
    }

    fn tried(&self, address: &str) -> Result<(), String> {
        match self.cancelled.get(address) {
            Some(run) if *run < self.run => {
                Err(format!("<{address}> was cancelled in run {run}, and is tried"))
            }
            _ => Ok(()),
        }
    }
}

impl Checker for StateKept {
    fn name(&self) -> &'static str {
        "state kept"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Issued { stored: Some(stored), .. } => {
                let tenant = &stored.flow.tenant;
                for pending in &stored.pending {
                    self.issued.insert(pending.address.clone(), (**tenant).to_owned());
                }
            }
            Seen::Ordered { order } => self.ordered(order),
            Seen::OrderEnded { order, .. } => self.ended(order),
            Seen::Recovered { is_restart: true, run, .. } => {
                self.run = *run;
                self.judged += self.cancelled.len() as u64;
            }
            Seen::Rotten { .. } | Seen::Told { fact: Fact::MessageSetAside { .. }, .. } => {
                self.is_excused = true;
            }
            Seen::Begins(begun) if !self.is_excused => self.begins(begun)?,
            Seen::Tried { address, .. } if !self.is_excused => self.tried(address)?,
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
