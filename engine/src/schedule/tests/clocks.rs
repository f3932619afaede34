//! When a delivery is tried again, and when its time is over.

use super::*;

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

/// Replies name recipients, and reports go to other people's customers.
#[test]
fn a_report_never_quotes_what_was_said_of_another_recipient() {
    let short = SiteSettings { expire: 10 * MINUTE, connections: 1, ..settings() };
    let mut world = World::new(1, short);
    let refused = world.send("a.example", 0, 1);
    let untried: Vec<_> = (0..4).map(|_| world.send("a.example", 0, 1)).collect();
    world.done(0, |delivery| mixed(delivery, |_| (Class::Deferred, 450)));
    assert!(world.view().last_reply.is_some_and(|reply| reply.code == 450), "explain shows it");
    world.pass(11 * MINUTE);
    world.end(0, LeaseEnd::Finished);
    assert!(world.failed(refused).is_some());
    for message in untried.into_iter().skip(2) {
        let reply = world.failed(message).expect("its time is over");
        assert_eq!(&*reply.text, "delivery time expired");
    }
}

/// A host may slow us down within a transaction, and name whom it was about.
#[test]
fn a_report_quotes_a_throttled_transaction_only_without_an_address_in_it() {
    let quoted = |said: &str| {
        let short = SiteSettings { expire: 10 * MINUTE, connections: 1, ..settings() };
        let mut world = World::new(1, short);
        let message = world.send("a.example", 0, 1);
        for _ in 0..40 {
            while !world.connections.is_empty() {
                world.done(0, |_| throttled(421, said));
                world.end(0, LeaseEnd::Finished);
                assert!(world.view().last_reply.is_some_and(|reply| &*reply.text == said));
            }
            world.pass(30 * SECOND);
        }
        world.failed(message).expect("its time is over").text.to_string()
    };
    assert_eq!(quoted("slow down"), "delivery time expired; last reply: 421 slow down");
    assert!(!quoted("too much for bob@a.example").contains("bob"));
}

#[test]
fn expiry_comes_neither_early_nor_more_than_a_bucket_late() {
    let hours = |hours: u32| 60 * MINUTE * hours;
    for (expire, bucket) in [(hours(5 * 24), MINUTE), (hours(24), MINUTE), (hours(1), SECOND)] {
        let mut world = World::new(1, SiteSettings { connections: 0, expire, ..settings() });
        let message = world.send("a.example", 0, 1);
        world.pass(expire - SECOND);
        assert!(world.failed(message).is_none());
        world.pass(SECOND + bucket + SECOND);
        assert!(world.failed(message).is_some());
    }
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
    assert!(world.scheduler.handle_hold(world.now, &Scope::Tenant("acme".into()), hold));
    world.scheduler.handle_stop(world.now);
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
