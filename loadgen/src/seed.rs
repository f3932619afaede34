//! Numbers that follow from a seed: the same seed makes the same run.

/// A small generator (splitmix64): good enough to vary mail, and a few instructions long.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        choose(self.next(), bound)
    }

    /// A number above 0 and up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// A draw of the normal distribution (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Spreads a number over all 64 bits.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Maps a spread number to one above 0 and up to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
pub(crate) fn unit(number: u64) -> f64 {
    ((number >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Maps a spread number to `0..bound`.
#[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below `bound`")]
pub(crate) fn choose(number: u64, bound: usize) -> usize {
    ((u128::from(number) * bound as u128) >> 64) as usize
}
