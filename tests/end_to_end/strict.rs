//! `outcomes = "strict"`: a crash repeats at most one message per connection.

use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Source;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World, free_address};

/// Few connections, so that few repetitions are allowed.
const CONNECTIONS: u64 = 1;
const KILLS: u64 = 5;

const STRICT: &str = "segment_size = \"16MiB\"\noutcomes = \"strict\"";
const SITE: &str = "[site.default]\nconnections = 1\nretry = [\"200ms\"]\nidle_timeout = \"1s\"\n";

#[test]
fn strict_outcomes_deliver_every_message_once() {
    let world = World::new(3);
    world.set_up(&Setup { shards: 2, spool: STRICT, more: QUICK_RETRIES, ..Setup::default() });
    let running = world.home.start();
    let acknowledged = world.send(world.plan(running.address, 2_000));
    world.expect_arrivals(2_000);
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}

#[test]
fn a_backlog_in_delivery_repeats_at_most_one_message_per_connection_and_kill() {
    const MESSAGES: u64 = 1_200;
    let world = World::new(1);
    world.sink.set_behaviour(0, Behaviour::Refuse).unwrap();
    world.set_up(&Setup { shards: 2, spool: STRICT, more: SITE, ..Setup::default() });
    let mut running = world.home.start();
    let acknowledged = world.send(world.plan(running.address, MESSAGES));
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    // No mail comes in any more: nothing else makes commits that outcomes could ride in.
    for _ in 0..KILLS {
        let before = world.sink.progress().messages;
        let flows = || world.sink.progress().messages > before + 100;
        assert!(wait::until(PATIENCE, flows), "no mail arrives after a restart");
        running.kill();
        world.sink.mark_run().unwrap();
        running = world.home.start();
    }
    world.expect_calm(MESSAGES);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean(), "{verdict}");
    let most = KILLS * CONNECTIONS;
    assert!(verdict.duplicated <= most, "{KILLS} kills may repeat {most}: {verdict}");
    assert!(sink.hosts[0].concurrent_max_of_run <= CONNECTIONS, "{:?}", sink.hosts);
}

#[test]
fn killed_under_load_it_loses_nothing_and_repeats_one_message_per_connection_at_most() {
    let world = World::new(1);
    let address = free_address();
    world.set_up(&Setup { shards: 2, spool: STRICT, address, more: SITE, ..Setup::default() });
    let mut running = world.home.start();
    let mut plan = world.plan(address, 0);
    plan.messages = None;
    plan.duration = Some(PATIENCE);
    plan.rate = Some(300.0);
    plan.reconnect = true;
    let source = Source::start(plan).unwrap();
    for _ in 0..KILLS {
        let before = world.sink.progress().messages;
        let flows = || world.sink.progress().messages > before + 100;
        assert!(wait::until(PATIENCE, flows), "no mail arrives after a restart");
        running.kill();
        world.sink.mark_run().unwrap();
        running = world.home.start();
    }
    source.stop();
    let report = source.join();
    world.expect_calm(report.sent.acknowledged);
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&report.acknowledged);
    assert_eq!((verdict.lost, verdict.corrupted, verdict.invented), (0, 0, 0), "{verdict}");
    let most = KILLS * CONNECTIONS;
    assert!(verdict.duplicated <= most, "{KILLS} kills may repeat {most}: {verdict}");
}
