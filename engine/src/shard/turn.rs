//! One bounded turn: the runtime and the simulator both call this.

use super::{Effects, Event, Shard};
use crate::base::time::{Mono, Now};

/// Events taken in one turn, so that a flood cannot starve the timers.
pub const EVENTS_PER_TURN_MAX: usize = 1024;

/// Takes events in, then lets the shard settle. Returns when it wants its next turn at the latest.
pub fn turn<'a>(
    shard: &mut Shard,
    now: Now,
    events: impl Iterator<Item = Event<'a>>,
    out: &mut Effects,
) -> Mono {
    for event in events.take(EVENTS_PER_TURN_MAX) {
        shard.handle(now, event, out);
    }
    shard.settle(now, out)
}
