//! postrider's own scheduler as a sender: all that this benchmark knows of it is in this file.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use postrider_engine::base::cell::Budget;
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::delivery::{Delivery, LeaseId};
use postrider_engine::model::message::{MessageId, Place, SegmentSeq};
use postrider_engine::model::note::{
    Attempt, Class, Done, LeaseEnd, Opening, Parcel, RecipientResult,
};
use postrider_engine::model::outcome::{Enhanced, Reply};
use postrider_engine::model::route::{Bearing, MailHost, SiteKey, Target, Way};
use postrider_engine::model::settings::{OutcomeDurability, SiteSettings, SiteTable};
use postrider_engine::schedule::{Action, Scheduler};

use super::receiver::Answer;
use super::world::{Ending, Heard, Mail, Order, Sender};

/// Wall time of monotonic zero; any day will do.
const EPOCH: u64 = 1_700_000_000_000_000_000;
/// Ordinals used of each segment, to give every mail a name.
const MAILS_PER_SEGMENT: u32 = 1 << 20;

/// One shard that owns the site and executes its own leases.
pub(crate) struct Ours {
    scheduler: Scheduler,
    table: SiteTable,
    target: Arc<Target>,
    domains: Vec<Arc<str>>,
    leases: Vec<Option<Lease>>,
    orders: VecDeque<Order>,
}

/// A permit at work: what the egress session would know.
struct Lease {
    id: LeaseId,
    given: VecDeque<Delivery>,
    /// Messages that were answered to their end.
    completed: u32,
}

impl Ours {
    /// `connections`: what the operator allows for the site.
    pub(crate) fn new(now: Mono, domains: u16, connections: u32) -> Self {
        let body_memory = Arc::new(Budget::new(u64::MAX));
        let durability = OutcomeDurability::Grouped;
        let scheduler = Scheduler::new(ShardId(0), 1, durability, body_memory, at(now));
        let settings = SiteSettings { connections, ..SiteSettings::default() };
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 25));
        let host = MailHost { name: "mx.provider.example".into(), addresses: vec![address] };
        let target = Target {
            site: SiteKey::MxSet("mx.provider.example".into()),
            way: Way::Hosts(vec![host]),
            fresh_until: Mono::NEVER,
        };
        Self {
            scheduler,
            table: SiteTable { default: settings, by_domain: Vec::new() },
            target: Arc::new(target),
            domains: (0..domains).map(|number| format!("d{number}.example").into()).collect(),
            leases: Vec::new(),
            orders: VecDeque::new(),
        }
    }

    /// A delivery for the scheduler, fresh or due again. Its flow (class, tenant) goes here.
    fn hand_in(&mut self, now: Mono, domain: Arc<str>, delivery: Delivery) {
        let bearing = Bearing { domain, target: Arc::clone(&self.target) };
        let parcel = Parcel { bearing, delivery };
        self.scheduler.handle_parcel(at(now), parcel, &self.table, None);
    }

    fn carry_out(&mut self, now: Mono) {
        while let Some(action) = self.scheduler.poll_action() {
            match action {
                Action::Open { opening, .. } => self.open(&opening),
                Action::Work { lease, delivery, .. } => self.give(lease, delivery),
                Action::Close { lease, .. } => {
                    self.orders.push_back(Order::Close { conn: lease.slot });
                }
                Action::Relocate { domain, delivery } => self.hand_in(now, domain, delivery),
                Action::Settle { .. } | Action::Report(_) => {}
            }
        }
    }

    fn open(&mut self, opening: &Opening) {
        let id = opening.lease;
        let index = id.slot as usize;
        if self.leases.len() <= index {
            self.leases.resize_with(index + 1, || None);
        }
        self.leases[index] = Some(Lease { id, given: VecDeque::new(), completed: 0 });
        self.orders.push_back(Order::Connect { conn: id.slot });
    }

    fn give(&mut self, lease: LeaseId, delivery: Delivery) {
        let mail = number_of(delivery.message);
        if let Some(lease) = self.leases[lease.slot as usize].as_mut() {
            lease.given.push_back(delivery);
        }
        self.orders.push_back(Order::Give { conn: lease.slot, mail });
    }

    /// Reports the front delivery of a connection.
    fn done(&mut self, now: Mono, conn: u32, result: impl FnOnce(&Lease, &Delivery) -> Attempt) {
        let Some(lease) = self.leases[conn as usize].as_mut() else { return };
        let Some(delivery) = lease.given.pop_front() else { return };
        let done = Done::new(&delivery, result(lease, &delivery));
        lease.completed += u32::from(matches!(done.result, Attempt::Delivered(_)));
        let id = lease.id;
        self.scheduler.handle_done(at(now), id, done);
    }

    fn ended(&mut self, now: Mono, conn: u32, how: Ending) {
        let Some(lease) = self.leases[conn as usize].take() else { return };
        // What crossed with the end: the scheduler takes its deliveries back by itself.
        self.orders.retain(|order| order.conn() != conn);
        let end = match how {
            Ending::Finished => LeaseEnd::Finished,
            Ending::TurnedAway => LeaseEnd::TurnedAway(slow_down()),
            // A host that has completed a message on this connection is not unreachable.
            Ending::Lost if lease.completed > 0 => LeaseEnd::Finished,
            Ending::Refused | Ending::Silent | Ending::Lost => LeaseEnd::Unreachable(unanswered()),
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
            first: 0,
            count: 1,
            attempts: 0,
            accepted: at(now).wall,
            record: None,
        };
        let domain = Arc::clone(&self.domains[usize::from(mail.domain)]);
        self.hand_in(now, domain, delivery);
        self.carry_out(now);
    }

    fn handle_heard(&mut self, now: Mono, heard: Heard) {
        match heard {
            Heard::Answered { conn, answer, .. } => self
                .done(now, conn, |lease, delivery| attempt(answer, delivery, lease.completed > 0)),
            Heard::Untried { conn, .. } => self.done(now, conn, |_, _| Attempt::NotTried),
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
}

/// What the egress session reports for an answer.
fn attempt(answer: Answer, delivery: &Delivery, has_completed: bool) -> Attempt {
    match answer {
        Answer::Taken => Attempt::Delivered(Reply::remote(250, None, "ok")),
        Answer::SlowDown => Attempt::Throttled(slow_down()),
        Answer::Lost if has_completed => Attempt::NotTried,
        Answer::Lost => deferred(delivery, &unanswered()),
        Answer::Later => {
            let text = "greylisted, try again in five minutes";
            deferred(delivery, &Reply::remote(451, Some(Enhanced(4, 7, 1)), text))
        }
    }
}

fn deferred(delivery: &Delivery, reply: &Reply) -> Attempt {
    let result =
        |recipient| RecipientResult { recipient, class: Class::Deferred, reply: reply.clone() };
    Attempt::Mixed(delivery.recipients().map(result).collect())
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
