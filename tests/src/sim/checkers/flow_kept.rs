//! Whose mail it is stays what a trusted client, and nobody else, said; a report is its tenant's.

use postrider_engine::model::flow::Flow;

use super::{Checker, Seen};
use crate::sim::ledger::{Ledger, Spooled};

#[derive(Debug, Default)]
pub(super) struct FlowKept {
    judged: u64,
}

impl FlowKept {
    fn check(&mut self, ledger: &Ledger, message: &Spooled) -> Result<(), String> {
        let reported = message.reports.first().and_then(|address| ledger.recipient(address));
        let expected = match (ledger.mail_of_spooled(message), reported) {
            (Some(mail), _) => ledger.mails[mail].labels.flow.clone(),
            (None, Some(recipient)) => {
                let mail = &ledger.mails[ledger.recipients[recipient].mail];
                let tenant = mail.labels.flow.as_ref().map(|flow| flow.tenant.clone());
                tenant.map(|tenant| Flow { tenant, ..Flow::default() })
            }
            (None, None) => return Ok(()),
        };
        self.judged += u64::from(message.flow != Flow::default());
        if expected.as_ref() == Some(&message.flow) {
            return Ok(());
        }
        Err(format!("{} is mail of {:?}, expected was {expected:?}", message.id, message.flow))
    }
}

impl Checker for FlowKept {
    fn name(&self) -> &'static str {
        "flow kept"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Recovered { spooled, .. } => {
                spooled.iter().try_for_each(|message| self.check(ledger, message))
            }
            _ => Ok(()),
        }
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
