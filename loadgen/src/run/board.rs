//! What source and sink of one process tell each other: when a message was acknowledged, and how
//! much has arrived.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::message::Token;

/// Acknowledged messages whose instant is remembered: a longer queue has no `queue` figures.
const REMEMBERED: usize = 1 << 20;
/// Bits of a slot that hold the instant, in microseconds: 12 days.
const INSTANT_BITS: u32 = 40;

/// Written by the source threads, read by the sink threads; every slot is one word.
pub(crate) struct Board {
    origin_ns: u64,
    run: u64,
    acknowledged: Box<[AtomicU64]>,
    /// Messages that arrived intact.
    delivered: AtomicU64,
    /// Recipients that arrived, or were reported as not reached, each for the first time.
    concluded: AtomicU64,
}

impl Board {
    pub(crate) fn new(run: u64, origin_ns: u64) -> Self {
        let acknowledged = (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        Self { origin_ns, run, acknowledged, delivered: 0.into(), concluded: 0.into() }
    }

    /// Notes that 250 was seen.
    pub(crate) fn acknowledge(&self, sequence: u64, now: u64) {
        let micros = now.saturating_sub(self.origin_ns) / 1000;
        let word = (lap(sequence) << INSTANT_BITS) | micros.min((1 << INSTANT_BITS) - 1);
        self.acknowledged[slot(sequence)].store(word, Relaxed);
    }

    /// Nanoseconds from 250 to MAIL at the sink; zero if MAIL came first, `None` if forgotten.
    pub(super) fn queued_ns(&self, token: &Token, mail_ns: u64) -> Option<u64> {
        if token.run != self.run {
            return None;
        }
        let word = self.acknowledged[slot(token.sequence)].load(Relaxed);
        match (word >> INSTANT_BITS).cmp(&lap(token.sequence)) {
            // Its 250 is still on its way.
            std::cmp::Ordering::Less => Some(0),
            std::cmp::Ordering::Equal => {
                let micros = word & ((1 << INSTANT_BITS) - 1);
                Some(mail_ns.saturating_sub(self.origin_ns + micros * 1000))
            }
            std::cmp::Ordering::Greater => None,
        }
    }

    pub(super) fn deliver(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    pub(super) fn conclude(&self, recipients: u64) {
        self.concluded.fetch_add(recipients, Relaxed);
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub(super) fn concluded(&self) -> u64 {
        self.concluded.load(Relaxed)
    }
}

fn slot(sequence: u64) -> usize {
    usize::try_from(sequence % REMEMBERED as u64).unwrap_or(0)
}

/// How often the sequences have gone round the slots, from one on.
fn lap(sequence: u64) -> u64 {
    (sequence / REMEMBERED as u64 + 1) & ((1 << (64 - INSTANT_BITS)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_time_is_known_unless_forgotten_and_never_below_zero() {
        let board = Board::new(7, 1_000_000);
        let token = |sequence| Token {
            run: 7,
            sequence,
            recipients: 1,
            sent_ns: 0,
            body_crc: 0,
            head_crc: 0,
        };
        assert_eq!(board.queued_ns(&token(5), 9_000_000), Some(0), "MAIL came before 250");
        board.acknowledge(5, 3_000_000);
        assert_eq!(board.queued_ns(&token(5), 9_000_000), Some(6_000_000));
        assert_eq!(board.queued_ns(&token(5), 2_000_000), Some(0));
        let next_lap = 5 + REMEMBERED as u64;
        assert_eq!(board.queued_ns(&token(next_lap), 9_000_000), Some(0));
        board.acknowledge(next_lap, 4_000_000);
        assert_eq!(board.queued_ns(&token(5), 9_000_000), None, "its slot went to another");
        assert_eq!(board.queued_ns(&Token { run: 8, ..token(5) }, 9_000_000), None);
    }
}
