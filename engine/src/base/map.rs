//! Hash maps in whose order nothing but their contents and one seed of the process shows.

use std::sync::OnceLock;

/// Of programs that set none, and of [`stable_hash`].
const SEED: u64 = 0x706f_7374_7269_6465;
static OF_PROCESS: OnceLock<u64> = OnceLock::new();

/// Makes the hashes of all maps to come hard to foresee: domains and host names come from outside, and
/// whoever could choose them to collide would make one map slow for all. Simulated worlds set no seed,
/// so that theirs are the same in every run. Only the first call counts.
pub fn seed_maps(seed: u64) {
    // A second engine in one process goes on with the seed of the first.
    let _first_counts = OF_PROCESS.set(seed);
}

/// The hasher state all maps of the core share.
#[derive(Clone, Debug)]
pub struct Seeded(foldhash::fast::FixedState);

impl Default for Seeded {
    fn default() -> Self {
        Self(foldhash::fast::FixedState::with_seed(*OF_PROCESS.get().unwrap_or(&SEED)))
    }
}

impl std::hash::BuildHasher for Seeded {
    type Hasher = foldhash::fast::FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// Keys to values, in an order that depends on nothing but them.
pub type Map<K, V> = hashbrown::HashMap<K, V, Seeded>;

/// A set of keys, in an order that depends on nothing but them.
pub type Set<K> = hashbrown::HashSet<K, Seeded>;

/// The hash by which work is dealt to shards; the same on every shard and in every run.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::with_seed(SEED).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State on disk and the share of a shard go by it.
    #[test]
    fn the_stable_hash_never_changes() {
        assert_eq!(stable_hash(b"a.example"), 80_592_868_173_021_043);
    }
}
