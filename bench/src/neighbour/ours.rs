//! postrider's own scheduler as a sender: all that this benchmark knows of it is in this file.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postrider_engine::base::cell::{Budget, CellTable};
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::config;
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::delivery::{Delivery, LeaseId};
use postrider_engine::model::flow::{Flow, MailClass};
use postrider_engine::model::message::{MessageId, Place, SegmentSeq};
use postrider_engine::model::note::{
    Attempt, Cause, Class, Complaint, Done, LeaseEnd, Opening, Parcel, Phases, RecipientResult,
    Took, Trouble,
};
use postrider_engine::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};
use postrider_engine::model::route::{Bearing, MailHost, SiteKey, Target, Way};
use postrider_engine::model::settings::Settings;
use postrider_engine::schedule::{Action, Scheduler};

use super::receiver::Answer;
use super::world::{self, Ending, Heard, Mail, Order, Sender};

/// Wall time of monotonic zero; any day will do.
const EPOCH: u64 = 1_700_000_000_000_000_000;
/// Ordinals used of each segment, to give every mail a name.
const MAILS_PER_SEGMENT: u32 = 1 << 20;

/// One shard that owns the site and executes its own leases.
pub(crate) struct Ours {
    scheduler: Scheduler,
    target: Arc<Target>,
    domains: Vec<Arc<str>>,
    flows: Vec<[Arc<Flow>; 2]>,
    leases: Vec<Option<Lease>>,
    orders: VecDeque<Order>,
    given_up: u64,
}

/// A permit at work: what the egress session would know.
struct Lease {
    id: LeaseId,
    given: VecDeque<Delivery>,
    /// Messages that were answered to their end.
    completed: u32,
    /// How long the greeting took, until it is told.
    untold: Took,
}

