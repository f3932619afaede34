//! What a path has learned, as a value that outlives the process, and what is left of it after a
//! while.
//!
//! ```text
//! version u8 = 1 | closings u8 | zero u16 | window u32 | ceiling_seen u32 | rate u32 | as_of u64
//! ```
//! Little-endian; zero stands for "none".

use std::time::Duration;

use super::breaker::CLOSINGS_MAX;
use crate::base::time::Wall;

const VERSION: u8 = 1;
pub(in crate::schedule) const LEARNED_BYTES: usize = 24;
/// More connections than one machine has ports for.
const WINDOW_MAX: u32 = 1 << 20;
/// What was learned loses half of its difference from a fresh start in this time.
const HALF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// After so many nothing is left.
const HALVES_MAX: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) struct Learned {
    pub(in crate::schedule) window: u32,
    /// The least number of connections that was refused.
    pub(in crate::schedule) ceiling_seen: Option<u32>,
    /// Messages per 1000 seconds.
    pub(in crate::schedule) rate: Option<u32>,
    /// Troubles of the breaker since the last success.
    pub(in crate::schedule) closings: u8,
    pub(in crate::schedule) as_of: Wall,
}

/// Why bytes are no [`Learned`]: the path starts afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::schedule) enum LearnedError {
    #[error("learned state of {0} bytes, not {LEARNED_BYTES}")]
    Length(usize),
    #[error("learned state of version {0}, which this engine does not know")]
    Version(u8),
    #[error("learned state with a value out of its range")]
    Range,
}

impl Learned {
    #[must_use]
    pub(in crate::schedule) fn encode(&self) -> [u8; LEARNED_BYTES] {
        let mut bytes = [0; LEARNED_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.closings;
        bytes[4..8].copy_from_slice(&self.window.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.ceiling_seen.unwrap_or(0).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rate.unwrap_or(0).to_le_bytes());
        bytes[16..].copy_from_slice(&self.as_of.0.to_le_bytes());
        bytes
    }

    pub(in crate::schedule) fn decode(bytes: &[u8]) -> Result<Self, LearnedError> {
        let bytes: &[u8; LEARNED_BYTES] =
            bytes.try_into().map_err(|_| LearnedError::Length(bytes.len()))?;
        let [version, closings, zero @ ..] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if version != VERSION {
            return Err(LearnedError::Version(version));
        }
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        let some_at = |at| Some(u32_at(at)).filter(|value| *value != 0);
        let as_of = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| bytes[16 + byte]));
        let learned = Self {
            window: u32_at(4),
            ceiling_seen: some_at(8),
            rate: some_at(12),
            closings,
            as_of: Wall(as_of),
        };
        let sound = zero == [0, 0] && learned.is_in_range();
        if sound { Ok(learned) } else { Err(LearnedError::Range) }
    }

    fn is_in_range(&self) -> bool {
        let windows = 1..=WINDOW_MAX;
        windows.contains(&self.window)
            && self.ceiling_seen.is_none_or(|ceiling| windows.contains(&ceiling))
            && self.closings <= CLOSINGS_MAX
    }

    /// What is left of it at `now`: each idle day brings it half way to a fresh start.
    #[must_use]
    pub(in crate::schedule) fn aged(self, now: Wall, start_window: u32) -> Self {
        let halves = now.since(self.as_of).as_secs() / HALF_LIFE.as_secs();
        let halves = u32::try_from(halves).unwrap_or(HALVES_MAX).min(HALVES_MAX);
        let towards = |value: u32, start: u32| {
            let (above, below) = (value.saturating_sub(start), start.saturating_sub(value));
            start + (above >> halves) - (below >> halves)
        };
        let fresh = halves < HALVES_MAX;
        Self {
            window: towards(self.window, start_window),
            ceiling_seen: self.ceiling_seen.filter(|_| halves == 0),
            rate: self.rate.filter(|_| fresh).map(|rate| rate.saturating_mul(1 << halves)),
            closings: self.closings.checked_shr(halves).unwrap_or(0),
            as_of: self.as_of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = HALF_LIFE;
    const LEARNED: Learned = Learned {
        window: 84,
        ceiling_seen: Some(90),
        rate: Some(12_500),
        closings: 5,
        as_of: Wall(1_700_000_000_000_000_000),
    };

    #[test]
    fn it_reads_what_it_wrote() {
        let bare = Learned { ceiling_seen: None, rate: None, ..LEARNED };
        for learned in [LEARNED, bare] {
            assert_eq!(Learned::decode(&learned.encode()), Ok(learned));
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_and_never_more() {
        let bytes = LEARNED.encode();
        for cut in 0..LEARNED_BYTES {
            assert_eq!(Learned::decode(&bytes[..cut]), Err(LearnedError::Length(cut)));
        }
        for at in 0..LEARNED_BYTES {
            for value in 0..=255 {
                let mut bytes = bytes;
                bytes[at] = value;
                if let Ok(learned) = Learned::decode(&bytes) {
                    assert!((1..=WINDOW_MAX).contains(&learned.window), "{learned:?}");
                    assert!(learned.closings <= CLOSINGS_MAX);
                    for now in [Wall(0), Wall(u64::MAX)] {
                        assert!(learned.aged(now, 4).window >= 1, "{learned:?}");
                    }
                }
            }
        }
        assert_eq!(Learned::decode(&[0; LEARNED_BYTES]), Err(LearnedError::Version(0)));
    }

    #[test]
    fn each_idle_day_brings_it_half_way_to_a_fresh_start() {
        let at = |days: u32| LEARNED.aged(LEARNED.as_of.plus(DAY * days), 4);
        assert_eq!([0, 1, 2, 9].map(|days| at(days).window), [84, 44, 24, 4]);
        assert_eq!([0, 1, 2, 9].map(|days| at(days).closings), [5, 2, 1, 0]);
        let rates = [Some(12_500), Some(25_000), Some(50_000), None];
        assert_eq!([0, 1, 2, 9].map(|days| at(days).rate), rates);
        assert_eq!((at(0).ceiling_seen, at(1).ceiling_seen), (Some(90), None));
        let small = Learned { window: 1, ..LEARNED };
        assert_eq!(small.aged(small.as_of.plus(DAY), 4).window, 3);
    }

    #[test]
    fn a_clock_that_went_back_ages_nothing() {
        assert_eq!(LEARNED.aged(Wall(0), 4), LEARNED);
    }
}
