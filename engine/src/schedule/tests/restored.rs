//! What outlives the process: written when it matters, in force again before the first delivery.

use super::*;
use crate::model::admin::{Reach, Steer, Steered, Verb};
use crate::model::settings::{Action as RuleAction, Origin, RuleScope, RuleSettings, Trigger};
use crate::model::state::Topic;
use crate::schedule::durable::{Reached, Writer};
use crate::schedule::rules::Restraint;

/// Connections of a path that nothing is known about.
const START_WINDOW: usize = 5;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn wide() -> SiteSettings {
    SiteSettings { connections: 100, messages_per_connection: 1000, ..SiteSettings::default() }
}

/// The last of each key, as the spool has it.
fn kept(world: &World) -> Vec<StateItem> {
    let mut kept: Vec<StateItem> = Vec::new();
    for item in &world.remembered {
        kept.retain(|one| (one.topic, &one.key) != (item.topic, &item.key));
        if !item.is_forgotten() {
            kept.push(item.clone());
        }
    }
    kept
}

/// A process later by so much.
fn restart(world: &World, after: Duration, items: &[StateItem]) -> World {
    let settings = world.settings.clone();
    let cells = Arc::new(CellTable::new(1));
    let mut next = World::of_shard(ShardId(0), 1, settings, cells);
    let wait = world.now.mono.since(START.mono) + after;
    next.now = Now { mono: START.mono, wall: START.wall.plus(wait) };
    next.next_message = 1_000_000;
    next.scheduler.await_state();
    next.scheduler.handle_wall(step(next.now));
    for item in items {
        next.scheduler.handle_restored(next.now, item);
    }
    next.scheduler.handle_state_complete(next.now);
    next.carry_out();
    next
}

fn step(now: Now) -> WallStep {
    WallStep { steady: now.wall, set: now.wall }
}

/// A site that was found to take many connections.
fn learned() -> World {
    let mut world = World::new(1, wide());
    for _ in 0..30 {
        world.scheduler.handle_wall(step(world.now));
        world.send_some(200);
        while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
            world.deliver(at);
        }
        world.pass(Duration::from_millis(100));
    }
    world
}

fn window(world: &World) -> u32 {
    let report = world.scheduler.describe_site(world.now, "mx.example").unwrap();
    report.paths[0].window
}

fn order(world: &mut World, verb: Verb, reach: Reach, lasts: Option<Duration>) -> Steered {
    let steer = Steer { verb, reach, dry_run: false, order: 3, lasts, reason: "storm".into() };
    let steered = world.scheduler.handle_steer(world.now, &steer);
    world.carry_out();
    steered
}

fn acme() -> Reach {
    Reach::Tenant("acme".into())
}

fn of_acme() -> Arc<Flow> {
    Arc::new(Flow { tenant: "acme".into(), ..Flow::default() })
}

#[test]
fn a_restored_window_is_used_at_the_first_dispatch() {
    let mut world = learned();
    let before = window(&world);
    assert!(before > 8, "{before}");
    world.scheduler.handle_stop(world.now);
    world.carry_out();
    let mut next = restart(&world, MINUTE, &kept(&world));
    next.send_some(200);
    assert_eq!(next.connections.len(), before as usize, "as many as were found to go well");
    let mut fresh = restart(&world, MINUTE, &[]);
    fresh.send_some(200);
    assert_eq!(fresh.connections.len(), START_WINDOW);
}

#[test]
fn what_was_learned_ages_while_the_engine_is_away() {
    let mut world = learned();
    world.scheduler.handle_stop(world.now);
    world.carry_out();
    let open = |after: Duration| {
        let mut next = restart(&world, after, &kept(&world));
        next.send_some(200);
        (next.connections.len(), next.remembered.len())
    };
    let (before, _) = open(MINUTE);
    let half = START_WINDOW + (before - START_WINDOW) / 2;
    assert!((half..=half + 1).contains(&open(DAY + MINUTE).0), "of {before}");
    assert_eq!(open(9 * DAY), (START_WINDOW, 1), "what is too old is forgotten on disk as well");
}