impl Ours {
    /// `connections`: what the operator allows for the site.
    pub(crate) fn new(now: Mono, domains: u16, tenants: u16, connections: u32) -> Self {
        let body_memory = Arc::new(Budget::new(u64::MAX));
        let cells = Arc::new(CellTable::new(1));
        let settings = settings(connections);
        let scheduler = Scheduler::new(ShardId(0), 1, &settings, body_memory, cells, at(now));
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 25));
        let name = "mx.provider.example";
        let host = MailHost { preference: 10, name: name.into(), addresses: vec![address] };
        let target = Target::new(SiteKey::MxSet(name.into()), Way::Hosts(vec![host]), Mono::NEVER);
        Self {
            scheduler,
            target: Arc::new(target),
            domains: (0..domains).map(|number| format!("d{number}.example").into()).collect(),
            flows: (0..tenants).map(flows).collect(),
            leases: Vec::new(),
            orders: VecDeque::new(),
            given_up: 0,
        }
    }

    /// A delivery for the scheduler, fresh or due again.
    fn hand_in(
        &mut self,
        now: Mono,
        (domain, flow): (Arc<str>, Arc<Flow>),
        delivery: Delivery,
        due: Option<Mono>,
    ) {
        let bearing = Bearing { domain, flow, target: Arc::clone(&self.target) };
        self.scheduler.handle_parcel(at(now), Parcel { bearing, delivery, left: None }, due);
    }

    fn carry_out(&mut self, now: Mono) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::Open { opening, .. } => self.open(&opening),
                Action::Work { lease, delivery, .. } => self.give(lease, delivery),
                // The receivers of these worlds have one host.
                Action::Leave { .. } => {}
                Action::Close { lease, .. } => {
                    self.orders.push_back(Order::Close { conn: lease.slot });
                }
                Action::Relocate { domain, flow, delivery, due } => {
                    self.hand_in(now, (domain, flow), delivery, due);
                }
                Action::Hold { scope, hold } => {
                    self.scheduler.handle_hold(at(now), &scope, hold);
                }
                Action::Grant { cell, grant, .. } => {
                    self.scheduler.handle_grant(at(now), cell, grant);
                }
                Action::Settle { settlement, .. } => {
                    self.given_up += given_up(&settlement.outcomes)
                }
                Action::CancelOver { .. }
                | Action::Remember(_)
                | Action::WriteDay { .. }
                | Action::Report(_) => {}
            }
        }
    }

    fn open(&mut self, opening: &Opening) {
        let id = opening.lease;
        let index = id.slot as usize;
        if self.leases.len() <= index {
            self.leases.resize_with(index + 1, || None);
        }
        let lease = Lease { id, given: VecDeque::new(), completed: 0, untold: Took::NOT };
        self.leases[index] = Some(lease);
        self.orders.push_back(Order::Connect { conn: id.slot });
    }

    fn give(&mut self, lease: LeaseId, delivery: Delivery) {
        let mail = number_of(delivery.message);
        if let Some(lease) = self.leases[lease.slot as usize].as_mut() {
            lease.given.push_back(delivery);
        }
        self.orders.push_back(Order::Give { conn: lease.slot, mail });
    }

    /// The connection can take mail; the scheduler is told so only where it has none yet.
    fn opened(&mut self, now: Mono, conn: u32, greeting: Duration) {
        let Some(lease) = self.leases[conn as usize].as_mut() else { return };
        lease.untold = took(greeting);
        if lease.given.is_empty() {
            self.scheduler.handle_ready(at(now), lease.id);
        }
    }

    /// Reports the front delivery of a connection.
    fn done(
        &mut self,
        now: Mono,
        conn: u32,
        dot: Took,
        result: impl FnOnce(&Lease, &Delivery) -> Attempt,
    ) {
        let Some(lease) = self.leases[conn as usize].as_mut() else { return };
        let Some(delivery) = lease.given.pop_front() else { return };
        let result = result(lease, &delivery);
        let greeting = std::mem::take(&mut lease.untold);
        let phases = Phases { greeting, dot, ..Phases::default() };
        let done = Done { phases, ..Done::new(&delivery, result) };
        let is_completed =
            matches!(done.result, Attempt::Delivered(_) | Attempt::Mixed { complaint: None, .. });
        lease.completed += u32::from(is_completed);
        let id = lease.id;
        self.scheduler.handle_done(at(now), id, done);
    }

    fn ended(&mut self, now: Mono, conn: u32, how: Ending) {
        let Some(lease) = self.leases[conn as usize].take() else { return };
        // What crossed with the end: the scheduler takes its deliveries back by itself.
        self.orders.retain(|order| order.conn() != conn);
        let phases = Phases { greeting: lease.untold, ..Phases::default() };
        let trouble =
            |cause, reply| Box::new(Trouble { phases, ..*Trouble::nowhere(cause, reply) });
        let end = match how {
            Ending::Finished => LeaseEnd::Finished,
            Ending::TurnedAway => LeaseEnd::TurnedAway(trouble(Cause::Throttle, slow_down())),
            // A host that has completed a message on this connection is not unreachable.
            Ending::Lost if lease.completed > 0 => LeaseEnd::Finished,
            Ending::Refused | Ending::Silent | Ending::Lost => {
                LeaseEnd::Unreachable(trouble(Cause::Site, unanswered()))
            }
        };
        self.scheduler.handle_ended(at(now), lease.id, end);
    }
}

impl Sender for Ours {
    fn handle_mail(&mut self, now: Mono, mail: &Mail) {
        let segment = SegmentSeq(1 + u64::from(mail.number / MAILS_PER_SEGMENT));
        let message = MessageId::new(segment, mail.number % MAILS_PER_SEGMENT);
        let delivery = Delivery {
            message,
            home: ShardId(0),
            place: Place { segment, offset: 64, bytes: 4096 },
            in_pieces: 0,
            first: 0,
            count: 1,
            attempts: 0,
            accepted: at(now).wall,
            record: None,
        };
        let domain = Arc::clone(&self.domains[usize::from(mail.domain)]);
        let flows = &self.flows[usize::from(mail.tenant)];
        let flow = Arc::clone(&flows[usize::from(mail.class == world::Class::Transactional)]);
        self.hand_in(now, (domain, flow), delivery, None);
        self.carry_out(now);
    }

