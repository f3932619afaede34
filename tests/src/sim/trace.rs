//! What happened, as one number to compare two runs by, and the last events in words.

use std::collections::VecDeque;

use postrider_engine::base::map::stable_hash;

/// Events kept in words.
const KEPT: usize = 80;

/// The trace of a run. Words are made only where somebody will read them.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    pub events: u64,
    words: Option<VecDeque<String>>,
    is_loud: bool,
}

impl Trace {
    #[must_use]
    pub fn new(with_words: bool, is_loud: bool) -> Self {
        Self { hash: 0, events: 0, words: with_words.then(VecDeque::new), is_loud }
    }

    /// Notes an event: its kind and what tells it from others.
    pub fn note(&mut self, at: u64, kind: &str, what: &[u8]) {
        self.events += 1;
        self.hash = self.hash.rotate_left(7) ^ stable_hash(kind.as_bytes()) ^ at;
        self.hash = self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stable_hash(what);
    }

    /// Keeps a sentence about it.
    pub fn say(&mut self, at: u64, words: impl FnOnce() -> String) {
        let Some(kept) = &mut self.words else { return };
        let line = format!("{:>14}.{:06} {}", at / 1_000_000_000, at / 1000 % 1_000_000, words());
        if self.is_loud {
            super::show(&line);
        }
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }

    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    #[must_use]
    pub fn last(&self) -> Vec<String> {
        self.words.iter().flatten().cloned().collect()
    }
}
