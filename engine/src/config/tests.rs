//! What an operator gets for a settings file, good or bad.

mod providers;
mod rules;
mod sites;
mod sources;

use std::time::Duration;

use super::*;
use crate::model::flow::{Flow, MailClass};
use crate::model::settings::{
    DomainPattern, NextHop, OutcomeDurability, ShardChoice, SiteSettings, TlsMode,
};

const WHOLE: &str = r#"
hostname = "MTA1.example.net"
[engine]
shards = "0,2,4-6"
[spool]
path = "/tmp/spool"
segment_size = "128MiB"
outcomes = "strict"
[[listen]]
address = "127.0.0.1:2525"
relay_from = ["127.0.0.0/8", "::1/128"]
[[listen]]
address = "[::1]:2525"
tenant = "shop"
campaign = "autumn-1"
class = "transactional"
trust_headers_from = ["127.0.0.1/32"]
[limits]
message_size = "100MiB"
recipients = 500
connections_in = 2000
body_memory = "1GiB"
intake_memory = 134217728
idle_timeout = "10m"
data_timeout = "1h30m"
[dns]
servers = ["127.0.0.1:5353", "192.0.2.53"]
timeout = "2s"
[egress]
port = 2626
allow_private = true
tls = "off"
[[route]]
domain = ".example.com"
via = "relay.example:2526"
[[route]]
domain = "*"
via = "127.0.0.1:2526"
[order]
bulk_floor = "20%"
[admin]
socket = "/run/postrider/admin.sock"
[site.default]
connections = 30
retry = ["1m", "2m"]
[site."Example.org"]
connections = 2
expire = "1d12h"
dot_timeout = "20m"
[site."a.example"]
"#;

fn good(text: &str) -> Settings {
    parse(text, "postrider.toml", "host.example").unwrap_or_else(|problems| {
        panic!("{}", render(&problems, text, false));
    })
}

/// The problems, a line each.
fn bad(text: &str) -> Vec<String> {
    let problems = parse(text, "postrider.toml", "host.example").expect_err("a bad file");
    problems.iter().map(ToString::to_string).collect()
}

fn check(text: &str, expected: &str) {
    assert_eq!(bad(text), [expected], "{text}");
}

#[test]
fn every_key_is_read() {
    let settings = good(WHOLE);
    assert_eq!(&*settings.hostname, "mta1.example.net");
    assert_eq!(settings.engine.shards, ShardChoice::Cores(vec![0, 2, 4, 5, 6]));
    assert_eq!(settings.spool.segment_bytes, 128 << 20);
    assert_eq!(settings.spool.outcomes, OutcomeDurability::Strict);
    assert_eq!(settings.listeners.len(), 2);
    assert_eq!(settings.listeners[0].relay_from, settings.listeners[1].relay_from);
    assert_eq!(settings.limits.message_bytes, 100 << 20);
    assert_eq!((settings.limits.connections_in, settings.limits.connections_out), (2000, 0));
    assert_eq!(settings.limits.intake_memory_bytes, 128 << 20);
    assert_eq!(settings.limits.data_timeout, Duration::from_secs(5400));
    assert_eq!(settings.dns.servers[1].to_string(), "192.0.2.53:53");
    assert_eq!((settings.egress.port, settings.egress.tls), (2626, TlsMode::Off));
    assert_eq!(settings.routes[0].domain, DomainPattern::Below(".example.com".into()));
    assert_eq!(settings.routes[0].via, NextHop::Host("relay.example".into(), 2526));
    assert_eq!(settings.order.bulk_floor_percent, 20);
    let socket = settings.admin.map(|admin| admin.socket);
    assert_eq!(socket, Some("/run/postrider/admin.sock".into()));
}

