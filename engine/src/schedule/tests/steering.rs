//! What an operator does to waiting mail: exact counts, nothing lost, nothing given out that was
//! taken back, and no look through the queue where none is promised.

use super::*;
use crate::model::admin::{Reach, SiteReport, Steer, Steered, Verb, Wanted};
use crate::schedule::course::Waits;

const MX: &str = "mx.example";

fn flow(tenant: &str) -> Arc<Flow> {
    Arc::new(Flow { tenant: tenant.into(), campaign: "spring".into(), ..Flow::default() })
}

fn tenant(name: &str) -> Reach {
    Reach::Tenant(name.into())
}

impl World {
    fn steer(&mut self, verb: Verb, reach: Reach, dry_run: bool) -> Steered {
        let (lasts, reason) = (None, "a test".into());
        let steer = Steer { verb, reach, dry_run, order: 1, lasts, reason };
        let steered = self.scheduler.handle_steer(self.now, &steer);
        self.carry_out();
        steered
    }

    fn send_of(&mut self, tenant: &str, count: usize) -> Vec<MessageId> {
        let flow = flow(tenant);
        (0..count).map(|_| self.send_as(&flow, "a.example", 0, 1)).collect()
    }

    /// Hands in what was deferred before a restart, due in an hour.
    fn restore_of(&mut self, tenant: &str, count: usize) {
        for _ in 0..count {
            self.next_message += 1;
            let message = MessageId::new(SegmentSeq(1), u32::try_from(self.next_message).unwrap());
            self.fates.insert((message.0, 0), None);
            let delivery = Delivery {
                message,
                home: ShardId(0),
                place: Place { segment: SegmentSeq(1), offset: 64, bytes: 1000 },
                in_pieces: 0,
                first: 0,
                count: 1,
                attempts: 1,
                accepted: self.now.wall,
                record: None,
            };
            let due = self.now.mono.plus(60 * MINUTE);
            self.hand_in("a.example".into(), flow(tenant), delivery, Some(due));
        }
    }

