//! Time in which nothing keeps a running engine from writing: by it is told what it owes by now.

use std::collections::BTreeSet;

/// How long the disk was ready, and what keeps it from being ready now.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    time: u64,
    /// Segments being made.
    awaited: usize,
    /// Shards whose last segment could not be made: each asks again in its own time.
    short: BTreeSet<usize>,
}

impl Quiet {
    /// Time went by with an engine, and without writes under way.
    pub(super) fn pass(&mut self, time: u64) {
        if self.is_ready() {
            self.time += time;
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.awaited == 0 && self.short.is_empty()
    }

    pub(super) fn segment_asked_for(&mut self) {
        self.awaited += 1;
    }

    pub(super) fn segment_made(&mut self, shard: usize, is_there: bool) {
        self.awaited = self.awaited.saturating_sub(1);
        if is_there {
            self.short.remove(&shard);
        } else {
            self.short.insert(shard);
        }
    }

    /// The run is over, and with it what it waited for.
    pub(super) fn run_ends(&mut self) {
        self.awaited = 0;
        self.short.clear();
    }

    pub(super) fn time(&self) -> u64 {
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_one_shard_does_not_end_the_want_of_another() {
        let mut quiet = Quiet::default();
        quiet.segment_asked_for();
        quiet.segment_made(0, false);
        quiet.segment_asked_for();
        quiet.segment_made(1, true);
        quiet.pass(5);
        assert_eq!(quiet.time(), 0);
        quiet.segment_made(0, true);
        quiet.pass(5);
        assert_eq!(quiet.time(), 5);
    }
}
