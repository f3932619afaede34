//! `cargo planted [BUG] [--seeds N] [--from SEED]`: looks for a seed that shows each planted bug, and
//! prints the lines of `tests/planted.txt`.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_engine::base::planted::Bug;
use postrider_tests::sim::planted::shows;

/// The issue of a bug that so many worlds do not show: a checker is missing.
const SEEDS: u64 = 10_000;

struct Wish {
    bug: Option<Bug>,
    from: u64,
    seeds: u64,
}

fn main() -> ExitCode {
    let Some(wish) = wish() else {
        println!("usage: cargo planted [BUG] [--seeds N] [--from SEED]");
        return ExitCode::FAILURE;
    };
    std::panic::set_hook(Box::new(|_| {}));
    let bugs = Bug::ALL.iter().filter(|bug| wish.bug.is_none_or(|wanted| wanted == **bug));
    let missed = bugs.filter(|bug| !look_for(**bug, &wish)).count();
    println!("# {missed} not found");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wish() -> Option<Wish> {
    let mut wish = Wish { bug: None, from: 0, seeds: SEEDS };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" => wish.seeds = words.next()?.parse().ok()?,
            "--from" => wish.from = words.next()?.parse().ok()?,
            name => wish.bug = Some(*Bug::ALL.iter().find(|bug| format!("{bug:?}") == name)?),
        }
    }
    Some(wish)
}

/// Looks on all cores; the lowest seed found by any is told.
fn look_for(bug: Bug, wish: &Wish) -> bool {
    let (next, found) = (AtomicU64::new(wish.from), AtomicU64::new(u64::MAX));
    let end = wish.from + wish.seeds;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || found.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    if shows(seed, bug).is_some() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.load(Ordering::Relaxed);
    match (seed < end).then(|| shows(seed, bug)).flatten() {
        Some(violation) => println!("{bug:?} {seed}  # {}: {}", violation.checker, violation.what),
        None => println!("# {bug:?} is not seen in {} worlds: {}", wish.seeds, bug.what()),
    }
    seed < end
}
