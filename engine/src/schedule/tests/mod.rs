//! The scheduler against a small model of executing shards, homes and time.

mod caps;
mod clocks;
mod fairness;
mod leases;
mod replies;
mod rest;
mod restored;
mod ruling;
mod sparing;
mod steering;
mod walk;
mod warm_up;

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
    Attempt, Cause, Class, Complaint, Done, LeaseEnd, Phases, RecipientResult, Took, Trouble,
};
use crate::model::outcome::{Enhanced, RangeOutcome};
use crate::model::route::{Bearing, MailHost, SiteKey};
use crate::model::settings::{
    DnsSettings, EgressSettings, EngineSettings, LimitSettings, OrderSettings, ShardChoice,
    SiteSettings, SiteTable, SpoolSettings, TlsMode,
};
use crate::model::state::StateItem;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: Now = Now { mono: Mono(5_000_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
const BODY_MEMORY: u64 = 4_000;

/// A connection as the shard that executes it sees it.
struct Connection {
    lease: LeaseId,
    to: ShardId,
    site: SiteKey,
    source: Box<str>,
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
    /// When leases were told whether they may connect again.
    leaves: Vec<(Mono, bool)>,
    days: Vec<(ShardId, Arc<Day>)>,
    /// Opened, not yet said to be ready.
    opening: VecDeque<LeaseId>,
    /// Final outcomes by (message, recipient); `None` while there is none.
    fates: BTreeMap<(u64, u16), Option<Outcome>>,
    outcomes: Vec<(MessageId, RangeOutcome)>,
    relocated: Vec<(Mono, MessageId)>,
    facts: Vec<Fact>,
    way: Way,
    /// What connections tell of their phases.
    phases: Phases,
    /// Deliveries handed to each shard.
    worked: [usize; 4],
    /// What is to outlive the process, in order.
    remembered: Vec<StateItem>,
    /// Orders that have reached all their mail.
    over: Vec<(Box<[u8]>, u64)>,
    next_message: u64,
}

fn hosts() -> Way {
    hosts_of("mx.example")
}

fn hosts_of(name: &str) -> Way {
    let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
    Way::Hosts(vec![MailHost { preference: 10, name: name.into(), addresses: vec![address] }])
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
            leaves: Vec::new(),
            days: Vec::new(),
            opening: VecDeque::new(),
            fates: BTreeMap::new(),
            outcomes: Vec::new(),
            relocated: Vec::new(),
            facts: Vec::new(),
            way: hosts(),
            phases: Phases::default(),
            worked: [0; 4],
            remembered: Vec::new(),
            over: Vec::new(),
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
        self.hand_over((domain, flow), delivery, due, None);
        self.carry_out();
    }

    fn hand_over(
        &mut self,
        (domain, flow): (Arc<str>, Arc<Flow>),
        delivery: Delivery,
        due: Option<Mono>,
        left: Option<Mono>,
    ) {
        let site = match &self.way {
            Way::Hosts(hosts) => SiteKey::MxSet((*hosts[0].name).into()),
            _ => SiteKey::Unroutable((*domain).into()),
        };
        let target = Target::new(site, self.way.clone(), self.now.mono);
        let bearing = Bearing { domain, flow, target: Arc::new(target) };
        self.scheduler.handle_parcel(self.now, Parcel { bearing, delivery, left }, due);
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
                    self.hand_over((domain, flow), delivery, due, Some(self.now.mono));
                }
                Action::Leave { may_connect, .. } => self.leaves.push((self.now.mono, may_connect)),
                Action::Hold { scope, hold } => {
                    self.scheduler.handle_hold(self.now, &scope, hold);
                }
                Action::Grant { to, cell, grant } => self.grants.push((to, cell, grant)),
                Action::Remember(item) => self.remembered.push(item),
                Action::CancelOver { key, order } => self.over.push((key, order)),
                Action::WriteDay { to, day } => self.days.push((to, day)),
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
            source: opening.source.iter().map(|source| &*source.name).collect(),
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
        let done = Done { phases: self.phases, ..Done::new(&delivery, result(&delivery)) };
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
        let is_stopped = self.scheduler.stopping || self.scheduler.awaits_state;
        if site.ready == site.cancelled.ready || is_stopped || is_held {
            return;
        }
        if !site.trunks.iter().any(|trunk| self.scheduler.order.has_next(*trunk)) {
            return;
        }
        if self.scheduler.left_to_another(self.now, site).is_some() {
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
            let has_mail = |trunk: &u32| {
                let pool = self.scheduler.order.trunks[*trunk as usize].pool;
                let mut members = self.scheduler.roster.members(pool).iter();
                self.scheduler.order.has_next(*trunk)
                    && members.any(|member| member.source == path.source)
            };
            if !site.trunks.iter().any(has_mail) {
                continue;
            }
            if self.scheduler.may_send(self.now, site, (path.source, Some(path)), bytes).is_err() {
                continue;
            }
            let idle = path.lanes().iter().any(|lane| !lane.idle.is_empty());
            assert!(!idle, "a connection is idle while mail waits");
            let open = self.scheduler.may_open(self.now, site, Some(path));
            let from = self.scheduler.opens_from(self.now, site, path);
            let is_woken = site.alarms.pace <= from;
            assert!(open.is_err() || from > self.now.mono && is_woken, "mail waits for no reason");
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
