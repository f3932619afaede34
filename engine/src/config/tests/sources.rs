//! Sources, pools and tenants, and that they find each other.

use super::*;
use crate::model::settings::{Overflow, PoolMember, WarmUp};

const SOURCES: &str = r#"
[source."b"]
addresses = ["192.0.2.2", "2001:db8::2"]
[source."a"]
address = "192.0.2.1"
hostname = "MTA-a.example.net"
connections = 500
connection_rate = "100/s"
message_rate = "1000/s"
byte_rate = "100MiB/s"
warm_up = { days = [50, 100, 100], overflow = "wait", freeze_percent = 5, freeze_sample = 20 }
[source.c]
warm_up.days = [10]
[pool."main"]
sources = ["a", { source = "b", weight = 3 }]
[tenant."shop"]
pool = "main"
weight = 2
class = "transactional"
connections = 7
message_rate = "10/s"
[tenant."news"]
pool = "default"
"#;

#[test]
fn a_source_has_addresses_a_name_caps_and_a_warm_up() {
    let sources = good(SOURCES).sources;
    let a = &sources[0];
    assert_eq!((&*a.name, a.address_v4, a.address_v6), ("a", "192.0.2.1".parse().ok(), None));
    assert_eq!(a.hostname.as_deref(), Some("mta-a.example.net"));
    assert_eq!(a.caps.connections, Some(500));
    assert_eq!(a.caps.byte_rate.map(|rate| rate.burst), Some(100 << 20));
    let warm_up = WarmUp {
        days: vec![50, 100, 100],
        overflow: Overflow::Wait,
        freeze_percent: 5,
        freeze_sample: 20,
    };
    assert_eq!(a.warm_up, Some(warm_up));
    assert_eq!(&*a.origin.place, "postrider.toml:4");
    let b = &sources[1];
    assert_eq!(
        (b.address_v4, b.address_v6),
        ("192.0.2.2".parse().ok(), "2001:db8::2".parse().ok())
    );
    assert_eq!((b.hostname.as_deref(), b.warm_up.as_ref()), (None, None));
    let c = &sources[2];
    assert_eq!((c.address_v4, c.address_v6), (None, None));
    let warm_up = c.warm_up.as_ref().map(|warm_up| (warm_up.overflow, warm_up.freeze_percent));
    assert_eq!(warm_up, Some((Overflow::Pool, 10)));
}

#[test]
fn a_pool_names_its_sources_by_their_places() {
    let settings = good(SOURCES);
    let main = settings.pools.iter().find(|pool| &*pool.name == "main").unwrap();
    let members = [PoolMember { source: 0, weight: 1 }, PoolMember { source: 1, weight: 3 }];
    assert_eq!(main.members, members);
    assert!(settings.pools.is_sorted_by(|a, b| a.name < b.name));
    assert!(settings.sources.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn the_default_pool_holds_every_source_unless_it_is_given() {
    let pools = good(SOURCES).pools;
    assert_eq!(&*pools[0].name, "default");
    assert_eq!(pools[0].members, [0, 1, 2].map(|source| PoolMember { source, weight: 1 }));
    let given = good("[source.a]\n[source.b]\n[pool.default]\nsources = [\"b\"]\n").pools;
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].members, [PoolMember { source: 1, weight: 1 }]);
    assert_eq!(good("").pools, []);
    assert_eq!(good("[tenant.a]\npool = \"default\"\n").tenants[0].pool, None);
}

#[test]
fn a_tenant_has_a_pool_a_weight_a_class_and_caps() {
    let settings = good(SOURCES);
    let tenants = &settings.tenants;
    assert_eq!([&*tenants[0].name, &*tenants[1].name], ["news", "shop"]);
    assert_eq!((tenants[0].pool, tenants[0].weight, tenants[0].class), (Some(0), 1, None));
    let shop = &tenants[1];
    assert_eq!((shop.pool, shop.weight), (Some(1), 2));
    assert_eq!(shop.class, Some(MailClass::Transactional));
    assert_eq!((shop.caps.connections, shop.caps.byte_rate), (Some(7), None));
    assert_eq!(&*shop.origin.table, "tenant.\"shop\"");
}

