//! Medians, and how sure a ratio of two of them is: by drawing again from what was measured, with a seed.

use crate::report::words;
use crate::seed::Seeded;

/// Enough that the ends of the interval stand still in the digits that are shown.
const DRAWS: u32 = 10_000;
/// Left out at either end: 2.5 %, for an interval of 95 %.
const TAIL: f64 = 0.025;
/// Another seed, another last digit; the same runs give the same verdict.
const SEED: u64 = 0x706f_7374;

/// The middle value; of an even number the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length.is_multiple_of(2) => {
            Some(f64::midpoint(sorted[middle - 1], sorted[middle]))
        }
        _ => Some(sorted[middle]),
    }
}

/// The percentile bootstrap interval of the ratio of medians, after through before. Neither is empty.
pub(super) fn ratio_interval(before: &[f64], after: &[f64]) -> (f64, f64) {
    let mut seeded = Seeded::new(SEED);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let old = median(&draw(before, &mut seeded))?;
            let new = median(&draw(after, &mut seeded))?;
            Some(new / old)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len() - 1;
    let low = words::index(words::size(last) * TAIL);
    (ratios[low], ratios[last - low])
}

fn draw(values: &[f64], seeded: &mut Seeded) -> Vec<f64> {
    values.iter().map(|_| values[seeded.below(values.len())]).collect()
}

/// How often runs dealt to two sides at random lie as far apart by rank as these do.
pub(super) fn permutation_p(before: &[f64], after: &[f64]) -> f64 {
    let mut ranks = ranks(&[before, after].concat());
    let seen = distance(&ranks, before.len());
    let mut seeded = Seeded::new(SEED);
    let as_far = (0..DRAWS).filter(|_| {
        shuffle(&mut ranks, &mut seeded);
        distance(&ranks, before.len()) >= seen - 1e-9
    });
    // The order that was seen is one of those chance can deal.
    words::size(as_far.count() + 1) / f64::from(DRAWS + 1)
}

/// Places in order of size; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| other.total_cmp(value).is_eq()).count();
        words::size(below) + words::size(equal + 1) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Between the rank sum of the first side and what it is on the mean.
fn distance(ranks: &[f64], first: usize) -> f64 {
    let sum: f64 = ranks[..first].iter().sum();
    let mean = ranks.iter().sum::<f64>() / words::size(ranks.len());
    (sum - mean * words::size(first)).abs()
}

fn shuffle(values: &mut [f64], seeded: &mut Seeded) {
    for last in (1..values.len()).rev() {
        values.swap(last, seeded.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: [f64; 5] = [10.0, 11.0, 10.5, 10.2, 10.8];
    const HIGH: [f64; 5] = [13.0, 12.8, 13.3, 12.9, 13.1];

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_interval_holds_the_ratio_and_is_the_same_each_time() {
        let (low, high) = ratio_interval(&LOW, &HIGH);
        let ratio = 13.0 / 10.5;
        assert!(low < ratio && ratio < high && low > 1.1 && high < 1.35, "{low} {high}");
        let again = ratio_interval(&LOW, &HIGH);
        assert!((again.0 - low).abs() < f64::EPSILON && (again.1 - high).abs() < f64::EPSILON);
        let (low, high) = ratio_interval(&LOW, &LOW);
        assert!(low < 1.0 && high > 1.0);
    }

    /// Of the 252 ways to deal ten runs to two sides, two are as far apart.
    #[test]
    fn full_separation_is_as_rare_as_it_is() {
        let p = permutation_p(&LOW, &HIGH);
        assert!((p - 2.0 / 252.0).abs() < 0.003, "{p}");
        assert!(permutation_p(&LOW, &LOW) > 0.9);
    }

    #[test]
    fn equal_values_share_their_places() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [2.5, 1.0, 2.5]);
    }

    /// Two sides of one distribution: about one in twenty is called different, not more.
    #[test]
    fn noise_is_seldom_called_a_difference() {
        let mut seeded = Seeded::new(7);
        let mut noise = || [0; 6].map(|_| 10.0 + words::size(seeded.below(1000)) / 500.0);
        let trials = 100;
        let different = (0..trials).filter(|_| {
            let (one, other) = (noise(), noise());
            let (low, high) = ratio_interval(&one, &other);
            permutation_p(&one, &other) <= super::super::P_MAX && (low > 1.0 || high < 1.0)
        });
        assert!(different.count() <= 12);
    }
}
