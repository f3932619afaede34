//! 250 means durable: when the reply is put on the wire, a power cut would find the message.

use super::{Checker, Seen};
use crate::sim::ledger::{Ledger, MailState};

#[derive(Debug, Default)]
pub(super) struct DurableFirst {
    judged: u64,
}

impl Checker for DurableFirst {
    fn name(&self) -> &'static str {
        "durable first"
    }

    fn see(&mut self, ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Issued { id, stored, is_excused, .. } = seen else { return Ok(()) };
        self.judged += 1;
        if stored.is_none() && !is_excused {
            return Err(format!("250 for {id}, and recovery would not find it"));
        }
        let mail = stored.and_then(|stored| ledger.mail_of_spooled(stored));
        match mail.map(|mail| ledger.mails[mail].state) {
            Some(MailState::Drafted) => Err(format!("250 for {id}, whose text was never sent")),
            _ => Ok(()),
        }
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
