//! A process that is killed in the middle of its work has lost nothing that it acknowledged.

use std::time::Duration;

use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Source;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, World};

/// Kills in one run of the tests.
const KILLS: u32 = 20;
/// Between two kills: long enough that mail flows, short enough that twenty fit.
const BETWEEN_KILLS: Duration = Duration::from_millis(400);

#[test]
fn killed_twenty_times_under_load_it_loses_nothing() {
    let world = World::new(5);
    // On an address of its own: connections of others, which leave from 127.0.0.1, could take the port
    // while the engine is away.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = std::net::Ipv4Addr::new(127, 77, high, low.max(1));
    let free = std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap();
    world.configure(2, QUICK_RETRIES);
    let text = std::fs::read_to_string(world.home.config()).unwrap();
    let fixed = text.replace("address = \"127.0.0.1:0\"", &format!("address = \"{free}\""));
    std::fs::write(world.home.config(), fixed).unwrap();

    let mut running = world.home.start();
    let mut plan = world.plan(free, 0);
    plan.messages = None;
    plan.duration = Some(Duration::from_secs(120));
    plan.rate = Some(2000.0);
    plan.reconnect = true;
    let source = Source::start(plan).unwrap();
    for _ in 0..KILLS {
        let before = source.progress().acknowledged;
        let flows = wait::until(PATIENCE, || source.progress().acknowledged > before + 50);
        assert!(flows, "no mail is taken after a restart");
        assert!(!wait::until(BETWEEN_KILLS, || false));
        running.kill();
        world.sink.mark_run().unwrap();
        running = world.home.start();
    }
    source.stop();
    let report = source.join();
    let acknowledged = report.sent.acknowledged;
    assert!(acknowledged > u64::from(KILLS) * 50, "only {acknowledged} messages were taken");
    world.expect_calm(acknowledged);
    assert!(running.is_running());
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    let (verdict, sink) = world.judge(&report.acknowledged);
    assert_eq!((verdict.lost, verdict.corrupted, verdict.invented), (0, 0, 0), "{verdict}");
    assert!(sink.hosts.iter().all(|host| host.concurrent_max_of_run <= 5), "{:?}", sink.hosts);
}

#[test]
fn what_was_deferred_when_it_was_killed_is_delivered_later_by_another_number_of_shards() {
    let world = World::new(3);
    for host in 0..3 {
        world.sink.set_behaviour(host, Behaviour::TempfailRcpt).unwrap();
    }
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let acknowledged = world.send(world.plan(running.address, 500));
    let tried = wait::until(PATIENCE, || world.sink.progress().replies_4xx >= 500);
    assert!(tried, "the messages were not tried");
    running.kill();
    for host in 0..3 {
        world.sink.set_behaviour(host, Behaviour::Accept).unwrap();
    }
    world.configure(1, QUICK_RETRIES);
    let running = world.home.start();
    world.expect_arrivals(500);
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
}
