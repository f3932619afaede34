//! Every order in which two or three threads can meet at a cell, by `cargo loom`.
//!
//! Each model ends with the same judgement: what is in use is held or on its way, nobody waits
//! beside room, each shard that waits stands in line or has a grant coming, and once all is given
//! back everybody was served.

use std::cell::Cell;
use std::rc::Rc;

use loom::thread;

use crate::base::cell::day::{Day, DayCount, DayKey, Receiver, Refused, Tally};
use crate::base::cell::permits::{Answer, Grant, Permit, PermitsCell};
use crate::base::cell::rates::SharedRate;
use crate::base::gcra::Rate;
use crate::base::time::Mono;

const SHARDS: u16 = 4;

/// Switches between threads at moments that nothing forces; three find what any small number does,
/// and let all models end within a minute.
const PREEMPTIONS_MAX: usize = 3;

/// The cell, and beside it the truth, which no thread can see late.
struct World {
    cell: PermitsCell,
    /// Connections open, as their host counts them.
    open: Cell<u32>,
    /// At least the cap: lowered once a cut is done, raised before a raise begins.
    cap: Cell<u32>,
}

/// One shard: what it holds, whether it is parked, and the grants it was to send.
struct Shard {
    number: u16,
    world: Rc<World>,
    held: Vec<Permit>,
    parked: bool,
    sent: Vec<Grant>,
}

impl Shard {
    fn new(world: &Rc<World>, number: u16) -> Self {
        Self { number, world: Rc::clone(world), held: Vec::new(), parked: false, sent: Vec::new() }
    }

    fn acquire(&mut self) {
        let cap_before = self.world.cap.get();
        let answer = self.world.cell.acquire(self.number);
        self.take(answer, cap_before);
    }

    /// `cap_before`: what was the cap for certain. Beside a cut it may be taken as just before it.
    fn accept(&mut self, grant: Grant, cap_before: u32) {
        let answer = self.world.cell.accept(grant);
        self.take(answer, cap_before);
    }

    fn take(&mut self, answer: Answer, cap_before: u32) {
        self.parked = answer == Answer::Parked;
        let Answer::Taken(permit) = answer else { return };
        self.held.push(permit);
        let open = self.world.open.get() + 1;
        self.world.open.set(open);
        assert!(open <= cap_before.max(self.world.cap.get()), "the cap is broken");
    }

    fn release(&mut self) {
        let Some(permit) = self.held.pop() else { return };
        self.world.open.set(self.world.open.get() - 1);
        self.sent.extend(self.world.cell.release(permit));
    }

    fn decline(&mut self, grant: Grant) {
        self.parked = false;
        self.sent.extend(self.world.cell.decline(grant));
    }

    fn leave(&mut self) {
        self.parked = false;
        self.world.cell.leave(self.number);
    }

    fn set_cap(&mut self, cap: u32) {
        self.world.cap.set(self.world.cap.get().max(cap));
        self.sent.extend(self.world.cell.set_cap(Some(cap)));
        self.world.cap.set(cap);
    }
}

/// What one thread does with its shard.
type Script = fn(&mut Shard);

/// Runs `scripts`, one thread each, on a cell that `prepare` has set up, in every order.
fn check(cap: u32, prepare: fn(&mut [Shard]), scripts: &'static [(usize, Script)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(move || {
        let cell = PermitsCell::new(SHARDS, Some(cap));
        let world = Rc::new(World { cell, open: Cell::new(0), cap: Cell::new(cap) });
        let mut shards: Vec<_> = (0..SHARDS).map(|number| Shard::new(&world, number)).collect();
        prepare(&mut shards);
        let mut idle: Vec<_> = shards.into_iter().map(Some).collect();
        let threads: Vec<_> = scripts
            .iter()
            .map(|(number, script)| {
                let mut shard = idle[*number].take().expect("one script a shard");
                thread::spawn(move || {
                    script(&mut shard);
                    shard
                })
            })
            .collect();
        let mut shards: Vec<_> = idle.into_iter().flatten().collect();
        shards.extend(threads.into_iter().map(|thread| thread.join().expect("a script ends")));
        shards.sort_by_key(|shard| shard.number);
        judge(&world, &mut shards);
    });
}

