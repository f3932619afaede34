//! Whether more connections bring more mail: one width is measured against another.
//!
//! Replies that become slower tell that a site shows load, not how many connections it serves best:
//! where each one more makes all slower, fewer bring more. By Little's law the throughput of a window
//! that is all in use is its width, divided by how long replies take.
//!
//! ```text
//! Free, Settled --slow replies--> Narrowing --no less--> Descending --less--> Settled
//!                                     `------less------> Free
//! Settled --------a probe-------> Widening --more, or taken back------------> Settled
//! ```

/// Replies that measure a width. Where they vary by a third of their mean, two such means differ by a
/// fortieth by chance: a fifth of what an eighth of the connections is worth, where all are worth it.
const SPAN: u32 = 256;
/// Fewer connections are tried in steps of this part.
const STEP_SHARE: u32 = 8;
/// One connection more may bring less by this part before it is taken back: less is chance.
const LOSS_SHARE: u64 = 64;
/// Spans between two trials of fewer connections are doubled with each that failed, so often at most:
/// one connection of two for one span of thirty-three is a sixty-sixth of the mail, and of eight a
/// quarter of that.
const FAILED_MAX: u8 = 5;
/// A reply that takes so many medians was held apart from the others: it counts as no longer.
const HELD_APART: u32 = 2;
/// Connections by microseconds of a reply, times this, are millionths of a message a second: six
/// connections that are answered in ten minutes still make four digits.
const SCALE: u64 = 1_000_000_000_000;

/// What one width brings, and whether another is on trial.
#[derive(Debug, Default)]
pub(super) struct Throughput {
    width: u32,
    /// Replies to come that may be to messages given at another width.
    stale: u32,
    /// Replies of this span, and what they took together, in microseconds.
    replies: u32,
    micros: u64,
    /// Spans at this width, and the throughput of the last.
    spans: u32,
    rate: Option<u64>,
    /// Trials of fewer connections that failed in a row.
    failed: u8,
    trial: Trial,
}

/// `from`, `rate`: the width that is compared with the present one, and what it brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trial {
    #[default]
    Free,
    /// Fewer, for the first time.
    Narrowing { from: u32, rate: u64 },
    /// Fewer still, after fewer were no worse.
    Descending { from: u32, rate: u64 },
    /// The best is known. Growth waits until it is measured.
    Settled,
    /// One more than the best.
    Widening { from: u32, rate: u64 },
}

/// What the window should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Take this width to be measured, or take it back.
    Try(u32),
    /// Take this width, and go beyond it only as beyond one at which trouble came.
    Settle(u32),
}

impl Throughput {
    /// A reply, while all of a window of `width` is in use. `median`: of late, zero if unknown.
    pub(super) fn record(&mut self, micros: u32, median: u32, width: u32) {
        if width != self.width {
            if self.trial != Trial::Settled {
                self.trial = Trial::Free;
            }
            self.measure(width);
        }
        if self.stale > 0 {
            self.stale -= 1;
            return;
        }
        let longest = if median == 0 { u32::MAX } else { median.saturating_mul(HELD_APART) };
        self.replies += 1;
        self.micros += u64::from(micros.clamp(1, longest));
    }

    /// Whether a width is on trial, or the best one not measured yet.
    pub(super) fn is_measuring(&self) -> bool {
        match self.trial {
            Trial::Free => false,
            Trial::Settled => self.rate.is_none(),
            Trial::Narrowing { .. } | Trial::Descending { .. } | Trial::Widening { .. } => true,
        }
    }

    /// One connection more than the best is tried, `width` now.
    pub(super) fn handle_probe(&mut self, width: u32) {
        if let (Trial::Settled, Some(rate)) = (self.trial, self.rate) {
            self.trial = Trial::Widening { from: self.width, rate };
            self.measure(width);
        }
    }

    /// What a span that is over says. `is_slow`: whether replies that take so many microseconds on
    /// average are slower than they must be.
    pub(super) fn poll(&mut self, floor: u32, is_slow: impl FnOnce(u32) -> bool) -> Option<Advice> {
        let (rate, mean) = self.close_span()?;
        match self.trial {
            Trial::Free | Trial::Settled => {
                let is_due = self.spans >= 1 << self.failed && is_slow(mean);
                let trial = Trial::Narrowing { from: self.width, rate };
                is_due.then(|| self.narrow(trial, floor)).flatten()
            }
            Trial::Narrowing { rate: before, .. } | Trial::Descending { rate: before, .. }
                if rate >= before =>
            {
                self.failed = 0;
                let (best, trial) = (self.width, Trial::Descending { from: self.width, rate });
                self.narrow(trial, floor).or_else(|| Some(self.settle(best)))
            }
            Trial::Narrowing { from, .. } => {
                self.failed = (self.failed + 1).min(FAILED_MAX);
                self.trial = Trial::Free;
                self.measure(from);
                Some(Advice::Try(from))
            }
            Trial::Descending { from, .. } => Some(self.settle(from)),
            Trial::Widening { from, rate: before } => {
                let is_less = rate < before - before / LOSS_SHARE;
                self.trial = Trial::Settled;
                is_less.then(|| self.settle(from))
            }
        }
    }

    fn settle(&mut self, width: u32) -> Advice {
        self.trial = Trial::Settled;
        self.measure(width);
        Advice::Settle(width)
    }

