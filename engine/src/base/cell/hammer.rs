//! Real threads on one cell: what the models promise in small, counted in large.

use std::thread;
use std::time::Duration;

use crate::base::cell::atomics::{AtomicU64, Ordering};
use crate::base::cell::{Answer, Grant, Permit, PermitsCell, SharedRate};
use crate::base::gcra::Rate;
use crate::base::time::Mono;

const SHARDS: u16 = 3;
/// Where more threads run than there are processors, each hand-over costs a turn of the scheduler.
const ROUNDS: u32 = 2_000;

/// What a site's host would count: every connection that is open.
#[derive(Default)]
struct Host {
    open: AtomicU64,
    most: AtomicU64,
}

impl Host {
    fn connect(&self) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
    }

    fn end(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One cell, its host, and a mailbox that holds at most one grant for each shard.
struct World {
    cell: PermitsCell,
    host: Host,
    mailboxes: [AtomicU64; SHARDS as usize],
}

impl World {
    fn new(cap: u32) -> Self {
        let cell = PermitsCell::new(SHARDS, Some(cap));
        Self { cell, host: Host::default(), mailboxes: Default::default() }
    }

    fn send(&self, grant: Option<Grant>) {
        let Some(Grant { to }) = grant else { return };
        let before = self.mailboxes[usize::from(to)].fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "two grants of one cell to one shard");
    }

    /// Waits for the grant, as a shard waits for its note.
    fn receive(&self, shard: u16) -> Grant {
        while self.mailboxes[usize::from(shard)].swap(0, Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        Grant { to: shard }
    }

    fn permit(&self, shard: u16, round: u32) -> Permit {
        let mut answer = self.cell.acquire(shard);
        loop {
            match answer {
                Answer::Taken(permit) => return permit,
                Answer::Parked if round.is_multiple_of(7) => {
                    // Changes its mind: what comes is for others, and it stands in line anew.
                    let grant = self.receive(shard);
                    self.send(self.cell.decline(grant));
                    answer = self.cell.acquire(shard);
                }
                Answer::Parked => answer = self.cell.accept(self.receive(shard)),
            }
        }
    }

    fn work(&self, shard: u16) {
        for round in 0..ROUNDS {
            let permit = self.permit(shard, round);
            self.host.connect();
            if round.is_multiple_of(16) {
                thread::yield_now();
            }
            self.host.end();
            self.send(self.cell.release(permit));
        }
    }
}

#[test]
fn no_thread_waits_for_ever_and_the_cap_is_kept() {
    let world = World::new(2);
    thread::scope(|scope| {
        for shard in 0..SHARDS {
            let world = &world;
            scope.spawn(move || world.work(shard));
        }
    });
    assert!(world.host.most.load(Ordering::SeqCst) <= 2);
    assert_eq!((world.cell.in_use(), world.cell.waiting()), (0, 0));
}

#[test]
fn caps_that_change_under_way_strand_nobody() {
    let world = World::new(2);
    thread::scope(|scope| {
        let working: Vec<_> = (0..SHARDS)
            .map(|shard| {
                let world = &world;
                scope.spawn(move || world.work(shard))
            })
            .collect();
        let mut round = 0_u32;
        while !working.iter().all(thread::ScopedJoinHandle::is_finished) {
            for grant in world.cell.set_cap([Some(0), Some(2), Some(1)][round as usize % 3]) {
                world.send(Some(grant));
            }
            round += 1;
            thread::yield_now();
        }
    });
    assert!(world.host.most.load(Ordering::SeqCst) <= 2);
    assert_eq!((world.cell.in_use(), world.cell.waiting()), (0, 0));
}

#[test]
fn threads_share_a_rate_to_the_unit() {
    let (shared, rate) = (SharedRate::new(), Rate::per_second(3, 10));
    let end = 36_000_000_000_000;
    let taken: u64 = thread::scope(|scope| {
        let take_all = || {
            let (mut now, mut taken) = (Mono(0), 0);
            while now.0 <= end {
                match shared.take(now, &rate, 1) {
                    Ok(()) => taken += 1,
                    Err(ready) => now = ready,
                }
            }
            taken
        };
        let threads = [scope.spawn(take_all), scope.spawn(take_all)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((108_008..=108_010).contains(&taken), "{taken}");
}

/// `cargo test --release ... a_pair_of_acquire_and_release -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_pair_of_acquire_and_release_is_cheap() {
    const PAIRS: u32 = 5_000_000;
    let pair = |cell: &PermitsCell, shard| {
        let Answer::Taken(permit) = std::hint::black_box(cell).acquire(shard) else {
            panic!("there was room")
        };
        assert_eq!(cell.release(permit), None);
    };
    let measure = |what: &str, threads: u16, cap| {
        let cell = PermitsCell::new(2, cap);
        let start = now();
        thread::scope(|scope| {
            for shard in 0..threads {
                let cell = &cell;
                scope.spawn(move || (0..PAIRS).for_each(|_| pair(cell, shard)));
            }
        });
        print(what, start, PAIRS);
    };
    measure("uncapped, one thread", 1, None);
    measure("capped, one thread", 1, Some(1_000));
    measure("capped, two threads", 2, Some(1_000));
    let (shared, rate, start) = (SharedRate::new(), Rate::per_second(7_000, 2), now());
    (0..PAIRS).for_each(|at| {
        shared.take(Mono(u64::from(at) * 150_000), &rate, 1).unwrap();
    });
    print("take of a shared rate, one thread", start, PAIRS);
}

#[expect(clippy::disallowed_methods, reason = "the one test that measures")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(clippy::print_stdout, reason = "the one test that measures")]
fn print(what: &str, start: std::time::Instant, times: u32) {
    let each: Duration = start.elapsed() / times;
    let picos = (start.elapsed().as_nanos() * 10) / u128::from(times);
    println!("{what}: {}.{} ns ({each:?})", picos / 10, picos % 10);
}