#[test]
fn a_name_that_does_not_exist_is_told_with_the_likest() {
    check(
        "[source.main1]\n[pool.p]\nsources = [\"main1\", \"mian1\"]\n",
        "postrider.toml:3:21: invalid value for `pool.p.sources`: there is no `mian1` \
         (did you mean `main1`?)",
    );
    check(
        "[source.a]\n[tenant.t]\npool = \"x\"\n",
        "postrider.toml:3:8: invalid value for `tenant.t.pool`: there is no `x` \
         (there are: `default`)",
    );
    check(
        "[pool.p]\nsources = [{ source = \"a\" }]\n",
        "postrider.toml:2:23: invalid value for `pool.p.sources`: there is no `a` (there are none)",
    );
}

#[test]
fn a_source_has_at_most_one_address_of_each_family() {
    check(
        "[source.a]\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n",
        "postrider.toml:2:27: invalid value for `source.a.addresses`: \
         a second IPv4 address: make it another source",
    );
    check(
        "[source.a]\naddress = \"192.0.2.1\"\naddresses = [\"2001:db8::1\"]\n",
        "postrider.toml:3:13: invalid value for `source.a.addresses`: \
         beside `address`: write all in one of the two",
    );
    check(
        "[source.a]\naddress = \"0.0.0.0\"\n",
        "postrider.toml:2:11: invalid value for `source.a.address`: \
         no connection can come from 0.0.0.0",
    );
}

#[test]
fn a_warm_up_only_rises() {
    let warm_up = |keys: &str| format!("[source.a]\nwarm_up = {{ {keys} }}\n");
    check(
        &warm_up("days = [50, 100, 20]"),
        "postrider.toml:2:30: invalid value for `source.a.warm_up.days`: \
         fewer than the 100 of the day before",
    );
    check(
        &warm_up("days = [0]"),
        "postrider.toml:2:21: invalid value for `source.a.warm_up.days`: \
         allowed: 1 to 1000000000",
    );
    check(
        &warm_up("days = []"),
        "postrider.toml:2:20: invalid value for `source.a.warm_up.days`: expected at least one day",
    );
    check(
        &warm_up("overflow = \"pool\""),
        "postrider.toml:2:11: missing `source.a.warm_up.days`: needed here",
    );
    check(
        &warm_up("days = [1], overflow = \"pol\""),
        "postrider.toml:2:36: invalid value for `source.a.warm_up.overflow`: \
         allowed: \"pool\", \"wait\" (did you mean `pool`?)",
    );
    check(
        &warm_up("days = [1], freeze_percent = 0"),
        "postrider.toml:2:42: invalid value for `source.a.warm_up.freeze_percent`: \
         allowed: 1 to 100",
    );
}

#[test]
fn a_pool_has_each_source_once_with_a_weight() {
    let pool = |sources: &str| format!("[source.a]\n[pool.p]\nsources = {sources}\n");
    check(
        &pool("[\"a\", { source = \"a\" }]"),
        "postrider.toml:3:28: invalid value for `pool.p.sources`: given twice",
    );
    check(
        &pool("[{ source = \"a\", weight = 0 }]"),
        "postrider.toml:3:37: invalid value for `pool.p.sources.weight`: allowed: 1 to 1000",
    );
    check(
        &pool("[{ source = \"a\", wieght = 2 }]"),
        "postrider.toml:3:28: unknown key `wieght`: not a setting of `pool.p.sources` \
         (did you mean `weight`?)",
    );
    check(
        &pool("[{ weight = 2 }]"),
        "postrider.toml:3:12: missing `pool.p.sources.source`: needed here",
    );
    check(
        &pool("[]"),
        "postrider.toml:3:11: invalid value for `pool.p.sources`: expected at least one source",
    );
    check("[source.a]\n[pool.p]\n", "postrider.toml:2:7: missing `pool.sources`: needed here");
}

#[test]
fn a_pool_given_twice_is_not_toml() {
    let problems = bad("[pool.p]\nsources = [\"a\"]\n[pool.p]\nsources = [\"a\"]\n");
    assert!(problems[0].contains("this is not TOML"), "{problems:?}");
}

/// Each unknown name costs a look at all names, so only as many are looked at as are told.
#[test]
fn thousands_of_unknown_names_are_told_in_bounded_time() {
    let mut text: String = (0..5000).map(|n| format!("[source.s{n}]\n")).collect();
    text.push_str("[pool.p]\nsources = [");
    text.extend((0..5000).map(|n| format!("\"unknown{n}\",")));
    text.push_str("]\n");
    assert_eq!(bad(&text).len(), PROBLEMS_MAX);
}
