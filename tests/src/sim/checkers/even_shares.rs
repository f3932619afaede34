//! Shares are even: where a site takes less than waits for it, equal tenants have equal parts of it in
//! any stretch of it, and transactional mail goes before bulk mail, but for the floor of that.
//!
//! Judged in worlds that are crowded, by the order in which messages begin. A stretch counts as long
//! as all whom it is about have more mail that was acknowledged a while ago and has not begun than
//! connections may have been given: one that is slow to open keeps what it was given waiting.

use std::collections::BTreeMap;

use postrider_engine::model::flow::MailClass;
use postrider_engine::model::settings::OrderSettings;

use super::{Begun, Checker, Seen};
use crate::sim::clock::SECOND;
use crate::sim::crowd::TENANTS;
use crate::sim::ledger::Ledger;

/// When what was acknowledged stands in line at its site for certain.
const IN_LINE_AFTER: u64 = SECOND;
/// How long a start may take to read the spool.
const READ_WAIT: u64 = 5 * SECOND;
/// Messages in one stretch: ten of each tenant, if all is even.
const STRETCH: u32 = 30;
/// What connections may have been given before: two ahead, and one on its way, on each of four.
const GIVEN_BEFORE: u32 = 12;
/// Jain's index: one if all have the same, a third if one of three has it all.
const JAIN_MIN: f64 = 0.9;

#[derive(Debug, Default)]
pub(super) struct EvenShares {
    /// Mail that has not begun, by when it was acknowledged.
    waiting: BTreeMap<usize, u64>,
    /// Of the present stretch of each class, what each tenant got.
    by_tenant: [[u32; TENANTS.len()]; 2],
    /// Of the present stretch in which both classes wait, what each got.
    by_class: [u32; 2],
    judged: u64,
}

fn place(class: MailClass) -> usize {
    usize::from(class == MailClass::Bulk)
}

/// Where a mail counts: its class, its tenant.
fn flow_of(ledger: &Ledger, mail: usize) -> Option<(usize, usize)> {
    let flow = ledger.mails[mail].labels.flow.as_ref()?;
    let tenant = TENANTS.iter().position(|tenant| *tenant == &*flow.tenant)?;
    Some((place(flow.class), tenant))
}

impl EvenShares {
    fn begins(&mut self, ledger: &Ledger, begun: &Begun) -> Result<(), String> {
        let Some(mail) = begun.mail.filter(|mail| self.waiting.contains_key(mail)) else {
            return Ok(());
        };
        let mut in_line = [[0; TENANTS.len()]; 2];
        let long_ago = self.waiting.iter().filter(|(_, since)| **since + IN_LINE_AFTER <= begun.at);
        for (class, tenant) in long_ago.filter_map(|(mail, _)| flow_of(ledger, *mail)) {
            in_line[class][tenant] += 1;
        }
        self.waiting.remove(&mail);
        let Some((class, tenant)) = flow_of(ledger, mail) else { return Ok(()) };
        self.count_class(class, in_line)?;
        self.count_tenant(class, tenant, in_line[class])
    }

    fn count_class(
        &mut self,
        class: usize,
        in_line: [[u32; TENANTS.len()]; 2],
    ) -> Result<(), String> {
        if !in_line.iter().all(|tenants| tenants.iter().sum::<u32>() > GIVEN_BEFORE) {
            self.by_class = [0; 2];
            return Ok(());
        }
        self.by_class[class] += 1;
        let [urgent, bulk] = self.by_class;
        if urgent + bulk < STRETCH {
            return Ok(());
        }
        self.by_class = [0; 2];
        self.judged += 1;
        let floor = u32::from(OrderSettings::default().bulk_floor_percent);
        if bulk > STRETCH * floor / 100 + 1 + GIVEN_BEFORE {
            return Err(format!("{urgent} transactional messages began, and {bulk} of bulk mail"));
        }
        Ok(())
    }

    fn count_tenant(
        &mut self,
        class: usize,
        tenant: usize,
        in_line: [u32; TENANTS.len()],
    ) -> Result<(), String> {
        let shares = &mut self.by_tenant[class];
        if in_line.iter().any(|waiting| *waiting <= GIVEN_BEFORE) {
            *shares = [0; TENANTS.len()];
            return Ok(());
        }
        shares[tenant] += 1;
        if shares.iter().sum::<u32>() < STRETCH {
            return Ok(());
        }
        let shares = std::mem::take(shares);
        self.judged += 1;
        if jain(&shares) < JAIN_MIN {
            return Err(format!("of one class, {TENANTS:?} got {shares:?}, and all had more"));
        }
        Ok(())
    }
}

fn jain(shares: &[u32]) -> f64 {
    let sum: f64 = shares.iter().map(|share| f64::from(*share)).sum();
    let squares: f64 = shares.iter().map(|share| f64::from(*share).powi(2)).sum();
    let count = shares.iter().map(|_| 1.0).sum::<f64>();
    sum * sum / (count * squares)
}

impl Checker for EvenShares {
    fn name(&self) -> &'static str {
        "even shares"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Issued { stored: Some(stored), at, .. } if ledger.is_crowd => {
                let mail = ledger.mail_of_spooled(stored);
                self.waiting.extend(mail.map(|mail| (mail, *at)));
            }
            Seen::Begins(begun) if ledger.is_crowd => self.begins(ledger, begun)?,
            Seen::Recovered { spooled, is_restart: true, at, .. } if ledger.is_crowd => {
                let mails = spooled.iter().filter_map(|one| ledger.mail_of_spooled(one));
                let waiting = mails.map(|mail| (mail, at + READ_WAIT)).collect();
                *self = Self { waiting, judged: self.judged, ..Self::default() };
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
    use super::*;

    #[test]
    fn one_that_has_twice_its_share_is_seen() {
        assert!(jain(&[10, 10, 10]) > 0.999);
        assert!(jain(&[12, 9, 9]) > JAIN_MIN);
        assert!(jain(&[16, 7, 7]) < JAIN_MIN);
    }
}
