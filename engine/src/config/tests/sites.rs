//! Limits of a site: rates, shares, the ramp.

use super::*;
use crate::model::settings::{RampSettings, Rate};

const SITE: &str = r#"
[site.default]
connections = 30
connections_per_source = 10
connections_per_ip = 5
connection_rate = "10/s"
message_rate = { rate = "1000/min", burst = 20 }
byte_rate = "10MiB/s"
messages_per_connection = 500
recipients_per_message = 100
chunking = false
start_connections = 4
floor_connections = 2
adaptive = true
[site."a.example"]
message_rate = "1/h"
byte_rate = { rate = "1MiB/min", burst = "256KiB" }
adaptive = false
[site."b.example"]
chunking = true
"#;

fn rate(units: u64, per: u64, burst: u64) -> Option<Rate> {
    Some(Rate { units, per: Duration::from_secs(per), burst })
}

#[test]
fn every_limit_of_a_site_is_read_and_inherited() {
    let sites = good(SITE).sites;
    let site = &sites.default;
    assert_eq!((site.connections, site.connections_per_source), (30, Some(10)));
    assert_eq!(site.connections_per_ip, Some(5));
    assert_eq!(site.connection_rate, rate(10, 1, 1));
    assert_eq!(site.message_rate, rate(1000, 60, 20));
    assert_eq!(site.byte_rate, rate(10 << 20, 1, 10 << 20));
    assert_eq!((site.messages_per_connection, site.recipients_per_message), (500, 100));
    assert_eq!(site.ramp, RampSettings { start: 4, floor: 2, adaptive: true });
    let own = sites.for_domain("a.example");
    assert_eq!(own.message_rate, rate(1, 3600, 1));
    assert_eq!(own.byte_rate, rate(1 << 20, 60, 256 << 10));
    assert_eq!(own.connection_rate, rate(10, 1, 1));
    assert_eq!((own.connections_per_source, own.recipients_per_message), (Some(10), 100));
    assert_eq!(own.ramp, RampSettings { start: 4, floor: 2, adaptive: false });
    let chunking = |domain| sites.for_domain(domain).chunking;
    assert_eq!(["c.example", "a.example", "b.example"].map(chunking), [false, false, true]);
    assert!(good("").sites.default.chunking);
}

#[test]
fn a_setting_knows_the_line_of_its_table() {
    let sites = good(SITE).sites;
    let shown = |site: &SiteSettings| format!("{} {}", site.origin.table, site.origin.place);
    assert_eq!(shown(&sites.default), "site.default postrider.toml:2");
    let own = sites.for_domain("a.example");
    assert_eq!(shown(own), "site.\"a.example\" postrider.toml:15");
    assert_eq!(shown(&good("").sites.default), "built in ");
}

#[test]
fn a_limit_that_is_inherited_knows_the_table_it_comes_from() {
    let sites = good(SITE).sites;
    let from = &sites.for_domain("a.example").limits_from;
    assert_eq!(&*from.message_rate.table, "site.\"a.example\"");
    assert_eq!(&*from.connections_per_source.table, "site.default");
    assert_eq!(&*from.connections_per_source.place, "postrider.toml:2");
    assert_eq!(
        &*good("[site.default]\nconnections = 5\n").sites.default.limits_from.byte_rate.table,
        "built in"
    );
}

#[test]
fn a_rate_out_of_bounds_is_shown_with_the_bounds() {
    let site = |key: &str| format!("[site.default]\n{key}\n");
    check(
        &site("message_rate = \"0/s\""),
        "postrider.toml:2:16: invalid value for `site.default.message_rate`: \
         allowed: 1/d to 1000000/s",
    );
    check(
        &site("byte_rate = { rate = \"2TiB/s\" }"),
        "postrider.toml:2:22: invalid value for `site.default.byte_rate`: \
         allowed: 1/d to 1TiB/s",
    );
    check(
        &site("message_rate = { rate = \"10/s\", burst = 0 }"),
        "postrider.toml:2:41: invalid value for `site.default.message_rate.burst`: \
         allowed: 1 to 1000000",
    );
}

