//! Numbers by name, where what the numbers stand for knows its own name: four bytes each, however long
//! the names are.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;

use super::map::Seeded;

/// The numbers of things that lie in a slab. Where a name is to be looked at, the caller tells that of a
/// number, for all numbers that are in here.
#[derive(Debug, Default)]
pub struct Index {
    numbers: HashTable<u32>,
    hasher: Seeded,
}

impl Index {
    pub fn find<N: Hash + PartialEq>(&self, name: &N, name_of: impl Fn(u32) -> N) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.numbers.find(hash, |number| name_of(*number) == *name).copied()
    }

    /// Adds a number whose name is not in here.
    pub fn insert<N: Hash>(&mut self, number: u32, name_of: impl Fn(u32) -> N) {
        let Self { numbers, hasher } = self;
        let hash = |number: &u32| hasher.hash_one(name_of(*number));
        numbers.insert_unique(hash(&number), number, hash);
    }

    /// Takes a number out that was added under this name.
    pub fn remove<N: Hash>(&mut self, name: &N, number: u32) {
        let hash = self.hasher.hash_one(name);
        if let Ok(entry) = self.numbers.find_entry(hash, |known| *known == number) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_names_that_lie_elsewhere() {
        let names: Vec<String> = (0..1000).map(|number| format!("name {number}")).collect();
        let name_of = |number: u32| &*names[number as usize];
        let mut index = Index::default();
        (0..1000).for_each(|number| index.insert(number, name_of));
        (0..1000).step_by(2).for_each(|number| index.remove(&name_of(number), number));
        // Under this name there is another number.
        index.remove(&"name 1", 3);
        for number in 0..1000 {
            let found = index.find(&name_of(number), name_of);
            assert_eq!(found, (number % 2 == 1).then_some(number));
        }
    }
}
