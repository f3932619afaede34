//! A few messages that stay do not keep the room of all the others.

use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Domains;
use postrider_tests::wait;

use crate::world::{PATIENCE, Setup, World};

/// Each about 4 KiB on the disk: some sixty segments, if each was kept for one message in it.
const MESSAGES: u64 = 15_000;
/// Twice what is live, the segments that cleaning leaves alone, its spares, and the one being
/// filled (`spool/policy.rs`); and what was filled before the first outcomes came.
const SEGMENTS_MAX: usize = 24;

#[test]
fn one_message_in_a_thousand_that_stays_does_not_keep_the_segments_of_the_others() {
    let world = World::new(2);
    world.sink.set_behaviour(1, Behaviour::TempfailRcpt).unwrap();
    let more = r#"
[limits]
message_size = "256KiB"
[site.default]
connections = 20
retry = ["2s"]
expire = "1h"
"#;
    world.set_up(&Setup { spool: "segment_size = \"1MiB\"", more, ..Setup::default() });
    let running = world.home.start();
    let mut plan = world.plan(running.address, MESSAGES);
    let weights = world.domains.names().iter().cloned().zip([999, 1]);
    plan.domains = Domains::weighted(weights).unwrap();
    plan.size = 4000;
    let acknowledged = world.send(plan);

    let segments =
        || std::fs::read_dir(world.home.path().join("spool").join("segments")).unwrap().count();
    assert!(segments() <= SEGMENTS_MAX, "{} segments", segments());
    assert!(world.sink.progress().replies_4xx > 0, "some messages stay");

    world.sink.set_behaviour(1, Behaviour::Accept).unwrap();
    world.expect_arrivals(MESSAGES);
    let quiet = wait::until(PATIENCE, || world.sink.progress().concurrent == 0);
    assert!(quiet, "connections stay open");
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}
