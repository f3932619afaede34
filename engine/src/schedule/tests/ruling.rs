//! What rules do to mail: whatever a reply says, it means what the operator wrote.

use super::*;
use crate::model::settings::{
    Action as RuleAction, Origin, RuleScope, RuleSettings, Subject, Trigger,
};
use crate::model::signal::Remote;

fn rule(reply: &str, action: RuleAction) -> RuleSettings {
    RuleSettings {
        name: reply.into(),
        reply: reply.into(),
        scope: RuleScope::default(),
        trigger: Trigger::Each,
        action,
        origin: Origin::default(),
    }
}

/// One connection, with the first of ten messages on it.
fn ruled(rules: Vec<RuleSettings>) -> World {
    let mut all = whole(SiteTable { default: settings(), by_domain: Vec::new() });
    all.rules = rules;
    let mut world = World::of_shard(ShardId(0), 1, all, Arc::new(CellTable::new(1)));
    world.send("a.example", 0, 2);
    for _ in 0..9 {
        world.send("a.example", 0, 1);
    }
    world
}

fn refused(delivery: &Delivery, class: Class, cause: Cause, code: u16) -> Attempt {
    let result =
        |recipient| RecipientResult { recipient, class, cause, reply: reply(code, "words") };
    let recipients = delivery.recipients().map(result).collect();
    Attempt::Mixed { recipients, complaint: None }
}

fn attempts(world: &World) -> Vec<u16> {
    world.outcomes.iter().map(|(_, one)| one.attempts).collect()
}

fn waits_for(world: &World) -> Option<Hindrance> {
    match world.view().waits_for {
        WaitsFor::Limit(hindrance) => Some(hindrance),
        _ => None,
    }
}

#[test]
fn what_a_rule_calls_throttling_slows_the_path_and_costs_no_attempt() {
    let mut world = ruled(vec![rule("^550 words", RuleAction::Throttle)]);
    let refuse = |delivery: &Delivery| refused(delivery, Class::Failed, Cause::Policy, 550);
    for _ in 0..20 {
        if let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
            world.done(at, refuse);
        }
    }
    assert!(world.outcomes.is_empty(), "nobody pays for it");
    assert!(matches!(waits_for(&world), Some(Hindrance::Throttled { .. })), "{:?}", world.view());
    assert!(world.view().last_reply.is_some_and(|reply| reply.code == 550));
    assert!(world.worked[0] < 10, "put back, and not given out again at once");
    world.calm();
    world.check_fates(0, 0);
}

#[test]
fn what_a_rule_defers_pays_its_attempt_and_leaves_the_path_alone() {
    let mut world = ruled(vec![rule("^421 words", RuleAction::Defer)]);
    world.done(0, |_| throttled(421, "words"));
    assert_eq!(attempts(&world), [1], "both recipients, one reply");
    assert!(matches!(world.outcomes[0].1.outcome, Outcome::Deferred { .. }));
    assert!(!matches!(waits_for(&world), Some(Hindrance::Throttled { .. })));
    world.calm();
    world.check_fates(0, 0);
}

#[test]
fn what_a_rule_bounces_is_over_whatever_its_code() {
    for complain in [true, false] {
        let mut world = ruled(vec![rule("^4.. words", RuleAction::Bounce)]);
        let first = world.connections[0].work[0].message;
        world.done(0, |delivery| match complain {
            true => throttled(421, "words"),
            false => refused(delivery, Class::Deferred, Cause::Throttle, 450),
        });
        assert_eq!(world.failed(first).map(|reply| reply.code / 100), Some(4));
        assert_eq!(attempts(&world), [1]);
        world.calm();
        world.check_fates(0, 0);
    }
}

#[test]
fn a_delivery_counts_once_for_a_rule_however_many_recipients_it_has() {
    let action = RuleAction::Backoff { wait: MINUTE };
    let counting = RuleSettings {
        trigger: Trigger::Count { count: 2, within: MINUTE },
        ..rule("^450", action)
    };
    let mut world = ruled(vec![counting]);
    let stopped = |world: &World| matches!(waits_for(world), Some(Hindrance::Held { .. }));
    world.done(0, |delivery| {
        assert_eq!(delivery.count, 2);
        refused(delivery, Class::Deferred, Cause::Recipient, 450)
    });
    assert!(!stopped(&world));
    let at = world.connections.iter().position(|one| !one.work.is_empty()).unwrap();
    world.done(at, |delivery| refused(delivery, Class::Deferred, Cause::Recipient, 450));
    assert!(stopped(&world));
}

#[test]
fn a_refused_connection_is_throttling_where_a_rule_says_so() {
    let mut world = ruled(vec![rule("too fast", RuleAction::Throttle)]);
    for _ in 0..world.connections.len() {
        let why = LeaseEnd::TurnedAway(trouble(Cause::Site, 554, "too fast"));
        world.end(0, why);
    }
    assert!(world.outcomes.is_empty(), "no message pays for it");
}

/// Most senders name no tenants, campaigns or sources: a rule must not stop all they have.
#[test]
fn to_suspend_what_has_no_name_stops_the_path_alone() {
    for what in [Subject::Tenant, Subject::Campaign, Subject::Source] {
        let mut world = ruled(vec![rule("^450", RuleAction::Suspend { what, lasts: MINUTE })]);
        world.done(0, |delivery| refused(delivery, Class::Deferred, Cause::Recipient, 450));
        assert!(world.scheduler.list_queue(world.now, 5).holds.is_empty(), "{what:?}");
        assert!(matches!(waits_for(&world), Some(Hindrance::Held { .. })), "{what:?}");
        world.pass(2 * MINUTE);
        world.calm();
        world.check_fates(0, 0);
    }
}

#[test]
fn the_host_that_is_skipped_is_the_one_that_spoke_wherever_it_stands_by_now() {
    let mut world = ruled(vec![rule("^450", RuleAction::SkipHost { lasts: MINUTE })]);
    let host = |name: &str, address: &str| MailHost {
        preference: 10,
        name: name.into(),
        addresses: vec![address.parse().unwrap()],
    };
    let hosts = vec![host("new.example", "192.0.2.9:25"), host("mx.example", "192.0.2.1:25")];
    let number = world.scheduler.sites.numbers()[0];
    let before = Target::clone(&world.scheduler.sites[number].target);
    let anew = Target { way: Way::Hosts(hosts), ..before };
    world.scheduler.sites[number].target = Arc::new(anew);
    let connection = &mut world.connections[0];
    let delivery = connection.work.pop_front().unwrap();
    let attempt = refused(&delivery, Class::Deferred, Cause::Recipient, 450);
    let remote = Some(Remote { host: 0, ip: "192.0.2.1".parse().unwrap() });
    let done = Done { remote, ..Done::new(&delivery, attempt) };
    let lease = connection.lease;
    world.scheduler.handle_done(world.now, lease, done);
    world.carry_out();
    let path = &world.scheduler.sites[number].paths[0];
    let skipped: Vec<_> = path.effects.skipped_hosts(world.now.mono).collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].0, "mx.example");
}
