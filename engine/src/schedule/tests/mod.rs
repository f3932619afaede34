//! The scheduler against a small model of executing shards, homes and time.

mod caps;
mod fairness;
mod steering;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::block::BlockBuilder;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::model::delivery::RecordInMemory;
use crate::model::message::{MessageId, Place, SegmentSeq};
use crate::model::note::{
    Attempt, Cause, Class, Complaint, Done, LeaseEnd, RecipientResult, Trouble,
};
use crate::model::outcome::{Enhanced, RangeOutcome};
use crate::model::route::{Bearing, MailHost, SiteKey};
use crate::model::settings::{
    DnsSettings, EgressSettings, EngineSettings, LimitSettings, OrderSettings, ShardChoice,
    SiteSettings, SiteTable, SpoolSettings, TlsMode,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: Now = Now { mono: Mono(5_000_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
const BODY_MEMORY: u64 = 4_000;

/// A connection as the shard that executes it sees it.
struct Connection {
    lease: LeaseId,
    to: ShardId,
    site: SiteKey,
    work: VecDeque<Delivery>,
    given: u32,
    share: u32,
    closing: bool,
}

struct World {
    scheduler: Scheduler,
    budget: Arc<Budget>,
    now: Now,
    settings: Settings,
    connections: Vec<Connection>,
    /// Permits of shared caps on their way.
    grants: Vec<(ShardId, Arc<Cell>, Grant)>,
    /// Opened, not yet said to be ready.
    opening: VecDeque<LeaseId>,
    /// Final outcomes by (message, recipient); `None` while there is none.
    fates: BTreeMap<(u64, u16), Option<Outcome>>,
    outcomes: Vec<(MessageId, RangeOutcome)>,
    relocated: Vec<(Mono, MessageId)>,
    facts: Vec<Fact>,
    way: Way,
    /// Deliveries handed to each shard.
    worked: [usize; 4],
    next_message: u64,
}

fn hosts() -> Way {
    let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
    Way::Hosts(vec![MailHost {
        preference: 10,
        name: "mx.example".into(),
        addresses: vec![address],
    }])
}

fn reply(code: u16, text: &str) -> Reply {
    Reply::remote(code, None, text)
}

/// Settings of which only the sites matter.
pub(super) fn whole(sites: SiteTable) -> Settings {
    Settings {
        generation: 0,
        hostname: "mta.example".into(),
        engine: EngineSettings { shards: ShardChoice::Auto },
        spool: SpoolSettings {
            path: "/nowhere".into(),
            segment_bytes: 1 << 20,
            outcomes: OutcomeDurability::Grouped,
        },
        listeners: Vec::new(),
        limits: LimitSettings {
            message_bytes: 1 << 20,
            recipients: 1000,
            connections_in: 1,
            connections_out: 1,
            body_memory_bytes: BODY_MEMORY,
            intake_memory_bytes: 1 << 20,
            idle_timeout: MINUTE,
            data_timeout: MINUTE,
        },
        dns: DnsSettings { servers: Vec::new(), timeout: SECOND },
        egress: EgressSettings { port: 25, allow_private: true, tls: TlsMode::Off },
        routes: Vec::new(),
        sites,
        providers: Vec::new(),
        sources: Vec::new(),
        pools: Vec::new(),
        tenants: Vec::new(),
        rules: Vec::new(),
        order: OrderSettings::default(),
        admin: None,
    }
}

fn throttled(code: u16, text: &str) -> Attempt {
    Attempt::Throttled(Complaint { cause: Cause::Throttle, reply: reply(code, text) })
}

fn trouble(cause: Cause, code: u16, text: &str) -> Box<Trouble> {
    Trouble::nowhere(cause, reply(code, text))
}

fn settings() -> SiteSettings {
    SiteSettings { connections: 3, ..SiteSettings::default() }
}

impl World {
    fn new(shards: u16, default: SiteSettings) -> Self {
        let settings = whole(SiteTable { default, by_domain: Vec::new() });
        Self::of_shard(ShardId(0), shards, settings, Arc::new(CellTable::new(shards)))
    }

    fn of_shard(shard: ShardId, shards: u16, settings: Settings, cells: Arc<CellTable>) -> Self {
        let budget = Arc::new(Budget::new(BODY_MEMORY));
        let body_memory = Arc::clone(&budget);
        let scheduler = Scheduler::new(shard, shards, &settings, body_memory, cells, START);
        Self {
            scheduler,
            budget,
            now: START,
            settings,
            connections: Vec::new(),
            grants: Vec::new(),
            opening: VecDeque::new(),
            fates: BTreeMap::new(),
            outcomes: Vec::new(),
            relocated: Vec::new(),
            facts: Vec::new(),
            way: hosts(),
            worked: [0; 4],
            next_message: 0,
        }
    }

    /// Hands in a fresh message.
    fn send(&mut self, domain: &str, home: u16, count: u16) -> MessageId {
        self.send_as(&Arc::default(), domain, home, count)
    }

    fn send_as(&mut self, flow: &Arc<Flow>, domain: &str, home: u16, count: u16) -> MessageId {
        self.next_message += 1;
        let message = MessageId::new(SegmentSeq(1), u32::try_from(self.next_message).unwrap());
        for recipient in 0..count {
            self.fates.insert((message.0, recipient), None);
        }
        let block = BlockBuilder::zeroed(64).freeze();
        let delivery = Delivery {
            message,
            home: ShardId(home),
            place: Place { segment: SegmentSeq(1), offset: 64, bytes: 1000 },
            in_pieces: 0,
            first: 0,
            count,
            attempts: 0,
            accepted: self.now.wall,
            record: Some(RecordInMemory { block, at: 0 }),
        };
        self.hand_in(domain.into(), Arc::clone(flow), delivery, None);
        message
    }

    fn send_some(&mut self, count: usize) {
        for _ in 0..count {
            self.send("a.example", 0, 1);
        }
    }

    fn hand_in(
        &mut self,
        domain: Arc<str>,
        flow: Arc<Flow>,
        delivery: Delivery,
        due: Option<Mono>,
    ) {
        self.hand_over(domain, flow, delivery, due);
        self.carry_out();
    }

    fn hand_over(
        &mut self,
        domain: Arc<str>,
        flow: Arc<Flow>,
        delivery: Delivery,
        due: Option<Mono>,
    ) {
        let site = match &self.way {
            Way::Hosts(_) => SiteKey::MxSet("mx.example".into()),
            _ => SiteKey::Unroutable((*domain).into()),
        };
        let target = Target { site, way: self.way.clone(), fresh_until: self.now.mono };
        let bearing = Bearing { domain, flow, target: Arc::new(target) };
        self.scheduler.handle_parcel(self.now, Parcel { bearing, delivery }, due);
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.next_action() {
            match action {
                Action::Open { to, opening } => self.opened(to, &opening),
                Action::Work { to, lease, delivery } => self.given(to, lease, delivery),
                Action::Close { lease, .. } => {
                    let connection = self.connection(lease);
                    assert!(!connection.closing && connection.work.is_empty());
                    connection.closing = true;
                }
                Action::Settle { settlement, .. } => self.settled(settlement),
                Action::Relocate { domain, flow, delivery, due } => {
                    let was_deferred = delivery.attempts > 0;
                    assert!(
                        delivery.record.is_none() || !was_deferred,
                        "a deferred delivery keeps no body"
                    );
                    self.relocated.push((self.now.mono, delivery.message));
                    self.hand_over(domain, flow, delivery, due);
                }
                Action::Hold { scope, hold } => {
                    self.scheduler.handle_hold(&scope, hold);
                }
                Action::Grant { to, cell, grant } => self.grants.push((to, cell, grant)),
                Action::Report(fact) => self.facts.push(fact),
            }
        }
        self.check_busy();
    }

    /// Connections are ready as soon as they are asked for.
    fn next_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.scheduler.poll_action() {
                return Some(action);
            }
            let lease = self.opening.pop_front()?;
            self.scheduler.handle_ready(self.now, lease);
        }
    }

    fn opened(&mut self, to: ShardId, opening: &Opening) {
        self.opening.push_back(opening.lease);
        let site = opening.target.site.clone();
        let open = self.connections.iter().filter(|one| one.site == site).count();
        let max = opening.settings.connections as usize;
        assert!(open < max, "{open} of {max} permits in use, and one more opened");
        self.connections.push(Connection {
            lease: opening.lease,
            to,
            site,
            work: VecDeque::new(),
            given: 0,
            share: opening.settings.messages_per_connection,
            closing: false,
        });
    }

    fn given(&mut self, to: ShardId, lease: LeaseId, delivery: Delivery) {
        self.worked[usize::from(to.0)] += 1;
        let connection = self.connection(lease);
        assert!(connection.to == to && !connection.closing);
        connection.given += 1;
        assert!(connection.given <= connection.share, "a connection is given its share at most");
        connection.work.push_back(delivery);
        let ahead_max = if to == lease.owner { 2 } else { 3 };
        assert!(connection.work.len() <= ahead_max);
    }

    fn settled(&mut self, settlement: Settlement) {
        for outcome in settlement.outcomes {
            for recipient in outcome.first..outcome.first + outcome.count {
                let fate = self.fates.get_mut(&(settlement.message.0, recipient)).unwrap();
                assert!(fate.is_none(), "recipient {recipient} settled again: {outcome:?}");
                if outcome.outcome.is_final() {
                    *fate = Some(outcome.outcome.clone());
                }
            }
            self.outcomes.push((settlement.message, outcome));
        }
    }

    fn connection(&mut self, lease: LeaseId) -> &mut Connection {
        self.connections.iter_mut().find(|one| one.lease == lease).unwrap()
    }

    /// Reports the first delivery of a connection.
    fn done(&mut self, at: usize, result: impl FnOnce(&Delivery) -> Attempt) {
        let connection = &mut self.connections[at];
        let delivery = connection.work.pop_front().unwrap();
        let done = Done::new(&delivery, result(&delivery));
        let lease = connection.lease;
        self.scheduler.handle_done(self.now, lease, done);
        self.carry_out();
    }

    fn deliver(&mut self, at: usize) {
        self.done(at, |_| Attempt::Delivered(reply(250, "ok")));
    }

    /// Gives back what a connection has, in order, and ends it.
    fn end(&mut self, at: usize, why: LeaseEnd) {
        let lease = self.connections[at].lease;
        while !self.connections[at].work.is_empty() {
            self.done(at, |_| Attempt::NotTried);
        }
        self.connections.remove(at);
        self.scheduler.handle_ended(self.now, lease, why);
        self.carry_out();
    }

    fn pass(&mut self, wait: Duration) {
        let end = self.now.mono.plus(wait);
        while self.now.mono < end {
            let next = self.scheduler.next_wakeup().unwrap_or(end).min(end);
            let step = next.since(self.now.mono).max(Duration::from_nanos(1));
            self.now = Now { mono: self.now.mono.plus(step), wall: self.now.wall.plus(step) };
            self.scheduler.handle_time(self.now);
            self.carry_out();
        }
    }

    /// Everything works from now on, until nothing is left.
    fn calm(&mut self) {
        self.way = hosts();
        for _ in 0..5_000 {
            while let Some(at) = self.connections.iter().position(|one| !one.work.is_empty()) {
                self.deliver(at);
            }
            while let Some(at) = self.connections.iter().position(|one| one.closing) {
                self.end(at, LeaseEnd::Finished);
            }
            let Some(next) = self.scheduler.next_wakeup() else { return };
            self.pass(next.since(self.now.mono) + Duration::from_millis(1));
        }
        panic!("no calm: {:?}", self.scheduler.counts());
    }

    /// Every recipient has its final outcome, but for the messages that were set aside.
    fn check_fates(&self, seed: u64, aside: usize) {
        let set_aside: Vec<&str> = self
            .facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::MessageSetAside { message, .. } => Some(&**message),
                _ => None,
            })
            .collect();
        assert_eq!(set_aside.len(), aside);
        for ((message, _), _) in self.fates.iter().filter(|(_, fate)| fate.is_none()) {
            let name = MessageId(*message).to_string();
            assert!(set_aside.contains(&&*name), "seed {seed}: {name} was lost");
        }
    }

    /// Nothing waits without a reason: an open site with ready mail has lent all its permits, or
    /// awaits the end of a lease that came to nothing.
    fn check_busy(&self) {
        let key = SiteKey::MxSet("mx.example".into());
        let Some(number) = self.scheduler.sites.find(&key) else { return };
        let site = &self.scheduler.sites[number];
        let lent = self.connections.iter().filter(|one| one.site == key).count();
        assert_eq!(site.in_use as usize, lent);
        let is_held = self.scheduler.held(site, roster::BUILT_IN).is_some()
            || site.trunks.iter().all(|trunk| !self.scheduler.order.has_next(*trunk));
        if site.ready == site.cancelled.ready || self.scheduler.stopping || is_held {
            return;
        }
        if !site.trunks.iter().any(|trunk| self.scheduler.order.has_next(*trunk)) {
            return;
        }
        assert!(!site.paths.is_empty() || site.pace.settings.connections == 0, "nobody tried");
        let next_bytes = |trunk: &u32| {
            let Scheduler { order, entries, .. } = &self.scheduler;
            let (_, oldest) = order.oldest(entries, order.next(*trunk)?)?;
            Some(entries[oldest].bytes())
        };
        let bytes = site.trunks.iter().filter_map(next_bytes).max().unwrap_or(0);
        for path in &site.paths {
            if self.scheduler.may_send(self.now, site, (path.source, Some(path)), bytes).is_err() {
                continue;
            }
            let idle = path.lanes().any(|lane| !lane.idle.is_empty());
            assert!(!idle, "a connection is idle while mail waits");
            let open = self.scheduler.may_open(self.now, site, Some(path));
            assert!(open.is_err(), "mail waits for no reason");
        }
    }

    fn view(&self) -> SiteView {
        self.scheduler.explain(self.now, &SiteKey::MxSet("mx.example".into())).unwrap()
    }

    fn failed(&self, message: MessageId) -> Option<&Reply> {
        match self.fates[&(message.0, 0)].as_ref()? {
            Outcome::Failed { reply } => Some(reply),
            other => panic!("{other:?}"),
        }
    }

    fn last_next(&self) -> Wall {
        match &self.outcomes.last().unwrap().1.outcome {
            Outcome::Deferred { next, .. } => *next,
            other => panic!("{other:?}"),
        }
    }
}

