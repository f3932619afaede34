//! The control loop against small models of receivers, in virtual time.

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
    /// ... and longer, in proportion, from so many at once.
    knee: u32,
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
        let took = u64::try_from((u128::from(even) * u128::from(slow)) >> 32).unwrap();
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
            waiting: 1000,
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
    let began = std::time::Instant::now();
    let mut world = World::new(receiver.clone());
    world.per_connection = per_connection;
    let warm_up = world.run_to(10 * MINUTE);
    let tally = world.run_to(30 * MINUTE);
    let allowed = allowed.map_or_else(|| ideal(receiver, per_connection), |rate| rate * 1200);
    let used = tally.delivered * 1000 / allowed;
    let view = world.control.explain();
    if std::env::var("SHOW").is_ok() {
        for (at, change) in &world.changes {
            println!(
                "  {:.3} {:?} {:?} {:?}",
                *at as f64 / 1e9,
                change.what,
                change.cause,
                change.evidence
            );
        }
    }
    println!(
        "[{:.1?}] {name}: refused {} ‰ used {used} ‰ ({tally:?}); warm-up refused {} ‰; {view:?}",
        began.elapsed(),
        tally.refused_permille(),
        warm_up.refused_permille(),
    );
    if tally.refused_permille() >= 30 || used < 950 {
        println!("BAD {name}");
    }
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
