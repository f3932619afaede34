//! Damage costs the message it lies in and no other: only a message whose own bytes were damaged,
//! or that the disk refused to read, is set aside.

use std::collections::BTreeSet;

use postrider_engine::model::message::MessageId;
use postrider_engine::shard::Fact;

use super::{Checker, Seen};
use crate::sim::ledger::{Ledger, parse_id};

#[derive(Debug, Default)]
pub(super) struct OnlyDamagedAside {
    damaged: BTreeSet<MessageId>,
    /// A bit flipped of which it cannot be told whose it was, or a read failed.
    is_excused: bool,
    judged: u64,
}

impl Checker for OnlyDamagedAside {
    fn name(&self) -> &'static str {
        "only damaged aside"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Rotten { messages, may_hit_outcome, .. } => {
                self.damaged.extend(messages.iter().copied());
                self.is_excused |= may_hit_outcome;
            }
            Seen::ReadFailed => self.is_excused = true,
            Seen::Told { fact: Fact::MessageSetAside { message, cause }, .. } => {
                self.judged += 1;
                let id = parse_id(message);
                if !self.is_excused && !id.is_some_and(|id| self.damaged.contains(&id)) {
                    return Err(format!("{message} was set aside unharmed: {cause}"));
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
