//! The window of one destination: fractional feedback and failed cohorts (`qmgr_queue.c`,
//! `qmgr_feedback.c`), with every parameter but those named at its default.

/// By how much one delivery moves the window; both ways alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Feedback {
    /// A constant; 1 is the default.
    Fixed(f64),
    /// `1/concurrency`.
    PerWindow,
    /// `1/sqrt_concurrency`.
    PerRoot,
}

/// How sums of fractions are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rounding {
    /// As `qmgr_queue.c` has it: half a feedback of tolerance, either way.
    AsCoded,
    /// As SCHEDULER_README has it, and as the figures there were measured: none.
    AsPublished,
}

/// `destination_concurrency_failed_cohort_limit`.
const FAILED_COHORTS_MAX: f64 = 1.0;

#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Zero: the destination is dead.
    size: u32,
    success: f64,
    failure: f64,
    failed_cohorts: f64,
    initial: u32,
    limit: u32,
    feedback: Feedback,
    rounding: Rounding,
    cohorts_max: f64,
}

impl Feedback {
    fn of(self, window: u32) -> f64 {
        match self {
            Self::Fixed(amount) => amount,
            Self::PerWindow => 1.0 / f64::from(window),
            Self::PerRoot => 1.0 / f64::from(window).sqrt(),
        }
    }
}

impl Window {
    pub(crate) fn new(initial: u32, limit: u32, feedback: Feedback, rounding: Rounding) -> Self {
        Self {
            size: initial.min(limit),
            success: 0.0,
            failure: 0.0,
            failed_cohorts: 0.0,
            initial,
            limit,
            feedback,
            rounding,
            cohorts_max: FAILED_COHORTS_MAX,
        }
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.size == 0
    }

    /// A delivery ended without blame for the destination, itself still among the `busy`.
    pub(crate) fn good(&mut self, busy: u32) {
        self.failed_cohorts = 0.0;
        if self.is_dead() {
            return self.wake(busy);
        }
        if self.size >= self.limit || self.size >= busy + self.initial {
            return;
        }
        let feedback = self.feedback.of(self.size);
        self.success += feedback;
        while self.success + self.tolerance(feedback) >= 1.0 {
            self.size += 1;
            self.success -= 1.0;
            self.failure = 0.0;
        }
        self.size = self.size.min(self.limit);
    }

    /// A delivery ended, and the destination is to blame; `true` if that has made it dead.
    pub(crate) fn bad(&mut self) -> bool {
        if self.is_dead() {
            return false;
        }
        self.failed_cohorts += 1.0 / f64::from(self.size);
        if self.failed_cohorts >= self.cohorts_max {
            self.size = 0;
            return true;
        }
        let feedback = self.feedback.of(self.size);
        self.failure -= feedback;
        while self.failure - self.tolerance(feedback) < 0.0 {
            self.size = self.size.saturating_sub(1);
            self.success = 0.0;
            self.failure += 1.0;
        }
        self.size = self.size.max(1);
        false
    }

    fn tolerance(&self, feedback: f64) -> f64 {
        match self.rounding {
            Rounding::AsCoded => feedback / 2.0,
            Rounding::AsPublished => 0.0,
        }
    }

    /// The time of a dead destination is over, or something came through: everybody at once.
    pub(crate) fn wake(&mut self, busy: u32) {
        if self.is_dead() {
            self.size = if busy > 0 { busy } else { self.initial };
            (self.success, self.failure) = (0.0, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Feedback = Feedback::Fixed(1.0);

    fn window(initial: u32, feedback: Feedback) -> Window {
        Window::new(initial, 1000, feedback, Rounding::AsCoded)
    }

    fn failures_until_dead(mut window: Window) -> u32 {
        (1..).find(|_| window.bad()).unwrap()
    }

    #[test]
    fn a_destination_dies_after_as_many_failures_as_in_the_code() {
        let check = |initial, feedback, failures| {
            assert_eq!(failures_until_dead(window(initial, feedback)), failures, "{initial}");
        };
        for (initial, failures) in [(1, 1), (2, 2), (5, 3), (10, 7), (20, 13), (50, 32)] {
            check(initial, ONE, failures);
        }
        for initial in [1, 2, 5, 10, 20, 50] {
            check(initial, Feedback::PerWindow, initial);
        }
        check(5, Feedback::PerRoot, 4);
        check(20, Feedback::PerRoot, 18);
    }

    #[test]
    fn ten_cohorts_take_longer() {
        for (initial, failures) in [(5, 12), (20, 26)] {
            let patient = Window { cohorts_max: 10.0, ..window(initial, ONE) };
            assert_eq!(failures_until_dead(patient), failures);
        }
    }

    #[test]
    fn a_window_climbs_as_fast_as_in_the_code() {
        let check = |feedback, to, deliveries| {
            let mut window = window(5, feedback);
            let climbed = (1..).find(|_| {
                window.good(window.size());
                window.size() >= to
            });
            assert_eq!(climbed.unwrap(), deliveries, "{feedback:?}");
        };
        check(ONE, 20, 15);
        check(Feedback::Fixed(0.25), 20, 60);
        check(Feedback::PerWindow, 20, 180);
        check(Feedback::PerWindow, 500, 124_740);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = window(5, ONE);
        for _ in 0..100 {
            window.good(1);
        }
        assert_eq!(window.size(), 6);
    }
}
