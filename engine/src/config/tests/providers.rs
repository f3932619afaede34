//! Providers: patterns, caps, order.

use super::*;
use crate::model::settings::Caps;

const PROVIDERS: &str = r#"starter_rules = false
[site.default]
connections = 30
[provider."zeta"]
mx = [".Google.com", "mx.googlemail.com"]
domains = ["gmail.com"]
connections = 200
connection_rate = "20/s"
message_rate = "100/s"
byte_rate = "1GiB/min"
per_source = { connections = 20, message_rate = "50/s" }
site = { connections = 50, retry = ["1m"] }
[provider."alpha"]
mx = [".alpha.example"]
[provider."mid"]
domains = [".mid.example"]
[provider.mid.site]
start_connections = 2
"#;

#[test]
fn providers_keep_the_order_of_the_file() {
    let providers = good(PROVIDERS).providers;
    let names: Vec<&str> = providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["zeta", "alpha", "mid"]);
}

#[test]
fn a_provider_has_patterns_shared_caps_and_site_settings() {
    let providers = good(PROVIDERS).providers;
    let zeta = &providers[0];
    assert_eq!(zeta.matches.mx[0], DomainPattern::Below(".google.com".into()));
    assert_eq!(zeta.matches.mx[1], DomainPattern::Exact("mx.googlemail.com".into()));
    assert_eq!(zeta.matches.domains, [DomainPattern::Exact("gmail.com".into())]);
    assert_eq!(zeta.caps.connections, Some(200));
    assert_eq!(zeta.caps.connection_rate.map(|rate| rate.units), Some(20));
    assert_eq!(zeta.caps.byte_rate.map(|rate| rate.per), Some(Duration::from_secs(60)));
    assert_eq!(zeta.caps_per_source.connections, Some(20));
    assert_eq!(zeta.caps_per_source.message_rate.map(|rate| rate.units), Some(50));
    assert_eq!(zeta.caps_per_source.byte_rate, None);
    assert_eq!((zeta.site.connections, zeta.site.retry.len()), (50, 1));
    assert_eq!(providers[1].caps, Caps::default());
    assert_eq!((providers[2].site.connections, providers[2].site.ramp.start), (30, 2));
}

#[test]
fn a_provider_and_its_site_know_their_lines() {
    let providers = good(PROVIDERS).providers;
    let origins = providers.iter().flat_map(|provider| [&provider.origin, &provider.site.origin]);
    let shown: Vec<String> =
        origins.map(|origin| format!("{} {}", origin.table, origin.place)).collect();
    assert_eq!(
        shown,
        [
            "provider.\"zeta\" postrider.toml:4",
            "provider.\"zeta\".site postrider.toml:12",
            "provider.\"alpha\" postrider.toml:13",
            "site.default postrider.toml:2",
            "provider.\"mid\" postrider.toml:15",
            "provider.\"mid\".site postrider.toml:17",
        ]
    );
}

#[test]
fn a_provider_without_sites_is_told() {
    check(
        "[provider.a]\nconnections = 5\n",
        "postrider.toml:1:11: missing `provider.mx` or `provider.domains`: no site would belong to \
         it (name its mail hosts, as in mx = [\".mx.example.com\"])",
    );
    check(
        "[provider.a]\nmx = [\"*\"]\n",
        "postrider.toml:2:7: invalid value for `provider.a.mx`: \
         expected a host or domain, or a suffix with its dot",
    );
}

fn check_taken(first: &str, second: &str, is_taken: bool) {
    let text = format!("[provider.b]\nmx = [\"{first}\"]\n[provider.a]\nmx = [\"{second}\"]\n");
    let problems = parse(&text, "postrider.toml", "host.example").err().unwrap_or_default();
    assert_eq!(problems.len(), usize::from(is_taken), "{first} before {second}");
}

#[test]
fn a_pattern_that_an_earlier_provider_takes_is_told() {
    check(
        "[provider.b]\nmx = [\".example.com\"]\n[provider.a]\nmx = [\"mx.a.example.com\"]\n",
        "postrider.toml:4:7: invalid value for `provider.a.mx`: no site comes here: \
         \".example.com\", before it, takes them all \
         (the first match wins: put the special providers first)",
    );
    check_taken(".example.com", ".mx.example.com", true);
    check_taken(".example.com", ".example.com", true);
    check_taken("a.example.com", "a.example.com", true);
    check_taken("a.example.com", ".example.com", false);
    check_taken(".example.com", "example.com", false);
    check_taken(".a.example.com", ".b.example.com", false);
    check_taken(".ample.com", ".example.com", false);
    check_taken("example.com", ".example.com", false);
}

/// A domain and a mail host of the same name have nothing to do with each other.
#[test]
fn hosts_and_domains_are_compared_apart() {
    good("[provider.b]\nmx = [\"a.example\"]\n[provider.a]\ndomains = [\"a.example\"]\n");
}

#[test]
fn a_misspelt_key_of_a_provider_finds_the_right_one() {
    check(
        "[provider.a]\nmx = [\".a.example\"]\nper_sorce = { connections = 1 }\n",
        "postrider.toml:3:1: unknown key `per_sorce`: not a setting of `provider.a` \
         (did you mean `per_source`?)",
    );
    check(
        "[provider.a.example]\nmx = [\".a.example\"]\n",
        "postrider.toml:1:13: unknown key `example`: not a setting of `provider.a` \
         (quote the name: [provider.\"a.example\"])",
    );
    check(
        "[provider.a]\nmx = [\".a.example\"]\nsite = { conections = 1 }\n",
        "postrider.toml:3:10: unknown key `conections`: not a setting of `provider.a.site` \
         (did you mean `connections`?)",
    );
    check(
        "[provider.\"a b\"]\nmx = [\".a.example\"]\n",
        "postrider.toml:1:11: invalid value for `provider`: a name is printable ASCII without spaces",
    );
}

#[test]
fn more_providers_than_can_be_tried_are_told() {
    let text: String =
        (0..1001).map(|n| format!("[provider.p{n:04}]\nmx = [\".d{n}.example\"]\n")).collect();
    check(&text, "postrider.toml:2001:11: too many providers: there may be at most 1000");
}
