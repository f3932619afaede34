//! `cargo sim [SEED] [--seeds N] [--long]`: runs simulated worlds until one breaks a promise.

#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(clippy::disallowed_methods, reason = "it tells how many seeds a second it runs")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use postrider_tests::sim::crash_points;
use postrider_tests::sim::options::Size;
use postrider_tests::sim::run::{Outcome, Telling, run};
use postrider_tests::sim::trap::{Mode, Trap};

/// What was asked for.
struct Wish {
    /// One seed, to be told in full.
    seed: Option<u64>,
    first: Option<u64>,
    seeds: u64,
    size: Size,
    /// Go on after a failure.
    keep_going: bool,
    /// The workload of the crash points, with something happening at one I/O, or nothing.
    crash_point: Option<u64>,
    mode: Option<Mode>,
}

fn main() -> ExitCode {
    let Some(wish) = wish() else {
        println!("usage: cargo sim [SEED] [--seeds N] [--from SEED] [--long] [--keep-going]");
        println!("       cargo sim --crash-point I/O --mode cut|done|torn|fails|kill");
        return ExitCode::FAILURE;
    };
    match (wish.crash_point, wish.seed) {
        (Some(at), _) => {
            let trap = wish.mode.map(|mode| Trap { at, mode });
            show(&crash_points::run(trap, Telling::Everything))
        }
        (None, Some(seed)) => show(&run(seed, wish.size, Telling::Everything)),
        (None, None) => explore(&wish),
    }
}

fn wish() -> Option<Wish> {
    let mut wish = Wish {
        seed: None,
        first: None,
        seeds: 1000,
        size: Size::Short,
        keep_going: false,
        crash_point: None,
        mode: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--long" => wish.size = Size::Long,
            "--keep-going" => wish.keep_going = true,
            "--seeds" => wish.seeds = words.next()?.parse().ok()?,
            "--from" => wish.first = Some(words.next()?.parse().ok()?),
            "--crash-point" => wish.crash_point = Some(words.next()?.parse().ok()?),
            "--mode" => wish.mode = Some(Mode::named(&words.next()?)?),
            seed => wish.seed = Some(seed.parse().ok()?),
        }
    }
    Some(wish)
}

fn show(outcome: &Outcome) -> ExitCode {
    println!("{:#?}", outcome.options);
    let (steps, ios) = (outcome.steps, outcome.ios.len());
    println!("{steps} steps, {ios} I/Os, trace {:016x}", outcome.hash);
    let counters = outcome.counters;
    println!(
        "  segments recycled {}, messages copied {}",
        counters.segments_recycled, counters.messages_copied
    );
    for (checker, judged) in &outcome.judged {
        println!("  {checker}: judged {judged}");
    }
    match &outcome.result {
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
