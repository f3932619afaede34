//! A workload of 200 messages, hit at every I/O in every way: all of it recovers, every time.

#![expect(clippy::print_stdout, reason = "what failed is told with its replay command")]

use std::sync::atomic::{AtomicUsize, Ordering};

use postrider_tests::sim::crash_points::run;
use postrider_tests::sim::run::Telling;
use postrider_tests::sim::trap::{Io, Mode, Trap};

/// Of this many failures the end is told; of all, how to replay them.
const TOLD_MAX: usize = 3;

#[test]
#[ignore = "thousands of runs: --profile sim, and --include-ignored"]
fn every_io_may_be_the_last_or_fail() {
    let undisturbed = run(None, Telling::Nothing);
    assert!(undisturbed.result.is_ok(), "{:?}", undisturbed.result);
    let traps: Vec<Trap> = (0..)
        .zip(&undisturbed.ios)
        .flat_map(|(at, io)| modes(*io).map(move |mode| Trap { at, mode }))
        .collect();
    println!("{} I/Os, {} runs", undisturbed.ios.len(), traps.len());
    let failed = run_all(&traps);
    for trap in failed.iter().take(TOLD_MAX) {
        tell(*trap);
    }
    assert!(failed.is_empty(), "{} of {} runs broke a promise", failed.len(), traps.len());
}

#[test]
fn the_workload_has_everything_a_spool_does() {
    let undisturbed = run(None, Telling::Nothing);
    let counters = undisturbed.counters;
    for io in [Io::Write, Io::Read, Io::NewFile] {
        assert!(undisturbed.ios.contains(&io), "{io:?}");
    }
    assert_eq!(counters.messages_accepted, 200);
    assert!(counters.segments_recycled >= 2, "{counters:?}");
    assert!(counters.messages_copied >= 2, "{counters:?}");
    assert!(counters.reports_made >= 5, "{counters:?}");
    assert!(counters.recipients_deferred >= 20, "{counters:?}");
}

/// What can happen to an I/O. A read leaves nothing behind that could be torn, a file made is
/// there or not.
fn modes(io: Io) -> impl Iterator<Item = Mode> {
    Mode::ALL.into_iter().filter(move |mode| *mode != Mode::Torn || io == Io::Write)
}

/// Runs them on all cores, and tells how to replay those that fail; which they are.
fn run_all(traps: &[Trap]) -> Vec<Trap> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut failed = Vec::new();
        while let Some(trap) = traps.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(violation) = run(Some(*trap), Telling::Nothing).result {
                let Trap { at, mode } = trap;
                let (checker, what) = (violation.checker, violation.what);
                println!(
                    "replay: cargo sim --crash-point {at} --mode {mode}    # {checker}: {what}"
                );
                failed.push(*trap);
            }
        }
        failed
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        let mut all = Vec::new();
        for one in running {
            all.extend(one.join().expect("no thread panics"));
        }
        all
    })
}

fn tell(trap: Trap) {
    let outcome = run(Some(trap), Telling::TheEnd);
    let Err(violation) = outcome.result else { return };
    println!("I/O {}, {}: {}: {}", trap.at, trap.mode, violation.checker, violation.what);
    for line in outcome.last.iter().rev().take(20).rev() {
        println!("    {line}");
    }
}
