//! The control loop against small models of receivers, in virtual time.
#![expect(clippy::print_stdout, reason = "the figures are for whoever tunes the loop")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::*;
use crate::base::prng::Prng;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const ROUND_TRIP: u64 = 20 * MILLI;
const TIME_OUT: u64 = 30 * SECOND;

/// A mail host: what is left at its default does no harm.
#[derive(Clone, Debug)]
struct Receiver {
    /// Connections at once; more are refused with 421, or hang.
    cap: u32,
    hangs: bool,
    /// Messages per second and how many it saves up; more are refused with 421.
    bucket: Option<(u64, u64)>,
    closes_on_refusal: bool,
    /// One message takes so long ...
    service: u64,
    /// ... and longer, in proportion or to a power of it, from so many at once.
    knee: u32,
    power: u32,
    /// Cannot be reached from, to.
    down: Vec<(u64, u64)>,
    /// Turns everything away from, to.
    shut: Vec<(u64, u64)>,
    tokens: u64,
    refilled: u64,
    connected: u32,
    serving: u32,
}

impl Receiver {
    fn new() -> Self {
        Self {
            cap: u32::MAX,
            hangs: false,
            bucket: None,
            closes_on_refusal: false,
            service: 100 * MILLI,
            knee: u32::MAX,
            power: 1,
            down: Vec::new(),
            shut: Vec::new(),
            tokens: 0,
            refilled: 0,
            connected: 0,
            serving: 0,
        }
    }

    fn is_in(spans: &[(u64, u64)], now: u64) -> bool {
        spans.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    fn connect(&mut self, now: u64) -> (u64, Signal) {
        if Self::is_in(&self.down, now) {
            return (ROUND_TRIP, Signal::Site);
        }
        if self.connected >= self.cap {
            return if self.hangs {
                (TIME_OUT, Signal::Site)
            } else {
                (ROUND_TRIP, Signal::Throttle)
            };
        }
        if Self::is_in(&self.shut, now) {
            return (ROUND_TRIP, Signal::Throttle);
        }
        self.connected += 1;
        (ROUND_TRIP, Signal::Delivered)
    }

    fn message(&mut self, now: u64, prng: &mut Prng) -> (u64, Signal) {
        if Self::is_in(&self.down, now) {
            return (ROUND_TRIP, Signal::Site);
        }
        if Self::is_in(&self.shut, now) || !self.take_token(now) {
            return (ROUND_TRIP, Signal::Throttle);
        }
        let serving = u64::from(self.serving.max(self.knee)) + 1;
        let slow = if self.knee == u32::MAX {
            1 << 32
        } else {
            (serving << 32) / (u64::from(self.knee) + 1)
        };
        let even = self.service * 8 / 10 + prng.below(self.service * 4 / 10);
        let took =
            (0..self.power).fold(u128::from(even), |took, _| (took * u128::from(slow)) >> 32);
        let took = u64::try_from(took).unwrap();
        (took, Signal::Delivered)
    }

    fn take_token(&mut self, now: u64) -> bool {
        let Some((rate, burst)) = self.bucket else { return true };
        let per_token = SECOND / rate;
        let earned = (now - self.refilled) / per_token;
        self.refilled += earned * per_token;
        self.tokens = (self.tokens + earned).min(burst);
        let granted = self.tokens > 0;
        self.tokens -= u64::from(granted);
        granted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connected { connection: u64, signal: u8 },
    Replied { connection: u64, signal: u8 },
    Tick,
}

#[derive(Debug)]
struct Connection {
    started: u64,
    carried: u32,
}

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    delivered: u64,
    refused: u64,
    failed: u64,
    cuts: u64,
}

impl Tally {
    fn refused_permille(self) -> u64 {
        self.refused * 1000 / (self.refused + self.delivered).max(1)
    }
}

/// One path, one receiver, and never less mail than it can take.
struct World {
    settings: ControlSettings,
    control: Control,
    receiver: Receiver,
    prng: Prng,
    now: u64,
    ceiling: u32,
    per_connection: u32,
    connections: BTreeMap<u64, Connection>,
    idle: BTreeSet<u64>,
    opened: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    /// GCRA: when the next message may go.
    next_message: u64,
    ticking: u64,
    tally: Tally,
    changes: Vec<(u64, Change)>,
    last_cut: (u64, u64),
}

const SIGNALS: [Signal; 3] = [Signal::Delivered, Signal::Throttle, Signal::Site];

fn index(signal: Signal) -> u8 {
    u8::try_from(SIGNALS.iter().position(|one| *one == signal).unwrap()).unwrap()
}

impl World {
    fn new(receiver: Receiver) -> Self {
        Self::with_ceiling(receiver, 100)
    }