fn mixed(delivery: &Delivery, classes: impl Fn(u16) -> (Class, u16)) -> Attempt {
    let result = |recipient| {
        let (class, code) = classes(recipient);
        RecipientResult { recipient, class, cause: Cause::None, reply: reply(code, "so it is") }
    };
    let recipients = delivery.recipients().map(result).collect();
    Attempt::Mixed { recipients, complaint: None }
}

/// Any order of results, ends, reloads and waits: no permit too many, no delivery lost or
/// settled twice, the budget even.
#[test]
fn permits_hold_and_every_delivery_ends_exactly_once() {
    for seed in 0..60 {
        let mut walk = Walk::new(seed);
        for _ in 0..400 {
            walk.step();
        }
        walk.end(seed);
    }
}

/// A random history of one scheduler.
struct Walk {
    prng: Prng,
    shards: u16,
    world: World,
    aside: usize,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let shards = u16::try_from(1 + prng.below(3)).unwrap();
        Self { prng, shards, world: World::new(shards, settings()), aside: 0 }
    }

    fn pick(&mut self, bound: u64) -> usize {
        usize::try_from(self.prng.below(bound)).unwrap()
    }

    fn pick_connection(&mut self) -> usize {
        let connections = self.world.connections.len() as u64;
        self.pick(connections)
    }

    fn step(&mut self) {
        match self.pick(12) {
            0..5 => self.send(),
            5..9 if !self.world.connections.is_empty() => self.answer(),
            9 if !self.world.connections.is_empty() => self.end_connection(),
            10 => {
                let wait = Duration::from_millis(1 << self.pick(24));
                self.world.pass(wait);
            }
            _ => self.change_settings(),
        }
    }

    fn send(&mut self) {
        self.world.way = match self.pick(12) {
            0 => Way::Failed(reply(550, "no such domain")),
            1 => Way::Deferred(reply(451, "resolver down")),
            _ => hosts(),
        };
        let domain = ["a.example", "b.example", "c.example"][self.pick(3)];
        let home = u16::try_from(self.prng.below(u64::from(self.shards))).unwrap();
        let recipients = u16::try_from(1 + self.pick(4)).unwrap();
        self.world.send(domain, home, recipients);
    }

    fn answer(&mut self) {
        let at = self.pick_connection();
        if self.world.connections[at].work.is_empty() {
            return;
        }
        let (kind, mask) = (self.pick(10), self.pick(1 << 8));
        self.aside += usize::from(kind == 0);
        self.world.done(at, |delivery| match kind {
            0 => Attempt::Unreadable,
            1 => Attempt::NotTried,
            2 => throttled(421, "slow down"),
            3..6 => mixed(delivery, |recipient| match mask >> (2 * recipient) & 3 {
                0 => (Class::Delivered, 250),
                1 => (Class::Failed, 550),
                _ => (Class::Deferred, 450),
            }),
            _ => Attempt::Delivered(reply(250, "ok")),
        });
    }

    fn end_connection(&mut self) {
        let at = self.pick_connection();
        let why = match self.pick(5) {
            0 => LeaseEnd::Unreachable(trouble(Cause::Site, 451, "no route")),
            1 => LeaseEnd::TurnedAway(trouble(Cause::Throttle, 421, "busy")),
            2 => LeaseEnd::Local(reply(451, "no port")),
            _ => LeaseEnd::Finished,
        };
        self.world.end(at, why);
    }

    fn change_settings(&mut self) {
        let own = SiteSettings {
            connections: u32::try_from(1 + self.pick(6)).unwrap(),
            messages_per_connection: u32::try_from(1 + self.pick(5)).unwrap(),
            ..settings()
        };
        self.world.settings.sites.by_domain = vec![("b.example".into(), own)];
        if self.pick(4) == 0 {
            let world = &mut self.world;
            world.scheduler.handle_settings(world.now, &world.settings);
            world.carry_out();
        }
    }

    /// Lets everything come to rest: nothing may be left, and nobody forgotten.
    fn end(mut self, seed: u64) {
        let world = &mut self.world;
        if !world.connections.is_empty() {
            assert_eq!(world.view().connections as usize, world.connections.len());
        }
        world.calm();
        let counts = world.scheduler.counts();
        assert_eq!((counts.queued, counts.in_flight, counts.leases, counts.sites), (0, 0, 0, 0));
        assert_eq!(world.budget.used(), 0, "seed {seed}");
        world.check_fates(seed, self.aside);
    }
}

