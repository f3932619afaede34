//! The connection limit of a site holds across all shards, as the site itself counts.

use postrider_loadgen::source::Domains;

use crate::world::World;

#[test]
fn a_hot_site_never_sees_one_connection_too_many() {
    let world = World::new(20);
    world.configure(
        2,
        "[site.default]\nconnections = 8\nidle_timeout = \"200ms\"\nmessages_per_connection = 50\n",
    );
    let running = world.home.start();
    let mut plan = world.plan(running.address, 20_000);
    let weights = (0..20).map(|index| (format!("d{index}.test"), if index == 0 { 19 } else { 1 }));
    plan.domains = Domains::weighted(weights).unwrap();
    plan.sessions = 100;
    let acknowledged = world.send(plan);
    world.expect_arrivals(20_000);
    let (status, _) = running.stop();
    assert!(status.success(), "{status}");
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    let most: Vec<u64> = sink.hosts.iter().map(|host| host.concurrent_max).collect();
    assert!(most.iter().all(|most| *most <= 8), "limit 8, seen {most:?}");
    assert_eq!(most[0], 8, "the hot site was given all it takes");
}
