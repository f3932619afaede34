//! The connection limit of a site holds across all shards, as the site itself counts.

use postrider_loadgen::source::Domains;

use crate::world::World;

#[test]
fn a_hot_site_never_sees_one_connection_too_many() {
    let world = World::new(20);
    world.configure(
        2,
        "[site.default]\nconnections = 7\nidle_timeout = \"200ms\"\nmessages_per_connection = 50\n",
    );
    let running = world.home.start();
    let mut plan = world.plan(running.address, 20_000);
    let weights = (0..20).map(|index| (format!("d{index}.test"), if index == 0 { 19 } else { 1 }));
    plan.domains = Domains::weighted(weights).unwrap();
    plan.sessions = 50;
    let acknowledged = world.send(plan);
    world.expect_arrivals(20_000);
    let (status, log) = running.stop();
    assert!(status.success(), "{status}");
    let shares = shares_of(&log, "mx0.hosts.test");
    let (verdict, sink) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    let most: Vec<u64> = sink.hosts.iter().map(|host| host.concurrent_max).collect();
    assert!(most.iter().all(|most| *most <= 7), "limit 7, seen {most:?}");
    assert_eq!(most[0], 7, "the hot site was given all it takes");
    let of_all: u64 = shares.iter().sum();
    assert_eq!(of_all, sink.hosts[0].messages, "{shares:?}");
    // Half of a half: neither shard is left out of the hot site's work.
    assert!(shares.iter().all(|share| *share * 10 <= of_all * 6), "{shares:?} of {of_all}");
}

/// Deliveries of a lent site by the shard that executed them, as the log tells at the end.
fn shares_of(log: &str, site: &str) -> Vec<u64> {
    let named = |line: &&str| line.contains("served by several shards") && line.contains(site);
    let line = log.lines().find(named).unwrap_or_else(|| panic!("{site} was not lent:\n{log}"));
    let list = line.split("executed=[").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    list.split(", ").map(|count| count.parse().unwrap()).collect()
}
