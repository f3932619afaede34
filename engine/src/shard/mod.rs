//! One core: the five rooms wired together. Events in, effects out, no I/O, no clock.

mod asking;
mod dispatch;
pub mod effect;
pub mod event;
mod flows;
mod notices;
mod orders;
mod prefetch;
mod reading;
mod reception;
mod remotes;
mod sending;
mod stopping;
mod storage;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;

pub use effect::{Effect, Effects, Fact, Span};
pub use event::{AskedId, CommitId, DiskError, Event, QuestionId, ReadId};
pub use turn::{EVENTS_PER_TURN_MAX, turn};

use crate::base::cell::{Budget, CellTable};
use crate::base::planted::{Bug, planted};
use crate::base::slots::Slots;
use crate::base::time::{Mono, Now, SteadyWall};
use crate::base::wheel::Wheel;
use crate::model::connection::{Conn, ShardId};
use crate::model::delivery::LeaseId;
use crate::model::message::MessageId;
use crate::model::note::Note;
use crate::model::settings::{LimitSettings, Settings};
use crate::model::state::StateItem;
use crate::report::counters::Counters;
use crate::schedule::{Scheduler, owner};
use crate::spool::plan::{RecoveredDelivery, RecoveredShard};
use crate::spool::{Spool, SpoolOptions};

use dispatch::{Routing, Waiting};
use flows::Flows;
use orders::Orders;
pub use prefetch::AHEAD_MAX;
use reading::Reads;
pub use reception::TURNED_AWAY_MAX;
use reception::{Incoming, Reception};
use remotes::Remotes;
use sending::Sending;
use stopping::Phase;
use storage::Pending;

/// What a shard is made of and told at birth.
pub struct ShardOptions {
    pub id: ShardId,
    /// How many shards this run has.
    pub shards: u16,
    pub settings: Arc<Settings>,
    /// The spares that the spool had when the process started; the rest of what it held comes as
    /// [`Event::Recovered`].
    pub spares: RecoveredShard,
    /// From recovery: the first segment sequence never used.
    pub next_sequence: u64,
    /// 4, or 1 where the file system cannot overlap durable writes.
    pub commits_in_flight_max: usize,
    /// Record memory of all shards together.
    pub record_memory: Arc<Budget>,
    /// Caps that sites of several shards share.
    pub cells: Arc<CellTable>,
    /// Decides shuffles and jitter; nothing that must be secret.
    pub seed: u64,
    /// When the process started: the same for all shards, but for the time it takes.
    pub now: Now,
}

/// Everything one core knows. Its world is the driver: the runtime, or a simulator.
pub struct Shard {
    id: ShardId,
    shards: u16,
    settings: Arc<Settings>,
    slots: Slots,
    /// What each connection slot is used for, by slot.
    roles: Vec<Role>,
    reception: Reception,
    spool: Spool,
    routing: Routing,
    flows: Flows,
    scheduler: Scheduler,
    sending: Sending,
    reads: Reads,
    pending: Pending,
    timers: Wheel<Timer>,
    fired: Vec<Timer>,
    /// Notes to itself, taken up before the turn ends.
    inbox: VecDeque<Note>,
    backlog: VecDeque<RecoveredDelivery>,
    /// Owners of sites have yet to take in what was handed over of it.
    is_held_back: bool,
    /// Whether it has what the spool held at the start.
    is_recovered: bool,
    restoring: Restoring,
    orders: Orders,
    /// The newest message that was accepted here.
    newest: MessageId,
    /// Of this run.
    first_sequence: u64,
    /// Deliveries of the backlog so far.
    taken_up: u64,
    phase: Phase,
    counters: Counters,
    /// By which everything is scheduled.
    clock: SteadyWall,
}

/// What a connection slot is used for.
enum Role {
    Free,
    Intake(Box<Incoming>),
    /// The key of the session in [`Sending`].
    Egress(usize),
    /// Its conversation is over; the driver still holds it.
    Retiring(Way),
}

/// Whose share of the slots a connection takes.
#[derive(Clone, Copy)]
enum Way {
    In,
    TurnedAway,
    Out,
}

/// Whose deadline may have come. A fired timer is a hint: the session knows its real deadline.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Intake(Conn),
    Egress(LeaseId),
}

/// What an earlier run kept beside the mail.
enum Restoring {
    /// It comes with [`Event::Recovered`].
    Awaited,
    /// Up to here the scheduler knows it.
    UpTo(Arc<[StateItem]>, usize),
    Done,
}

/// Kept items that the scheduler takes up in one turn: about a millisecond.
const RESTORED_PER_TURN: usize = 2048;