#[test]
fn retries_come_back_in_order_and_within_the_jitter() {
    let mut world = World::new(1, settings());
    let mut deferred = BTreeMap::new();
    for _ in 0..200 {
        let message = world.send("a.example", 0, 1);
        world.done(0, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
        deferred.insert(message, world.now.mono);
        let promised = world.last_next();
        let wait = promised.since(world.now.wall);
        assert!(wait >= 5 * MINUTE && wait <= 5 * MINUTE * 5 / 4 + SECOND / 100);
        world.pass(Duration::from_millis(100));
    }
    world.calm();
    assert_eq!(world.relocated.len(), 200);
    let mut last: BTreeMap<u64, MessageId> = BTreeMap::new();
    for (at, message) in &world.relocated {
        let waited = at.since(deferred[message]);
        assert!(waited >= 5 * MINUTE && waited <= 5 * MINUTE * 5 / 4 + SECOND / 10);
        let before = last.insert(retry::lane_of(*message), *message);
        assert!(before.is_none_or(|before| before < *message), "a lane keeps its order");
    }
    assert_eq!(last.len(), 8);
}

#[test]
fn a_delivery_expires_wherever_it_waits() {
    let short = SiteSettings { expire: 10 * MINUTE, connections: 1, ..settings() };
    let mut world = World::new(1, short);
    let flying = world.send("a.example", 0, 1);
    let ready = world.send("a.example", 0, 1);
    let retried = world.send("a.example", 0, 1);
    let ahead = world.send("a.example", 0, 1);
    // One is deferred; the site refuses all others.
    world.done(0, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
    world.done(0, |_| throttled(421, "later, later"));
    world.end(0, LeaseEnd::Finished);
    for _ in 0..40 {
        world.pass(30 * SECOND);
        while !world.connections.is_empty() {
            world.end(0, LeaseEnd::TurnedAway(trouble(Cause::Throttle, 421, "later, later")));
        }
    }
    for message in [flying, ready, retried, ahead] {
        let reply = world.failed(message).expect("its time is over");
        assert_eq!(reply.status(), Enhanced(5, 4, 7));
        assert!(reply.text.contains("later, later"), "{reply}");
    }
    assert_eq!(world.scheduler.counts().queued, 0);
}

#[test]
fn expiry_comes_neither_early_nor_more_than_a_bucket_late() {
    let mut world = World::new(1, SiteSettings { connections: 0, ..settings() });
    let message = world.send("a.example", 0, 1);
    world.pass(5 * 24 * 60 * MINUTE - SECOND);
    assert!(world.failed(message).is_none());
    world.pass(62 * SECOND);
    assert!(world.failed(message).is_some());
}

#[test]
fn the_shorter_expiry_counts() {
    let mut world =
        World::new(1, SiteSettings { connections: 0, expire: 60 * MINUTE, ..settings() });
    let expiring = |expire| Arc::new(Flow { expire: Some(expire), ..Flow::default() });
    let short = world.send_as(&expiring(10 * MINUTE), "a.example", 0, 1);
    let long = world.send_as(&expiring(90 * MINUTE), "a.example", 0, 1);
    world.pass(10 * MINUTE - SECOND);
    assert!(world.failed(short).is_none());
    world.pass(3 * SECOND);
    assert!(world.failed(short).is_some() && world.failed(long).is_none());
    world.pass(51 * MINUTE);
    assert!(world.failed(long).is_some());
}

/// A retry comes back with the flow it had: the model hands it in again as it was handed out.
#[test]
fn mail_keeps_its_flow_through_retries() {
    let mut world = World::new(1, settings());
    let flow = |tenant: &str| Arc::new(Flow { tenant: tenant.into(), ..Flow::default() });
    for tenant in ["a", "b", "a", ""] {
        world.send_as(&flow(tenant), "a.example", 0, 1);
    }
    let tenants = |world: &World| {
        let mut tenants: Vec<_> =
            world.scheduler.courses.iter().map(|course| course.flow.tenant.to_string()).collect();
        tenants.sort();
        tenants
    };
    assert_eq!(tenants(&world), ["", "a", "b"]);
    for _ in 0..4 {
        let busy = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.done(busy, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
    }
    world.pass(60 * MINUTE);
    assert_eq!(
        (world.relocated.len(), tenants(&world)),
        (4, ["", "a", "b"].map(Into::into).into())
    );
}

#[test]
fn throttling_burns_no_attempt_and_pauses_double() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.send("a.example", 0, 1);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let from = world.now.mono;
        world.end(0, LeaseEnd::TurnedAway(trouble(Cause::Throttle, 421, "slow down")));
        while world.connections.is_empty() {
            world.pass(SECOND / 20);
        }
        waits.push(world.now.mono.since(from).as_millis());
        assert_eq!(world.connections[0].work[0].attempts, 0);
    }
    let pauses: Vec<_> = waits.iter().filter(|wait| **wait > 0).collect();
    assert!(pauses.len() >= 4, "{waits:?}");
    assert!(pauses.windows(2).all(|two| *two[1] >= two[0] * 3 / 2), "{waits:?}");
    assert_eq!(world.outcomes.len(), 0);
    world.deliver(0);
    assert_eq!(world.outcomes[0].1.attempts, 1);
    let told = |wanted: fn(&Fact) -> bool| world.facts.iter().filter(|fact| wanted(fact)).count();
    assert_eq!(told(|fact| matches!(fact, Fact::SiteClosed { .. })), 1, "one trouble, told once");
    assert_eq!(told(|fact| matches!(fact, Fact::SiteOpened { .. })), 1);
}

#[test]
fn an_unreachable_site_costs_few_attempts_and_is_probed_by_one() {
    let mut world = World::new(1, settings());
    world.send_some(50);
    assert_eq!(world.connections.len(), 3);
    while !world.connections.is_empty() {
        world.end(0, LeaseEnd::Unreachable(trouble(Cause::Site, 451, "no route to host")));
    }
    // Two cohorts: what is needed to tell an outage from one bad connection.
    assert!((2..=6).contains(&world.outcomes.len()), "{}", world.outcomes.len());
    assert!(matches!(world.view().waits_for, WaitsFor::Limit(Hindrance::Unreachable { .. })));
    world.pass(40 * SECOND);
    assert_eq!((world.connections.len(), world.connections[0].work.len()), (1, 1));
    assert_eq!(world.view().waits_for, WaitsFor::Limit(Hindrance::Probe));
    world.deliver(0);
    assert!(world.view().in_flight >= 1, "it is served again");
}

#[test]
fn a_connection_that_breaks_in_its_first_message_is_one_failure_and_one_attempt() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.send_some(3);
    world.done(0, |delivery| {
        let complaint = Complaint { cause: Cause::Site, reply: reply(451, "lost connection") };
        let mixed = mixed(delivery, |_| (Class::Deferred, 451));
        let Attempt::Mixed { mut recipients, .. } = mixed else { unreachable!() };
        recipients.iter_mut().for_each(|one| one.cause = Cause::Site);
        Attempt::Mixed { recipients, complaint: Some(complaint) }
    });
    world.end(0, LeaseEnd::Unreachable(trouble(Cause::Site, 451, "lost connection")));
    assert_eq!(world.outcomes.len(), 1, "who was cut off pays, nobody else");
    assert_eq!(world.connections.len(), 1, "the door closes after two");
}