#[test]
fn what_is_no_rate_is_told_with_an_example() {
    let site = |key: &str| format!("[site.default]\n{key}\n");
    check(
        &site("message_rate = 10"),
        "postrider.toml:2:16: invalid value for `site.default.message_rate`: \
         expected a rate such as \"10/s\" or \"1000/min\", found integer `10`",
    );
    check(
        &site("message_rate = \"10/m\""),
        "postrider.toml:2:16: invalid value for `site.default.message_rate`: \
         unknown unit of time `m`: use /s, /min, /h or /d",
    );
    check(
        &site("byte_rate = \"10/s\""),
        "postrider.toml:2:13: invalid value for `site.default.byte_rate`: \
         expected a rate such as \"10MiB/s\"",
    );
    check(
        &site("message_rate = { rate = \"10/s\", brust = 5 }"),
        "postrider.toml:2:33: unknown key `brust`: not a setting of `site.default.message_rate` \
         (did you mean `burst`?)",
    );
    check(
        &site("message_rate = { burst = 5 }"),
        "postrider.toml:2:16: invalid value for `site.default.message_rate`: missing field `rate`",
    );
    check(
        &site("message_rate = { rate = \"10/s\", burst = -5 }"),
        "postrider.toml:2:41: invalid value for `site.default.message_rate.burst`: \
         expected a whole number, found integer `-5`",
    );
}

#[test]
fn a_transaction_has_at_most_a_thousand_recipients() {
    check(
        "[site.default]\nrecipients_per_message = 1001\n",
        "postrider.toml:2:26: invalid value for `site.default.recipients_per_message`: \
         allowed: 1 to 1000",
    );
}

fn check_ramp(site: &str, start: u32, floor: u32) {
    let text = format!("[site.\"a.example\"]\n{site}\n");
    let ramp = good(&text).sites.for_domain("a.example").ramp.clone();
    assert_eq!((ramp.start, ramp.floor), (start, floor), "{site}");
}

#[test]
fn a_lowered_limit_takes_the_inherited_ramp_with_it() {
    check_ramp("", 5, 1);
    check_ramp("connections = 2", 2, 1);
    check_ramp("connections_per_source = 3", 3, 1);
    check_ramp("floor_connections = 8", 8, 8);
    check_ramp("start_connections = 9\nfloor_connections = 9", 9, 9);
}

/// A table that inherits from a low default starts where the default would without its limit.
#[test]
fn a_raised_limit_brings_the_inherited_ramp_back() {
    let text = "[site.default]\nconnections = 2\n[site.\"a.example\"]\nconnections = 50\n";
    let sites = good(text).sites;
    assert_eq!(sites.default.ramp.start, 2);
    assert_eq!(sites.for_domain("a.example").ramp.start, 5);
}

#[test]
fn a_start_below_an_inherited_floor_lowers_it() {
    let text =
        "[site.default]\nfloor_connections = 4\n[site.\"a.example\"]\nstart_connections = 2\n";
    let ramp = good(text).sites.for_domain("a.example").ramp.clone();
    assert_eq!((ramp.start, ramp.floor), (2, 2));
}

#[test]
fn a_ramp_that_contradicts_its_limits_is_told() {
    let site = |keys: &str| format!("[site.default]\n{keys}\n");
    check(
        &site("start_connections = 21"),
        "postrider.toml:2:21: invalid value for `site.default.start_connections`: \
         more than `connections`, 20",
    );
    check(
        &site("connections_per_source = 3\nfloor_connections = 4"),
        "postrider.toml:3:21: invalid value for `site.default.floor_connections`: \
         more than `connections_per_source`, 3",
    );
    check(
        &site("start_connections = 2\nfloor_connections = 3"),
        "postrider.toml:3:21: invalid value for `site.default.floor_connections`: \
         more than `start_connections`, 2",
    );
    check(
        &site("adaptive = false\nstart_connections = 2"),
        "postrider.toml:3:21: invalid value for `site.default.start_connections`: \
         has no effect where `adaptive` is false",
    );
}
