//! The only message of a site waits for a connection in use, as long as opening another would take.

use super::*;

const DOMAIN: &str = "a.example";
/// What opening a connection takes here.
const OPENING: Duration = Duration::from_millis(30);

fn took(time: Duration) -> Took {
    Took::between(START.mono, START.mono.plus(time))
}

/// A connection that took that long to open, has had an answer, and has a message.
fn in_use(connect: Duration, greeting: Duration) -> World {
    let mut world = World::new(1, settings());
    world.phases = Phases { connect: took(connect), greeting: took(greeting), ..Phases::default() };
    world.send(DOMAIN, 0, 1);
    world.deliver(0);
    world.phases = Phases::default();
    world.send(DOMAIN, 0, 1);
    assert_eq!(world.connections.len(), 1);
    world
}

#[test]
fn a_message_alone_goes_by_the_connection_that_is_free_sooner() {
    let mut world = in_use(OPENING / 3, 2 * OPENING / 3);
    world.send(DOMAIN, 0, 1);
    world.pass(OPENING - Duration::from_nanos(1));
    assert_eq!(world.view().ready, 1);
    world.deliver(0);
    assert_eq!((world.connections.len(), world.connections[0].work.len()), (1, 1));
    world.pass(OPENING);
    assert_eq!(world.connections.len(), 1, "the wait is over with the message");
}

#[test]
fn it_waits_as_long_as_opening_takes_and_says_so() {
    let mut world = in_use(OPENING / 3, 2 * OPENING / 3);
    let until = world.now.mono.plus(OPENING);
    world.send(DOMAIN, 0, 1);
    for _ in 0..2 {
        assert_eq!(world.view().waits_for, WaitsFor::Limit(Hindrance::InUse { until }));
        world.pass(OPENING / 2);
    }
    assert_eq!((world.connections.len(), world.view().ready), (2, 0));
}

#[test]
fn it_waits_a_second_at_most() {
    let mut world = in_use(SECOND, MINUTE);
    world.send(DOMAIN, 0, 1);
    world.pass(SECOND - Duration::from_nanos(1));
    assert_eq!(world.connections.len(), 1);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.connections.len(), 2);
}

#[test]
fn two_messages_do_not_wait() {
    let mut world = in_use(OPENING, OPENING);
    world.send(DOMAIN, 0, 1);
    world.send(DOMAIN, 0, 1);
    assert_eq!(world.connections.len(), 2);
    assert_eq!(world.connections[1].work.len(), 1);
}

#[test]
fn nobody_waits_for_a_connection_that_has_had_no_answer() {
    let mut world = in_use(OPENING, OPENING);
    world.end(0, LeaseEnd::Finished);
    assert_eq!(world.connections.len(), 1, "the message goes by another");
    world.send(DOMAIN, 0, 1);
    assert_eq!(world.connections.len(), 2);
}

#[test]
fn the_wait_ends_with_the_connection_it_was_for() {
    let mut world = in_use(OPENING, OPENING);
    world.send(DOMAIN, 0, 1);
    world.end(0, LeaseEnd::Finished);
    assert_eq!(world.view().ready, 0);
}