#[test]
fn a_path_is_written_once_a_minute_and_only_when_it_matters() {
    let world = learned();
    let written = |world: &World| world.remembered.len();
    // Three seconds of growth: the first step, and nothing more until a minute is over.
    assert_eq!(written(&world), 1);
    let mut world = world;
    for _ in 0..20 {
        world.pass(MINUTE);
        world.send("a.example", 0, 1);
        while let Some(at) = world.connections.iter().position(|one| !one.work.is_empty()) {
            world.deliver(at);
        }
    }
    let after = written(&world);
    assert!(after <= 3, "{after} for twenty minutes in which nothing changed");
    world.scheduler.handle_stop(world.now);
    world.carry_out();
    assert!(written(&world) <= after + 1);
}

#[test]
fn nothing_goes_out_before_all_is_known() {
    let mut world = World::new(1, wide());
    world.scheduler.await_state();
    world.send_some(10);
    assert!(world.connections.is_empty());
    world.scheduler.handle_state_complete(world.now);
    world.carry_out();
    assert!(!world.connections.is_empty());
}

#[test]
fn a_hold_is_in_force_after_a_restart_and_ends_at_its_time() {
    let mut world = World::new(1, wide());
    world.scheduler.handle_wall(step(world.now));
    order(&mut world, Verb::Hold, acme(), Some(10 * MINUTE));
    order(&mut world, Verb::Hold, Reach::Source("out1".into()), None);
    let items = kept(&world);
    let mut next = restart(&world, 4 * MINUTE, &items);
    next.send_as(&of_acme(), "a.example", 0, 1);
    assert!(next.connections.is_empty());
    let holds = next.scheduler.list_queue(next.now, 5).holds;
    let told: Vec<_> = holds.iter().map(|hold| (&*hold.by, hold.until_seconds)).collect();
    assert!(told.contains(&("operator: storm", Some(360))), "{told:?}");
    assert!(told.contains(&("operator: storm", None)), "{told:?}");
    next.pass(6 * MINUTE);
    assert_eq!(next.connections.len(), 1);
    let forgotten = next.remembered.iter().filter(|item| item.is_forgotten());
    assert!(forgotten.clone().any(|item| item.topic == Topic::Hold));
    let over = restart(&world, 11 * MINUTE, &items);
    assert_eq!(over.scheduler.list_queue(over.now, 5).holds.len(), 1);
}

#[test]
fn a_hold_that_was_released_is_forgotten() {
    let mut world = World::new(1, wide());
    order(&mut world, Verb::Hold, acme(), None);
    order(&mut world, Verb::Release, acme(), None);
    assert_eq!(kept(&world), []);
    let mut next = restart(&world, MINUTE, &kept(&world));
    next.send_as(&of_acme(), "a.example", 0, 1);
    assert_eq!(next.connections.len(), 1);
}

#[test]
fn a_step_of_the_clock_moves_no_end_of_a_hold() {
    let mut world = World::new(1, wide());
    // The clock was set back by an hour since the start.
    let set = Wall(world.now.wall.0 - 3_600_000_000_000);
    world.scheduler.handle_wall(WallStep { steady: world.now.wall, set });
    order(&mut world, Verb::Hold, acme(), Some(10 * MINUTE));
    let items = kept(&world);
    world.now.wall = set;
    let mut next = World::new(1, wide());
    next.now = Now { mono: START.mono, wall: set.plus(4 * MINUTE) };
    next.scheduler.handle_restored(next.now, &items[0]);
    let holds = next.scheduler.list_queue(next.now, 5).holds;
    assert_eq!(holds[0].until_seconds, Some(360));
}