    fn handle_heard(&mut self, now: Mono, heard: Heard) {
        match heard {
            Heard::Opened { conn, greeting } => self.opened(now, conn, greeting),
            Heard::Answered { conn, answer, took: time, .. } => {
                let dot = if answer == Answer::Taken { took(time) } else { Took::NOT };
                self.done(now, conn, dot, |lease, delivery| {
                    attempt(answer, delivery, lease.completed > 0)
                });
            }
            Heard::Untried { conn, .. } => {
                self.done(now, conn, Took::NOT, |_, _| Attempt::NotTried);
            }
            Heard::Ended { conn, how } => self.ended(now, conn, how),
        }
        self.carry_out(now);
    }

    fn handle_time(&mut self, now: Mono) {
        self.scheduler.handle_time(at(now));
        self.carry_out(now);
    }

    fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    fn next_wakeup(&self) -> Option<Mono> {
        self.scheduler.next_wakeup()
    }

    /// The final dot and the next envelope share a flight.
    fn round_trips(&self) -> u32 {
        1
    }

    fn given_up(&self) -> u64 {
        self.given_up
    }
}

/// Recipients that get nothing; each message has one.
fn given_up(outcomes: &[RangeOutcome]) -> u64 {
    let is_lost = |one: &&RangeOutcome| {
        matches!(one.outcome, Outcome::Failed { .. } | Outcome::Cancelled { .. })
    };
    outcomes.iter().filter(is_lost).map(|one| u64::from(one.count)).sum()
}

/// What the egress session reports for an answer.
fn attempt(answer: Answer, delivery: &Delivery, has_completed: bool) -> Attempt {
    match answer {
        Answer::Taken => Attempt::Delivered(Reply::remote(250, None, "ok")),
        Answer::SlowDown => {
            Attempt::Throttled(Complaint { cause: Cause::Throttle, reply: slow_down() })
        }
        Answer::Lost if has_completed => Attempt::NotTried,
        Answer::Lost => {
            let complaint = Complaint { cause: Cause::Site, reply: unanswered() };
            deferred(delivery, Cause::Site, &unanswered(), Some(complaint))
        }
        Answer::Later => {
            let text = "greylisted, try again in five minutes";
            let reply = Reply::remote(451, Some(Enhanced(4, 7, 1)), text);
            deferred(delivery, Cause::Greylist, &reply, None)
        }
    }
}

fn deferred(
    delivery: &Delivery,
    cause: Cause,
    reply: &Reply,
    complaint: Option<Complaint>,
) -> Attempt {
    let class = Class::Deferred;
    let result = |recipient| RecipientResult { recipient, class, cause, reply: reply.clone() };
    Attempt::Mixed { recipients: delivery.recipients().map(result).collect(), complaint }
}

/// As an operator would write it; all else is as it comes.
fn settings(connections: u32) -> Settings {
    let text = format!("hostname = \"mta.example\"\n[site.default]\nconnections = {connections}\n");
    let settings = config::parse(&text, "postrider.toml", "mta.example");
    settings.unwrap_or_else(|problems| panic!("sound settings: {problems:?}"))
}

/// The bulk and the transactional mail of a tenant.
fn flows(tenant: u16) -> [Arc<Flow>; 2] {
    [MailClass::Bulk, MailClass::Transactional].map(|class| {
        let tenant = format!("t{tenant}").into();
        Arc::new(Flow { class, tenant, ..Flow::default() })
    })
}

fn took(time: Duration) -> Took {
    Took::between(Mono(0), Mono(0).plus(time))
}

fn slow_down() -> Reply {
    Reply::remote(421, Some(Enhanced(4, 7, 0)), "rate limit exceeded, slow down")
}

fn unanswered() -> Reply {
    Reply::local(451, Enhanced(4, 4, 2), "connection refused")
}

fn number_of(message: MessageId) -> u32 {
    let segment = u32::try_from(message.segment().0).unwrap_or(1);
    (segment - 1) * MAILS_PER_SEGMENT + message.ordinal()
}

fn at(now: Mono) -> Now {
    Now { mono: now, wall: Wall(EPOCH + now.0) }
}
