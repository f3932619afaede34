//! Every buffer has a bound: what can be counted of a running engine stays below it.

use super::{Checker, Figures, Seen};
use crate::sim::ledger::Ledger;

/// Effects of one turn: a turn takes a bounded number of events, each with a few effects.
const EFFECTS_MAX: usize = 50_000;

/// Replies for one client that does not read: 64 KiB after which it is not listened to, and the
/// answers to what was received by then.
const UNREAD_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct MemoryBounds {
    judged: u64,
}

impl Checker for MemoryBounds {
    fn name(&self) -> &'static str {
        "memory bounds"
    }

    fn see(&mut self, _ledger: &Ledger, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Figures(figures) = seen else { return Ok(()) };
        self.judged += 1;
        let Figures { record_memory, record_memory_max, is_at_rest, .. } = figures;
        let bounds = [
            ("record memory", u64_of(*record_memory), u64_of(*record_memory_max)),
            ("connections", figures.connections, figures.connections_max),
            ("connections out", figures.connections_out, figures.connections_out_max),
            ("writes in flight", figures.writes_in_flight, figures.writes_in_flight_max),
            ("outbox bytes", figures.outbox_bytes, figures.outbox_bytes_max),
            ("unread replies", figures.unread_bytes, UNREAD_BYTES_MAX),
            ("effects", figures.effects, EFFECTS_MAX),
        ];
        for (what, is, most) in bounds {
            if is > most {
                return Err(format!("{what}: {is}, the bound is {most}"));
            }
        }
        if *is_at_rest && *record_memory > 0 {
            return Err(format!("at rest, {record_memory} bytes of records are still held"));
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

fn u64_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
