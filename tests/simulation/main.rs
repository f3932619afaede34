//! Simulated worlds: recorded seeds, fixed sets, and fresh ones, each under every checker.

#![expect(clippy::print_stdout, reason = "a failing seed is told with its replay command")]
#![expect(clippy::disallowed_methods, reason = "fresh seeds come from the time of day")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use postrider_tests::sim::options::{LATER_FROM, Size};
use postrider_tests::sim::run::{Outcome, Telling, run};

/// Worlds that are the same in every run of the tests.
const FIXED: Range<u64> = 0..200;
/// The same, with the later troubles.
const FIXED_LATER: Range<u64> = LATER_FROM..LATER_FROM + 200;
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

#[test]
fn fixed_worlds_keep_every_promise() {
    check(FIXED.chain(FIXED_LATER).collect());
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
    for seed in (0..10).chain(LATER_FROM..LATER_FROM + 10) {
        let (one, other) = (alone(seed), alone(seed));
        assert_eq!((one.hash, one.steps), (other.hash, other.steps), "seed {seed}");
        assert_ne!(one.hash, alone(seed + 1).hash, "seed {seed} and the next");
    }
}

/// A checker that sees nothing would be green for ever.
#[test]
fn every_checker_has_something_to_judge() {
    let mut judged: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in FIXED.take(60).chain(FIXED_LATER.take(60)) {
        for (checker, times) in alone(seed).judged {
            *judged.entry(checker).or_default() += times;
        }
    }
    assert_eq!(judged.len(), 11);
    assert!(judged.values().all(|times| *times > 20), "{judged:?}");
}

fn alone(seed: u64) -> Outcome {
    run(seed, Size::Short, Telling::Nothing)
}

/// Runs seeds on all cores; tells of each that failed how to replay it.
fn check(seeds: Vec<u64>) {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut failed = Vec::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            failed.extend(alone(*seed).result.err().map(|violation| (*seed, violation)));
        }
        failed
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        let mut all = Vec::new();
        for one in running {
            all.extend(one.join().expect("no thread panics"));
        }
        all
    });
    for (seed, violation) in &failed {
        println!("replay: cargo sim {seed}    # {}: {}", violation.checker, violation.what);
    }
    for (seed, _) in failed.iter().take(TOLD_MAX) {
        tell(*seed);
    }
    assert!(failed.is_empty(), "{} of {} worlds broke a promise", failed.len(), seeds.len());
}

fn tell(seed: u64) {
    let outcome = run(seed, Size::Short, Telling::TheEnd);
    println!("the last events of {seed}:");
    for line in outcome.last.iter().rev().take(20).rev() {
        println!("    {line}");
    }
}
