//! Site settings: each takes from its own table, then from `[site.default]`, then the built-in ones.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::bounds::Checks;
use super::caps;
use super::document::{Given, Named, Site};
use super::names;
use super::problem::Finding;
use super::ramp;
use super::units::Period;
use crate::model::settings::{
    DEFAULT_SITE, LimitOrigins, Origin, RETRIES_MAX, SiteSettings, SiteTable, StageTimeouts,
};

/// Sites with settings of their own; each is a whole set of settings in memory.
const SITES_MAX: usize = 100_000;

const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;
const MESSAGES_PER_CONNECTION: RangeInclusive<u32> = 1..=1_000_000;
/// Many receivers take a hundred (RFC 5321 §4.5.3.1.8), none known to us more than a thousand.
const RECIPIENTS_PER_MESSAGE: RangeInclusive<u16> = 1..=1000;
const RETRY: RangeInclusive<Duration> = Duration::from_millis(100)..=days(7);
const EXPIRE: RangeInclusive<Duration> = Duration::from_millis(100)..=days(30);
/// Zero closes a connection as soon as it has nothing to do.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const STAGE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

const fn days(count: u64) -> Duration {
    Duration::from_secs(24 * 3600 * count)
}

/// Site settings as they are inherited: values that others narrow are still as written.
pub(super) struct Inherited(SiteSettings);

pub(super) fn default(checks: &mut Checks<'_>, given: &Named<Site>) -> Inherited {
    let built_in = Inherited(SiteSettings::default());
    let Some((name, site)) = given.iter().find(|(name, _)| name.get_ref() == DEFAULT_SITE) else {
        return built_in;
    };
    let origin = checks.places.origin("site.default", &name.span());
    Inherited(read(checks, "site.default", site, &built_in, origin))
}

pub(super) fn table(
    checks: &mut Checks<'_>,
    given: &Named<Site>,
    default: &Inherited,
) -> SiteTable {
    let mut by_domain = BTreeMap::new();
    let own = given.iter().filter(|(name, _)| name.get_ref() != DEFAULT_SITE);
    if let Some((first_over, _)) = own.clone().nth(SITES_MAX) {
        let label = format!("there may be at most {SITES_MAX} sites");
        checks.note(Finding::invalid("site", first_over.span(), label));
    }
    for (name, site) in own.take(SITES_MAX) {
        let table = format_args!("site.{}", name.get_ref());
        let origin = checks.places.origin(format!("site.\"{}\"", name.get_ref()), &name.span());
        let settings = one(checks, table, site, default, origin);
        let Some(domain) = checks.text("site", name, names::domain) else { continue };
        if by_domain.insert(domain, settings).is_some() {
            checks.note(Finding::invalid("site", name.span(), "given twice"));
        }
    }
    SiteTable { default: default.settings(), by_domain: by_domain.into_iter().collect() }
}

impl Inherited {
    pub(super) fn settings(&self) -> SiteSettings {
        ramp::narrow(self.0.clone())
    }
}

/// The settings of one table of a site.
pub(super) fn one(
    checks: &mut Checks<'_>,
    table: fmt::Arguments<'_>,
    site: &Site,
    above: &Inherited,
    origin: Origin,
) -> SiteSettings {
    ramp::narrow(read(checks, table, site, above, origin))
}

