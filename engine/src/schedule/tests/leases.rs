//! Who gets work, how much, and when a connection is given up.

use super::*;

#[test]
fn a_hot_site_is_delivered_evenly_by_both_shards() {
    for connections in [4, 6, 20] {
        let mut world = World::new(2, SiteSettings { connections, ..settings() });
        for round in 0..4000u16 {
            world.send("a.example", round % 2, 1);
            if round % 4 == 3 {
                // Four connections of changing places finish one each; told ones end.
                for step in 0..4 {
                    let busy: Vec<usize> = (0..world.connections.len())
                        .filter(|at| !world.connections[*at].work.is_empty())
                        .collect();
                    let turn = usize::from(round) + step;
                    world.deliver(busy[turn % busy.len()]);
                    while let Some(at) = world.connections.iter().position(|one| one.closing) {
                        world.end(at, LeaseEnd::Finished);
                    }
                }
            }
        }
        let all = world.worked[0] + world.worked[1];
        assert!((40..=60).contains(&(world.worked[1] * 100 / all)), "{:?}", world.worked);
    }
}

#[test]
fn a_small_site_stays_with_its_owner() {
    let mut world = World::new(2, settings());
    for round in 0..50u16 {
        world.send("a.example", round % 2, 1);
        world.deliver(0);
    }
    assert_eq!(world.worked[..2], [50, 0]);
    assert_eq!(world.connections.len(), 1);
}

#[test]
fn what_was_not_tried_keeps_its_place() {
    let mut world = World::new(1, SiteSettings { connections: 2, ..settings() });
    let messages: Vec<_> = (0..8).map(|_| world.send("a.example", 0, 1)).collect();
    world.deliver(0);
    world.deliver(1);
    let mut settled = vec![messages[0], messages[1]];
    // Both connections are lost with two deliveries each.
    world.end(1, LeaseEnd::Finished);
    world.end(0, LeaseEnd::Finished);
    while let Some(at) = (0..world.connections.len())
        .filter(|at| !world.connections[*at].work.is_empty())
        .min_by_key(|at| world.connections[*at].work[0].message)
    {
        settled.push(world.connections[at].work[0].message);
        world.deliver(at);
    }
    settled[..2].sort_unstable();
    assert_eq!(settled, messages);
}

#[test]

fn idle_connections_are_closed_and_empty_sites_forgotten() {
    let mut world = World::new(1, settings());
    world.send("a.example", 0, 1);
    world.deliver(0);
    world.pass(Duration::from_millis(4900));
    assert!(!world.connections[0].closing);
    world.pass(Duration::from_millis(200));
    assert!(world.connections[0].closing);
    world.send("a.example", 0, 1);
    assert_eq!(world.connections.len(), 2, "a connection told to close gets no more work");
    world.calm();
    assert_eq!(world.scheduler.counts().sites, 0);
}

#[test]
fn a_connection_gets_its_share_and_no_more() {
    let share = SiteSettings { connections: 1, messages_per_connection: 3, ..settings() };
    let mut world = World::new(1, share);
    world.send_some(7);
    (0..3).for_each(|_| world.deliver(0));
    assert!(world.connections[0].closing && world.connections.len() == 1);
    world.end(0, LeaseEnd::Finished);
    assert_eq!(world.connections.len(), 1);
    assert_eq!(world.view().ready, 2);
}

#[test]
fn a_stop_closes_idle_connections_and_gives_out_no_more() {
    let mut world = World::new(1, settings());
    world.send_some(4);
    world.deliver(2);
    world.deliver(2);
    world.scheduler.handle_stop(world.now);
    world.carry_out();
    assert!(world.connections[2].closing);
    world.send("a.example", 0, 1);
    world.deliver(0);
    world.deliver(1);
    assert!(world.connections.iter().all(|one| one.closing));
    assert_eq!(world.view().waits_for, WaitsFor::Stop);
    world.pass(60 * MINUTE);
    assert_eq!(world.scheduler.counts().queued, 1);
}

#[test]
fn ten_thousand_waiting_sites_cost_nothing_per_turn() {
    let mut world = World::new(1, settings());
    for number in 0..10_000 {
        world.way = Way::Deferred(reply(451, "resolver down"));
        world.send(&format!("domain{number}.example"), 0, 1);
    }
    let before = world.scheduler.counts();
    assert_eq!((before.sites, before.queued), (10_000, 10_000));
    world.pass(4 * MINUTE);
    assert_eq!(world.scheduler.counts().wakes, before.wakes, "nobody is due, nobody wakes");
    world.pass(3 * MINUTE);
    assert!(world.scheduler.counts().wakes <= 20_000);
    assert_eq!(world.relocated.len(), 10_000);
}
