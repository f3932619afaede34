//! What replies do to a message and to its path.

use super::*;

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
