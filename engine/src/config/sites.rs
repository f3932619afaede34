//! Site settings: each takes from its own table, then from `[site.default]`, then the built-in ones.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::bounds::Checks;
use super::document::{Given, Site};
use super::names;
use super::problem::Finding;
use super::units::Period;
use crate::model::settings::{SiteSettings, SiteTable, StageTimeouts};

/// Sites with settings of their own; each is a whole set of settings in memory.
const SITES_MAX: usize = 100_000;

/// Waits of a retry list; the last one repeats, so more say little.
const RETRIES_MAX: usize = 100;

const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
const MESSAGES_PER_CONNECTION: RangeInclusive<u32> = 1..=1_000_000;
const RETRY: RangeInclusive<Duration> = Duration::from_millis(100)..=days(7);
const EXPIRE: RangeInclusive<Duration> = Duration::from_millis(100)..=days(30);
/// Zero closes a connection as soon as it has nothing to do.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const STAGE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// The name of the table that all others take from.
const DEFAULT: &str = "default";

const fn days(count: u64) -> Duration {
    Duration::from_secs(24 * 3600 * count)
}

pub(super) fn table(checks: &mut Checks, given: &BTreeMap<Spanned<String>, Site>) -> SiteTable {
    let own = given.iter().find(|(name, _)| name.get_ref() == DEFAULT);
    let built_in = SiteSettings::default();
    let default =
        own.map_or_else(|| built_in.clone(), |(_, site)| one(checks, DEFAULT, site, &built_in));
    let mut by_domain = BTreeMap::new();
    for (name, site) in given.iter().filter(|(name, _)| name.get_ref() != DEFAULT).take(SITES_MAX) {
        let settings = one(checks, name.get_ref(), site, &default);
        let Some(domain) = checks.text("site", name, names::domain) else { continue };
        if by_domain.insert(domain, settings).is_some() {
            checks.note(Finding::invalid("site", name.span(), "given twice"));
        }
    }
    if let Some((first_over, _)) = given.iter().nth(SITES_MAX + 1) {
        let label = format!("there may be at most {SITES_MAX} sites");
        checks.note(Finding::invalid("site", first_over.span(), label));
    }
    SiteTable { default, by_domain: by_domain.into_iter().collect() }
}

fn one(checks: &mut Checks, name: &str, site: &Site, above: &SiteSettings) -> SiteSettings {
    let key = |key: &str| format!("site.{name}.{key}");
    let settings = SiteSettings {
        connections: checks.number(
            &key("connections"),
            &site.connections,
            CONNECTIONS,
            above.connections,
        ),
        messages_per_connection: checks.number(
            &key("messages_per_connection"),
            &site.messages_per_connection,
            MESSAGES_PER_CONNECTION,
            above.messages_per_connection,
        ),
        retry: retry(checks, &key("retry"), &site.retry, &above.retry),
        expire: checks.period(&key("expire"), &site.expire, &EXPIRE, above.expire),
        idle_timeout: checks.period(
            &key("idle_timeout"),
            &site.idle_timeout,
            &IDLE_TIMEOUT,
            above.idle_timeout,
        ),
        timeouts: timeouts(checks, name, site, &above.timeouts),
        ..above.clone()
    };
    expires_after_a_retry(checks, name, site, &settings);
    settings
}

fn retry(
    checks: &mut Checks,
    key: &str,
    given: &Given<Vec<Spanned<Period>>>,
    above: &[Duration],
) -> Vec<Duration> {
    let Some(given) = given else { return above.to_vec() };
    let list = given.get_ref();
    if list.is_empty() {
        checks.note(Finding::invalid(key, given.span(), "expected at least one wait"));
        return above.to_vec();
    }
    checks.count("retries", list, RETRIES_MAX);
    let waits = list.iter().take(RETRIES_MAX);
    waits.map(|wait| checks.one_period(key, wait, &RETRY, *RETRY.start())).collect()
}

fn timeouts(checks: &mut Checks, name: &str, site: &Site, above: &StageTimeouts) -> StageTimeouts {
    let mut stage = |key: &str, given: &Given<Period>, default: Duration| {
        checks.period(&format!("site.{name}.{key}"), given, &STAGE_TIMEOUT, default)
    };
    StageTimeouts {
        connect: stage("connect_timeout", &site.connect_timeout, above.connect),
        greeting: stage("greeting_timeout", &site.greeting_timeout, above.greeting),
        command: stage("command_timeout", &site.command_timeout, above.command),
        data: stage("data_timeout", &site.data_timeout, above.data),
        body: stage("body_timeout", &site.body_timeout, above.body),
        dot: stage("dot_timeout", &site.dot_timeout, above.dot),
        quit: above.quit,
        tls: above.tls,
    }
}

/// A message that expires before its first retry is tried only once: surely not what was meant.
fn expires_after_a_retry(checks: &mut Checks, name: &str, site: &Site, settings: &SiteSettings) {
    let Some(first) = settings.retry.first().filter(|first| **first > settings.expire) else {
        return;
    };
    let expire = site.expire.as_ref().map(Spanned::span);
    let retry = site.retry.as_ref().map(Spanned::span);
    // Neither is its own: the table it takes from was told already.
    let Some(span) = expire.or(retry) else { return };
    let label = format!("before the first retry, after \"{}\"", Period(*first));
    let title = format!("mail expires after \"{}\"", Period(settings.expire));
    checks.note_relation(Finding {
        span: Some(span),
        title: format!("site.{name}: {title}"),
        label,
        help: Some("raise `expire`, or shorten the first wait of `retry`".to_owned()),
    });
}