fn read(
    checks: &mut Checks<'_>,
    table: impl Display + Copy,
    site: &Site,
    Inherited(above): &Inherited,
    origin: Origin,
) -> SiteSettings {
    let limits_from = limits_from(site, &above.limits_from, &origin);
    let mut settings = SiteSettings { origin, limits_from, ..above.clone() };
    connections(checks, table, site, &mut settings);
    rates(checks, table, site, &mut settings);
    ramp::read(checks, table, site, &mut settings);
    let key = |key: &'static str| Key(table, key);
    settings.messages_per_connection = checks.number(
        key("messages_per_connection"),
        &site.messages_per_connection,
        MESSAGES_PER_CONNECTION,
        above.messages_per_connection,
    );
    settings.recipients_per_message = checks.number(
        key("recipients_per_message"),
        &site.recipients_per_message,
        RECIPIENTS_PER_MESSAGE,
        above.recipients_per_message,
    );
    settings.chunking = site.chunking.unwrap_or(above.chunking);
    settings.retry = retry(checks, key("retry"), &site.retry, &above.retry);
    settings.expire = checks.period(key("expire"), &site.expire, &EXPIRE, above.expire);
    settings.idle_timeout =
        checks.period(key("idle_timeout"), &site.idle_timeout, &IDLE_TIMEOUT, above.idle_timeout);
    settings.timeouts = timeouts(checks, table, site, &above.timeouts);
    expires_after_a_retry(checks, table, site, &settings);
    settings
}

/// Limits of its own are set here, others where the table above has them from.
fn limits_from(site: &Site, above: &LimitOrigins, own: &Origin) -> LimitOrigins {
    let own = Arc::new(own.clone());
    let one = |is_own: bool, above: &Arc<Origin>| Arc::clone(if is_own { &own } else { above });
    LimitOrigins {
        connections: one(site.connections.is_some(), &above.connections),
        connections_per_source: one(
            site.connections_per_source.is_some(),
            &above.connections_per_source,
        ),
        connections_per_ip: one(site.connections_per_ip.is_some(), &above.connections_per_ip),
        connection_rate: one(site.connection_rate.is_some(), &above.connection_rate),
        message_rate: one(site.message_rate.is_some(), &above.message_rate),
        byte_rate: one(site.byte_rate.is_some(), &above.byte_rate),
    }
}

/// A key by its table; only written out for a finding.
#[derive(Clone, Copy)]
struct Key<T>(T, &'static str);

impl<T: Display> Display for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

fn connections(
    checks: &mut Checks<'_>,
    table: impl Display,
    site: &Site,
    settings: &mut SiteSettings,
) {
    let mut one = |key: &str, given: &Given<i64>, above: Option<u32>| match given {
        None => above,
        Some(_) => Some(checks.number(
            format_args!("{table}.{key}"),
            given,
            CONNECTIONS,
            *CONNECTIONS.start(),
        )),
    };
    let all = one("connections", &site.connections, Some(settings.connections));
    settings.connections = all.unwrap_or(settings.connections);
    settings.connections_per_source = one(
        "connections_per_source",
        &site.connections_per_source,
        settings.connections_per_source,
    );
    settings.connections_per_ip =
        one("connections_per_ip", &site.connections_per_ip, settings.connections_per_ip);
}

fn rates(checks: &mut Checks<'_>, table: impl Display, site: &Site, settings: &mut SiteSettings) {
    let connections =
        caps::rate(checks, format_args!("{table}.connection_rate"), &site.connection_rate);
    let messages = caps::rate(checks, format_args!("{table}.message_rate"), &site.message_rate);
    let bytes = caps::rate(checks, format_args!("{table}.byte_rate"), &site.byte_rate);
    settings.connection_rate = connections.or(settings.connection_rate);
    settings.message_rate = messages.or(settings.message_rate);
    settings.byte_rate = bytes.or(settings.byte_rate);
}

fn retry(
    checks: &mut Checks<'_>,
    key: impl Display + Copy,
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

fn timeouts(
    checks: &mut Checks<'_>,
    table: impl Display,
    site: &Site,
    above: &StageTimeouts,
) -> StageTimeouts {
    let mut stage = |key: &str, given: &Given<Period>, default: Duration| {
        checks.period(format_args!("{table}.{key}"), given, &STAGE_TIMEOUT, default)
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
fn expires_after_a_retry(
    checks: &mut Checks<'_>,
    table: impl Display,
    site: &Site,
    settings: &SiteSettings,
) {
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
        title: format!("{table}: {title}"),
        label,
        help: Some("raise `expire`, or shorten the first wait of `retry`".to_owned()),
    });
}