fn judge(world: &World, shards: &mut [Shard]) {
    let mut grants: Vec<Grant> = shards.iter_mut().flat_map(|shard| shard.sent.drain(..)).collect();
    let held: usize = shards.iter().map(|shard| shard.held.len()).sum();
    assert_eq!(world.cell.in_use() as usize, held + grants.len(), "a permit was lost or made");
    assert!(!world.cell.is_stuck(), "somebody waits beside room");
    let coming = |shard: &Shard| grants.iter().filter(|grant| grant.to == shard.number).count();
    assert!(shards.iter().all(|shard| coming(shard) <= 1), "two grants for one shard");
    let waiting = shards.iter().filter(|shard| shard.parked && coming(shard) == 0).count();
    assert_eq!(world.cell.waiting() as usize, waiting, "who waits does not stand in line");

    // Ends: each round gives a permit back or serves a shard.
    while let Some(grant) = grants.pop().or_else(|| free_one(shards)) {
        let shard = &mut shards[usize::from(grant.to)];
        if shard.parked {
            shard.accept(grant, world.cap.get());
        } else {
            shard.decline(grant);
        }
        grants.append(&mut shard.sent);
    }
    assert!(shards.iter().all(|shard| !shard.parked), "somebody was never served");
    assert_eq!((world.cell.in_use(), world.cell.waiting(), world.open.get()), (0, 0, 0));
}

/// Releases until somebody gets a grant of it.
fn free_one(shards: &mut [Shard]) -> Option<Grant> {
    while let Some(shard) = shards.iter_mut().find(|shard| !shard.held.is_empty()) {
        shard.release();
        if let Some(grant) = shard.sent.pop() {
            return Some(grant);
        }
    }
    None
}

fn come_and_go(shard: &mut Shard) {
    shard.acquire();
    shard.release();
}

/// Shard 1 is parked behind shard 0, which then releases: the grant is on its way.
fn grant_to_1_on_its_way(shards: &mut [Shard]) {
    shards[0].acquire();
    shards[1].acquire();
    shards[0].release();
    let grant = shards[0].sent.pop().expect("shard 1 waits");
    shards[1].sent.push(grant);
}

#[test]
fn two_shards_come_and_go() {
    check(1, |_| (), &[(0, come_and_go), (1, come_and_go)]);
}

#[test]
fn two_shards_come_and_go_twice() {
    let twice: Script = |shard| {
        come_and_go(shard);
        if !shard.parked {
            come_and_go(shard);
        }
    };
    check(1, |_| (), [(0, twice), (1, twice)].to_vec().leak());
}

#[test]
fn three_shards_come_and_go() {
    check(1, |_| (), &[(0, come_and_go), (1, come_and_go), (2, come_and_go)]);
}

#[test]
fn one_comes_as_two_permits_are_freed_for_one_who_waits() {
    let two_held_one_waits = |shards: &mut [Shard]| {
        shards[0].acquire();
        shards[1].acquire();
        shards[2].acquire();
    };
    check(2, two_held_one_waits, &[(0, Shard::release), (1, Shard::release), (3, Shard::acquire)]);
}

#[test]
fn a_cut_as_one_goes_and_another_comes() {
    let two_held = |shards: &mut [Shard]| {
        shards[0].acquire();
        shards[1].acquire();
    };
    check(2, two_held, &[(0, Shard::release), (2, come_and_go), (3, |shard| shard.set_cap(1))]);
}

#[test]
fn a_raise_as_one_goes_and_another_comes() {
    let one_held = |shards: &mut [Shard]| shards[0].acquire();
    check(1, one_held, &[(0, Shard::release), (2, Shard::acquire), (3, |shard| shard.set_cap(2))]);
}

#[test]
fn a_raise_as_two_come() {
    check(0, |_| (), &[(0, Shard::acquire), (1, Shard::acquire), (3, |shard| shard.set_cap(1))]);
}

#[test]
fn a_cut_taken_back_as_others_come_and_go() {
    let cut_and_raise: Script = |shard| {
        shard.set_cap(0);
        shard.set_cap(1);
    };
    check(1, |_| (), [(0, come_and_go as Script), (3, cut_and_raise)].to_vec().leak());
    let one_held = |shards: &mut [Shard]| shards[0].acquire();
    let three = [(0, Shard::release as Script), (1, Shard::acquire), (3, cut_and_raise)];
    check(1, one_held, three.to_vec().leak());
}

#[test]
fn a_grant_is_declined_as_others_come() {
    let decline: Script = |shard| {
        let grant = shard.sent.pop().unwrap();
        shard.decline(grant);
    };
    let scripts = [(1, decline), (2, Shard::acquire), (3, come_and_go)];
    check(1, grant_to_1_on_its_way, scripts.to_vec().leak());
}

#[test]
fn a_grant_is_accepted_as_the_cap_is_cut_and_raised() {
    let accept: Script = |shard| {
        let grant = shard.sent.pop().unwrap();
        shard.accept(grant, u32::MAX);
    };
    let cut_and_raise: Script = |shard| {
        shard.set_cap(0);
        shard.set_cap(1);
    };
    let scripts = [(1, accept), (2, Shard::acquire), (3, cut_and_raise)];
    check(1, grant_to_1_on_its_way, scripts.to_vec().leak());
}