#[test]
fn a_goodbye_after_so_many_messages_is_foreseen_and_slows_nothing_down() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.send_some(60);
    let (mut answered, mut sessions) = (0, Vec::new());
    for _ in 0..2_000 {
        world.pass(SECOND);
        match world.connections.first() {
            Some(connection) if connection.closing => {
                sessions.push("closed in time");
                answered = 0;
                world.end(0, LeaseEnd::Finished);
            }
            Some(connection) if connection.work.is_empty() => {}
            Some(_) if answered == 5 => {
                world.done(0, |_| throttled(421, "that is enough"));
                sessions.push("cut off");
                answered = 0;
                world.end(0, LeaseEnd::Finished);
            }
            Some(_) => {
                world.deliver(0);
                answered += 1;
            }
            None => {}
        }
    }
    assert_eq!(world.scheduler.counts().queued, 0);
    assert_eq!(sessions[..3], ["cut off"; 3]);
    assert_eq!(sessions[3..], ["closed in time"; 9]);
}

#[test]
fn a_server_that_hangs_up_on_everyone_is_not_called_again_at_once() {
    let mut world = World::new(1, settings());
    world.send("a.example", 0, 1);
    world.end(0, LeaseEnd::Finished);
    assert!(world.connections.is_empty());
    assert_eq!(world.outcomes.len(), 1);
    assert!(matches!(world.outcomes[0].1.outcome, Outcome::Deferred { .. }));
}