    fn with_ceiling(receiver: Receiver, ceiling: u32) -> Self {
        let settings = ControlSettings::default();
        Self {
            control: Control::new(Mono(0), ceiling, &settings),
            settings,
            receiver,
            prng: Prng::new(7),
            now: 0,
            ceiling,
            per_connection: 1000,
            connections: BTreeMap::new(),
            idle: BTreeSet::new(),
            opened: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            next_message: 0,
            ticking: 0,
            tally: Tally::default(),
            changes: Vec::new(),
            last_cut: (0, 0),
        }
    }

    /// Goes on to a moment; what happened meanwhile.
    fn run_to(&mut self, end: u64) -> Tally {
        self.tally = Tally::default();
        self.dispatch();
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            self.handle(event);
            self.dispatch();
            self.check();
        }
        self.now = end;
        self.tally
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => {
                let changes = self.control.handle_time(Mono(self.now));
                self.note(changes);
            }
            Event::Connected { connection, signal } => self.connected(connection, signal),
            Event::Replied { connection, signal } => self.replied(connection, signal),
        }
    }

    fn connected(&mut self, id: u64, signal: u8) {
        let signal = SIGNALS[usize::from(signal)];
        let started = self.connections[&id].started;
        if signal == Signal::Delivered {
            self.idle.insert(id);
            let took = Duration::from_nanos(self.now - started);
            self.control.handle_latency(Phase::Greeting, took, self.load());
            return;
        }
        self.connections.remove(&id);
        self.signal(signal, Stage::Connect, started);
    }

    fn replied(&mut self, id: u64, signal: u8) {
        let signal = SIGNALS[usize::from(signal)];
        let started = self.connections[&id].started;
        let load = self.load();
        let gone =
            signal == Signal::Site || signal == Signal::Throttle && self.receiver.closes_on_refusal;
        self.receiver.serving -= u32::from(signal == Signal::Delivered);
        if signal == Signal::Delivered {
            let took = Duration::from_nanos(self.now - started);
            self.control.handle_latency(Phase::Dot, took, load);
        }
        let connection = self.connections.get_mut(&id).unwrap();
        connection.carried += 1;
        self.idle.insert(id);
        if gone || connection.carried >= self.per_connection {
            self.close(id);
        }
        self.signal_with(load, signal, Stage::Message, started);
    }

    fn close(&mut self, id: u64) {
        self.connections.remove(&id);
        self.idle.remove(&id);
        self.receiver.connected -= 1;
    }

    fn signal(&mut self, signal: Signal, stage: Stage, started: u64) {
        self.signal_with(self.load(), signal, stage, started);
    }

    fn signal_with(&mut self, load: Load, signal: Signal, stage: Stage, started: u64) {
        match signal {
            Signal::Delivered => self.tally.delivered += 1,
            Signal::Throttle => self.tally.refused += 1,
            _ => self.tally.failed += 1,
        }
        let seen = Seen { signal, stage, started: Mono(started) };
        let jitter = self.prng.next_u64();
        let changes =
            self.control.handle_signal(Mono(self.now), seen, load, jitter, &self.settings);
        self.check_cut(changes, stage, started);
        self.note(changes);
    }

    /// A burst of refusals from one moment is one cut, of the window as of the rate.
    fn check_cut(&mut self, changes: Changes, stage: Stage, started: u64) {
        for change in changes {
            let Cause::Signal(Signal::Throttle | Signal::Site) = change.cause else { continue };
            match change.what {
                What::Window { old, new } if new < old && stage == Stage::Message => {
                    assert!(started >= self.last_cut.0, "{change:?}");
                    self.last_cut.0 = self.now;
                    self.tally.cuts += 1;
                }
                What::Rate { .. } => {
                    assert!(started >= self.last_cut.1, "{change:?}");
                    self.last_cut.1 = self.now;
                    self.tally.cuts += 1;
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, changes: Changes) {
        self.changes.extend(changes.into_iter().map(|change| (self.now, change)));
    }

    fn load(&self) -> Load {
        let count = |count: usize| u32::try_from(count).unwrap();
        Load {
            in_use: count(self.connections.len()),
            busy: count(self.connections.len() - self.idle.len()),
            mail_waits: true,
            ceiling: self.ceiling,
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// As the scheduler does: surplus idle connections close, idle ones get work at the learned
    /// rate, new ones open; one thing at a time while the path is probed.
    fn dispatch(&mut self) {
        let permits = self.control.permits(self.ceiling);
        let permits = usize::try_from(permits).unwrap();
        if let Some(at) = self.control.next_wakeup() {
            self.tick_at(at.0);
        }
        while self.connections.len() > permits {
            let Some(id) = self.idle() else { break };
            self.close(id);
        }
        while self.connections.len() - self.idle.len() < permits {
            match self.idle() {
                Some(_) if self.next_message > self.now => return self.tick_at(self.next_message),
                Some(id) => self.send(id),
                None if self.connections.len() < permits => self.open(),
                None => return,
            }
        }
    }

    fn tick_at(&mut self, at: u64) {
        if self.ticking != at {
            self.ticking = at;
            self.at(at, Event::Tick);
        }
    }

    fn idle(&self) -> Option<u64> {
        self.idle.first().copied()
    }

    fn open(&mut self) {
        self.opened += 1;
        let connection = self.opened;
        let (took, signal) = self.receiver.connect(self.now);
        let started = self.now;
        self.connections.insert(connection, Connection { started, carried: 0 });
        self.at(self.now + took, Event::Connected { connection, signal: index(signal) });
    }

    fn send(&mut self, connection: u64) {
        let (took, signal) = self.receiver.message(self.now, &mut self.prng);
        self.receiver.serving += u32::from(signal == Signal::Delivered);
        self.idle.remove(&connection);
        let one = self.connections.get_mut(&connection).unwrap();
        one.started = self.now;
        if let Some(rate) = self.control.rate() {
            self.next_message = self.next_message.max(self.now) + 1000 * SECOND / u64::from(rate);
        }
        self.at(self.now + took, Event::Replied { connection, signal: index(signal) });
    }

    fn check(&self) {
        let control = &self.control;
        let closed = matches!(control.door(), Door::Closed { .. });
        assert!((1..=self.ceiling).contains(&control.window.width()), "{control:?}");
        assert_eq!(control.permits(self.ceiling) == 0, closed, "{control:?}");
    }
}

/// Steady state: refused in a thousand, and used of what is allowed, in a thousand.
fn steady(name: &str, receiver: Receiver, per_connection: u32, allowed: Option<u64>) {
    let mut world = World::new(receiver.clone());
    world.per_connection = per_connection;
    let warm_up = world.run_to(10 * MINUTE);
    let tally = world.run_to(30 * MINUTE);
    let allowed = allowed.map_or_else(|| ideal(receiver, per_connection), |rate| rate * 1200);
    let used = tally.delivered * 1000 / allowed;
    let view = world.control.explain();
    println!(
        "{name}: refused {} ‰ used {used} ‰ ({tally:?}); warm-up refused {} ‰; {view:?}",
        tally.refused_permille(),
        warm_up.refused_permille(),
    );
    assert!(tally.refused_permille() < 30, "{name}");
    assert!(used >= 950, "{name}");
}

/// What a sender that knows the cap gets through in an hour.
fn ideal(receiver: Receiver, per_connection: u32) -> u64 {
    let ceiling = receiver.cap;
    let mut world = World::with_ceiling(receiver, ceiling);
    world.per_connection = per_connection;
    world.run_to(10 * MINUTE);
    world.run_to(30 * MINUTE).delivered
}

#[test]
fn against_a_rate_limiter_few_are_refused_and_nearly_all_is_used() {
    for (rate, burst, closes_on_refusal) in
        [(1, 1, true), (5, 1, false), (5, 100, true), (20, 10, false), (50, 50, true)]
    {
        let bucket = Some((rate, burst));
        let receiver = Receiver { bucket, closes_on_refusal, ..Receiver::new() };
        let name = format!("{rate}/s, burst {burst}, closes {closes_on_refusal}");
        steady(&name, receiver, 1000, Some(rate));
    }
}

#[test]
fn against_a_connection_cap_few_are_refused_and_nearly_all_is_used() {
    for (cap, per_connection) in [(1, 10), (2, 1), (5, 1000), (20, 10), (80, 1), (80, 1000)] {
        let service = 30 * MILLI * u64::from(cap);
        let receiver = Receiver { cap, service, ..Receiver::new() };
        let name = format!("cap {cap}, {per_connection} per connection");
        steady(&name, receiver, per_connection, None);
    }
}

#[test]
fn against_a_cap_that_hangs_nearly_all_is_used() {
    let receiver = Receiver { cap: 5, hangs: true, ..Receiver::new() };
    steady("hanging cap", receiver, 1000, None);
}

/// The changes after a moment that opened or closed the door.
fn doors(world: &World, after: u64) -> Vec<(u64, Door)> {
    let door = |change: &Change| match change.what {
        What::Breaker { new, .. } => Some(new),
        _ => None,
    };
    let late = world.changes.iter().filter(|(at, _)| *at >= after);
    late.filter_map(|(at, change)| Some((*at, door(change)?))).collect()
}

#[test]
fn after_an_outage_of_an_hour_mail_flows_again_within_the_longest_wait_and_without_a_herd() {
    let (began, ended) = (10 * MINUTE, 70 * MINUTE);
    let receiver = Receiver { cap: 40, down: vec![(began, ended)], ..Receiver::new() };
    let mut world = World::new(receiver);
    world.run_to(began);
    assert_eq!(world.control.permits(world.ceiling), 40, "the window had found the cap");
    let outage = world.run_to(ended);
    println!("outage: {outage:?}");
    assert!(outage.failed <= 100, "two cohorts, then single probes: {outage:?}");
    let mut peak = 0;
    while world.run_to(world.now + SECOND).delivered == 0 {
        assert!(world.now < ended + 150 * SECOND, "two minutes, and a fifth");
        peak = peak.max(world.connections.len());
    }
    let opened = doors(&world, ended).last().unwrap().0;
    println!("outage: open again after {} s", (opened - ended) / SECOND);
    assert!(peak <= 1, "one probe at a time");
    let widths = world.changes.iter().filter(|(at, _)| (opened..opened + 90 * MILLI).contains(at));
    assert!(widths.count() <= 4, "a round is not over: it doubled at most");
    world.run_to(opened + MINUTE);
    let tally = world.run_to(opened + 2 * MINUTE);
    assert!(tally.delivered >= 40 * 10 * 60 * 95 / 100 && tally.refused <= 3, "{tally:?}");
}

#[test]
fn a_rate_learned_before_an_outage_is_tried_again_soon_after_it() {
    let (began, ended) = (40 * MINUTE, 60 * MINUTE);
    let receiver =
        Receiver { bucket: Some((20, 40)), down: vec![(began, ended)], ..Receiver::new() };
    let mut world = World::new(receiver);
    world.run_to(began);
    assert!(world.control.rate().is_some_and(|rate| rate < 21_000));
    world.receiver.bucket = None;
    world.run_to(ended + 10 * MINUTE);
    let rate = world.control.rate();
    assert!(rate.is_none_or(|rate| rate > 30_000), "not what it was before: {rate:?}");
}

#[test]
fn a_door_that_is_shut_is_knocked_at_ever_more_rarely() {
    let (from, to) = (10 * MINUTE, 30 * MINUTE);
    let mut world = World::new(Receiver { cap: 40, shut: vec![(from, to)], ..Receiver::new() });
    world.run_to(from);
    let tally = world.run_to(to);
    println!("shut door: {tally:?}");
    assert!(tally.refused <= 130, "two to three cohorts, then single probes: {tally:?}");
    let tally = world.run_to(to + 6 * MINUTE + MINUTE);
    let opened = doors(&world, to).last().unwrap().0;
    println!(
        "shut door, after {} s: {tally:?} {:?}",
        (opened - to) / SECOND,
        world.control.explain()
    );
    assert!(tally.delivered >= 40 * 10 * 30, "{tally:?}");
}

#[test]
fn a_site_that_comes_and_goes_gets_what_it_can_take_and_little_else() {
    let down = (0..60).map(|turn| (turn * 4 * MINUTE, (turn * 4 + 2) * MINUTE)).collect();
    let mut world = World::new(Receiver { cap: 10, down, ..Receiver::new() });
    let tally = world.run_to(4 * HOUR);
    println!("flapping: {tally:?}");
    assert!(tally.failed <= 60 * 17, "two cohorts and six probes for each outage: {tally:?}");
    assert!(tally.delivered >= 2 * 3600 * 100 * 8 / 10, "found back in half a minute: {tally:?}");
}

#[test]
fn a_site_that_slows_down_under_load_is_not_pressed_further() {
    let mut world = World::new(Receiver { knee: 10, ..Receiver::new() });
    world.run_to(5 * MINUTE);
    let tally = world.run_to(15 * MINUTE);
    let leaning = |change: &Change| change.cause == Cause::Gradient && !change.is_routine();
    assert!(world.changes.iter().any(|(_, change)| leaning(change)), "and it is told why");
    let view = world.control.explain();
    println!("tarpit: {} of {} ({view:?})", tally.delivered, 600 * 110);
    assert!(view.window <= 30, "{view:?}");
    assert!(tally.delivered >= 600 * 110 * 95 / 100, "nothing is lost by it");
}

#[test]
fn where_more_connections_bring_less_mail_there_are_no_more() {
    let mut world = World::new(Receiver { knee: 7, power: 2, ..Receiver::new() });
    world.run_to(10 * MINUTE);
    let tally = world.run_to(40 * MINUTE);
    let view = world.control.explain();
    println!("steep tarpit: {} of {} ({view:?})", tally.delivered, 1800 * 80);
    assert!(tally.delivered >= 1800 * 80 * 95 / 100, "{tally:?} {view:?}");
}

#[test]
fn what_was_learned_is_used_after_a_restart() {
    let receiver = Receiver { bucket: Some((20, 10)), ..Receiver::new() };
    let mut world = World::new(receiver);
    world.run_to(20 * MINUTE);
    let bytes = world.control.learned(Wall(5)).encode();
    let now = Now { mono: Mono(world.now), wall: Wall(5 + MINUTE) };
    let learned = Learned::decode(&bytes).unwrap();
    world.control = Control::resume(now, &learned, world.ceiling, &world.settings);
    let tally = world.run_to(21 * MINUTE);
    println!("restart: {tally:?}");
    assert!(tally.delivered >= 20 * 60 * 95 / 100 && tally.refused <= 12, "{tally:?}");
}

#[test]
fn local_trouble_says_nothing_about_the_site() {
    let mut world = World::new(Receiver::new());
    world.run_to(MINUTE);
    let before = world.control.explain();
    world.signal(Signal::Local, Stage::Connect, MINUTE);
    assert_eq!(world.control.permits(world.ceiling), 0);
    assert!(world.control.is_brief(&world.settings));
    world.run_to(MINUTE + SECOND);
    let after = world.control.explain();
    assert_eq!((after.window, after.door), (before.window, Door::Open));
}

#[test]
fn replies_about_mailboxes_and_mails_lower_nothing() {
    let mut world = World::new(Receiver::new());
    world.run_to(MINUTE);
    let before = world.control.explain();
    for signal in [Signal::Recipient, Signal::Content, Signal::Policy, Signal::Greylist] {
        for _ in 0..500 {
            world.signal(signal, Stage::Message, world.now);
        }
    }
    let after = world.control.explain();
    assert!(after.window >= before.window && after.rate.is_none() && after.door == Door::Open);
}

#[test]
fn a_path_at_rest_holds_no_estimators() {
    let mut world = World::new(Receiver::new());
    world.run_to(MINUTE);
    assert!(world.control.latency.is_some());
    world.control.handle_rest(Mono(world.now));
    assert!(world.control.explain().latency.is_none());
}

/// In how many seconds a thousand paths are tried again that failed at one moment, and how many in
/// the busiest.
fn spread_of_probes(now: Mono, started: Mono) -> (usize, u32) {
    let settings = ControlSettings::default();
    let mut prng = Prng::new(3);
    let load = Load { in_use: 0, busy: 0, mail_waits: true, ceiling: 20 };
    let seen = Seen { signal: Signal::Site, stage: Stage::Connect, started };
    let mut seconds = BTreeMap::new();
    for _ in 0..1000 {
        let mut control = Control::new(Mono(0), 1, &settings);
        for _ in 0..2 {
            control.handle_signal(now, seen, load, prng.next_u64(), &settings);
        }
        *seconds.entry(control.next_wakeup().unwrap().0 / SECOND).or_insert(0) += 1;
    }
    (seconds.len(), seconds.into_values().max().unwrap())
}

#[test]
fn paths_that_fail_at_one_moment_are_not_probed_at_one_moment() {
    let (seconds, most) = spread_of_probes(Mono(30 * SECOND), Mono(0));
    assert!(seconds >= 12 && most <= 130, "silent: {seconds} s, {most}");
    let (seconds, most) = spread_of_probes(Mono(30 * SECOND), Mono(30 * SECOND));
    assert!(seconds >= 4 && most <= 300, "refused, and so tried again sooner: {seconds} s, {most}");
}

#[test]
fn a_lowered_ceiling_is_kept_at_once_and_told() {
    let mut world = World::new(Receiver::new());
    world.run_to(MINUTE);
    assert_eq!(world.control.permits(7), 7);
    let load = Load { ceiling: 7, ..world.load() };
    let seen = Seen { signal: Signal::Delivered, stage: Stage::Message, started: Mono(MINUTE) };
    let changes = world.control.handle_signal(Mono(MINUTE), seen, load, 0, &world.settings);
    let told: Vec<_> = changes.into_iter().map(|change| (change.what, change.cause)).collect();
    assert_eq!(told, [(What::Window { old: 100, new: 7 }, Cause::Ceiling)]);
}
