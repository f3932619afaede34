//! Two kinds of time as plain values: one to measure with, one to show and to store.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds on `CLOCK_BOOTTIME`, one origin for all shards; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Nanoseconds since 1970-01-01T00:00:00Z; may step, so it moves no timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

/// The time of one turn, handed to everything that happens in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Mono {
    /// Later than any moment that will come.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `wait` later, or [`Mono::NEVER`].
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// The moment `wait` later, as far as the type reaches.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }
}

impl Now {
    /// When the monotonic clock will stand where the wall clock now says `wall`; past moments are now.
    #[must_use]
    pub fn mono_at(self, wall: Wall) -> Mono {
        self.mono.plus(wall.since(self.wall))
    }

    /// What the wall clock will say at `mono`, if nobody steps it; past moments are now.
    #[must_use]
    pub fn wall_at(self, mono: Mono) -> Wall {
        self.wall.plus(mono.since(self.mono))
    }
}

/// A wall clock that nobody steps: what it said at the start, and the time since. What is counted in
/// wall time by a run goes by this one, so that a step moves no timer.
#[derive(Clone, Copy, Debug)]
pub struct SteadyWall(Now);

impl SteadyWall {
    #[must_use]
    pub fn from(start: Now) -> Self {
        Self(start)
    }

    /// `now` as it would be without steps.
    #[must_use]
    pub fn now(self, now: Now) -> Now {
        Now { mono: now.mono, wall: self.0.wall_at(now.mono) }
    }

    /// How far apart the two are `now`.
    #[must_use]
    pub fn step(self, now: Now) -> WallStep {
        WallStep { steady: self.now(now).wall, set: now.wall }
    }

    /// What the wall clock as it is set `now` will say when this one says `wall`.
    #[must_use]
    pub fn to_wall(self, now: Now, wall: Wall) -> Wall {
        now.wall_at(self.now(now).mono_at(wall))
    }
}

/// Where the wall clock as it is set stands, and where it would without steps, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallStep {
    pub steady: Wall,
    pub set: Wall,
}

impl WallStep {
    /// What the clock as it is set says when the steady one says `steady`.
    #[must_use]
    pub fn to_set(self, steady: Wall) -> Wall {
        let ahead = self.set.plus(steady.since(self.steady));
        Wall(ahead.0.saturating_sub(nanos(self.steady.since(steady))))
    }
}

fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_overflows() {
        assert_eq!(Mono(u64::MAX - 1).plus(Duration::from_secs(5)), Mono::NEVER);
        assert_eq!(Mono(3).since(Mono(8)), Duration::ZERO);
    }

    #[test]
    fn a_wall_moment_maps_to_the_same_wait() {
        let now = Now { mono: Mono(1_000), wall: Wall(50_000) };
        assert_eq!(now.mono_at(Wall(50_700)), Mono(1_700));
        assert_eq!(now.wall_at(Mono(1_700)), Wall(50_700));
        assert_eq!(now.mono_at(Wall(1)), now.mono);
    }

    #[test]
    fn a_steady_time_is_written_as_the_clock_is_set() {
        let step = WallStep { steady: Wall(1_000), set: Wall(5_000) };
        assert_eq!([900, 1_000, 1_300].map(|at| step.to_set(Wall(at)).0), [4_900, 5_000, 5_300]);
        let back = WallStep { steady: Wall(1_000), set: Wall(10) };
        assert_eq!(back.to_set(Wall(900)), Wall(0));
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_no_moment() {
        let steady = SteadyWall::from(Now { mono: Mono(1_000), wall: Wall(50_000) });
        for stepped in [Wall(3), Wall(50_500), Wall(9_000_000)] {
            let now = Now { mono: Mono(1_500), wall: stepped };
            assert_eq!(steady.now(now), Now { mono: Mono(1_500), wall: Wall(50_500) });
            assert_eq!(steady.to_wall(now, Wall(50_700)), Wall(stepped.0 + 200));
        }
    }
}
