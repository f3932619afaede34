//! Large messages and long envelopes arrive whole, from memory and from disk.

use std::net::SocketAddr;

use postrider_loadgen::ledger::AckLedger;
use postrider_loadgen::sink::Behaviour;
use postrider_tests::client::Client;
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES, Setup, World};

/// How many messages of which size: above the size of one chunk, many chunks, and more than a
/// connection may have on its way at any moment.
const LOAD: [(u64, usize); 3] = [(20, 300_000), (3, 5_000_000), (1, 20_000_000)];

/// Sends the whole load; its messages count from zero.
fn send_load(world: &World, to: SocketAddr) -> AckLedger {
    let mut acknowledged = AckLedger::default();
    let mut first_sequence = 0;
    for (messages, size) in LOAD {
        let mut plan = world.plan(to, messages);
        plan.first_sequence = first_sequence;
        plan.size = size;
        plan.sessions = 2;
        first_sequence += messages;
        acknowledged.merge(&world.send(plan));
    }
    acknowledged
}

fn load() -> u64 {
    LOAD.iter().map(|(messages, _)| messages).sum()
}

/// A message lies in one segment.
fn with_large_segments(world: &World) {
    world.set_up(&Setup { shards: 2, spool: "segment_size = \"64MiB\"", ..Setup::default() });
}

#[test]
fn large_messages_arrive_whole() {
    let world = World::new(3);
    with_large_segments(&world);
    let running = world.home.start();
    let acknowledged = send_load(&world, running.address);
    world.expect_arrivals(load());
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!(verdict.delivered, load());
}

#[test]
fn large_messages_survive_a_kill_and_are_read_back_whole() {
    let world = World::new(3);
    for host in 0..3 {
        world.sink.set_behaviour(host, Behaviour::Refuse).unwrap();
    }
    with_large_segments(&world);
    let running = world.home.start();
    let acknowledged = send_load(&world, running.address);
    running.kill();
    assert_eq!(world.sink.progress().messages, 0);
    for host in 0..3 {
        world.sink.set_behaviour(host, Behaviour::Accept).unwrap();
    }
    let running = world.home.start();
    world.expect_arrivals(load());
    assert!(running.stop().0.success());
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    assert_eq!(verdict.delivered, load());
}

#[test]
fn a_hundred_recipients_over_twenty_domains_are_each_reached_once() {
    let world = World::new(20);
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    let mut plan = world.plan(running.address, 50);
    plan.recipients_per_message = 100;
    let acknowledged = world.send(plan);
    world.expect_arrivals(5_000);
    assert!(running.stop().0.success());
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    let transactions = sink.totals.messages;
    assert!(transactions <= 50 * 20, "one transaction per domain, not {transactions}");
}

#[test]
fn two_hundred_recipients_over_twenty_domains_make_one_transaction_per_domain() {
    const MESSAGES: u64 = 10;
    let world = World::new(20);
    world.configure(2, QUICK_RETRIES);
    let running = world.home.start();
    // Dealt out in turn, so that no domain's recipients stand together.
    let recipients: Vec<String> =
        (0..200).map(|number| format!("u{number}@d{}.test", number % 20)).collect();
    let mut client = Client::greeted(running.address);
    for _ in 0..MESSAGES {
        let text = b"Subject: to many\r\n\r\nhello\r\n.\r\n";
        assert_eq!(client.submit("a@client.test", &recipients, text), 250);
    }
    world.expect_arrivals(200 * MESSAGES);
    assert!(running.stop().0.success());
    let report = world.sink.stop();
    for host in &report.hosts {
        assert_eq!((host.messages, host.recipients), (MESSAGES, 10 * MESSAGES), "{host:?}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_and_leaves_the_connection_usable() {
    let world = World::new(1);
    world.configure(1, "[limits]\nmessage_size = \"100KiB\"\n");
    let running = world.home.start();
    let mut client = Client::greeted(running.address);
    let recipients = ["b@d0.test".to_owned()];
    let text = [b"Subject: long\r\n\r\n".as_slice(), &b"0123456789\r\n".repeat(10_000), b".\r\n"];
    assert_eq!(client.submit("a@client.test", &recipients, &text.concat()), 552);
    let text = b"Subject: short\r\n\r\nhello\r\n.\r\n";
    assert_eq!(client.submit("a@client.test", &recipients, text), 250);
    world.expect_arrivals(1);
    let calm = || world.sink.progress().concurrent == 0;
    assert!(wait::until(PATIENCE, calm), "the connection to the sink stays");
    assert!(running.stop().0.success());
    assert_eq!(world.sink.stop().totals.messages, 1);
}
