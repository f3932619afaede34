//! Timers of a shard: set, and gone by. There is no removal: who sets one looks, when it fires,
//! whether it is still wanted, so a cancelled timer costs what one that fires costs.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use postrider_engine::base::time::Mono;
use postrider_engine::base::wheel::Wheel;

/// Timers of a busy shard at once.
const TIMERS: u64 = 10_000;

fn main() {
    divan::main();
}

/// Command time-outs: five minutes ahead, in the order of time.
#[divan::bench]
fn insert(bencher: Bencher<'_, '_>) {
    let counted = bencher.counter(ItemsCount::new(TIMERS));
    counted.with_inputs(|| Wheel::new(Mono(0))).bench_local_refs(|wheel| fill(wheel, 300));
}

/// All of them fire, a millisecond at a time over ten seconds.
#[divan::bench]
fn insert_and_fire(bencher: Bencher<'_, '_>) {
    let mut fired = Vec::new();
    let counted = bencher.counter(ItemsCount::new(TIMERS));
    counted.with_inputs(|| Wheel::new(Mono(0))).bench_local_refs(|wheel| {
        fill(wheel, 1);
        for turn in 0..12_000 {
            wheel.advance(Mono(0).plus(Duration::from_millis(turn)), &mut fired);
            fired.clear();
        }
        assert!(wheel.is_empty());
    });
}

/// Turns in which nothing is due, beside timers that are far away.
#[divan::bench]
fn advance_idle(bencher: Bencher<'_, '_>) {
    let mut wheel = Wheel::new(Mono(0));
    fill(&mut wheel, 3_000_000);
    let (mut now, mut fired) = (Mono(0), Vec::new());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        now = now.plus(Duration::from_micros(20));
        wheel.advance(now, &mut fired);
    });
}

/// A timer each millisecond, the first so many seconds ahead.
fn fill(wheel: &mut Wheel<u64>, seconds: u64) {
    for number in 0..TIMERS {
        let wait = Duration::from_secs(seconds) + Duration::from_millis(number);
        wheel.insert(Mono(0).plus(wait), number);
    }
}
