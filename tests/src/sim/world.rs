//! The world of one seed: the engine in the middle, everything else around it, one step at a time.

mod around;
mod asking;
mod binding;
mod fate;
mod inside;
mod later;
mod orders;
mod trapped;

use std::collections::{BTreeMap, VecDeque};

use postrider_engine::report::counters::Counters;

use super::agenda::{Agenda, Due, Fault};
use super::asking::Asking;
use super::bounds::Bounds;
use super::chance::{Chance, Stream};
use super::checkers::{Checkers, Figures, Seen, Violation};
use super::client::{Client, compose, label};
use super::clock::{Clock, DAY, HOUR, MINUTE, MS, SECOND};
use super::disk::Disk;
use super::engine::{Engine, slots_max, trusts};
use super::host::{Host, Mark, Talk};
use super::ledger::Ledger;
use super::limit::{Limit, PERMIT_AGE_MAX};
use super::names::Names;
use super::net::{Far, Link, LinkId, Net, Word};
use super::options::{Faults, HostPlan, Manners, Options, Size};
use super::orders::Orders;
use super::quiet::Quiet;
use super::spooled;
use super::trace::Trace;
use super::trap::{Io, Trap, Traps};
use postrider_engine::model::hold::{Hold, Scope};

/// Steps after which a run is taken to be going in circles.
const STEPS_MAX: u64 = 3_000_000;
/// How long rates and rules may keep mail waiting, beside its own clock.
const HELD_UP_MAX: u64 = 3 * HOUR;
/// Steps between two looks at what a power cut would leave.
const STEPS_PER_LOOK: u64 = 256;

pub struct World {
    pub options: Options,
    pub clock: Clock,
    pub trace: Trace,
    pub checkers: Checkers,
    pub steps: u64,
    steps_per_look: u64,
    agenda: Agenda,
    engine: Option<Engine>,
    run: u32,
    disk: Disk,
    net: Net,
    names: Names,
    hosts: Vec<Host>,
    talks: BTreeMap<LinkId, Talk>,
    /// What the core will know when it has read so many bytes of a link.
    marks: BTreeMap<LinkId, VecDeque<(u64, Mark)>>,
    clients: Vec<Client>,
    ledger: Ledger,
    workload: Chance,
    host_chance: Chance,
    scheduling: Chance,
    fault_chance: Chance,
    engine_chance: Chance,
    next_take: u64,
    traps: Traps,
    quiet: Quiet,
    /// Of each group.
    limits: Vec<Limit>,
    later_chance: Chance,
    label_chance: Chance,
    bounds_chance: Chance,
    /// What bound the mail before, since when, in order; and since when what binds now.
    bounds_before: Vec<(u64, Bounds)>,
    bounds_since: u64,
    holds: Vec<(Scope, Hold)>,
    orders: Orders,
    asking: Asking,
    /// Whether the turn that is taken was told of what was decided in an earlier one.
    is_late_turn: bool,
    /// Resets, by which messages begin at hosts without pipelining: when they were decided.
    resets: BTreeMap<LinkId, u64>,
    /// When connections were begun to be opened, at the earliest.
    opened: BTreeMap<LinkId, u64>,
    /// The date on which the world began.
    first_date: u64,
    /// Of the runs that are over.
    counters: Counters,
    /// When the faults ended.
    calm_since: Option<u64>,
    /// Since when nothing moved, after that.
    resting_since: Option<u64>,
    look_every: u64,
    /// Something was set aside that the next start will try again.
    is_something_aside: bool,
    is_rotten: bool,
    is_over: bool,
    rotten: Vec<postrider_engine::model::message::MessageId>,
}

impl World {
    #[must_use]
    pub fn new(seed: u64, size: Size, trace: Trace) -> Self {
        Self::with(seed, Options::draw(seed, size), None, trace)
    }