#[test]
fn a_hot_site_is_delivered_evenly_by_both_shards() {
    for connections in [4, 6, 20] {
        let mut world = World::new(2, SiteSettings { connections, ..settings() });
        for round in 0..4000u16 {
            world.send("a.example", round % 2, 1);
            if round % 4 == 3 {
                // Four connections of changing places finish one each; told ones end.
                for step in 0..4 {
                    let busy: Vec<usize> = (0..world.connections.len())
                        .filter(|at| !world.connections[*at].work.is_empty())
                        .collect();
                    let turn = usize::from(round) + step;
                    world.deliver(busy[turn % busy.len()]);
                    while let Some(at) = world.connections.iter().position(|one| one.closing) {
                        world.end(at, LeaseEnd::Finished);
                    }
                }
            }
        }
        let all = world.worked[0] + world.worked[1];
        assert!((40..=60).contains(&(world.worked[1] * 100 / all)), "{:?}", world.worked);
    }
}

#[test]
fn a_small_site_stays_with_its_owner() {
    let mut world = World::new(2, settings());
    for round in 0..50u16 {
        world.send("a.example", round % 2, 1);
        world.deliver(0);
    }
    assert_eq!(world.worked[..2], [50, 0]);
    assert_eq!(world.connections.len(), 1);
}