    fn narrow(&mut self, trial: Trial, floor: u32) -> Option<Advice> {
        let width = (self.width - self.width.div_ceil(STEP_SHARE)).max(floor.max(1));
        (width < self.width).then(|| {
            self.trial = trial;
            self.measure(width);
            Advice::Try(width)
        })
    }

    /// From now on of this width.
    fn measure(&mut self, width: u32) {
        let stale = if width == self.width { 0 } else { self.width.max(width) };
        let (failed, trial) = (self.failed, self.trial);
        *self = Self { width, stale, failed, trial, ..Self::default() };
    }

    /// Throughput and mean reply of a span that is over.
    fn close_span(&mut self) -> Option<(u64, u32)> {
        if self.replies < SPAN {
            return None;
        }
        let mean = self.micros / u64::from(self.replies);
        let rate = u64::from(self.width).saturating_mul(SCALE) / mean;
        (self.replies, self.micros) = (0, 0);
        self.spans = self.spans.saturating_add(1);
        self.rate = Some(rate);
        Some((rate, u32::try_from(mean).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site that answers in so many milliseconds at a width; slow above `ordinary`.
    struct Site<F> {
        took: F,
        ordinary: u32,
        throughput: Throughput,
    }

    impl<F: Fn(u32) -> u32> Site<F> {
        fn new(took: F, ordinary: u32) -> Self {
            Self { took, ordinary, throughput: Throughput::default() }
        }

        /// What is advised after spans at `width`, at most so many.
        fn advice(&mut self, width: u32, spans: u32) -> Option<Advice> {
            let is_slow = |mean| mean > self.ordinary * 1000;
            (0..spans * SPAN + 2 * width).find_map(|_| {
                self.throughput.record((self.took)(width) * 1000, 0, width);
                self.throughput.poll(1, is_slow)
            })
        }
    }

    /// Every connection beyond eight makes all slower, with the square.
    fn tarpit(width: u32) -> u32 {
        20 + 200 * width.max(8) * width.max(8) / 64
    }

    #[test]
    fn where_more_bring_less_the_best_is_found() {
        let mut site = Site::new(tarpit, 300);
        assert_eq!(site.advice(10, 1), Some(Advice::Try(8)));
        assert!(site.throughput.is_measuring());
        assert_eq!(site.advice(8, 1), Some(Advice::Try(7)));
        assert_eq!(site.advice(7, 1), Some(Advice::Settle(8)));
        assert!(site.throughput.is_measuring(), "what it brings now");
        assert_eq!(site.advice(8, 5), None);
        assert!(!site.throughput.is_measuring());
        site.throughput.handle_probe(9);
        assert_eq!(site.advice(9, 1), Some(Advice::Settle(8)));
    }

    #[test]
    fn one_more_that_brings_more_is_kept() {
        let mut site = Site::new(tarpit, 300);
        site.advice(10, 1);
        site.advice(8, 1);
        site.advice(7, 1);
        let mut site = Site { throughput: site.throughput, ..Site::new(|_| 220, 300) };
        assert_eq!(site.advice(8, 1), None);
        site.throughput.handle_probe(9);
        assert!(site.throughput.is_measuring());
        assert_eq!(site.advice(9, 1), None);
        assert!(!site.throughput.is_measuring());
    }

    #[test]
    fn a_site_that_is_slow_whatever_is_sent_is_tried_ever_more_rarely() {
        let mut site = Site::new(|_| 900, 300);
        for spans in [1, 2, 4, 8, 16, 32, 32] {
            assert_eq!(site.advice(20, spans - 1), None);
            assert_eq!(site.advice(20, 1), Some(Advice::Try(17)));
            assert_eq!(site.advice(17, 1), Some(Advice::Try(20)));
            assert!(!site.throughput.is_measuring());
        }
    }

    #[test]
    fn a_site_that_serves_so_many_at_once_gets_no_more_than_these() {
        let mut site = Site::new(|width| 10 * width.max(10), 120);
        let mut width = 24;
        for _ in 0..9 {
            match site.advice(width, 1) {
                Some(Advice::Try(next)) => width = next,
                Some(Advice::Settle(best)) => return assert!((10..=11).contains(&best), "{best}"),
                None => panic!("slow, and nothing is tried"),
            }
        }
        panic!("not found: {width}");
    }

    #[test]
    fn what_answers_in_time_is_left_alone() {
        assert_eq!(Site::new(tarpit, 400).advice(10, 20), None);
    }

    #[test]
    fn a_window_that_others_change_is_on_no_trial() {
        let mut site = Site::new(tarpit, 300);
        site.advice(10, 1);
        assert_eq!(site.advice(5, 3), None);
        assert!(!site.throughput.is_measuring());
    }

    #[test]
    fn a_message_that_is_held_for_minutes_decides_nothing() {
        let mut throughput = Throughput { width: 8, ..Throughput::default() };
        for reply in 0..SPAN {
            let held = if reply == 9 { u32::MAX } else { 100_000 };
            throughput.record(held, 100_000, 8);
        }
        let mut means = Vec::new();
        throughput.poll(1, |mean| {
            means.push(mean);
            false
        });
        assert!(means[0] < 102_000, "{means:?}");
    }
}
