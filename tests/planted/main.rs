//! Every planted bug is seen by the simulator: in the world recorded for it, which keeps every
//! promise without it. `cargo planted BUG` finds another world where one no longer shows its bug.

use postrider_engine::base::planted::Bug;
use postrider_tests::sim::options::Size;
use postrider_tests::sim::planted::shows;
use postrider_tests::sim::run::{Telling, run};

/// A bug and a seed in each line, and behind a `#` the promise that it breaks there.
const RECORDED: &str = include_str!("../planted.txt");

fn recorded() -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (bug, seed) = line.split('#').next()?.trim().split_once(' ')?;
        Some((bug.to_owned(), seed.trim().parse().expect("a seed")))
    };
    RECORDED.lines().filter_map(line).collect()
}

#[test]
fn every_planted_bug_is_seen_in_its_world() {
    let recorded = recorded();
    let is_seen = |bug: &&Bug| {
        let name = format!("{bug:?}");
        let found = recorded.iter().find(|(recorded, _)| *recorded == name);
        found.is_some_and(|(_, seed)| shows(*seed, **bug).is_some())
    };
    let unseen: Vec<_> = Bug::ALL.iter().filter(|bug| !is_seen(bug)).collect();
    assert!(unseen.is_empty(), "not seen: {unseen:?}; `cargo planted BUG` finds another world");
}

#[test]
fn without_bugs_the_same_worlds_keep_every_promise() {
    let mut seeds: Vec<u64> = recorded().into_iter().map(|(_, seed)| seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    for seed in seeds {
        let outcome = run(seed, Size::Short, Telling::Nothing);
        assert!(outcome.result.is_ok(), "seed {seed}: {:?}", outcome.result);
    }
}
