//! Simulated worlds: recorded seeds, a fixed set, and fresh ones, each under every checker.

#![expect(clippy::print_stdout, reason = "a failing seed is told with its replay command")]
#![expect(clippy::disallowed_methods, reason = "fresh seeds come from the time of day")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use postrider_tests::sim::options::Size;
use postrider_tests::sim::run::{Outcome, Telling, run};

/// Worlds that are the same in every run of the tests.
const FIXED: std::ops::Range<u64> = 0..200;
/// Worlds nobody has seen before.
const FRESH: u64 = 50;

/// Seeds that once failed, with what they showed behind a `#`.
const RECORDED: &str = include_str!("../seeds.txt");

#[test]
fn recorded_worlds_keep_every_promise() {
    let seeds = RECORDED.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    check(seeds.collect());
}

#[test]
fn fixed_worlds_keep_every_promise() {
    check(FIXED.collect());
}

#[test]
fn fresh_worlds_keep_every_promise() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let first = clock.as_secs() * 1000;
    println!("fresh seeds from {first}");
    check((first..first + FRESH).collect());
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..20 {
        let (one, other) = (alone(seed), alone(seed));
        assert_eq!((one.hash, one.steps), (other.hash, other.steps), "seed {seed}");
        assert_ne!(one.hash, alone(seed + 1).hash, "seed {seed} and the next");
    }
}

/// A checker that sees nothing would be green for ever.
#[test]
fn every_checker_has_something_to_judge() {
    let mut judged: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in FIXED.take(30) {
        for (checker, times) in alone(seed).judged {
            *judged.entry(checker).or_default() += times;
        }
    }
    assert_eq!(judged.len(), 10);
    assert!(judged.values().all(|times| *times > 20), "{judged:?}");
}

fn alone(seed: u64) -> Outcome {
    run(seed, Size::Short, Telling::Nothing)
}

/// Runs seeds on all cores; shows how each that failed ended.
fn check(seeds: Vec<u64>) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if alone(*seed).result.is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tell(*seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of {} worlds broke a promise", seeds.len());
}

fn tell(seed: u64) {
    let outcome = run(seed, Size::Short, Telling::TheEnd);
    if let Err(violation) = outcome.result {
        let last: Vec<&str> =
            outcome.last.iter().rev().take(20).rev().map(String::as_str).collect();
        println!("{}: {}\n{}", violation.checker, violation.what, last.join("\n"));
        println!("replay: cargo sim {seed}");
    }
}