    /// A world of these options; what is left open, the seed decides.
    #[must_use]
    pub fn with(seed: u64, options: Options, trap: Option<Trap>, trace: Trace) -> Self {
        let chance = |stream| Chance::new(seed, stream);
        let mut net = Net::new(chance(Stream::Network));
        net.resets = options.faults.resets;
        let names =
            Names::new(options.groups.len(), options.faults.names_fail, chance(Stream::Names));
        let mut world = Self {
            clock: Clock::new(),
            trace,
            checkers: Checkers::new(),
            steps: 0,
            steps_per_look: STEPS_PER_LOOK,
            agenda: Agenda::new(chance(Stream::Scheduling)),
            engine: None,
            run: 0,
            disk: Disk::new(chance(Stream::Disk)),
            net,
            names,
            hosts: Vec::new(),
            talks: BTreeMap::new(),
            marks: BTreeMap::new(),
            clients: (0..options.clients).map(|_| Client::default()).collect(),
            ledger: Ledger::default(),
            workload: chance(Stream::Workload),
            host_chance: chance(Stream::Hosts),
            scheduling: Chance::new(seed.rotate_left(17), Stream::Scheduling),
            fault_chance: chance(Stream::Faults),
            engine_chance: chance(Stream::Engine),
            next_take: 0,
            traps: Traps::new(trap),
            quiet: Quiet::default(),
            limits: options.groups.iter().map(|group| Limit::new(group.connections)).collect(),
            later_chance: chance(Stream::LaterCourse),
            label_chance: chance(Stream::Labels),
            bounds_chance: chance(Stream::BoundsCourse),
            bounds_before: Vec::new(),
            bounds_since: 0,
            holds: Vec::new(),
            orders: Orders::new(seed),
            asking: Asking::new(seed),
            is_late_turn: false,
            resets: BTreeMap::new(),
            opened: BTreeMap::new(),
            first_date: 0,
            counters: Counters::default(),
            calm_since: None,
            resting_since: None,
            look_every: 10 * SECOND,
            is_something_aside: false,
            is_rotten: false,
            is_over: false,
            rotten: Vec::new(),
            options,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        self.ledger.expire = self.options.expire;
        self.ledger.is_crowd = self.options.is_crowd;
        if self.options.bounds.is_on {
            self.ledger.held_up = HELD_UP_MAX;
        }
        if let Some(midnight) = self.options.bounds.midnight {
            self.clock.end_date_in(midnight);
        }
        self.first_date = self.clock.now().wall.0 / DAY;
        if self.options.bounds.waits_for_midnight() {
            self.ledger.held_up = u64::MAX / 2;
        }
        for (number, group) in self.options.groups.iter().enumerate() {
            self.ledger.retry.push(group.retry.clone());
            for (site, hosts) in group.sites.iter().enumerate() {
                let site = number * 2 + site;
                let full_mailboxes = self.options.later.full_mailboxes;
                let manners = |host: &HostPlan| Manners { full_mailboxes, ..host.manners.clone() };
                let tells = self.options.tells_whom;
                self.hosts.extend(hosts.iter().map(|host| Host::new(site, manners(host), tells)));
            }
        }
        for _ in 0..self.options.mails {
            let mail = compose(&mut self.ledger, &self.options, &mut self.workload);
            let client = self.workload.index(self.clients.len());
            self.give(client, mail);
        }
        let begin = self.clock.at;
        for client in 0..self.clients.len() {
            let at = begin + self.workload.skewed(MS, self.options.trouble_for);
            self.agenda.add(at, Due::Client { client, epoch: 0 });
        }
        self.agenda.add(begin, Due::Start);
        self.agenda.add(begin + self.options.trouble_for, Due::Calm);
        self.plan_faults(begin);
        self.plan_later(begin);
        self.plan_orders(begin);
        self.plan_asking(begin);
    }

    /// Lets a client send a mail.
    fn give(&mut self, client: usize, mail: usize) {
        if !self.options.is_crowd && self.label_chance.permille(self.options.labels) {
            let is_trusted = trusts(client);
            label(&mut self.ledger.mails[mail], is_trusted, &mut self.label_chance);
        }
        self.clients[client].to_send.push_back(mail);
    }

    /// Lets the mail be changed before anything is sent.
    pub fn with_ledger(&mut self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger);
    }