#[test]
fn what_was_not_tried_keeps_its_place() {
    let mut world = World::new(1, SiteSettings { connections: 2, ..settings() });
    let messages: Vec<_> = (0..8).map(|_| world.send("a.example", 0, 1)).collect();
    world.deliver(0);
    world.deliver(1);
    let mut settled = vec![messages[0], messages[1]];
    // Both connections are lost with two deliveries each.
    world.end(1, LeaseEnd::Finished);
    world.end(0, LeaseEnd::Finished);
    while let Some(at) = (0..world.connections.len())
        .filter(|at| !world.connections[*at].work.is_empty())
        .min_by_key(|at| world.connections[*at].work[0].message)
    {
        settled.push(world.connections[at].work[0].message);
        world.deliver(at);
    }
    settled[..2].sort_unstable();
    assert_eq!(settled, messages);
}

#[test]
fn a_mixed_result_is_split_into_runs() {
    let mut world = World::new(1, settings());
    let message = world.send("a.example", 0, 7);
    let codes = [250, 250, 450, 451, 550, 450, 250];
    world.done(0, |delivery| {
        mixed(delivery, |recipient| {
            let code = codes[usize::from(recipient)];
            let class = match code {
                250 => Class::Delivered,
                550 => Class::Failed,
                _ => Class::Deferred,
            };
            (class, code)
        })
    });
    let runs: Vec<(u16, u16, bool)> = world
        .outcomes
        .iter()
        .map(|(_, one)| (one.first, one.count, one.outcome.is_final()))
        .collect();
    let expected =
        [(0, 2, true), (2, 1, false), (3, 1, false), (4, 1, true), (5, 1, false), (6, 1, true)];
    assert_eq!(runs, expected);
    assert_eq!(world.view().deferred, 2, "one delivery for each run of deferred recipients");
    world.pass(6 * MINUTE);
    let again: Vec<_> = world
        .connections
        .iter()
        .flat_map(|one| &one.work)
        .map(|delivery| (delivery.message, delivery.first, delivery.count, delivery.attempts))
        .collect();
    assert_eq!(again, [(message, 2, 2, 1), (message, 5, 1, 1)]);
}

