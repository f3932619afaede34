//! `postrider check`: what is wrong with a settings file, or what it amounts to.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use postrider_engine::config::{CpuList, Period, Size};
use postrider_engine::model::settings::{
    DnsSettings, DomainPattern, EgressSettings, LimitSettings, ListenerSettings, NextHop,
    OutcomeDurability, RouteSettings, Settings, ShardChoice, SiteSettings, SiteTable,
    SpoolSettings, TlsMode,
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
    let sites = sites(&settings.sites);
    let notes = notes(settings).into_iter().map(|note| format!("\nnote: {note}"));
    format!("{}\n\n{sites}{}", table.trim_fmt(), notes.collect::<String>())
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
    lines(listeners, "none", |listener| match &*listener.relay_from {
        [] => format!("{}, relay for nobody", listener.address),
        networks => format!("{}, relay for {}", listener.address, joined(networks)),
    })
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
        let domain = match &route.domain {
            DomainPattern::Any => "*",
            DomainPattern::Exact(name) | DomainPattern::Below(name) => name,
        };
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

fn sites(sites: &SiteTable) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["site", "connections", "messages each", "retry after", "expire"]);
    table.add_row(site_row("default", &sites.default));
    for (name, site) in sites.by_domain.iter().take(LINES_SHOWN_MAX) {
        table.add_row(site_row(name, site));
    }
    format!("{}{}", table.trim_fmt(), more(sites.by_domain.len()))
}

fn site_row(name: &str, site: &SiteSettings) -> [String; 5] {
    let retry: Vec<Period> = site.retry.iter().copied().map(Period).collect();
    [
        name.to_owned(),
        site.connections.to_string(),
        site.messages_per_connection.to_string(),
        joined(&retry),
        Period(site.expire).to_string(),
    ]
}

/// What is allowed but may not be meant.
fn notes(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.listeners.is_empty() {
        notes.push("there is no [[listen]]: `postrider run` will refuse this file".to_owned());
    }
    let everyone = |listener: &&ListenerSettings| {
        listener.relay_from.iter().any(|network| network.prefix_len() == 0)
    };
    for listener in settings.listeners.iter().filter(everyone) {
        notes.push(format!("{} relays for everyone who can reach it", listener.address));
    }
    if settings.limits.idle_timeout < RFC_IDLE_TIMEOUT {
        notes.push("limits.idle_timeout: RFC 5321 asks for at least 5m".to_owned());
    }
    notes
}

/// RFC 5321 §4.5.3.2.7.
const RFC_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

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
        let expected = " host name  mta1.example.net
 shards     one per core
 spool      /var/lib/postrider
            segments of 64MiB, grouped outcomes
 listeners  none
 limits     messages up to 50MiB to 1000 recipients
            connections per shard: in as descriptors allow, out as descriptors allow
            memory: 256MiB for bodies waiting, 64MiB per shard for mail coming in
 resolvers  the system's
 egress     port 25 of MX hosts, TLS where offered
 routes     all by MX

 site     connections  messages each  retry after            expire
 default  20           1000           5m, 10m, 20m, 40m, 1h  5d
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
}
