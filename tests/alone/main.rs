//! A story that needs the machine for itself: test binaries run one after the other.

#![expect(clippy::print_stdout, reason = "what a busy machine made of it is worth seeing")]
#![expect(clippy::unwrap_used, reason = "a story whose world breaks should stop")]

#[path = "../end_to_end/world.rs"]
#[expect(dead_code, reason = "shared with the other stories, which use the rest")]
mod world;

use postrider_loadgen::source::Domains;

use world::World;

/// Another program on one of the cores makes its shard slow, and so the shares uneven: an uneven
/// round is played again.
const ROUNDS_MAX: usize = 4;

/// What no shard may exceed of a hot site's deliveries while the engine is what limits the rate, in
/// percent. Where something else keeps one of the cores busy, that cannot hold.
const SHARE_PERCENT_MAX: u64 = 60;

/// What each shard makes of them in any case, in percent.
const SHARE_PERCENT_MIN: u64 = 10;

#[test]
fn a_hot_sites_mail_is_delivered_by_all_shards_alike() {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let shares = shares_of_a_hot_site();
        let of_all: u64 = shares.iter().sum();
        assert!(of_all > 9_000, "half of 20,000 messages were for the hot site: {shares:?}");
        if shares.iter().all(|share| share * 100 <= of_all * SHARE_PERCENT_MAX) {
            return;
        }
        seen.push(shares);
    }
    println!("one shard made more than {SHARE_PERCENT_MAX} % each time: {seen:?}; busy machine?");
    let takes_part = |shares: &Vec<u64>| {
        let of_all: u64 = shares.iter().sum();
        shares.iter().all(|share| share * 100 >= of_all * SHARE_PERCENT_MIN)
    };
    assert!(seen.iter().all(takes_part), "{seen:?}");
}

/// Half of the mail for one site, two shards: deliveries of that site by shard.
fn shares_of_a_hot_site() -> Vec<u64> {
    let world = World::new(20);
    world.configure(2, "[site.default]\nconnections = 8\n");
    let running = world.home.start();
    let mut plan = world.plan(running.address, 20_000);
    let weights = (0..20).map(|index| (format!("d{index}.test"), if index == 0 { 19 } else { 1 }));
    plan.domains = Domains::weighted(weights).unwrap();
    plan.sessions = 100;
    let acknowledged = world.send(plan);
    world.expect_arrivals(20_000);
    let (status, log) = running.stop();
    assert!(status.success(), "{status}");
    let (verdict, _) = world.judge(&acknowledged);
    assert!(verdict.is_clean() && verdict.duplicated == 0, "{verdict}");
    shares_in(&log, "mx0.hosts.test")
}

/// Deliveries of a lent site by the shard that executed them, as the log tells at the end.
fn shares_in(log: &str, site: &str) -> Vec<u64> {
    let named = |line: &&str| line.contains("served by several shards") && line.contains(site);
    let line = log.lines().find(named).unwrap_or_else(|| panic!("{site} was not lent:\n{log}"));
    let list = line.split("executed=[").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    list.split(", ").map(|count| count.parse().unwrap()).collect()
}