#[test]
fn idle_connections_are_closed_and_empty_sites_forgotten() {
    let mut world = World::new(1, settings());
    world.send("a.example", 0, 1);
    world.deliver(0);
    world.pass(Duration::from_millis(4900));
    assert!(!world.connections[0].closing);
    world.pass(Duration::from_millis(200));
    assert!(world.connections[0].closing);
    world.send("a.example", 0, 1);
    assert_eq!(world.connections.len(), 2, "a connection told to close gets no more work");
    world.calm();
    assert_eq!(world.scheduler.counts().sites, 0);
}

#[test]
fn a_connection_gets_its_share_and_no_more() {
    let share = SiteSettings { connections: 1, messages_per_connection: 3, ..settings() };
    let mut world = World::new(1, share);
    world.send_some(7);
    (0..3).for_each(|_| world.deliver(0));
    assert!(world.connections[0].closing && world.connections.len() == 1);
    world.end(0, LeaseEnd::Finished);
    assert_eq!(world.connections.len(), 1);
    assert_eq!(world.view().ready, 2);
}

#[test]
fn a_stop_closes_idle_connections_and_gives_out_no_more() {
    let mut world = World::new(1, settings());
    world.send_some(4);
    world.deliver(2);
    world.deliver(2);
    world.scheduler.handle_stop();
    world.carry_out();
    assert!(world.connections[2].closing);
    world.send("a.example", 0, 1);
    world.deliver(0);
    world.deliver(1);
    assert!(world.connections.iter().all(|one| one.closing));
    assert_eq!(world.view().waits_for, WaitsFor::Stop);
    world.pass(60 * MINUTE);
    assert_eq!(world.scheduler.counts().queued, 1);
}

#[test]
fn what_is_over_on_arrival_is_over_in_all_its_parts() {
    let settings = SiteSettings { recipients_per_message: 1, expire: Duration::ZERO, ..settings() };
    let mut world = World::new(1, settings);
    world.send("a.example", 0, 3);
    let counts = world.scheduler.counts();
    assert_eq!((counts.queued, counts.in_flight), (0, 0));
}

#[test]
fn after_a_stop_nothing_that_is_due_keeps_the_shard_awake() {
    let mut world = World::new(1, settings());
    let hold = Hold { by: "operator".into(), until: Some(world.now.mono.plus(SECOND)) };
    assert!(world.scheduler.handle_hold(&Scope::Tenant("acme".into()), hold));
    world.scheduler.handle_stop();
    world.now = Now { mono: world.now.mono.plus(MINUTE), ..world.now };
    world.scheduler.handle_time(world.now);
    let next = world.scheduler.next_wakeup();
    assert!(next.is_none_or(|next| next > world.now.mono), "{next:?}");
}

