//! Names for things that come and go: a slot that is reused under a new generation.

/// Hands out slots up to a bound; a name of an old generation is never valid again.
#[derive(Debug)]
pub struct Slots {
    generations: Vec<u32>,
    free: Vec<u32>,
    capacity: u32,
}

/// Generations fit 24 bits, so that a name fits the user data of one ring operation.
const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Slots {
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { generations: Vec::new(), free: Vec::new(), capacity }
    }

    /// Takes a free slot: its number and its present generation.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if let Some(slot) = self.free.pop() {
            return Some((slot, self.generations[slot as usize]));
        }
        let slot = u32::try_from(self.generations.len()).ok()?;
        if slot >= self.capacity {
            return None;
        }
        self.generations.push(0);
        Some((slot, 0))
    }

    /// Gives a slot back; its generation moves on.
    pub fn give_back(&mut self, slot: u32, generation: u32) {
        assert!(self.is_current(slot, generation), "slot {slot} given back twice");
        let next = (generation + 1) & GENERATION_MASK;
        self.generations[slot as usize] = next;
        self.free.push(slot);
    }

    /// Whether this name still stands for the slot's present owner.
    #[must_use]
    pub fn is_current(&self, slot: u32, generation: u32) -> bool {
        self.generations.get(slot as usize) == Some(&generation)
    }

    /// The present name of a slot that was ever taken.
    #[must_use]
    pub fn current(&self, slot: u32) -> Option<(u32, u32)> {
        self.generations.get(slot as usize).map(|generation| (slot, *generation))
    }

    /// Slots taken and not given back.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.generations.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_is_never_valid_again() {
        let mut slots = Slots::new(1);
        let (slot, generation) = slots.take().unwrap();
        assert_eq!(slots.take(), None);
        slots.give_back(slot, generation);
        assert!(!slots.is_current(slot, generation));
        assert_eq!(slots.take(), Some((slot, generation + 1)));
        assert_eq!(slots.taken(), 1);
    }
}