/// Deliveries of a restart scheduled in one turn, so that new mail is served meanwhile.
const BACKLOG_PER_TURN: usize = 256;

/// Messages of a restart that the spool takes over in one turn: well below a millisecond.
const ADOPTED_PER_TURN: usize = 4096;

/// How often a turn carries what one room has for the next. A few times as a rule; what goes round
/// without end must not keep the kernel's completions waiting.
const STEPS_PER_TURN_MAX: usize = 10_000;

/// Connection slots of a shard with these limits: what its driver must have room for.
#[must_use]
pub fn slots_max(limits: &LimitSettings) -> u32 {
    let both = limits.connections_in.saturating_add(limits.connections_out);
    both.saturating_add(TURNED_AWAY_MAX)
}

impl Shard {
    #[must_use]
    pub fn new(options: ShardOptions) -> Self {
        let settings = options.settings;
        let slots = slots_max(&settings.limits);
        let spool = SpoolOptions {
            shard: options.id,
            shards: options.shards,
            next_sequence: options.next_sequence,
            outcomes: settings.spool.outcomes,
            commits_in_flight_max: options.commits_in_flight_max,
        };
        let remotes = Remotes::new(options.id, Arc::clone(&options.cells), &settings);
        let mut scheduler = Scheduler::new(
            options.id,
            options.shards,
            &settings,
            options.record_memory,
            options.cells,
            options.now,
        );
        scheduler.await_state();
        Self {
            id: options.id,
            shards: options.shards,
            slots: Slots::new(slots),
            roles: Vec::new(),
            reception: Reception::new(&settings),
            spool: Spool::new(spool, Some(options.spares)),
            routing: Routing::new(&settings, options.shards, options.seed),
            flows: Flows::default(),
            scheduler,
            sending: Sending::new(&settings, remotes),
            reads: Reads::default(),
            pending: Pending::default(),
            timers: Wheel::new(options.now.mono),
            fired: Vec::new(),
            inbox: VecDeque::new(),
            backlog: VecDeque::new(),
            is_held_back: false,
            is_recovered: false,
            restoring: Restoring::Awaited,
            orders: Orders::default(),
            newest: MessageId(0),
            first_sequence: options.next_sequence.max(1),
            taken_up: 0,
            phase: Phase::Running,
            counters: Counters::default(),
            clock: SteadyWall::from(options.now),
            settings,
        }
    }

    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// What it has counted so far, its spool included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let spool = self.spool.counters();
        Counters {
            commits: spool.commits,
            commit_bytes: spool.bytes_written,
            commits_failed: spool.segments_fenced,
            outcomes_written: spool.outcomes,
            segments_recycled: spool.segments_recycled,
            messages_copied: spool.messages_copied,
            ..self.counters
        }
    }

    /// Whether clients may come: the spool can take mail, or has said that it cannot.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.is_full() || self.spool.room().messages.is_ok()
    }

    /// A name for a client's connection the driver is about to hand in; `None`: close it unsaid.
    pub fn take_client_slot(&mut self) -> Option<Conn> {
        if self.reception.may_accept() { self.take_slot() } else { None }
    }

    /// A name for a connection; `None`: the bound is reached.
    fn take_slot(&mut self) -> Option<Conn> {
        let (slot, generation) = self.slots.take()?;
        if self.roles.len() <= slot as usize {
            self.roles.resize_with(slot as usize + 1, || Role::Free);
        }
        Some(Conn { slot, generation })
    }

    /// Takes one event in.
    pub fn handle(&mut self, now: Now, event: Event<'_>, out: &mut Effects) {
        self.scheduler.handle_wall(self.clock.step(now));
        match event {
            Event::Accepted { conn, listener, peer } => {
                self.accepted(now, conn, listener, peer, out)
            }
            Event::Connected { conn, result } => self.connected(now, conn, result, out),
            Event::Received { conn, bytes } => self.received(now, conn, bytes, out),
            Event::Drained { conn } => self.drained(now, conn, out),
            Event::Secured { conn, result } => self.secured(now, conn, result, out),
            Event::Ended { conn, how } => self.ended(now, conn, how, out),
            Event::Retired { conn } => self.retired(conn),
            Event::Committed { commit, result } => self.spool.handle_committed(commit, result),
            Event::Fetched { read, result } => self.fetched(now, read, result, out),
            Event::Resolved { question, answer } => self.resolved(now, question, &answer, out),
            Event::Noted { from, note } => self.noted(now, from, note, out),
            Event::SegmentReady(spare) => self.segment_ready(spare, out),
            Event::Recovered { spool, backlog, states } => {
                self.recovered(*spool, backlog, states);
            }
            Event::Asked { asked, query } => self.asked(now, asked, &query, out),
            Event::Settings(settings) => self.settings_changed(now, settings, out),
            Event::Stop { by } => self.stop(now, by, out),
        }
    }

    /// Once a turn, after its events: due timers, dispatch, the commit group. Returns the next wake-up.
    pub fn settle(&mut self, now: Now, out: &mut Effects) -> Mono {
        self.scheduler.handle_wall(self.clock.step(now));
        self.fire_timers(now, out);
        self.schedule_backlog(now, out);
        self.scheduler.handle_time(self.clock.now(now));
        self.settle_held(now, out);
        let is_done = (0..STEPS_PER_TURN_MAX).any(|_| !self.step(now, out));
        self.order_commits(now, out);
        self.settle_reception(out);
        self.settle_stop(now, out);
        if is_done { self.next_wakeup(now) } else { now.mono }
    }

    /// Carries what one room has for the next; false once nothing moves any more.
    fn step(&mut self, now: Now, out: &mut Effects) -> bool {
        let mut moved = false;
        while !self.inbox.is_empty() {
            self.prefetch_notes(self.inbox.iter());
            for _ in 0..AHEAD_MAX {
                let Some(note) = self.inbox.pop_front() else { break };
                self.noted(now, self.id, note, out);
                moved = true;
            }
        }
        moved |= self.announce_durable(now, out);
        moved | self.dispatch(now, out)
    }

    fn noted(&mut self, now: Now, from: ShardId, note: Note, out: &mut Effects) {
        match note {
            Note::Deliver { parcel, due } => {
                let now = self.clock.now(now);
                self.scheduler.handle_parcel(now, *parcel, due);
            }
            Note::Open(opening) => self.open(now, *opening, out),
            Note::Work { lease, delivery } => self.work(now, lease, *delivery, out),
            Note::Close { lease } => self.close_lease(now, lease, out),
            Note::Done { lease, done } => {
                self.scheduler.handle_done(self.clock.now(now), lease, *done);
            }
            Note::Ended { lease, why } => {
                self.scheduler.handle_ended(self.clock.now(now), lease, why);
            }
            Note::Settle(settlement) => self.settlement(now, *settlement, out),
            Note::Ready { lease } => self.scheduler.handle_ready(self.clock.now(now), lease),
            Note::Hold(_) if planted(Bug::HoldOnOneShard) && self.id != ShardId(0) => {}
            Note::Hold(held) => {
                let (scope, hold) = *held;
                self.scheduler.handle_hold(self.clock.now(now), &scope, hold);
            }
            Note::Grant { cell, grant } => {
                self.scheduler.handle_grant(self.clock.now(now), cell, grant);
            }
            Note::Another { lease } => {
                self.scheduler.handle_another(self.clock.now(now), lease);
            }
            Note::Leave { lease, may_connect } => self.lease_left(now, lease, may_connect, out),
            Note::Remember(item) => self.spool.remember(now, *item),
            Note::WriteDay(day) => self.scheduler.handle_day(self.clock.now(now), &day),
            Note::Cancelled(told) => self.cancel_told(now, from, *told, out),
            Note::CancelOver { key, order } => self.cancel_over(now, key, order),
            Note::Settled { lease } => self.lease_settled(now, lease, out),
            Note::Fetch { lease, message, place } => {
                self.fetch_for((from, lease), message, place, out)
            }
            Note::Fetched { lease, place, record } => {
                self.fetched_for(now, lease, place, record, out)
            }
        }
    }

    fn tell(&mut self, to: ShardId, note: Note, out: &mut Effects) {
        if to == self.id {
            self.inbox.push_back(note);
        } else {
            out.push(Effect::Tell { to, note });
        }
    }

    fn received(&mut self, now: Now, conn: Conn, bytes: &[u8], out: &mut Effects) {
        match self.role(conn) {
            Some(Role::Intake(_)) => self.intake_received(now, conn, bytes, out),
            Some(Role::Egress(key)) => {
                let key = *key;
                self.egress_received(now, key, bytes, out);
            }
            _ => {}
        }
    }

    fn ended(
        &mut self,
        now: Now,
        conn: Conn,
        how: crate::model::connection::End,
        out: &mut Effects,
    ) {
        match self.role(conn) {
            Some(Role::Intake(_)) => self.intake_ended(conn, out),
            Some(Role::Egress(key)) => {
                let key = *key;
                self.egress_ended(now, key, how, out);
            }
            _ => {}
        }
    }

    fn retired(&mut self, conn: Conn) {
        if self.slots.is_current(conn.slot, conn.generation) {
            let role = std::mem::replace(&mut self.roles[conn.slot as usize], Role::Free);
            match role {
                Role::Retiring(Way::Out) | Role::Egress(_) => self.sending.slot_freed(),
                Role::Retiring(way) => self.reception.slot_freed(way),
                Role::Intake(_) => self.reception.slot_freed(Way::In),
                Role::Free => {}
            }
            self.slots.give_back(conn.slot, conn.generation);
        }
    }

    /// The role of a connection, if the name is not an old one.
    fn role(&mut self, conn: Conn) -> Option<&mut Role> {
        self.slots
            .is_current(conn.slot, conn.generation)
            .then(|| &mut self.roles[conn.slot as usize])
    }

    fn fire_timers(&mut self, now: Now, out: &mut Effects) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.advance(now.mono, &mut fired);
        for timer in fired.drain(..) {
            match timer {
                Timer::Intake(conn) => self.intake_time(now, conn, out),
                Timer::Egress(lease) => self.egress_time(now, lease, out),
            }
        }
        self.fired = fired;
    }

    /// Once a stop has begun nothing is taken up any more: it stays where it is.
    fn recovered(
        &mut self,
        spool: RecoveredShard,
        backlog: Vec<RecoveredDelivery>,
        states: Arc<[StateItem]>,
    ) {
        if !self.phase.is_stopping() {
            self.spool.adopt(spool);
            self.is_recovered = true;
            self.restoring = Restoring::UpTo(states, 0);
            self.backlog = backlog.into();
        }
    }

    /// Whether what the spool held at the start has been taken over.
    fn knows_all_messages(&self) -> bool {
        self.is_recovered && !self.spool.is_adopting()
    }

    /// Whether what an earlier run kept is in force.
    fn knows_state(&self) -> bool {
        matches!(self.restoring, Restoring::Done)
    }

    fn restore(&mut self, now: Now) {
        let Restoring::UpTo(states, from) = &mut self.restoring else { return };
        let now = self.clock.now(now);
        let to = states.len().min(*from + RESTORED_PER_TURN);
        for item in &states[*from..to] {
            if owner(item, self.shards).is_none_or(|owner| owner == self.id) {
                self.scheduler.handle_restored(now, item);
            }
        }
        *from = to;
        if to == states.len() {
            self.restoring = Restoring::Done;
            self.scheduler.handle_state_complete(now);
        }
    }

    /// Whether more notes wait for other shards than a backlog should add to.
    pub fn hold_back(&mut self, is_held_back: bool) {
        self.is_held_back = is_held_back;
    }

    fn schedule_backlog(&mut self, now: Now, out: &mut Effects) {
        self.restore(now);
        if !self.knows_state() || self.is_held_back {
            return;
        }
        if self.spool.is_adopting() && !self.spool.adopt_messages(ADOPTED_PER_TURN) {
            return;
        }
        for _ in 0..BACKLOG_PER_TURN {
            let Some(mut found) = self.backlog.pop_front() else { return };
            // A clock that was set back since: what expires, or is cancelled, must not lie ahead.
            found.delivery.accepted = found.delivery.accepted.min(self.clock.now(now).wall);
            let due = found.due.filter(|_| !planted(Bug::DueForgotten));
            let due = due.map(|due| self.clock.now(now).mono_at(due));
            let flow = match &found.flow {
                Some(flow) => self.flows.shared(flow),
                None => self.flows.of_labels(""),
            };
            let waiting = Waiting { flow, delivery: found.delivery, due, left: None };
            self.locate(now, &found.domain, waiting, out);
            self.taken_up += 1;
            if self.backlog.is_empty() {
                // It was as long as the spool is full; nothing comes into it again.
                self.backlog = VecDeque::new();
                let fact = Fact::ScheduledAgain { deliveries: self.taken_up };
                out.push(Effect::Report(Box::new(fact)));
            }
        }
    }

    fn settings_changed(&mut self, now: Now, settings: Arc<Settings>, out: &mut Effects) {
        self.reception.handle_settings(&settings);
        self.routing.handle_settings(&settings);
        for (cell, grant) in self.sending.handle_settings(&settings) {
            self.tell(ShardId(grant.to), Note::Grant { cell, grant }, out);
        }
        self.scheduler.handle_settings(self.clock.now(now), &settings);
        self.settings = settings;
    }

    fn next_wakeup(&self, now: Now) -> Mono {
        let is_restoring = matches!(self.restoring, Restoring::UpTo(..));
        if !self.backlog.is_empty() || self.spool.is_adopting() || is_restoring {
            return Mono(0);
        }
        let rooms =
            [self.timers.next(), self.scheduler.next_wakeup(), self.storage_wakeup(now.mono)];
        let first = rooms.into_iter().flatten().min().unwrap_or(Mono::NEVER);
        first.min(self.phase.next_wakeup())
    }
}
