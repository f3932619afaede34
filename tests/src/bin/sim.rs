//! `cargo sim [SEED] [--seeds N] [--long]`: runs simulated worlds until one breaks a promise.

#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(clippy::disallowed_methods, reason = "it tells how many seeds a second it runs")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use postrider_tests::sim::options::Size;
use postrider_tests::sim::run::{Telling, run};

/// What was asked for.
struct Wish {
    /// One seed, to be told in full.
    seed: Option<u64>,
    first: Option<u64>,
    seeds: u64,
    size: Size,
    /// Go on after a failure.
    keep_going: bool,
}

fn main() -> ExitCode {
    let Some(wish) = wish() else {
        println!("usage: cargo sim [SEED] [--seeds N] [--from SEED] [--long] [--keep-going]");
        return ExitCode::FAILURE;
    };
    match wish.seed {
        Some(seed) => replay(seed, wish.size),
        None => explore(&wish),
    }
}

fn wish() -> Option<Wish> {
    let mut wish =
        Wish { seed: None, first: None, seeds: 1000, size: Size::Short, keep_going: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--long" => wish.size = Size::Long,
            "--keep-going" => wish.keep_going = true,
            "--seeds" => wish.seeds = words.next()?.parse().ok()?,
            "--from" => wish.first = Some(words.next()?.parse().ok()?),
            seed => wish.seed = Some(seed.parse().ok()?),
        }
    }
    Some(wish)
}

fn replay(seed: u64, size: Size) -> ExitCode {
    let outcome = run(seed, size, Telling::Everything);
    println!("{}", outcome.options);
    println!("seed {seed}: {} steps, trace {:016x}", outcome.steps, outcome.hash);
    for (checker, judged) in outcome.judged {
        println!("  {checker}: judged {judged}");
    }
    match outcome.result {
        Ok(()) => {
            println!("every promise was kept");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("BROKEN {}: {}", violation.checker, violation.what);
            ExitCode::FAILURE
        }
    }
}

fn explore(wish: &Wish) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let first = wish.first.unwrap_or_else(|| clock.as_secs() * 1_000_000);
    println!("seeds from {first}");
    let (next, failed, steps) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while wish.keep_going || failed.load(Ordering::Relaxed) == 0 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wish.seeds {
                        return;
                    }
                    let seed = first + number;
                    let outcome = run(seed, wish.size, Telling::Nothing);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    if outcome.result.is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tell_failure(seed, wish.size);
                    }
                }
            });
        }
    });
    let took = begin.elapsed().as_secs_f64();
    let ran = next.load(Ordering::Relaxed).min(wish.seeds);
    let failed = failed.load(Ordering::Relaxed);
    let steps = steps.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = ran as f64 / took;
    println!("{ran} seeds, {failed} failed, {steps} steps, {took:.1} s, {rate:.0} seeds/s");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs it again with words, and shows its end and how to replay it.
fn tell_failure(seed: u64, size: Size) {
    let outcome = run(seed, size, Telling::TheEnd);
    let Err(violation) = outcome.result else {
        return println!("seed {seed} fails only sometimes");
    };
    let long = if size == Size::Long { " --long" } else { "" };
    let mut text = format!("BROKEN {}: {}\n", violation.checker, violation.what);
    for line in outcome.last.iter().rev().take(25).rev() {
        let cut: String = line.chars().take(300).collect();
        text += &format!("    {cut}\n");
    }
    println!("{text}    replay: cargo sim {seed}{long}");
}