#[test]
fn a_listener_says_whose_mail_it_takes() {
    let listeners = good(WHOLE).listeners;
    assert_eq!(listeners[0].flow, Flow::default());
    assert_eq!(listeners[0].trust_headers_from, []);
    assert_eq!(
        listeners[1].flow,
        Flow {
            class: MailClass::Transactional,
            tenant: "shop".into(),
            campaign: "autumn-1".into(),
            expire: None,
        }
    );
    assert_eq!(listeners[1].trust_headers_from, ["127.0.0.1/32".parse().unwrap()]);
    let listener = |key: &str| format!("[[listen]]\naddress = \"[::1]:25\"\n{key}\n");
    check(
        &listener("tenant = \"my shop\""),
        "postrider.toml:3:10: invalid value for `listen.tenant`: \
         a name is printable ASCII without spaces",
    );
    check(
        &listener("class = \"urgent\""),
        "postrider.toml:3:9: invalid value for `listen.class`: allowed: \"transactional\", \"bulk\" \
         (there are: `transactional`, `bulk`)",
    );
    check(
        &listener("trust_headers_from = [\"10.0.0.1/8\"]"),
        "postrider.toml:3:23: invalid value for `listen.trust_headers_from`: \
         an address inside a network: the network is \"10.0.0.0/8\"",
    );
}

#[test]
fn bulk_mail_is_left_at_most_half() {
    check(
        "[order]\nbulk_floor = \"51%\"\n",
        "postrider.toml:2:14: invalid value for `order.bulk_floor`: allowed: 0% to 50%",
    );
    check(
        "[order]\nbulk_floor = 10\n",
        "postrider.toml:2:14: invalid value for `order.bulk_floor`: \
         expected whole percent such as \"5%\", found integer `10`",
    );
}

#[test]
fn the_socket_of_the_administration_is_a_path_that_can_be_bound() {
    assert_eq!(good("").admin, None);
    check("[admin]\n", "postrider.toml:1:1: missing `admin.socket`: needed here");
    let long = format!("[admin]\nsocket = \"/{}\"\n", "a".repeat(107));
    check(
        &long,
        "postrider.toml:2:10: invalid value for `admin.socket`: \
         the path of a unix socket has at most 107 bytes",
    );
    assert!(bad("[admin]\nsocket = \"/run/\"\n")[0].contains("expected a path"));
}

#[test]
fn a_site_takes_from_the_default_table_then_from_the_built_in_settings() {
    let sites = good(WHOLE).sites;
    let own = sites.for_domain("example.org");
    assert_eq!((own.connections, own.expire), (2, Duration::from_secs(36 * 3600)));
    assert_eq!(own.retry, [Duration::from_secs(60), Duration::from_secs(120)]);
    assert_eq!(own.timeouts.dot, Duration::from_secs(1200));
    assert_eq!(own.timeouts.body, SiteSettings::default().timeouts.body);
    let bare = sites.for_domain("a.example");
    assert_eq!(bare, &SiteSettings { origin: bare.origin.clone(), ..sites.default.clone() });
    assert_eq!(sites.for_domain("other.example").connections, 30);
    assert!(sites.by_domain.is_sorted_by(|(a, _), (b, _)| a < b));
}