    /// Answers so many deliveries with a reply that defers them.
    fn defer_some(&mut self, count: usize) {
        for _ in 0..count {
            let busy = self.connections.iter().position(|one| !one.work.is_empty()).unwrap();
            self.done(busy, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
        }
    }

    fn cancelled(&self) -> usize {
        let is_cancelled =
            |fate: &&Option<Outcome>| matches!(fate, Some(Outcome::Cancelled { .. }));
        self.fates.values().filter(is_cancelled).count()
    }

    fn waiting(&self) -> u64 {
        self.scheduler.list_queue(self.now, 10).total.waiting()
    }
}

#[test]
fn a_dry_run_counts_and_does_nothing() {
    let mut world = World::new(1, settings());
    world.restore_of("acme", 7);
    world.restore_of("other", 5);
    for verb in [Verb::Hold, Verb::Flush, Verb::Cancel, Verb::Reroute] {
        let would = world.steer(verb, tenant("acme"), true);
        assert_eq!((would.amounts.deferred, would.sites, would.known), (7, 1, true), "{verb:?}");
    }
    world.pass(MINUTE);
    assert_eq!((world.waiting(), world.cancelled(), world.relocated.len()), (12, 0, 0));
    assert!(world.facts.is_empty(), "{:?}", world.facts);
    let unknown = world.steer(Verb::Hold, Reach::Site("mx.nowhere".into()), true);
    assert!(!unknown.known);
}

/// Ready, deferred and restored mail: what was accepted before is settled silently, what comes later
/// is delivered, and what was on a connection ends as it may.
#[test]
fn what_is_cancelled_is_never_given_out_again() {
    let mut world = World::new(1, settings());
    let early = world.send_of("acme", 40);
    world.restore_of("acme", 300);
    world.restore_of("other", 9);
    let under_way: usize = world.connections.iter().map(|one| one.work.len()).sum();
    let done = world.steer(Verb::Cancel, tenant("acme"), false);
    let expected = 340 - u64::try_from(under_way).unwrap();
    assert_eq!((done.amounts.waiting(), done.amounts.in_flight), (expected, 340 - expected));
    assert_eq!(world.waiting(), 9, "counted out at once");
    world.pass(Duration::from_millis(1));
    let late = world.send_of("acme", 3);
    world.end(0, LeaseEnd::Finished);
    world.calm();
    assert_eq!(world.scheduler.counts().queued, 0);
    for message in late {
        assert!(matches!(world.fates[&(message.0, 0)], Some(Outcome::Delivered { .. })));
    }
    let settled = early.iter().filter(|id| world.fates[&(id.0, 0)].is_some()).count();
    assert_eq!(settled, 40);
    assert!(world.cancelled() >= usize::try_from(expected).unwrap());
    assert!(!world.fates.values().any(|fate| matches!(fate, Some(Outcome::Failed { .. }))));
    assert!(matches!(world.facts[0], Fact::Steered { verb: "cancel", .. }), "{:?}", world.facts);
}

#[test]
fn a_cancelled_delivery_that_comes_in_late_is_dropped() {
    let mut world = World::new(1, settings());
    let before = world.now;
    world.steer(Verb::Cancel, tenant("acme"), false);
    world.pass(SECOND);
    let now = std::mem::replace(&mut world.now, before);
    world.restore_of("acme", 1);
    world.now = now;
    assert_eq!((world.cancelled(), world.scheduler.counts().queued), (1, 0));
    world.send_of("acme", 1);
    world.calm();
    assert_eq!(world.cancelled(), 1);
}

/// The mail of a held tenant is cancelled behind its hold; others are served meanwhile, though many
/// cancelled ones stand before them.
#[test]
fn cancelled_mail_stands_in_nobodys_way() {
    let mut world = World::new(1, settings());
    world.send_of("acme", 2000);
    let other = world.send_of("other", 1);
    world.steer(Verb::Cancel, tenant("acme"), false);
    while let Some(busy) = world.connections.iter().position(|one| !one.work.is_empty()) {
        world.deliver(busy);
    }
    assert!(world.fates[&(other[0].0, 0)].is_some(), "served before the sweep is through");
    assert!(world.cancelled() < 1000);
    world.calm();
    assert_eq!(world.scheduler.counts().queued, 0);
}

#[test]
fn a_flush_lets_deferred_mail_go_at_once_and_once() {
    for reach in [tenant("acme"), Reach::Site(MX.into()), Reach::All] {
        let mut world = World::new(1, settings());
        world.restore_of("acme", 600);
        world.send_of("acme", 3);
        for at in 0..3 {
            world.done(at, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
        }
        assert_eq!(world.scheduler.list_queue(world.now, 1).total.deferred, 603);
        let flushed = world.steer(Verb::Flush, reach.clone(), false);
        assert_eq!(flushed.amounts.deferred, 603, "{reach}");
        world.pass(Duration::from_millis(100));
        assert_eq!(world.relocated.len(), 603, "{reach}");
        let busy = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
        world.done(busy, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
        world.pass(SECOND);
        assert_eq!(world.relocated.len(), 603, "deferred again, it waits: {reach}");
    }
}

/// What is deferred anew is due with what was, where a reload has shortened the waits; it is left in
/// peace all the same.
#[test]
fn a_flush_lets_go_what_was_deferred_with_longer_waits() {
    const COUNT: usize = 3000;
    for reach in [tenant("acme"), Reach::Site(MX.into())] {
        let own = SiteSettings { retry: vec![60 * MINUTE], connections: 1, ..settings() };
        let mut world = World::new(1, SiteSettings { messages_per_connection: 1_000_000, ..own });
        world.send_of("acme", COUNT);
        world.defer_some(COUNT);
        world.settings.sites.default.retry = vec![MINUTE];
        world.scheduler.handle_settings(world.now, &world.settings);
        let flushed = world.steer(Verb::Flush, reach.clone(), false);
        assert_eq!(flushed.amounts.deferred, COUNT as u64);
        while world.relocated.is_empty() {
            world.pass(Duration::from_micros(100));
        }
        assert!((1..COUNT).contains(&world.relocated.len()), "{reach}");
        let others = Flow { campaign: "autumn".into(), ..(*flow("acme")).clone() };
        let others = Arc::new(others);
        (0..20).for_each(|_| _ = world.send_as(&others, "a.example", 0, 1));
        world.defer_some(60);
        if let Reach::Tenant(_) = reach {
            let task = sweep::Task::Flush { reach: reach.clone() };
            world.scheduler.sweep.add(world.now.mono, task, world.scheduler.entries.slots());
        }
        world.pass(SECOND);
        let mut once: Vec<MessageId> =
            world.relocated.iter().map(|(_, message)| *message).collect();
        once.sort_unstable();
        once.dedup();
        assert_eq!((once.len(), world.relocated.len()), (COUNT, COUNT), "{reach}");
    }
}

#[test]
fn a_flush_knocks_at_a_closed_door() {
    let mut world = World::new(1, settings());
    world.send_some(3);
    for _ in 0..10 {
        if world.connections.is_empty() {
            break;
        }
        world.end(0, LeaseEnd::Unreachable(trouble(Cause::Site, 421, "down")));
    }
    let closed = |world: &World| {
        matches!(world.view().waits_for, WaitsFor::Limit(Hindrance::Unreachable { .. }))
    };
    world.send_some(3);
    assert!(closed(&world) && world.connections.is_empty(), "{:?}", world.view());
    world.steer(Verb::Flush, Reach::Site(MX.into()), false);
    assert_eq!(world.connections.len(), 1, "one tries");
    world.calm();
}

#[test]
fn a_reroute_looks_all_routes_up_and_keeps_due_times() {
    let mut world = World::new(1, SiteSettings { connections: 1, ..settings() });
    world.restore_of("acme", 300);
    world.restore_of("other", 2);
    world.send_of("acme", 8);
    let ready = world.scheduler.list_queue(world.now, 9).total.ready;
    let done = world.steer(Verb::Reroute, tenant("acme"), false);
    assert_eq!(done.amounts.deferred, 300);
    world.pass(Duration::from_millis(50));
    assert_eq!(world.relocated.len() as u64, 300 + ready);
    let amounts = world.scheduler.list_queue(world.now, 9).total;
    assert_eq!((amounts.deferred, amounts.ready), (302, ready));
    world.pass(30 * MINUTE);
    assert_eq!(world.scheduler.list_queue(world.now, 9).total.deferred, 302, "not before its time");
    world.calm();
}

#[test]
fn a_hold_keeps_new_mail_too_and_says_so() {
    let mut world = World::new(1, settings());
    world.steer(Verb::Hold, tenant("acme"), false);
    let held = world.send_of("acme", 4);
    world.send_of("other", 1);
    assert_eq!(world.connections.len(), 1);
    let wanted = Wanted {
        site: SiteKey::MxSet(MX.into()),
        domain: "a.example".into(),
        flow: flow("acme"),
        message: held[0],
    };
    let waiting = world.scheduler.describe_wait(world.now, &wanted).unwrap();
    assert_eq!((waiting.amounts.ready, waiting.in_flight), (4, false));
    let binding = waiting.binding.unwrap();
    assert_eq!((&*binding.what, binding.origin.as_deref()), ("held", Some("operator: a test")));
    assert_eq!(world.scheduler.list_queue(world.now, 9).holds.len(), 1);
    world.steer(Verb::Release, tenant("acme"), false);
    world.calm();
    assert!(held.iter().all(|id| world.fates[&(id.0, 0)].is_some()));
}

#[test]
fn held_mail_expires_all_the_same() {
    let mut world = World::new(1, SiteSettings { expire: MINUTE, ..settings() });
    world.steer(Verb::Hold, Reach::Site(MX.into()), false);
    world.send_some(2);
    world.steer(Verb::Hold, Reach::Site(MX.into()), false);
    world.pass(3 * MINUTE);
    assert!(world.fates.values().all(|fate| matches!(fate, Some(Outcome::Failed { .. }))));
}

#[test]
fn a_name_is_looked_for_among_domains_only_where_that_is_asked() {
    let mut world = World::new(1, settings());
    world.send_some(2);
    let name = |report: SiteReport| report.site;
    assert_eq!(world.scheduler.describe_site(world.now, MX).map(name).as_deref(), Some(MX));
    assert!(world.scheduler.describe_site(world.now, "a.example").is_none());
    let of_domain = world.scheduler.describe_sites_of(world.now, "a.example");
    assert_eq!(of_domain.into_iter().map(name).collect::<Vec<_>>(), [MX]);
    assert!(world.scheduler.describe_sites_of(world.now, MX).is_empty());
}

/// What a site or a delivery waits for is told by looking at a few heads of queues.
#[test]
fn to_explain_is_not_to_scan() {
    const DEFERRED: usize = 100_000;
    const LOOKS_MAX: usize = 300;
    let mut world = World::new(1, settings());
    world.restore_of("acme", DEFERRED);
    let message = world.send_of("acme", 10)[9];
    let flow = flow("acme");
    let wanted =
        Wanted { site: SiteKey::MxSet(MX.into()), domain: "a.example".into(), flow, message };
    let looked_at = || world.scheduler.entries.looked_at.get();
    let before = looked_at();
    let report = world.scheduler.describe_site(world.now, MX).unwrap();
    assert_eq!(report.amounts.deferred, DEFERRED as u64);
    assert!(report.waits_for.as_ref().is_some_and(|one| one.what == "connections"), "{report:?}");
    assert!(world.scheduler.describe_wait(world.now, &wanted).is_some());
    assert_eq!(world.scheduler.list_sites(world.now, 10).sites.len(), 1);
    assert_eq!(world.scheduler.list_queue(world.now, 10).flows.len(), 1);
    let looks = looked_at() - before;
    assert!(looks <= LOOKS_MAX, "{looks} entries were read");
}

/// Mail of a wrong clock lies ahead of the order that cancels it.
#[test]
fn what_was_accepted_by_a_clock_ahead_is_cancelled_and_counted_all_the_same() {
    let mut world = World::new(1, settings());
    let now = world.now;
    world.now.wall = now.wall.plus(60 * MINUTE);
    world.restore_of("acme", 5);
    world.now = now;
    world.steer(Verb::Hold, tenant("acme"), false);
    world.send_of("acme", 3);
    world.steer(Verb::Cancel, tenant("acme"), false);
    assert_eq!(world.waiting(), 0);
    assert_eq!(world.steer(Verb::Cancel, tenant("acme"), false).amounts.waiting(), 0);
    world.pass(SECOND);
    assert_eq!((world.waiting(), world.cancelled()), (0, 8));
    let site = world.scheduler.sites.find(&SiteKey::MxSet(MX.into())).unwrap();
    assert_eq!(world.scheduler.sites[site].cancelled, Waits::default());
}

/// What comes to a site after the order, from another one, was never meant.
#[test]
fn an_order_for_a_site_spares_what_was_elsewhere_then() {
    for is_restored in [false, true] {
        let mut world = World::new(1, settings());
        world.way = hosts_of("mx.other");
        world.restore_of("acme", 3);
        world.way = hosts();
        world.send_of("acme", 1);
        if is_restored {
            let (key, newest) = (cancel_key(Some(&Scope::Site(MX.into()))), [u64::MAX].into());
            let value = Reached { first: 1, newest }.encode();
            let item = StateItem::new(crate::model::state::Topic::Cancel, key, value);
            world.scheduler.handle_restored(world.now, &item);
        } else {
            world.steer(Verb::Cancel, Reach::Site(MX.into()), false);
        }
        world.pass(SECOND);
        world.steer(Verb::Reroute, tenant("acme"), false);
        world.pass(SECOND);
        world.calm();
        assert_eq!((world.relocated.len() >= 3, world.cancelled()), (true, 0));
        assert_eq!(world.scheduler.counts().queued, 0);
    }
}

#[test]
fn an_order_for_a_site_reaches_what_is_on_its_way_there() {
    let mut world = World::new(1, settings());
    let left = world.now.mono;
    world.restore_of("acme", 1);
    let accepted = world.now.wall;
    world.pass(SECOND);
    world.steer(Verb::Cancel, Reach::Site(MX.into()), false);
    world.pass(SECOND);
    assert_eq!(world.cancelled(), 1);
    for (left, cancelled) in [(None, 2), (Some(left), 3), (Some(world.now.mono), 3)] {
        world.next_message += 1;
        let message = MessageId::new(SegmentSeq(1), u32::try_from(world.next_message).unwrap());
        world.fates.insert((message.0, 0), None);
        let place = Place { segment: SegmentSeq(1), offset: 64, bytes: 1000 };
        let delivery = Delivery {
            message,
            home: ShardId(0),
            place,
            in_pieces: 0,
            first: 0,
            count: 1,
            attempts: 1,
            accepted,
            record: None,
        };
        world.hand_over(("a.example".into(), flow("acme")), delivery, None, left);
        world.carry_out();
        assert_eq!(world.cancelled(), cancelled, "{left:?}");
    }
}
