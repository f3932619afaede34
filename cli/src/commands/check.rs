//! `postrider check`: what is wrong with a settings file, or what it amounts to.

mod notes;
mod tables;

use std::fmt::Display;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use postrider_engine::config::{CpuList, Size};
use postrider_engine::model::flow::MailClass;
use postrider_engine::model::settings::{
    AdminSettings, DnsSettings, DomainPattern, EgressSettings, LimitSettings, ListenerSettings,
    NextHop, OutcomeDurability, RouteSettings, Settings, ShardChoice, SpoolSettings, TlsMode,
};

use crate::flags::CheckFlags;
use crate::settings;

/// Listeners, routes and sites shown of each, so that the summary stays one screen.
const LINES_SHOWN_MAX: usize = 10;

pub(crate) fn run(flags: &CheckFlags) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&flags.config)?;
    println!("ok: {}\n\n{}", flags.config.display(), summary(&settings));
    Ok(ExitCode::SUCCESS)
}

fn summary(settings: &Settings) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.add_row(["host name", &settings.hostname]);
    table.add_row(["shards", &shards(&settings.engine.shards)]);
    table.add_row(["spool", &spool(&settings.spool)]);
    table.add_row(["listeners", &listeners(&settings.listeners)]);
    table.add_row(["limits", &limits(&settings.limits)]);
    table.add_row(["resolvers", &resolvers(&settings.dns)]);
    table.add_row(["egress", &egress(&settings.egress)]);
    table.add_row(["routes", &routes(&settings.routes)]);
    table.add_row(["order", &order(settings.order.bulk_floor_percent)]);
    table.add_row(["starter rules", &starter_rules(settings)]);
    table.add_row(["administration", &admin(settings.admin.as_ref())]);
    let tables = tables::all(settings).join("\n\n");
    let notes = notes::all(settings).into_iter().map(|note| format!("\nnote: {note}"));
    format!("{}\n\n{tables}{}", table.trim_fmt(), notes.collect::<String>())
}

/// What comes with the engine is counted; the tables show what is the operator's.
fn starter_rules(settings: &Settings) -> String {
    let providers = settings.providers.iter().filter(|one| one.origin.is_starter()).count();
    let rules = settings.rules.iter().filter(|one| one.origin.is_starter()).count();
    match (providers, rules) {
        (0, 0) => "left out".to_owned(),
        _ => format!("{providers} providers and {rules} rules that come with the engine"),
    }
}

fn shards(choice: &ShardChoice) -> String {
    match choice {
        ShardChoice::Auto => "one per core".to_owned(),
        ShardChoice::Count(count) => count.to_string(),
        ShardChoice::Cores(cores) => {
            format!("{}, on the cores {}", cores.len(), CpuList(cores.clone()))
        }
    }
}

fn spool(spool: &SpoolSettings) -> String {
    let outcomes = match spool.outcomes {
        OutcomeDurability::Grouped => "grouped",
        OutcomeDurability::Strict => "strict",
    };
    let segment = Size(spool.segment_bytes.into());
    format!("{}\nsegments of {segment}, {outcomes} outcomes", spool.path.display())
}

fn listeners(listeners: &[ListenerSettings]) -> String {
    lines(listeners, "none", |listener| {
        let clients = match &*listener.relay_from {
            [] => "nobody".to_owned(),
            networks => joined(networks),
        };
        format!("{}, relay for {clients}{}", listener.address, mail_of(listener))
    })
}

/// Whose mail a listener takes, as far as that is said.
fn mail_of(listener: &ListenerSettings) -> String {
    let flow = &listener.flow;
    let mut said = String::new();
    for (what, name) in [("tenant", &flow.tenant), ("campaign", &flow.campaign)] {
        if !name.is_empty() {
            said.push_str(&format!(", {what} {name}"));
        }
    }
    if flow.class != MailClass::default() {
        said.push_str(&format!(", {}", flow.class));
    }
    if !listener.trust_headers_from.is_empty() {
        said.push_str(&format!(", X- fields from {}", joined(&listener.trust_headers_from)));
    }
    said
}

fn order(bulk_floor_percent: u8) -> String {
    match bulk_floor_percent {
        0 => "transactional before bulk".to_owned(),
        percent => format!("transactional before bulk, which gets {percent}% at least"),
    }
}

fn admin(admin: Option<&AdminSettings>) -> String {
    admin.map_or_else(|| "off".to_owned(), |admin| admin.socket.display().to_string())
}

fn limits(limits: &LimitSettings) -> String {
    let connections = |count: u32| match count {
        0 => "as descriptors allow".to_owned(),
        _ => count.to_string(),
    };
    format!(
        "messages up to {} to {} recipients\nconnections per shard: in {}, out {}\n\
         memory: {} for bodies waiting, {} per shard for mail coming in",
        Size(limits.message_bytes),
        limits.recipients,
        connections(limits.connections_in),
        connections(limits.connections_out),
        Size(limits.body_memory_bytes),
        Size(limits.intake_memory_bytes),
    )
}

fn resolvers(dns: &DnsSettings) -> String {
    match &*dns.servers {
        [] => "the system's".to_owned(),
        servers => joined(servers),
    }
}

fn egress(egress: &EgressSettings) -> String {
    let tls = match egress.tls {
        TlsMode::Opportunistic => "TLS where offered",
        TlsMode::Off => "no TLS",
    };
    let private = if egress.allow_private { ", private addresses allowed" } else { "" };
    format!("port {} of MX hosts, {tls}{private}", egress.port)
}