#[test]
fn routes_that_fail_or_wait_are_settled_so() {
    let mut world = World::new(1, settings());
    world.way = Way::Failed(reply(550, "no such domain"));
    let gone = world.send("gone.example", 0, 1);
    assert_eq!(&*world.failed(gone).unwrap().text, "no such domain");
    assert_eq!(world.scheduler.counts().sites, 0);
    world.way = Way::Deferred(reply(451, "resolver down"));
    world.send("slow.example", 0, 1);
    world.pass(6 * MINUTE);
    world.pass(12 * MINUTE);
    let attempts: Vec<u16> = world.outcomes.iter().skip(1).map(|(_, one)| one.attempts).collect();
    assert_eq!(attempts, [1, 2, 3]);
}

#[test]
fn what_was_deferred_before_a_restart_waits_for_its_time() {
    let mut world = World::new(1, settings());
    let message = MessageId::new(SegmentSeq(1), 1);
    world.fates.insert((message.0, 0), None);
    let delivery = |first| Delivery {
        message,
        home: ShardId(0),
        place: Place { segment: SegmentSeq(1), offset: 64, bytes: 1000 },
        in_pieces: 0,
        first,
        count: 1,
        attempts: 3,
        accepted: START.wall,
        record: None,
    };
    let due = |minutes: u32| Some(START.mono.plus(minutes * MINUTE));
    world.hand_in("a.example".into(), Arc::default(), delivery(0), due(50));
    world.hand_in("a.example".into(), Arc::default(), delivery(1), due(7));
    assert_eq!(world.view().deferred, 2);
    let WaitsFor::NextTry { at } = world.view().waits_for else { panic!() };
    assert!(at.since(START.mono) >= 7 * MINUTE && at.since(START.mono) <= 7 * MINUTE + 2 * SECOND);
    world.pass(7 * MINUTE - SECOND);
    assert_eq!(world.relocated.len(), 0);
    world.pass(3 * SECOND);
    assert_eq!(world.relocated.len(), 1);
    world.pass(43 * MINUTE);
    assert_eq!(world.relocated.len(), 2);
}

#[test]
fn bodies_are_kept_only_while_the_budget_lasts() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.send_some(20);
    assert_eq!(world.budget.used(), BODY_MEMORY);
    let kept = |world: &World| world.connections[0].work[0].record.is_some();
    assert!(kept(&world));
    for _ in 0..10 {
        world.deliver(0);
    }
    assert!(!kept(&world), "the ones that came later are read again");
    assert_eq!(world.budget.used(), 0);
}

#[test]
fn strict_outcomes_name_the_lease_that_waits() {
    let mut world = World::new(1, settings());
    world.scheduler.durability = OutcomeDurability::Strict;
    world.send("a.example", 0, 1);
    let (lease, to) = (world.connections[0].lease, world.connections[0].to);
    let delivery = &world.connections[0].work[0];
    let done = Done::new(delivery, Attempt::Delivered(reply(250, "ok")));
    world.scheduler.handle_done(world.now, lease, done);
    let Some(Action::Settle { settlement, .. }) = world.scheduler.poll_action() else { panic!() };
    assert_eq!(settlement.strict, Some((to, lease)));
}

#[test]
fn ten_thousand_waiting_sites_cost_nothing_per_turn() {
    let mut world = World::new(1, settings());
    for number in 0..10_000 {
        world.way = Way::Deferred(reply(451, "resolver down"));
        world.send(&format!("domain{number}.example"), 0, 1);
    }
    let before = world.scheduler.counts();
    assert_eq!((before.sites, before.queued), (10_000, 10_000));
    world.pass(4 * MINUTE);
    assert_eq!(world.scheduler.counts().wakes, before.wakes, "nobody is due, nobody wakes");
    world.pass(3 * MINUTE);
    assert!(world.scheduler.counts().wakes <= 20_000);
    assert_eq!(world.relocated.len(), 10_000);
}

#[test]
fn what_was_learned_of_a_site_outlives_its_mail() {
    let mut world = World::new(1, SiteSettings { connections: 40, ..settings() });
    world.send_some(400);
    for _ in 0..400 {
        let busy = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.deliver(busy);
    }
    let width = world.scheduler.sites[0].paths[0].control.width();
    assert!(width > 5, "slow start has found more than it began with: {width}");
    world.pass(6 * SECOND);
    while !world.connections.is_empty() {
        world.end(0, LeaseEnd::Finished);
    }
    world.pass(3 * MINUTE);
    assert_eq!(world.scheduler.counts().sites, 0);
    world.send("a.example", 0, 1);
    let again = world.scheduler.sites[0].paths[0].control.width();
    assert!(again > 5 && again <= width, "{again} of {width}");
}
