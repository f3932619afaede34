//! Simulated worlds: recorded seeds, fixed sets, and fresh ones, each under every checker.

#![expect(clippy::print_stdout, reason = "a failing seed is told with its replay command")]
#![expect(clippy::disallowed_methods, reason = "fresh seeds come from the time of day")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use postrider_tests::sim::asking::ASKING_FROM;
use postrider_tests::sim::bounds::BOUNDS_FROM;
use postrider_tests::sim::crowd::CROWDS_FROM;
use postrider_tests::sim::options::{CHUNKING_FROM, LABELS_FROM, LATER_FROM, Size};
use postrider_tests::sim::run::{Outcome, Telling, run};

/// Worlds that are the same in every run of the tests.
const FIXED: Range<u64> = 0..200;
/// The same, with the later troubles; in 100212 a damaged message is read.
const FIXED_LATER: Range<u64> = LATER_FROM..LATER_FROM + 220;
/// The same, with headers that say whose mail it is.
const FIXED_LABELS: Range<u64> = LABELS_FROM..LABELS_FROM + 100;
/// The same, with rates, shared caps, sources, tenants and rules.
const FIXED_BOUNDS: Range<u64> = BOUNDS_FROM..BOUNDS_FROM + 200;
/// The same, with more mail than hosts take in some, and hosts that say whom they mean.
const FIXED_CROWDS: Range<u64> = CROWDS_FROM..CROWDS_FROM + 100;
/// The same, with operators that ask why mail waits.
const FIXED_ASKING: Range<u64> = ASKING_FROM..ASKING_FROM + 100;
/// The same, with hosts that take a message as one chunk.
const FIXED_CHUNKING: Range<u64> = CHUNKING_FROM..CHUNKING_FROM + 100;
/// Worlds nobody has seen before, if `FRESH_VAR` does not say how many; 0: none.
const FRESH: u64 = 500;
const FRESH_VAR: &str = "POSTRIDER_SIM_FRESH";
/// Of so many failed worlds the last events are told; of all, how to replay them.
const TOLD_MAX: usize = 3;

/// Seeds that once failed, with what they showed behind a `#`.
const RECORDED: &str = include_str!("../seeds.txt");

#[test]
fn recorded_worlds_keep_every_promise() {
    let seeds = RECORDED.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    check(seeds.collect());
}

/// And every checker has something to judge: one that sees nothing would be green for ever.
#[test]
fn fixed_worlds_keep_every_promise() {
    let fixed = FIXED.chain(FIXED_LATER).chain(FIXED_LABELS).chain(FIXED_BOUNDS);
    let judged =
        check(fixed.chain(FIXED_CROWDS).chain(FIXED_ASKING).chain(FIXED_CHUNKING).collect());
    assert_eq!(judged.len(), 20);
    assert!(judged.values().all(|times| *times > 0), "{judged:?}");
}

#[test]
fn fresh_worlds_keep_every_promise() {
    let fresh = std::env::var(FRESH_VAR).ok().and_then(|many| many.parse().ok()).unwrap_or(FRESH);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let first = clock.as_secs() * 1000;
    println!("{fresh} fresh seeds from {first}");
    check((first..first + fresh).collect());
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in (0..10).chain(LATER_FROM..LATER_FROM + 10).chain(BOUNDS_FROM..BOUNDS_FROM + 10) {
        let (one, other) = (alone(seed), alone(seed));
        assert_eq!((one.hash, one.steps), (other.hash, other.steps), "seed {seed}");
        assert_ne!(one.hash, alone(seed + 1).hash, "seed {seed} and the next");
    }
}

fn alone(seed: u64) -> Outcome {
    run(seed, Size::Short, Telling::Nothing)
}

/// How often each checker had something to judge.
type Judged = BTreeMap<&'static str, u64>;

/// Runs seeds on all cores; tells of each that failed how to replay it.
fn check(seeds: Vec<u64>) -> Judged {
    let next = AtomicUsize::new(0);
    let take = || {
        let (mut failed, mut judged) = (Vec::new(), Judged::new());
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = alone(*seed);
            failed.extend(outcome.result.err().map(|violation| (*seed, violation)));
            add(&mut judged, outcome.judged);
        }
        (failed, judged)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut failed, mut judged) = (Vec::new(), Judged::new());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        for one in running {
            let (some, of_some) = one.join().expect("no thread panics");
            failed.extend(some);
            add(&mut judged, of_some);
        }
    });
    for (seed, violation) in &failed {
        println!("replay: cargo sim {seed}    # {}: {}", violation.checker, violation.what);
    }
    for (seed, _) in failed.iter().take(TOLD_MAX) {
        tell(*seed);
    }
    assert!(failed.is_empty(), "{} of {} worlds broke a promise", failed.len(), seeds.len());
    judged
}

fn add(judged: &mut Judged, more: impl IntoIterator<Item = (&'static str, u64)>) {
    for (checker, times) in more {
        *judged.entry(checker).or_default() += times;
    }
}

fn tell(seed: u64) {
    let outcome = run(seed, Size::Short, Telling::TheEnd);
    println!("the last events of {seed}:");
    for line in outcome.last.iter().rev().take(20).rev() {
        println!("    {line}");
    }
}
