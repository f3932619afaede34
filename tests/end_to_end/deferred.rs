//! Mail that must wait: tried again by its schedule, given up in time, never blamed for its site.

use std::time::Duration;

use postrider_loadgen::clock;
use postrider_loadgen::sink::{Behaviour, Stage};
use postrider_loadgen::source::Domains;
use postrider_tests::wait;

use crate::world::{PATIENCE, World};

/// The earliest start of an attempt is an eighth before its time.
const JITTER_EIGHTHS: u64 = 7;

#[test]
fn a_deferred_message_is_tried_by_its_schedule_and_arrives_once() {
    const MESSAGES: u64 = 20;
    let waits_ms = [400, 800, 1600];
    let world = World::new(1);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    world.configure(1, "[site.default]\nretry = [\"400ms\", \"800ms\", \"1600ms\"]\n");
    let running = world.home.start();
    let start = clock::now_ns();
    let acknowledged = world.send(world.plan(running.address, MESSAGES));
    let tried_thrice = || world.sink.progress().replies_4xx >= 3 * MESSAGES;
    assert!(wait::until(PATIENCE, tried_thrice), "{:?}", world.sink.progress());
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    let passed_ms = (clock::now_ns() - start) / 1_000_000;
    let attempts = world.sink.progress().replies_4xx;
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());

    let most = MESSAGES * attempts_within(passed_ms, &waits_ms);
    assert!(attempts <= most, "{attempts} attempts in {passed_ms} ms, allowed {most}");
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!((verdict.delivered, verdict.bounced), (MESSAGES, 0), "{verdict}");
}

/// How often one message can have been tried in so much time.
fn attempts_within(passed_ms: u64, waits_ms: &[u64]) -> u64 {
    let last = waits_ms.last().into_iter().cycle();
    let mut left_ms = passed_ms;
    let mut attempts = 1;
    for wait_ms in waits_ms.iter().chain(last) {
        let earliest_ms = wait_ms * JITTER_EIGHTHS / 8;
        if left_ms < earliest_ms {
            break;
        }
        left_ms -= earliest_ms;
        attempts += 1;
    }
    attempts
}

#[test]
fn what_expires_is_reported_to_its_sender() {
    const MESSAGES: u64 = 20;
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    world.configure(1, "[site.\"d0.test\"]\nretry = [\"300ms\"]\nexpire = \"1s\"\n");
    let running = world.home.start();
    let mut plan = world.plan(running.address, MESSAGES);
    plan.domains = Domains::one("d0.test");
    plan.sender = "writer@d1.test".to_owned();
    let acknowledged = world.send(plan);
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert_eq!((verdict.bounced, verdict.delivered, verdict.lost), (MESSAGES, 0, 0), "{verdict}");
    let attempts = sink.hosts[0].replies_4xx;
    assert!(attempts >= 2 * MESSAGES, "given up after {attempts} attempts at {MESSAGES}");
    assert_eq!(sink.hosts[1].messages, MESSAGES, "one report for each");
}

#[test]
fn an_expired_message_that_nobody_could_be_called_for_is_reported_as_well() {
    const MESSAGES: u64 = 20;
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::Refuse).unwrap();
    world.configure(1, "[site.\"d0.test\"]\nretry = [\"300ms\"]\nexpire = \"1s\"\n");
    let running = world.home.start();
    let mut plan = world.plan(running.address, MESSAGES);
    plan.domains = Domains::one("d0.test");
    plan.sender = "writer@d1.test".to_owned();
    let acknowledged = world.send(plan);
    world.expect_arrivals(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert_eq!((verdict.bounced, verdict.delivered, verdict.lost), (MESSAGES, 0, 0), "{verdict}");
}

#[test]
fn a_site_that_asks_to_slow_down_costs_its_mail_no_attempt() {
    // Had the first refusals counted as attempts, the message's own first failure would be
    // followed by the second wait.
    const RETRY: &str = "retry = [\"300ms\", \"1h\"]";
    const SOON: Duration = Duration::from_secs(20);
    let world = World::new(1);
    world.sink.set_behaviour(0, Behaviour::Throttle421At(Stage::Mail)).unwrap();
    world.configure(1, &format!("[site.default]\n{RETRY}\nexpire = \"1d\"\n"));
    let running = world.home.start();
    let acknowledged = world.send(world.plan(running.address, 1));
    let refused = |count: u64| move |world: &World| world.sink.progress().replies_4xx >= count;
    assert!(wait::until(PATIENCE, || refused(3)(&world)), "{:?}", world.sink.progress());
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    assert!(wait::until(PATIENCE, || refused(4)(&world)), "{:?}", world.sink.progress());
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    let came = wait::until(SOON, || world.sink.progress().messages == 1);
    assert!(came, "the message waits as if it had failed before");
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!(sink.totals.replies_4xx, 4);
}
