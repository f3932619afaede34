//! Arrivals beyond the first, counted for the run of the engine in which the one before came: what
//! the end of that run made come again.

use super::planes::Planes;

/// Runs told apart: a byte for each recipient, zero for "never came".
const RUNS_APART: u64 = 255;

/// Repetitions by run. One that comes 255 runs later is counted for a later run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Repeats {
    /// The run of the last arrival, as [`mark`].
    last: Planes,
    run: u64,
    of_run: Vec<u64>,
}

impl Repeats {
    /// What comes from now on comes from another run of the engine.
    pub fn begin_run(&mut self) {
        self.run += 1;
    }

    /// Notes an arrival.
    pub fn record(&mut self, sequence: u64, index: usize) {
        let now = mark(self.run);
        let before = std::mem::replace(self.last.at(sequence, index), now);
        if before == 0 {
            return;
        }
        let apart = (u64::from(now) + RUNS_APART - u64::from(before)) % RUNS_APART;
        let run = usize::try_from(self.run.saturating_sub(apart)).unwrap_or(usize::MAX - 1);
        if self.of_run.len() <= run {
            self.of_run.resize(run + 1, 0);
        }
        self.of_run[run] += 1;
    }

    /// How many arrivals repeated one of this run, whenever they came.
    pub fn of_run(&self, run: u64) -> u64 {
        let run = usize::try_from(run).unwrap_or(usize::MAX);
        self.of_run.get(run).copied().unwrap_or(0)
    }

    /// Takes over what another thread counted, for hosts of its own.
    pub fn merge(&mut self, other: &Self) {
        if self.of_run.len() < other.of_run.len() {
            self.of_run.resize(other.of_run.len(), 0);
        }
        for (sum, count) in self.of_run.iter_mut().zip(&other.of_run) {
            *sum += count;
        }
    }
}

/// A run as a byte that is not zero.
fn mark(run: u64) -> u8 {
    u8::try_from(run % RUNS_APART + 1).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_counts_for_the_run_of_the_arrival_before_it() {
        let mut repeats = Repeats::default();
        repeats.record(1, 0);
        repeats.begin_run();
        repeats.record(1, 0);
        repeats.record(2, 0);
        repeats.begin_run();
        repeats.record(1, 0);
        for _ in 0..253 {
            repeats.begin_run();
        }
        repeats.record(2, 0);
        repeats.record(2, 0);
        let of_runs = [0, 1, 2, 255].map(|run| repeats.of_run(run));
        assert_eq!(of_runs, [1, 2, 0, 1]);
    }
}