fn rule(action: RuleAction) -> RuleSettings {
    RuleSettings {
        name: "busy".into(),
        reply: "busy".into(),
        scope: RuleScope::default(),
        trigger: Trigger::Each,
        action,
        origin: Origin::default(),
    }
}

fn ruled(action: RuleAction) -> World {
    let mut settings = whole(SiteTable { default: wide(), by_domain: Vec::new() });
    settings.rules = vec![rule(action)];
    let mut world = World::of_shard(ShardId(0), 1, settings, Arc::new(CellTable::new(1)));
    world.scheduler.handle_wall(step(world.now));
    world.send_as(&of_acme(), "a.example", 0, 1);
    world.done(0, |delivery| {
        let reply = reply(451, "busy");
        let one = RecipientResult {
            recipient: delivery.first,
            class: Class::Deferred,
            cause: Cause::Recipient,
            reply,
        };
        Attempt::Mixed { recipients: vec![one], complaint: None }
    });
    world
}

#[test]
fn what_a_rule_did_to_a_path_keeps_its_end() {
    let limit = RuleAction::Connections { limit: 2, lasts: 10 * MINUTE };
    let world = ruled(limit);
    // What was learned of the path is kept too, and would be a limit of its own.
    let mut items = kept(&world);
    items.retain(|item| item.topic == Topic::RuleEffect);
    let mut next = restart(&world, 4 * MINUTE, &items);
    next.send_some(20);
    assert_eq!(next.connections.len(), 2);
    next.pass(5 * MINUTE + 59 * SECOND);
    assert_eq!(next.connections.len(), 2);
    next.pass(2 * SECOND);
    assert!(next.connections.len() > 2);
    assert_eq!(next.remembered.iter().filter(|item| item.is_forgotten()).count(), 1);
}

#[test]
fn what_a_rule_suspended_stays_so_unless_the_rule_is_gone() {
    use crate::model::settings::Subject;
    for what in [Subject::Site, Subject::Tenant, Subject::Source, Subject::Path] {
        let world = ruled(RuleAction::Suspend { what, lasts: 10 * MINUTE });
        let mut next = restart(&world, 4 * MINUTE, &kept(&world));
        next.send_as(&of_acme(), "a.example", 0, 1);
        assert!(next.connections.is_empty(), "{what:?}");
        next.pass(7 * MINUTE);
        assert_eq!(next.connections.len(), 1, "{what:?}");
        let mut without = world;
        without.settings.rules.clear();
        let mut next = restart(&without, 4 * MINUTE, &kept(&without));
        next.send_as(&of_acme(), "a.example", 0, 1);
        assert_eq!(next.connections.len(), 1, "{what:?}");
        assert!(next.remembered.iter().any(StateItem::is_forgotten), "{what:?}");
    }
}

#[test]
fn a_release_of_a_site_ends_what_rules_did_there_before_the_restart() {
    let world = ruled(RuleAction::Backoff { wait: 10 * MINUTE });
    let mut next = restart(&world, MINUTE, &kept(&world));
    order(&mut next, Verb::Release, Reach::Site("mx.example".into()), None);
    next.send_some(3);
    assert!(!next.connections.is_empty());
    assert!(next.remembered.iter().any(StateItem::is_forgotten));
}

/// As the shard that writes it down puts it together.
fn cancelled_to(scope: Option<&Scope>, newest: MessageId) -> StateItem {
    let key = Writer::default().scope(scope).done();
    let value = Reached { first: 1, newest: [newest.0].into() }.encode();
    StateItem::new(Topic::Cancel, key, value)
}

