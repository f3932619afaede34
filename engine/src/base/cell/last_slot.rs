//! Where something was found the last time: a hint, for all who hold the same name.

use super::atomics::{Ordering, Place};

/// A number to look at first. Whoever finds something else there looks for the name; two names that
/// differ in nothing but this are the same.
#[derive(Debug, Default)]
pub struct LastSlot(Place);

impl LastSlot {
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn note(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }
}

impl Clone for LastSlot {
    fn clone(&self) -> Self {
        Self(Place::new(self.get()))
    }
}

impl PartialEq for LastSlot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LastSlot {}
