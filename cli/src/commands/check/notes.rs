//! What a settings file may say but may not mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use postrider_engine::model::settings::{DEFAULT_POOL, Settings};

use super::{LINES_SHOWN_MAX, joined};

/// RFC 5321 §4.5.3.2.7.
const RFC_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

pub(super) fn all(settings: &Settings) -> Vec<String> {
    let mut notes = listeners(settings);
    if settings.limits.idle_timeout < RFC_IDLE_TIMEOUT {
        notes.push("limits.idle_timeout: RFC 5321 asks for at least 5m".to_owned());
    }
    notes.extend(tenants_without_table(settings));
    notes.extend(idle_pools(settings));
    notes.extend(idle_sources(settings));
    notes.extend(shared_addresses(settings));
    notes
}

fn listeners(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.listeners.is_empty() {
        notes.push("there is no [[listen]]: `postrider run` will refuse this file".to_owned());
    }
    for listener in &settings.listeners {
        if listener.relay_from.iter().any(|network| network.prefix_len() == 0) {
            notes.push(format!("{} relays for everyone who can reach it", listener.address));
        }
        if listener.trust_headers_from.iter().any(|network| network.prefix_len() == 0) {
            notes.push(format!("{} believes everyone whose mail it is", listener.address));
        }
    }
    notes
}

/// Allowed, but with other tenants listed perhaps a slip.
fn tenants_without_table(settings: &Settings) -> Option<String> {
    let listed: BTreeSet<&str> = settings.tenants.iter().map(|tenant| &*tenant.name).collect();
    let named: BTreeSet<&str> =
        settings.listeners.iter().map(|listener| &*listener.flow.tenant).collect();
    let missing: Vec<&&str> =
        named.iter().filter(|name| !name.is_empty() && !listed.contains(**name)).collect();
    let known = !settings.tenants.is_empty() && !missing.is_empty();
    known.then(|| format!("no [tenant] table, so the defaults: {}", some(&missing)))
}

fn idle_pools(settings: &Settings) -> Option<String> {
    let used: BTreeSet<u16> = settings.tenants.iter().filter_map(|tenant| tenant.pool).collect();
    let idle: Vec<&str> = (0..)
        .zip(&settings.pools)
        .filter(|(index, pool)| !used.contains(index) && &*pool.name != DEFAULT_POOL)
        .map(|(_, pool)| &*pool.name)
        .collect();
    (!idle.is_empty()).then(|| format!("no tenant sends by the pool: {}", some(&idle)))
}

fn idle_sources(settings: &Settings) -> Option<String> {
    let members = settings.pools.iter().flat_map(|pool| &pool.members);
    let used: BTreeSet<u16> = members.map(|member| member.source).collect();
    let idle: Vec<&str> = (0..)
        .zip(&settings.sources)
        .filter(|(index, _)| !used.contains(index))
        .map(|(_, source)| &*source.name)
        .collect();
    (!idle.is_empty()).then(|| format!("in no pool, so nothing leaves by it: {}", some(&idle)))
}

/// Each would count its limits and its warm-up for itself, and the receiver sees one sender.
fn shared_addresses(settings: &Settings) -> Option<String> {
    let mut sources: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for source in &settings.sources {
        for address in source.address_v4.iter().chain(&source.address_v6) {
            *sources.entry(*address).or_default() += 1;
        }
    }
    let shared: Vec<IpAddr> =
        sources.into_iter().filter(|(_, count)| *count > 1).map(|(address, _)| address).collect();
    (!shared.is_empty())
        .then(|| format!("several sources, with limits each, have the address: {}", some(&shared)))
}

fn some(names: &[impl std::fmt::Display]) -> String {
    let shown = joined(&names[..names.len().min(LINES_SHOWN_MAX)]);
    match names.len().saturating_sub(LINES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use postrider_engine::config;

    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let text = format!("[[listen]]\naddress = \"[::]:25\"\n{text}");
        let settings = config::parse(&text, "a.toml", "mta1.example.net").unwrap();
        assert_eq!(all(&settings), expected, "{text}");
    }

    #[test]
    fn what_lets_everyone_in_is_pointed_out() {
        check("relay_from = [\"0.0.0.0/0\"]\n", &["[::]:25 relays for everyone who can reach it"]);
        check("trust_headers_from = [\"::/0\"]\n", &["[::]:25 believes everyone whose mail it is"]);
    }

    #[test]
    fn what_no_mail_uses_is_pointed_out() {
        check(
            "[source.a]\n[source.b]\n[pool.default]\nsources = [\"a\"]\n[pool.x]\nsources = [\"a\"]\n",
            &["no tenant sends by the pool: x", "in no pool, so nothing leaves by it: b"],
        );
        check("[source.a]\n[pool.x]\nsources = [\"a\"]\n[tenant.t]\npool = \"x\"\n", &[]);
    }

    #[test]
    fn a_tenant_without_table_beside_others_is_pointed_out() {
        check("tenant = \"shop\"\n", &[]);
        check("tenant = \"shop\"\n[tenant.shop]\n", &[]);
        check("tenant = \"shop\"\n[tenant.shpo]\n", &["no [tenant] table, so the defaults: shop"]);
    }

    #[test]
    fn an_address_of_several_sources_is_pointed_out() {
        let sources = |count: u32| -> String {
            (0..count).map(|n| format!("[source.s{n}]\naddress = \"192.0.2.1\"\n")).collect()
        };
        check(&sources(1), &[]);
        check(&sources(2), &["several sources, with limits each, have the address: 192.0.2.1"]);
    }

    #[test]
    fn a_note_stays_short() {
        let sources: String = (100..150).map(|n| format!("[source.s{n}]\n")).collect();
        let text = format!("{sources}[pool.default]\nsources = [\"s100\"]\n");
        let settings = config::parse(&text, "a.toml", "mta1.example.net").unwrap();
        let notes = all(&settings);
        assert!(notes.iter().any(|note| note.ends_with("s110 and 39 more")), "{notes:?}");
    }
}
