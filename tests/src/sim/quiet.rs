//! Time in which nothing keeps a running engine from writing: by it is told what it owes by now.

/// How long the disk was ready, and what keeps it from being ready now.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    time: u64,
    /// Segments being made.
    awaited: usize,
    /// The last segment asked for could not be made.
    is_short: bool,
}

impl Quiet {
    /// Time went by with an engine, and without writes under way.
    pub(super) fn pass(&mut self, time: u64) {
        if self.is_ready() {
            self.time += time;
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.awaited == 0 && !self.is_short
    }

    pub(super) fn segment_asked_for(&mut self) {
        self.awaited += 1;
    }

    pub(super) fn segment_made(&mut self, is_there: bool) {
        self.awaited = self.awaited.saturating_sub(1);
        self.is_short = !is_there;
    }

    /// The run is over, and with it what it waited for.
    pub(super) fn run_ends(&mut self) {
        self.awaited = 0;
        self.is_short = false;
    }

    pub(super) fn time(&self) -> u64 {
        self.time
    }
}
