//! Decisions that follow from a seed and from what they are about, whatever the order of events.

use crate::seed::mix;

/// Keeps a zero among the parts from vanishing.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// A 64-bit number keeps so many bits as a share: what an `f64` holds exactly.
const SHARE_BITS: u32 = 53;

/// A number for what `about` names: the same parts under the same seed give the same number.
pub(super) fn draw(seed: u64, about: &[u64]) -> u64 {
    about.iter().fold(mix(seed ^ STEP), |sum, part| mix(sum ^ mix(part.wrapping_add(STEP))))
}

/// A drawn number as a share of one, one itself excluded.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
pub(super) fn share(number: u64) -> f64 {
    (number >> (u64::BITS - SHARE_BITS)) as f64 / (1u64 << SHARE_BITS) as f64
}

/// A number for a name or an address, in any case of letters.
pub(super) fn hash(name: &[u8]) -> u64 {
    name.chunks(8).fold(name.len() as u64, |sum, chunk| {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        eight.make_ascii_lowercase();
        mix(sum.wrapping_add(STEP) ^ u64::from_le_bytes(eight))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_its_place_count() {
        let all = [draw(1, &[1, 2]), draw(1, &[2, 1]), draw(2, &[1, 2]), draw(1, &[1, 2, 0])];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one), "{all:?}");
        }
        assert_eq!(draw(1, &[1, 2]), draw(1, &[1, 2]));
    }

    #[test]
    fn shares_spread_evenly_below_one() {
        let count = |low: f64, high: f64| {
            (0..10_000).filter(|n| (low..high).contains(&share(draw(7, &[*n])))).count()
        };
        assert_eq!(count(0.0, 1.0), 10_000);
        assert!((900..1100).contains(&count(0.2, 0.3)), "{}", count(0.2, 0.3));
        assert!(share(u64::MAX) < 1.0);
    }

    #[test]
    fn names_hash_in_any_case() {
        assert_eq!(hash(b"User@Example.Test"), hash(b"user@example.test"));
        assert_ne!(hash(b"user@example.test"), hash(b"user@example.tesu"));
        assert_ne!(hash(b""), hash(b"\0"));
    }
}
