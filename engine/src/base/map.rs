//! A hash map with a fixed hasher: the same order in every run of the same program.

/// The hasher state all maps of the core share. Fixed, so that iteration order is a function of
/// the contents; maps whose keys a peer chooses are bounded in size by their owner.
#[derive(Clone, Debug)]
pub struct Fixed(foldhash::fast::FixedState);

impl Default for Fixed {
    fn default() -> Self {
        Self(foldhash::fast::FixedState::with_seed(0x706f_7374_7269_6465))
    }
}

impl std::hash::BuildHasher for Fixed {
    type Hasher = foldhash::fast::FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// Keys to values, in an order that depends on nothing but them.
pub type Map<K, V> = hashbrown::HashMap<K, V, Fixed>;

/// A set of keys, in an order that depends on nothing but them.
pub type Set<K> = hashbrown::HashSet<K, Fixed>;

/// The hash by which work is dealt to shards; the same on every shard and in every run.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = Fixed::default().build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
