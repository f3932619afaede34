//! Simulated time in nanoseconds: it jumps to whatever is due next.

use postrider_engine::base::time::{Mono, Now, Wall};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000 * US;
pub const SECOND: u64 = 1_000 * MS;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// What the wall clock says when a run begins: an autumn day.
const WALL_AT_START: u64 = 1_790_000_000 * SECOND;

/// The present of the world, and what the engine's clocks make of it.
#[derive(Debug)]
pub struct Clock {
    /// Nanoseconds since the world began.
    pub at: u64,
    /// When the machine was started: the origin of the monotonic clock.
    booted: u64,
    /// By how much the wall clock was stepped in all.
    stepped: i64,
}

impl Clock {
    #[must_use]
    pub fn new() -> Self {
        Self { at: HOUR, booted: 0, stepped: 0 }
    }

    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: Mono(self.at - self.booted), wall: Wall(self.wall_origin() + self.at) }
    }

    /// World time of a monotonic moment.
    #[must_use]
    pub fn of_mono(&self, mono: Mono) -> u64 {
        mono.0.saturating_add(self.booted)
    }

    /// World time of a moment on the wall clock as it goes now.
    #[must_use]
    pub fn of_wall(&self, wall: Wall) -> u64 {
        wall.0.saturating_sub(self.wall_origin())
    }

    /// What the wall clock would have said when the world began.
    fn wall_origin(&self) -> u64 {
        WALL_AT_START.saturating_add_signed(self.stepped)
    }

    /// Somebody sets the wall clock; timers must not notice.
    pub fn step_wall(&mut self, by: i64) {
        self.stepped = self.stepped.saturating_add(by);
    }

    /// Before anything begins: a date ends so long from now.
    pub fn end_date_in(&mut self, wait: u64) {
        let end = (self.now().wall.0 + wait).next_multiple_of(DAY);
        self.step_wall((end - self.now().wall.0 - wait).cast_signed());
    }

    /// The machine was started again.
    pub fn reboot(&mut self) {
        self.booted = self.at - SECOND;
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