/// The blocks of its section on the configuration are one file.
#[test]
fn the_readme_shows_good_settings() {
    let readme = include_str!("../../../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with("Configuration"));
    let blocks = section.unwrap().split("```toml\n").skip(1);
    let text: String = blocks.filter_map(|block| block.split("```").next()).collect();
    let settings = good(&text);
    let own = |place: &str| place.starts_with("postrider.toml:");
    let providers = settings.providers.iter().filter(|one| own(&one.origin.place)).count();
    let rules = settings.rules.iter().filter(|one| own(&one.origin.place)).count();
    assert_eq!((providers, settings.sources.len(), rules), (1, 2, 2));
    // What it calls defaults are the defaults.
    let SiteSettings { origin, limits_from, .. } = settings.sites.default.clone();
    let default = SiteSettings { origin, limits_from, ..Default::default() };
    assert_eq!(settings.sites.default, default);
    assert_eq!(settings.order, good("").order);
}

#[test]
fn an_empty_file_is_whole() {
    let settings = good("");
    assert_eq!(&*settings.hostname, "host.example");
    assert_eq!(settings.engine.shards, ShardChoice::Auto);
    assert_eq!(settings.sites.default, SiteSettings::default());
    assert_eq!(settings.limits.message_bytes, 50 << 20);
    let problems = require_listener(&settings, "postrider.toml").unwrap_err();
    assert!(problems[0].to_string().contains("no [[listen]]"));
    assert_eq!(require_listener(&good(WHOLE), ""), Ok(()));
}

#[test]
fn a_misspelt_key_is_shown_where_it_is_with_the_right_one() {
    let text = "[site.default]\nconections = 5\n";
    let problems = parse(text, "postrider.toml", "host.example").unwrap_err();
    let expected = "\
error: unknown key `conections`
 --> postrider.toml:2:1
  |
2 | conections = 5
  | ^^^^^^^^^^ not a setting of `site.default`
  |
  = help: did you mean `connections`?";
    assert_eq!(render(&problems, text, false), expected);
}

#[test]
fn a_value_out_of_bounds_is_shown_with_the_bounds() {
    let text = "[spool]\nsegment_size = \"1GiB\"\n";
    let problems = parse(text, "etc/postrider.toml", "host.example").unwrap_err();
    let expected = "\
error: invalid value for `spool.segment_size`
 --> etc/postrider.toml:2:16
  |
2 | segment_size = \"1GiB\"
  |                ^^^^^^ allowed: 1MiB to 256MiB";
    assert_eq!(render(&problems, text, false), expected);
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "\
hostnam = \"a.example\"
[limits]
recipients = \"many\"
idle_timeout = \"5 parsecs\"
data_timeout = 5
[egress]
port = 70000
tls = \"of\"
[site.default]
retry = [\"1m\", \"1x\"]
expire = \"1y\"
";
    let expected = [
        "postrider.toml:1:1: unknown key `hostnam`: not a setting (did you mean `hostname`?)",
        "postrider.toml:3:14: invalid value for `limits.recipients`: expected a whole number, \
         found string \"many\"",
        "postrider.toml:4:16: invalid value for `limits.idle_timeout`: unknown unit `parsecs`: \
         use d, h, m, s or ms",
        "postrider.toml:5:16: invalid value for `limits.data_timeout`: expected a duration such \
         as \"5m\" or \"1h30m\", found integer `5`",
        "postrider.toml:7:8: invalid value for `egress.port`: allowed: 1 to 65535",
        "postrider.toml:8:7: invalid value for `egress.tls`: allowed: \"opportunistic\", \"off\" \
         (did you mean `off`?)",
        "postrider.toml:10:16: invalid value for `site.default.retry`: unknown unit `x`: \
         use d, h, m, s or ms",
        "postrider.toml:11:10: invalid value for `site.default.expire`: unknown unit `y`: \
         use d, h, m, s or ms",
    ];
    assert_eq!(bad(text), expected);
}

#[test]
fn syntax_errors_are_told_alone() {
    let problems = bad("hostname = \n[limits\nrecipients = 5\n");
    assert!(problems.iter().all(|line| line.contains("this is not TOML")), "{problems:?}");
    assert!(problems[0].starts_with("postrider.toml:1:"), "{problems:?}");
}

#[test]
fn a_wrong_table_is_a_wrong_type() {
    check(
        "limits = 5",
        "postrider.toml:1:10: invalid value for `limits`: expected a table, found integer `5`",
    );
    check(
        "listen = [5]",
        "postrider.toml:1:11: invalid value for `listen`: expected a table, found integer `5`",
    );
}

#[test]
fn a_domain_without_quotes_is_recognised() {
    check(
        "[site.example.com]\nconnections = 5\n",
        "postrider.toml:1:15: unknown key `com`: not a setting of `site.example` \
         (quote the name: [site.\"example.com\"])",
    );
}

#[test]
fn an_international_domain_must_be_written_in_a_labels() {
    check(
        "[site.\"b\u{fc}cher.example\"]\n",
        "postrider.toml:1:7: invalid value for `site`: \
         write an international domain as A-labels (xn--...)",
    );
}

#[test]
fn what_a_wrong_key_leaves_missing_is_not_told_too() {
    check(
        "[[route]]\ndomain = \"*\"\nvai = \"127.0.0.1\"\n",
        "postrider.toml:3:1: unknown key `vai`: not a setting of `route` (did you mean `via`?)",
    );
    check("[[route]]\ndomain = \"*\"\n", "postrider.toml:1:1: missing `route.via`: needed here");
}

#[test]
fn a_route_that_no_mail_can_take_is_told() {
    check(
        "[[route]]\ndomain = \"*\"\nvia = \"::1\"\n[[route]]\ndomain = \"a.example\"\nvia = \"::1\"\n",
        "postrider.toml:5:10: invalid value for `route.domain`: no mail comes here: an earlier \
         route takes \"*\" (the first match wins: put the special routes first)",
    );
}

#[test]
fn values_must_fit_each_other() {
    check(
        "[limits]\nmessage_size = \"100MiB\"\n",
        "postrider.toml:2:16: invalid value for `limits.message_size`: does not fit a segment of \
         64MiB beside 1000 recipients (raise `spool.segment_size`, or allow at most 65158KiB)",
    );
    check(
        "[limits]\nmessage_size = \"20MiB\"\nintake_memory = \"10MiB\"\n",
        "postrider.toml:3:17: invalid value for `limits.intake_memory`: less than \
         `limits.message_size`, 20MiB",
    );
    check(
        "[site.\"a.example\"]\nexpire = \"1m\"\n",
        "postrider.toml:2:10: site.a.example: mail expires after \"1m\": before the first retry, \
         after \"5m\" (raise `expire`, or shorten the first wait of `retry`)",
    );
    check(
        "[site.default]\nretry = []\n",
        "postrider.toml:2:9: invalid value for `site.default.retry`: expected at least one wait",
    );
    check(
        &format!("[site.default]\nretry = [{}\n\"2m\"]\n", "\"1m\", ".repeat(32)),
        "postrider.toml:3:1: too many retries: there may be at most 32",
    );
    check(
        "[site.\"A.example\"]\n[site.\"a.example\"]\n",
        "postrider.toml:2:7: invalid value for `site`: given twice",
    );
}

#[test]
fn small_segments_lower_the_largest_message() {
    let limits = good("[spool]\nsegment_size = \"1MiB\"\n").limits;
    assert!(limits.message_bytes < 1 << 20 && limits.message_bytes > 512 << 10);
}

#[test]
fn shards_are_auto_a_number_or_a_cpu_list() {
    let shards = |text: &str| good(&format!("[engine]\nshards = {text}\n")).engine.shards;
    assert_eq!(shards("\"auto\""), ShardChoice::Auto);
    assert_eq!(shards("2"), ShardChoice::Count(2));
    assert_eq!(shards("\"2\""), ShardChoice::Cores(vec![2]));
    check(
        "[engine]\nshards = 0\n",
        "postrider.toml:2:10: invalid value for `engine.shards`: allowed: 1 to 1024",
    );
    check(
        "[engine]\nshards = \"al\"\n",
        "postrider.toml:2:10: invalid value for `engine.shards`: expected \"auto\", a number of \
         shards, or a CPU list such as \"0-7\", found string \"al\"",
    );
}

#[test]
fn a_machine_name_that_is_no_domain_asks_for_a_hostname() {
    let problems = parse("", "a.toml", "my machine").unwrap_err();
    assert!(problems[0].to_string().starts_with("a.toml: `hostname` is not set"));
    let rendered = render(&problems, "", false);
    assert!(rendered.contains("' ' cannot be in a domain name"), "{rendered}");
    assert!(parse("hostname = \"a.example\"", "a.toml", "my machine").is_ok());
}

#[test]
fn a_file_full_of_nonsense_is_told_in_bounded_words() {
    let text: String = (0..500).map(|index| format!("x{index} = {index}\n")).collect();
    assert_eq!(bad(&text).len(), PROBLEMS_MAX);
}

proptest::proptest! {
    /// Whatever one character becomes: an answer, with places inside the file.
    #[test]
    fn no_change_of_one_character_panics(at in 0..WHOLE.len(), new: char) {
        let text = format!("{}{new}{}", &WHOLE[..at], &WHOLE[at + 1..]);
        if let Err(problems) = parse(&text, "a.toml", "host.example") {
            proptest::prop_assert!(!render(&problems, &text, false).is_empty());
        }
    }
}
