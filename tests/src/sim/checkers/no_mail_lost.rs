//! Nothing acknowledged is lost: every recipient is delivered, reported, or in the spool as
//! recovery sees it; and at rest, delivered or reported.

use std::collections::{BTreeMap, BTreeSet};

use postrider_engine::model::admin::{Reach, Verb};
use postrider_engine::model::message::MessageId;
use postrider_engine::shard::Fact;

use super::state_kept::reaches;
use super::{Checker, Seen};
use crate::sim::ledger::{Kind, Ledger, Spooled, parse_id};
use crate::sim::orders::{Course, Order};

#[derive(Debug, Default)]
pub(super) struct NoMailLost {
    /// What must not be lost: address to the mail's name.
    owed: BTreeMap<String, MessageId>,
    /// Whose it is.
    tenants: BTreeMap<String, String>,
    /// Delivered, reported or cancelled.
    done: BTreeSet<String>,
    /// Orders to cancel that were given in this run and not answered well: new mail may be cancelled by them too.
    open: BTreeMap<u64, Reach>,
    /// Mail whose own bytes were damaged.
    rotten: BTreeSet<MessageId>,
    judged: u64,
}

impl NoMailLost {
    fn issued(&mut self, stored: &Spooled) {
        let tenant = &stored.flow.tenant;
        let may_be_cancelled = self.open.values().any(|reach| reaches(reach, tenant, None));
        for pending in &stored.pending {
            self.owed.insert(pending.address.clone(), stored.id);
            self.tenants.insert(pending.address.clone(), (**tenant).to_owned());
            if may_be_cancelled {
                self.done.insert(pending.address.clone());
            }
        }
    }

    fn told(&mut self, ledger: &Ledger, fact: &Fact, about: &[String]) {
        let Fact::DoubleBounce { message, .. } = fact else { return };
        self.done.extend(about.iter().cloned());
        // The operator was told of a mail without sender: that is all that can be done.
        let mail = parse_id(message).and_then(|id| ledger.mail_of(id));
        let recipients = mail.map(|mail| &ledger.mails[mail].recipients);
        for recipient in recipients.into_iter().flatten() {
            self.done.insert(ledger.recipients[*recipient].address.clone());
        }
    }

    /// Up to the answer it may be cancelled; from then on nothing more.
    fn cancelled(&mut self, order: &Order) {
        let steer = &order.steer;
        if steer.verb == Verb::Cancel {
            match order.course {
                Course::Given { .. } => _ = self.open.insert(steer.order, steer.reach.clone()),
                Course::Kept => _ = self.open.remove(&steer.order),
                // Refused by one shard, it may be on its way to another.
                Course::Void => {}
            }
            let is_of = |tenant: &&String| reaches(&steer.reach, tenant, None);
            let of = self.tenants.iter().filter(|(_, tenant)| is_of(tenant));
            self.done.extend(of.map(|(address, _)| address.clone()));
        }
    }

    fn missing(&self) -> impl Iterator<Item = (&String, &MessageId)> {
        self.owed
            .iter()
            .filter(|(address, id)| !self.done.contains(*address) && !self.rotten.contains(*id))
    }
}

impl Checker for NoMailLost {
    fn name(&self) -> &'static str {
        "no mail lost"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Issued { stored: Some(stored), .. } => self.issued(stored),
            Seen::Taken(taking) => match ledger.identify(taking) {
                Kind::Mail(_) => self.done.extend(taking.recipients.iter().cloned()),
                Kind::Report(about) => {
                    let name = |number: usize| ledger.recipients[number].address.clone();
                    self.done.extend(about.into_iter().map(name));
                }
                Kind::Unknown => {}
            },
            Seen::Ordered { order } | Seen::OrderEnded { order, .. } => self.cancelled(order),
            Seen::Ended { .. } => self.open.clear(),
            Seen::Told { fact, about } => self.told(ledger, fact, about),
            Seen::Rotten { messages, about, .. } => {
                self.rotten.extend(messages.iter().copied());
                self.done.extend(about.iter().cloned());
            }
            Seen::Recovered { spooled, .. } => {
                let kept: BTreeSet<&str> = spooled
                    .iter()
                    .flat_map(|message| {
                        let pending = message.pending.iter().map(|one| one.address.as_str());
                        pending.chain(message.reports.iter().map(String::as_str))
                    })
                    .collect();
                self.judged += 1;
                let lost = self.missing().find(|(address, _)| !kept.contains(address.as_str()));
                if let Some((address, id)) = lost {
                    return Err(format!(
                        "<{address}> of {id} is neither delivered, nor reported, nor in the spool"
                    ));
                }
            }
            Seen::Rest => {
                self.judged += 1;
                if let Some((address, id)) = self.missing().next() {
                    return Err(format!(
                        "at rest, <{address}> of {id} is neither delivered nor reported"
                    ));
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
