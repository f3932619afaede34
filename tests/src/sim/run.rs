//! One seed from beginning to end, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use postrider_engine::report::counters::Counters;

use super::checkers::Violation;
use super::options::{Options, Size};
use super::trace::Trace;
use super::trap::Io;
use super::world::World;

/// How much is kept and shown of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Only whether it went well.
    Nothing,
    /// The last events, in words.
    TheEnd,
    /// Every event, as it happens.
    Everything,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub hash: u64,
    pub steps: u64,
    pub result: Result<(), Violation>,
    /// The last events in words, if they were kept.
    pub last: Vec<String>,
    /// How often each checker had something to judge.
    pub judged: Vec<(&'static str, u64)>,
    /// What kind of world it was.
    pub options: Options,
    /// What the engine counted, in all its runs.
    pub counters: Counters,
    /// Every I/O that the engine asked for.
    pub ios: Vec<Io>,
}

/// Runs a seed. A panic of the engine counts as a broken promise.
#[must_use]
pub fn run(seed: u64, size: Size, telling: Telling) -> Outcome {
    run_world(World::new(seed, size, trace(telling)))
}

pub(super) fn trace(telling: Telling) -> Trace {
    Trace::new(telling != Telling::Nothing, telling == Telling::Everything)
}

pub(super) fn run_world(mut world: World) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = result.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { checker: "no panic", what: what.unwrap_or_default() })
    });
    Outcome {
        hash: world.trace.hash(),
        steps: world.steps,
        result,
        last: world.trace.last(),
        judged: world.checkers.judged(),
        counters: world.counters(),
        ios: world.ios().to_vec(),
        options: world.options,
    }
}