/// Shards read what was kept each in its own time.
#[test]
fn what_another_shard_handed_over_first_stays_cancelled_too() {
    for scope in [None, Some(Scope::Tenant("acme".into())), Some(Scope::Site("mx.example".into()))]
    {
        let mut world = World::new(1, wide());
        world.scheduler.await_state();
        let sent: Vec<_> = (0..4).map(|_| world.send_as(&of_acme(), "a.example", 0, 1)).collect();
        let newest = MessageId::new(SegmentSeq(1), 2);
        world.scheduler.handle_restored(world.now, &cancelled_to(scope.as_ref(), newest));
        world.scheduler.handle_state_complete(world.now);
        world.carry_out();
        let is_cancelled = |message: &MessageId| {
            matches!(world.fates[&(message.0, 0)], Some(Outcome::Cancelled { .. }))
        };
        let cancelled: Vec<_> = sent.iter().map(is_cancelled).collect();
        assert_eq!(cancelled, [true, true, false, false], "{scope:?}");
        assert_eq!(world.worked[0], 2);
    }
}

#[test]
fn cancelled_mail_of_before_a_restart_stays_cancelled_and_later_mail_goes() {
    for scope in [None, Some(Scope::Tenant("acme".into())), Some(Scope::Site("mx.example".into()))]
    {
        let mut world = World::new(1, wide());
        let newest = MessageId::new(SegmentSeq(1), 2);
        world.scheduler.handle_restored(world.now, &cancelled_to(scope.as_ref(), newest));
        let sent: Vec<_> = (0..4).map(|_| world.send_as(&of_acme(), "a.example", 0, 1)).collect();
        let is_cancelled = |message: &MessageId| {
            matches!(world.fates[&(message.0, 0)], Some(Outcome::Cancelled { .. }))
        };
        let cancelled: Vec<_> = sent.iter().map(is_cancelled).collect();
        assert_eq!(cancelled, [true, true, false, false], "{scope:?}");
        world.pass(61 * MINUTE);
        let key = Writer::default().scope(scope.as_ref()).done();
        assert_eq!(world.over, [(key, 0)], "it has reached all there is");
        let late = world.send_as(&of_acme(), "a.example", 0, 1);
        assert_eq!(world.fates[&(late.0, 0)], None);
    }
}

#[test]
fn an_order_to_cancel_is_over_when_all_it_reached_is_gone() {
    let mut world = World::new(1, wide());
    world.send_as(&of_acme(), "a.example", 0, 1);
    order(&mut world, Verb::Cancel, acme(), None);
    world.pass(59 * MINUTE);
    assert_eq!(world.over, []);
    world.pass(2 * MINUTE);
    assert_eq!(world.over.len(), 1);
    assert_eq!(world.over[0].1, 3);
}

#[test]
fn hostile_items_change_nothing() {
    let mut prng = Prng::new(4);
    let mut world = ruled(RuleAction::SkipHost { lasts: MINUTE });
    order(&mut world, Verb::Hold, acme(), None);
    let mut items = kept(&world);
    items.push(cancelled_to(None, MessageId(77)));
    for item in &items {
        for at in 0..item.key.len() + item.value.len() {
            let mut bad = item.clone();
            let byte = u8::try_from(prng.below(256)).unwrap();
            match at.checked_sub(item.key.len()) {
                None => bad.key[at] = byte,
                Some(at) => bad.value[at] = byte,
            }
            let next = restart(&world, SECOND, &[bad]);
            drop(next);
            let cut = item.value[..item.value.len() - 1].to_vec();
            let next = restart(&world, SECOND, &[StateItem { value: cut.into(), ..item.clone() }]);
            assert!(next.remembered.iter().all(StateItem::is_forgotten));
            assert_eq!(next.remembered.len(), 1, "{item:?}");
        }
    }
}

#[test]
fn restraints_read_back() {
    use crate::base::gcra::Rate;
    use crate::schedule::durable::Reader;
    let rate = Rate { units: 5, per: MINUTE, burst: 7 };
    for restraint in [
        Restraint::Stop,
        Restraint::Connections(9),
        Restraint::MessageRate(rate),
        Restraint::Host("mx1.example".into()),
    ] {
        let bytes = Writer::default().restraint(&restraint).done();
        assert_eq!(Reader(&bytes).restraint(), Some(restraint));
    }
}
