//! What an operator ordered, and what was learned of a site, outlives the process, however that ends.

use std::time::Duration;

use postrider_loadgen::sink::Behaviour;
use postrider_tests::wait;

use crate::admin::{
    arrived, ask, expect_empty_spool, nothing_more_comes, number, run, send, set_up, waiting,
};
use crate::world::{PATIENCE, QUICK_RETRIES, World};

/// The window of the only path to the only site.
fn window(world: &World) -> u64 {
    let list = ask(world, "site list");
    let shown = ask(world, &format!("site show {}", list["sites"][0]["site"].as_str().unwrap()));
    number(&shown[0]["paths"][0]["window"])
}

#[test]
fn a_learned_window_survives_a_restart() {
    let world = World::new(2);
    let settings = "[site.default]\nconnections = 40\nretry = [\"200ms\", \"1h\"]\n";
    set_up(&world, 2, settings);
    world.sink.set_behaviour(0, Behaviour::Slow(Duration::from_millis(20))).unwrap();
    let running = world.home.start();
    let (mut sent, mut before) = (0, 0);
    // On a busy machine the host seems slow, and more connections not to be worth it for a while.
    while before <= 10 {
        sent += 600;
        assert!(sent <= 12_000, "{before} connections after that many messages");
        send(&running, "acme", 600);
        world.expect_arrivals(sent);
        before = window(&world);
    }
    assert!(running.stop().0.success());
    let running = world.home.start();
    send(&running, "acme", 1);
    world.expect_arrivals(sent + 1);
    let after = window(&world);
    assert!(after + after / 10 + 1 >= before, "{before} connections before, {after} after");
    let fresh = World::new(2);
    set_up(&fresh, 2, settings);
    let other = fresh.home.start();
    send(&other, "acme", 1);
    fresh.expect_arrivals(1);
    assert!(window(&fresh) < before, "a new engine knows nothing");
    assert!(running.stop().0.success() && other.stop().0.success());
}

#[test]
fn a_hold_binds_after_a_kill_until_it_is_released() {
    let world = World::new(2);
    set_up(&world, 2, QUICK_RETRIES);
    let running = world.home.start();
    ask(&world, "queue hold --tenant acme --reason storm");
    ask(&world, "queue hold --tenant small --for 1h");
    send(&running, "acme", 5);
    running.kill();
    // By another number of shards.
    set_up(&world, 1, QUICK_RETRIES);
    let running = world.home.start();
    send(&running, "acme", 2);
    send(&running, "other", 3);
    world.expect_arrivals(3);
    nothing_more_comes(&world, 3);
    assert_eq!(waiting(&world, "acme"), 7);
    let queue = ask(&world, "queue list");
    let holds = queue["holds"].as_array().unwrap();
    assert_eq!(holds.len(), 2, "{queue}");
    assert!(holds.iter().any(|hold| hold["by"] == "operator: storm"), "{queue}");
    let until = holds.iter().find_map(|hold| hold["until_seconds"].as_u64()).unwrap();
    assert!((3000..=3600).contains(&until), "{queue}");
    ask(&world, "queue release --tenant acme");
    running.kill();
    let running = world.home.start();
    world.expect_arrivals(10);
    assert!(running.stop().0.success());
}

#[test]
fn cancelled_mail_stays_cancelled_after_a_kill_and_later_mail_goes() {
    let world = World::new(2);
    world.sink.set_behaviour(0, Behaviour::TempfailRcpt).unwrap();
    set_up(&world, 2, QUICK_RETRIES);
    let running = world.home.start();
    ask(&world, "queue hold --tenant acme");
    send(&running, "acme", 300);
    assert!(wait::until(PATIENCE, || waiting(&world, "acme") == 300));
    let done = ask(&world, "queue cancel --tenant acme --yes");
    assert!(done["not_kept"].is_null(), "{done}");
    running.kill();
    world.sink.set_behaviour(0, Behaviour::Accept).unwrap();
    let running = world.home.start();
    ask_until_read(&world, "queue release --tenant acme");
    send(&running, "acme", 4);
    world.expect_arrivals(4);
    nothing_more_comes(&world, 4);
    assert_eq!((waiting(&world, "acme"), arrived(&world)), (0, 4));
    assert!(running.stop().0.success());
    expect_empty_spool(&world);
}

/// An order is refused as long as the spool is being read.
fn ask_until_read(world: &World, line: &str) {
    assert!(wait::until(PATIENCE, || run(world, line).status.success()), "{line}");
}