fn routes(routes: &[RouteSettings]) -> String {
    let explicit = lines(routes, "", |route| {
        let domain = pattern(&route.domain);
        match &route.via {
            NextHop::Address(address) => format!("{domain} to {address}"),
            NextHop::Host(name, port) => format!("{domain} to {name}:{port}"),
        }
    });
    match routes.last().map(|route| &route.domain) {
        None => "all by MX".to_owned(),
        Some(DomainPattern::Any) => explicit,
        Some(_) => format!("{explicit}\nothers by MX"),
    }
}

fn pattern(pattern: &DomainPattern) -> &str {
    match pattern {
        DomainPattern::Any => "*",
        DomainPattern::Exact(name) | DomainPattern::Below(name) => name,
    }
}

fn lines<T>(items: &[T], none: &str, line: impl Fn(&T) -> String) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let shown: Vec<String> = items.iter().take(LINES_SHOWN_MAX).map(line).collect();
    format!("{}{}", shown.join("\n"), more(items.len()))
}

fn more(count: usize) -> String {
    match count.saturating_sub(LINES_SHOWN_MAX) {
        0 => String::new(),
        left => format!("\n... and {left} more"),
    }
}

fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use postrider_engine::config;

    use super::*;

    fn summary_of(text: &str) -> String {
        summary(&config::parse(text, "a.toml", "mta1.example.net").unwrap())
    }

    #[test]
    fn a_summary_says_what_the_defaults_amount_to() {
        let expected = " host name       mta1.example.net
 shards          one per core
 spool           /var/lib/postrider
                 segments of 64MiB, grouped outcomes
 listeners       none
 limits          messages up to 50MiB to 1000 recipients
                 connections per shard: in as descriptors allow, out as descriptors allow
                 memory: 256MiB for bodies waiting, 64MiB per shard for mail coming in
 resolvers       the system's
 egress          port 25 of MX hosts, TLS where offered
 routes          all by MX
 order           transactional before bulk, which gets 10% at least
 starter rules   15 providers and 42 rules that come with the engine
 administration  off

 site     connections  messages each  retry after            expire  further limits
 default  20           1000           5m, 10m, 20m, 40m, 1h  5d      none
note: there is no [[listen]]: `postrider run` will refuse this file";
        assert_eq!(summary_of(""), expected);
    }

    #[test]
    fn an_open_relay_is_pointed_out() {
        let text = "[[listen]]\naddress = \"[::]:25\"\nrelay_from = [\"0.0.0.0/0\"]\n";
        assert!(summary_of(text).contains("note: [::]:25 relays for everyone"));
    }

    #[test]
    fn a_long_list_stays_one_screen() {
        let text: String = (0..50)
            .map(|index| format!("[[route]]\ndomain = \"d{index}.example\"\nvia = \"::1\"\n"))
            .collect();
        let shown = summary_of(&text);
        assert!(shown.lines().count() < 40, "{shown}");
        assert!(shown.contains("... and 40 more") && shown.contains("others by MX"), "{shown}");
    }

    const WHOLE: &str = r#"
[[listen]]
address = "127.0.0.1:25"
tenant = "shop"
class = "transactional"
trust_headers_from = ["10.0.0.0/8"]
[admin]
socket = "/run/postrider/admin.sock"
[site."a.example"]
connections_per_source = 10
connections_per_ip = 5
message_rate = { rate = "10/s", burst = 20 }
byte_rate = "10MiB/s"
recipients_per_message = 100
[provider.big]
mx = [".google.com", ".googlemail.com"]
domains = ["gmail.com"]
connections = 200
per_source = { message_rate = "50/s" }
[source.a]
address = "192.0.2.1"
hostname = "mta-a.example.net"
warm_up = { days = [50, 100] }
[source.b]
address = "192.0.2.1"
[pool.main]
sources = [{ source = "a", weight = 3 }]
[pool.default]
sources = ["a"]
[tenant.news]
weight = 2
connections = 7
[[rule]]
name = "slow"
reply = 'slow down'
provider = "big"
action = "backoff"
wait = "10m"
[[rule]]
reply = '^4'
share = "5%"
sample = 200
within = "1m"
action = "suspend"
suspend = "tenant"
for = "1h"
"#;

    #[test]
    fn a_summary_shows_what_is_shared_and_by_whom() {
        let expected = "\
 site       connections  messages each  retry after            expire  further limits
 default    20           1000           5m, 10m, 20m, 40m, 1h  5d      none
 a.example  20           1000           5m, 10m, 20m, 40m, 1h  5d      10 per source, 5 per \
address, messages 10/s (20 at once), bytes 10MiB/s (10MiB at once), 100 recipients each

 provider  mail hosts                    domains    all together     each source    its sites
 big       .google.com, .googlemail.com  gmail.com  200 connections  messages 50/s  20 connections

 source  addresses  EHLO               limits  warm-up
 a       192.0.2.1  mta-a.example.net  none    2 days, 50 to 100 each
 b       192.0.2.1  mta1.example.net   none    none

 pool     sources
 default  a
 main     a (weight 3)

 tenant  pool     weight  class           limits
 news    default  2       the listener's  7 connections

 rule    reply      when                               where         what
 slow    slow down  each                               provider big  backoff of 10m
 rule 2  ^4         over 5% of at least 200 within 1m  everywhere    suspend the tenant for 1h
note: no [tenant] table, so the defaults: shop
note: no tenant sends by the pool: main
note: in no pool, so nothing leaves by it: b
note: several sources, with limits each, have the address: 192.0.2.1";
        let shown = summary_of(WHOLE);
        assert!(shown.ends_with(expected), "{shown}");
    }
}