    /// Looks at the disk after so many steps, beside every crash and start.
    pub fn look_every_steps(&mut self, steps: u64) {
        self.steps_per_look = steps;
    }

    /// What the engine counted, in all its runs.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut all = self.counters;
        for core in self.engine.iter().flat_map(|engine| &engine.cores) {
            all.add(&core.shard.counters());
        }
        all
    }

    /// All I/Os that the engine has asked for.
    #[must_use]
    pub fn ios(&self) -> &[Io] {
        self.traps.seen()
    }

    fn plan_faults(&mut self, begin: u64) {
        let Faults { kills, power_cuts, stops, moves, rots, full_spells, .. } = self.options.faults;
        let groups = self.options.groups.len();
        let some = [(kills, Fault::Kill), (power_cuts, Fault::PowerCut), (stops, Fault::Stop)];
        let chance = &mut self.fault_chance;
        let mut when = || begin + chance.skewed(MS, self.options.trouble_for);
        for (many, fault) in some {
            for _ in 0..many {
                self.agenda.add(when(), Due::Fault(fault));
            }
        }
        for _ in 0..full_spells {
            let at = when();
            self.agenda.add(at, Due::Fault(Fault::Full(true)));
            self.agenda.add(at + when() - begin, Due::Fault(Fault::Full(false)));
        }
        for _ in 0..rots {
            self.agenda.add(when(), Due::Fault(Fault::Rot));
        }
        for number in 0..moves {
            let group = usize::try_from(number).unwrap_or(0) % groups;
            self.agenda.add(when(), Due::Fault(Fault::Move { group }));
        }
    }

    /// Runs until the world has come to rest.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(&mut self) -> Result<(), Violation> {
        while !self.is_over {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some((at, due)) = self.agenda.take_next() else {
            return Err(wrong("comes to rest", "nothing is due any more".to_owned()));
        };
        assert!(at >= self.clock.at, "time goes on");
        if self.engine.is_some() && self.disk.writes_in_flight() == 0 {
            self.quiet.pass(at - self.clock.at);
        }
        self.clock.at = at;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(wrong("comes to rest", format!("{STEPS_MAX} steps, and no rest")));
        }
        self.trace.note(at, kind(&due), b"");
        self.perform(due)?;
        if self.steps.is_multiple_of(self.steps_per_look) {
            self.look_at_disk()?;
        }
        Ok(())
    }

    fn perform(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::Turn { run, shard } => self.turn(run, shard),
            Due::Note { run, from, to } => {
                self.note_arrives(run, from, to);
                Ok(())
            }
            Due::Written { run, shard, write } => self.written(run, shard, write),
            Due::Read { run, shard, read } => self.fetched(run, shard, read),
            Due::Segment { run, shard } => self.segment_made(run, shard),
            Due::Recovered { run, shard } => {
                self.recovered(run, shard);
                Ok(())
            }
            Due::Answer { run, shard, question, domain } => {
                self.answered(run, shard, question, &domain);
                Ok(())
            }
            Due::Down(link) => self.down(link),
            Due::Up(link) => self.with_net(link, |net, agenda, at, words| {
                net.up(agenda, at, link, words);
            }),
            Due::Taken(link) => self.with_net(link, |net, agenda, at, words| {
                net.taken(agenda, at, link, words);
            }),
            Due::Lingered(link) => self.with_net(link, |net, agenda, at, words| {
                net.lingered(agenda, at, link, words);
            }),
            Due::Retired(link) => {
                self.tell_shard(link, Word::Retired(link));
                Ok(())
            }
            Due::Connected(link) => self.connected(link),
            Due::Secured(link) => {
                self.secured(link);
                Ok(())
            }
            Due::Say(link) => self.say(link),
            Due::Client { client, epoch } => {
                self.client_looks(client, epoch);
                Ok(())
            }
            Due::Settings { run, shard } => {
                self.settings_arrive(run, shard);
                Ok(())
            }
            Due::Hold { run, shard, hold } => {
                self.hold_arrives(run, shard, hold);
                Ok(())
            }
            Due::Order { run, shard, order } => {
                self.order_arrives(run, shard, order);
                Ok(())
            }
            Due::Ask => self.ask_something(),
            Due::Asked { run, shard, question } => {
                self.question_arrives(run, shard, question);
                Ok(())
            }
            Due::Fault(fault) => self.fault(fault),
            Due::Start => self.start(),
            Due::Calm => self.calm(),
            Due::LastStop => {
                self.stop();
                Ok(())
            }
            Due::Look => self.look_for_rest(),
        }
    }

    /// Lets the network do something, and tells the shard of the link what came of it.
    fn with_net(
        &mut self,
        link: LinkId,
        act: impl FnOnce(&mut Net, &mut Agenda, u64, &mut Vec<Word>),
    ) -> Result<(), Violation> {
        let mut words = Vec::new();
        act(&mut self.net, &mut self.agenda, self.clock.at, &mut words);
        for word in words {
            self.tell_shard(link, word);
        }
        Ok(())
    }

    fn is_calm(&self) -> bool {
        self.calm_since.is_some()
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), Violation> {
        self.checkers.see(&self.ledger, seen)
    }

    /// Shows the checkers what a power cut at this moment would leave.
    fn look_at_disk(&mut self) -> Result<(), Violation> {
        let recovered = match spooled::recover(&self.disk.files, 1) {
            Ok(recovered) => recovered,
            Err(_) if self.is_rotten => return Ok(()),
            Err(why) => return Err(wrong("starts again", why)),
        };
        let spooled = spooled::live(&self.disk.files, &recovered.deliveries, &self.clock);
        let (run, quiet) = (self.run, self.quiet.time());
        let at = self.clock.at;
        self.see(&Seen::Recovered { spooled: &spooled, is_restart: false, run, quiet, at })
    }

    fn figures(&self, effects: usize) -> Option<Figures> {
        let engine = self.engine.as_ref()?;
        let shards = engine.cores.len();
        let of_shard = |shard| self.net.held().filter(|link| link.shard == shard).count();
        let is_out = |link: &&Link| matches!(link.far, Far::Host(_));
        let out_of_shard =
            |shard| self.net.held().filter(is_out).filter(|link| link.shard == shard).count();
        let (outbox_bytes, _) = self.net.heaps();
        let options = &self.options;
        let record_bytes_max = options.body_bytes_max + 50_000;
        Some(Figures {
            record_memory: engine.budget.used(),
            record_memory_max: options.body_memory_bytes + record_bytes_max * shards as u64,
            connections: (0..shards).map(of_shard).max().unwrap_or(0),
            connections_max: slots_max(options),
            connections_out: (0..shards).map(out_of_shard).max().unwrap_or(0),
            connections_out_max: options.connections_out as usize,
            writes_in_flight: self.disk.writes_in_flight(),
            writes_in_flight_max: options.commits_in_flight * shards,
            unread_bytes: self.net.unread(),
            outbox_bytes,
            outbox_bytes_max: (1 << 20) + usize::try_from(options.body_bytes_max).unwrap_or(0),
            effects,
            is_at_rest: false,
        })
    }

    /// Whether the world has come to rest; if not, looks again later.
    fn look_for_rest(&mut self) -> Result<(), Violation> {
        let Some(calm_since) = self.calm_since else { return Ok(()) };
        let is_resting = self.release_all()? && self.is_resting()?;
        self.resting_since = is_resting.then(|| self.resting_since.unwrap_or(self.clock.at));
        if is_resting && !self.may_keep_permits() {
            self.is_over = true;
            let mut figures = self.figures(0).unwrap_or_default();
            figures.is_at_rest = true;
            self.see(&Seen::Figures(&figures))?;
            self.look_at_cells(true)?;
            return self.see(&Seen::Rest);
        }
        let patience = self.options.expire + 72 * 60 * MINUTE;
        if self.clock.at > calm_since + patience {
            self.look_at_disk()?;
            return Err(wrong("comes to rest", self.what_moves()));
        }
        self.look_every = (self.look_every * 5 / 4).min(30 * MINUTE);
        self.agenda.add(self.clock.at + self.look_every, Due::Look);
        Ok(())
    }

    /// Whether a session may still hold permits though its last connection is gone: a host that never
    /// answered may count that one for a while.
    fn may_keep_permits(&self) -> bool {
        let (Some(engine), Some(since)) = (&self.engine, self.resting_since) else { return false };
        let in_use = engine.cells.all().iter().any(|cell| cell.permits().in_use() > 0);
        in_use && self.clock.at < since + PERMIT_AGE_MAX
    }

    fn is_resting(&self) -> Result<bool, Violation> {
        let Some(engine) = &self.engine else { return Ok(false) };
        let is_still = engine.stop_by.is_none()
            && engine.cores.iter().all(|core| core.inbox.is_empty())
            && engine.notes.iter().all(|(notes, _)| notes.is_empty())
            && self.disk.writes_in_flight() == 0
            && self.net.open_links() == 0
            && self.clients.iter().all(|client| client.to_send.is_empty() && client.link.is_none());
        if !is_still {
            return Ok(false);
        }
        let recovered = spooled::recover(&self.disk.files, 1);
        let recovered = recovered.map_err(|why| wrong("starts again", why))?;
        let waits = |found: &&postrider_engine::spool::plan::RecoveredDelivery| {
            !self.rotten.contains(&found.delivery.message)
        };
        Ok(!recovered.deliveries.iter().any(|found| waits(&found)))
    }

    fn what_moves(&self) -> String {
        let recovered = spooled::recover(&self.disk.files, 1);
        let pending =
            recovered.map(|all| spooled::live(&self.disk.files, &all.deliveries, &self.clock));
        let links: Vec<_> = self.net.held().map(|link| (link.far, link.phase)).collect();
        let clients = self.clients.iter().filter(|client| client.link.is_some()).count();
        format!(
            "still there: {pending:?}, links {links:?}, {clients} clients, {} due",
            self.agenda.len()
        )
    }
}

/// A promise that no checker of its own watches was broken.
pub(super) fn wrong(checker: &'static str, what: String) -> Violation {
    Violation { checker, what }
}

fn kind(due: &Due) -> &'static str {
    match due {
        Due::Turn { .. } => "turn",
        Due::Note { .. } => "note",
        Due::Written { .. } => "written",
        Due::Read { .. } => "read",
        Due::Segment { .. } => "segment",
        Due::Recovered { .. } => "recovered",
        Due::Answer { .. } => "answer",
        Due::Down(_) => "down",
        Due::Up(_) => "up",
        Due::Taken(_) => "taken",
        Due::Connected(_) => "connected",
        Due::Secured(_) => "secured",
        Due::Retired(_) => "retired",
        Due::Lingered(_) => "lingered",
        Due::Say(_) => "say",
        Due::Client { .. } => "client",
        Due::Settings { .. } => "settings",
        Due::Hold { .. } => "hold",
        Due::Order { .. } => "order",
        Due::Ask => "ask",
        Due::Asked { .. } => "asked",
        Due::Fault(_) => "fault",
        Due::Start => "start",
        Due::Calm => "calm",
        Due::LastStop => "last stop",
        Due::Look => "look",
    }
}
