//! A stop loses nothing: what was not delivered is delivered by the next run.

use std::time::Duration;

use postrider_loadgen::source::Source;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, World};

#[test]
fn stopped_under_load_and_started_again_every_message_arrives_once() {
    let world = World::new(5);
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let mut plan = world.plan(running.address, 100_000);
    plan.duration = Some(Duration::from_secs(30));
    let source = Source::start(plan).unwrap();
    assert!(wait::until(PATIENCE, || source.progress().acknowledged > 2_000));
    let (status, log) = running.stop();
    assert!(status.success(), "{status}\n{log}");
    source.stop();
    let report = source.join();
    let running = world.home.start();
    world.expect_arrivals(report.sent.acknowledged);
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    let (verdict, _) = world.judge(&report.acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}