#[test]
fn one_leaves_the_line_as_it_is_served() {
    let one_waits = |shards: &mut [Shard]| {
        shards[0].acquire();
        shards[1].acquire();
    };
    check(1, one_waits, &[(0, Shard::release), (1, Shard::leave), (2, Shard::acquire)]);
}

#[test]
fn two_shards_never_take_one_unit_of_a_rate_twice() {
    loom::model(|| {
        let shared = Rc::new(SharedRate::new());
        let take = |units| {
            let shared = Rc::clone(&shared);
            move || u64::from(shared.take(Mono(9), &Rate::per_second(1, 3), units).is_ok()) * units
        };
        let others = [thread::spawn(take(1)), thread::spawn(take(2))];
        let own = take(2)();
        let taken: u64 = others.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken + own, 3, "one of the twos is refused, and the one passes");
    });
}

const YESTERDAY: DayCount = DayCount { date: 7, step: 0, sent: 1 };
const TODAY: DayCount = DayCount { date: 8, step: 1, sent: 0 };

/// A day that was used yesterday.
fn used_yesterday() -> Rc<Day> {
    let receiver = Receiver::Provider("p".into());
    let day = Day::new(DayKey { source: "s".into(), receiver });
    day.restore(YESTERDAY, Tally { answers: 1, bad: 1 });
    Rc::new(day)
}

/// As a scheduler does it: begins the day if it must, and counts a message. Whether it was the one
/// that began it, and whether the message was counted.
fn count_one(day: &Day, cap: u32) -> (bool, bool) {
    let mut has_begun = false;
    loop {
        let now = day.count();
        if now.date < TODAY.date {
            has_begun |= day.turn(now, TODAY);
            continue;
        }
        match day.take(now, cap) {
            Ok(_) => return (has_begun, true),
            Err(Refused::Full) => return (has_begun, false),
            Err(Refused::Moved) => {}
        }
    }
}

#[test]
fn a_day_is_begun_once_and_never_holds_more_than_its_cap() {
    loom::model(|| {
        let day = used_yesterday();
        let count = || {
            let day = Rc::clone(&day);
            move || count_one(&day, 2)
        };
        let others = [thread::spawn(count()), thread::spawn(count())];
        let own = count_one(&day, 2);
        let all = others.map(|thread| thread.join().unwrap()).into_iter().chain([own]);
        let (begun, counted): (Vec<bool>, Vec<bool>) = all.unzip();
        assert_eq!(begun.iter().filter(|begun| **begun).count(), 1);
        assert_eq!(counted.iter().filter(|counted| **counted).count(), 2);
        assert_eq!(day.count(), DayCount { sent: 2, ..TODAY });
    });
}

#[test]
fn what_comes_back_as_a_day_ends_is_never_taken_from_the_next() {
    loom::model(|| {
        let day = used_yesterday();
        let put_back = {
            let day = Rc::clone(&day);
            thread::spawn(move || day.put_back(YESTERDAY.date))
        };
        let (begun, counted) = count_one(&day, 1);
        put_back.join().unwrap();
        assert!(begun && counted);
        assert_eq!(day.count(), DayCount { sent: 1, ..TODAY });
    });
}

#[test]
fn one_comes_back_as_two_ask_for_the_last() {
    loom::model(|| {
        let day = used_yesterday();
        let put_back = {
            let day = Rc::clone(&day);
            thread::spawn(move || day.put_back(YESTERDAY.date))
        };
        let other = {
            let day = Rc::clone(&day);
            thread::spawn(move || day.take(YESTERDAY, 1).is_ok())
        };
        let own = day.take(YESTERDAY, 1).is_ok();
        put_back.join().unwrap();
        let taken = u32::from(own) + u32::from(other.join().unwrap());
        assert!(taken <= 1, "one of one was given back");
        assert_eq!(day.count(), DayCount { sent: taken, ..YESTERDAY });
    });
}

#[test]
fn an_answer_that_comes_as_the_day_turns_is_of_one_of_the_two() {
    loom::model(|| {
        let day = used_yesterday();
        let answer = {
            let day = Rc::clone(&day);
            thread::spawn(move || day.note_answer(false))
        };
        assert!(day.turn(YESTERDAY, TODAY));
        day.note_answer(true);
        answer.join().unwrap();
        let today = day.tally(TODAY.date);
        assert!(today.bad == 1 && (1..=2).contains(&today.answers), "{today:?}");
    });
}
