//! SIGHUP: new settings without a restart, or the old ones and a word about what is wrong.

use std::time::Duration;

use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Source;
use postrider_tests::binary::Running;
use postrider_tests::wait;

use crate::world::{PATIENCE, World};

/// A host so slow that all connections allowed are wanted.
const SLOW: Behaviour = Behaviour::Slow(Duration::from_millis(50));

fn limit(connections: u32) -> String {
    format!("[site.default]\nconnections = {connections}\nidle_timeout = \"1s\"\n")
}

fn expect_word(running: &Running, word: &str, count: usize) {
    let said = wait::until(PATIENCE, || running.log().matches(word).count() >= count);
    assert!(said, "{word:?} is not said {count} times in:\n{}", running.log());
}

#[test]
fn a_new_connection_limit_holds_without_a_restart() {
    let world = World::new(1);
    world.sink.set_behaviour(0, SLOW).unwrap();
    world.configure(2, &limit(2));
    let mut running = world.home.start();
    let source = Source::start(world.plan(running.address, 2_000)).unwrap();
    assert!(wait::until(PATIENCE, || world.sink.progress().messages >= 10));
    let most = world.sink.mark_run().unwrap();
    assert_eq!(most, [2]);

    world.configure(2, &limit(6));
    running.reload();
    expect_word(&running, "settings read again", 1);
    let concurrent = || world.sink.progress().concurrent;
    assert!(wait::until(PATIENCE, || concurrent() == 6), "{} of 6", concurrent());

    world.configure(2, &limit(1));
    running.reload();
    expect_word(&running, "settings read again", 2);
    assert!(wait::until(PATIENCE, || concurrent() <= 1), "{} of 1", concurrent());
    assert_eq!(world.sink.mark_run().unwrap(), [6]);
    let before = world.sink.progress().messages;
    assert!(wait::until(PATIENCE, || world.sink.progress().messages >= before + 5));
    assert_eq!(world.sink.mark_run().unwrap(), [1]);

    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    let report = source.join();
    world.expect_arrivals(report.sent.acknowledged);
    assert!(running.is_running());
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&report.acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!(verdict.delivered, 2_000);
}

#[test]
fn a_broken_file_changes_nothing_and_is_named_in_the_log() {
    let world = World::new(1);
    world.sink.set_behaviour(0, SLOW).unwrap();
    world.configure(1, &limit(3));
    let running = world.home.start();
    let acknowledged = world.send(world.plan(running.address, 200));
    let concurrent = || world.sink.progress().concurrent;
    assert!(wait::until(PATIENCE, || concurrent() == 3), "{} of 3", concurrent());

    world.configure(1, &format!("{}conections = 9\n", limit(9)));
    running.reload();
    expect_word(&running, "the settings stay as they were", 1);
    expect_word(&running, "conections", 1);
    let before = world.sink.progress().messages;
    assert!(wait::until(PATIENCE, || world.sink.progress().messages >= before + 10));

    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    world.expect_arrivals(200);
    let (status, log) = running.stop();
    assert!(status.success(), "{status}\n{log}");
    assert!(!log.contains("settings read again"), "{log}");
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!(sink.hosts[0].concurrent_max, 3);
}
