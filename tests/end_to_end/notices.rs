//! Mail that cannot be delivered comes back to its sender as a proper notice, or not at all.

use postrider_loadgen::sink::Behaviour;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, World};

#[test]
fn a_refused_recipient_is_reported_to_the_sender() {
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::RejectRcpt).unwrap();
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut plan = world.plan(running.address, 10);
    plan.domains = postrider_loadgen::source::Domains::one("d0.test");
    plan.sender = "writer@d1.test".to_owned();
    world.send(plan);
    // The notices carry no token of the source: they arrive at d1 as unmarked mail.
    world.expect_arrivals(10);
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    let report = world.sink.stop();
    assert_eq!((report.hosts[0].messages, report.hosts[1].messages), (0, 10));
    assert_eq!(report.arrivals.unmarked, 10, "{:?}", report.arrivals.explanations);
}

#[test]
fn a_notice_that_cannot_be_delivered_is_not_answered_with_another() {
    let world = World::new(2);
    // Refused behind the final dot: one 5xx for each message.
    world.sink.set_behaviour(0, Behaviour::RejectData).unwrap();
    world.sink.set_behaviour(1, Behaviour::RejectData).unwrap();
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    let mut plan = world.plan(running.address, 5);
    plan.domains = postrider_loadgen::source::Domains::one("d0.test");
    plan.sender = "writer@d1.test".to_owned();
    world.send(plan);
    let refused = wait::until(PATIENCE, || world.sink.progress().replies_5xx >= 10);
    assert!(refused, "5 messages and 5 notices are refused");
    let (status, log) = running.stop();
    assert!(status.success(), "{status}");
    assert_eq!(log.matches("double bounce").count(), 5, "{log}");
    assert_eq!(world.sink.stop().totals.replies_5xx, 10);
}
