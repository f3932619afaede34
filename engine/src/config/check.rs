//! A document into settings: every value against its bounds, and against the others.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::bounds::Checks;
use super::document::{self, Document, Given, Shards};
use super::listeners::listeners;
use super::names;
use super::percent::Percent;
use super::problem::Finding;
use super::starter::Starter;
use super::units::{CPU_MAX, Size};
use super::{pattern, providers, rules, sites, sources, tenants};
use crate::model::settings::{
    AdminSettings, DnsSettings, DomainPattern, EgressSettings, EngineSettings, LimitSettings,
    OrderSettings, OutcomeDurability, RouteSettings, Settings, ShardChoice, SpoolSettings, TlsMode,
};

/// One shard per core, and as many cores as a CPU list can name.
const SHARDS_MAX: u16 = 1024;
const _: () = assert!(SHARDS_MAX as usize == CPU_MAX + 1);

/// Routes are tried in order, once per new domain.
const ROUTES_MAX: usize = 10_000;

/// More resolvers than this are not asked before the time is up.
const DNS_SERVERS_MAX: usize = 16;

/// What a message of the largest size may need in its segment beside its text and recipients:
/// the segment's own headers and index, the record's header, padding.
const SEGMENT_OVERHEAD_BYTES: u64 = 128 << 10;

/// What one recipient takes in an envelope at most: an address of 254 bytes and its length.
const RECIPIENT_BYTES: u64 = 256;

/// Written by `O_DIRECT`, so in whole pages.
const SEGMENT_UNIT_BYTES: u64 = 4096;

/// The smallest segments serve tests and small machines; below 16 MiB recycling costs throughput.
const SEGMENT_BYTES: RangeInclusive<u64> = 1 << 20..=256 << 20;
const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

const MESSAGE_BYTES: RangeInclusive<u64> = 1 << 10..=256 << 20;
const MESSAGE_BYTES_DEFAULT: u64 = 50 << 20;

const MEMORY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const BODY_MEMORY_DEFAULT: u64 = 256 << 20;
const INTAKE_MEMORY_DEFAULT: u64 = 64 << 20;

const CONNECTIONS_MAX: u32 = 1_000_000;

const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=minutes(60);
const DATA_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=minutes(24 * 60);
const DNS_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=minutes(1);

/// With more, it would be the transactional mail that waits.
const BULK_FLOOR_PERCENT: RangeInclusive<u8> = 0..=50;

/// `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The settings; they are only good if `checks` has found nothing.
pub(super) fn settings(
    checks: &mut Checks<'_>,
    document: &Document,
    system_hostname: &str,
) -> Settings {
    let spool = spool(checks, &document.spool);
    let default_site = sites::default(checks, &document.site);
    let mut providers = providers::providers(checks, &document.provider, &default_site);
    let sources = sources::sources(checks, &document.source);
    let is_wanted = document.starter_rules.as_ref().is_none_or(|wanted| *wanted.get_ref());
    let starter = is_wanted.then(Starter::read);
    starter.iter().for_each(|starter| starter.add_providers(&mut providers, &default_site));
    let mut rules = rules::rules(checks, &document.rule, &providers, &sources);
    starter.iter().for_each(|starter| starter.add_rules(&mut rules, &providers, &sources));
    pattern::whole_set(checks, &rules);
    let pools = sources::pools(checks, &document.pool, &sources);
    Settings {
        generation: 0,
        hostname: hostname(checks, &document.hostname, system_hostname),
        engine: EngineSettings { shards: shards(checks, &document.engine.shards) },
        listeners: listeners(checks, &document.listen),
        limits: limits(checks, &document.limits, spool.segment_bytes),
        dns: dns(checks, &document.dns),
        egress: egress(checks, &document.egress),
        routes: routes(checks, &document.route),
        sites: sites::table(checks, &document.site, &default_site),
        tenants: tenants::tenants(checks, &document.tenant, &pools),
        rules,
        providers,
        sources,
        pools,
        order: order(checks, &document.order),
        admin: document.admin.as_ref().and_then(|admin| self::admin(checks, admin)),
        spool,
    }
}

fn hostname(checks: &mut Checks<'_>, given: &Given<String>, system: &str) -> Box<str> {
    if let Some(given) = given {
        return checks.text("hostname", given, names::domain).unwrap_or_default();
    }
    names::domain(system).unwrap_or_else(|why| {
        checks.note_relation(Finding {
            span: None,
            title: format!("`hostname` is not set, and this machine's name {system:?} will not do"),
            label: why,
            help: Some("set it: hostname = \"mta1.example.net\"".to_owned()),
        });
        Box::default()
    })
}

fn shards(checks: &mut Checks<'_>, given: &Given<Shards>) -> ShardChoice {
    let Some(given) = given else { return ShardChoice::Auto };
    match given.get_ref() {
        Shards::Auto => ShardChoice::Auto,
        Shards::Cores(list) => ShardChoice::Cores(list.0.clone()),
        Shards::Count(count) => {
            let count = Some(Spanned::new(given.span(), *count));
            ShardChoice::Count(checks.number("engine.shards", &count, 1..=SHARDS_MAX, 1))
        }
    }
}

fn spool(checks: &mut Checks<'_>, given: &document::Spool) -> SpoolSettings {
    let path = given.path.as_ref().map_or("/var/lib/postrider", |path| path.get_ref());
    if let Some(place) = given.path.as_ref().filter(|_| path.is_empty() || path.contains('\0')) {
        checks.note(Finding::invalid("spool.path", place.span(), "expected a directory"));
    }
    SpoolSettings {
        path: PathBuf::from(path),
        segment_bytes: segment_bytes(checks, &given.segment_size),
        outcomes: given
            .outcomes
            .as_ref()
            .map_or(OutcomeDurability::Grouped, |outcomes| (*outcomes.get_ref()).into()),
    }
}

fn segment_bytes(checks: &mut Checks<'_>, given: &Given<Size>) -> u32 {
    let bytes = checks.size("spool.segment_size", given, SEGMENT_BYTES, SEGMENT_BYTES_DEFAULT);
    if let Some(given) = given.as_ref().filter(|_| !bytes.is_multiple_of(SEGMENT_UNIT_BYTES)) {
        let label = format!("expected a multiple of {SEGMENT_UNIT_BYTES} bytes");
        checks.note(Finding::invalid("spool.segment_size", given.span(), label));
    }
    u32::try_from(bytes).expect("a segment is at most 256 MiB")
}

fn limits(checks: &mut Checks<'_>, given: &document::Limits, segment_bytes: u32) -> LimitSettings {
    let recipients = checks.number("limits.recipients", &given.recipients, 1..=10_000, 1000);
    let message_bytes = message_bytes(checks, &given.message_size, segment_bytes, recipients);
    LimitSettings {
        message_bytes,
        recipients,
        connections_in: connections(checks, "limits.connections_in", &given.connections_in),
        connections_out: connections(checks, "limits.connections_out", &given.connections_out),
        body_memory_bytes: checks.size(
            "limits.body_memory",
            &given.body_memory,
            MEMORY_BYTES,
            BODY_MEMORY_DEFAULT,
        ),
        intake_memory_bytes: intake_bytes(checks, &given.intake_memory, message_bytes),
        idle_timeout: checks.period(
            "limits.idle_timeout",
            &given.idle_timeout,
            &IDLE_TIMEOUT,
            minutes(5),
        ),
        data_timeout: checks.period(
            "limits.data_timeout",
            &given.data_timeout,
            &DATA_TIMEOUT,
            minutes(30),
        ),
    }
}

/// Zero: as many as the descriptors of the process allow.
fn connections(checks: &mut Checks<'_>, key: &str, given: &Given<i64>) -> u32 {
    checks.number(key, given, 0..=CONNECTIONS_MAX, 0)
}

/// A message lies in one segment, with its envelope.
fn message_bytes(
    checks: &mut Checks<'_>,
    given: &Given<Size>,
    segment_bytes: u32,
    recipients: u16,
) -> u64 {
    let beside = SEGMENT_OVERHEAD_BYTES + RECIPIENT_BYTES * u64::from(recipients);
    let room = u64::from(segment_bytes).saturating_sub(beside).max(*MESSAGE_BYTES.start());
    let default = MESSAGE_BYTES_DEFAULT.min(room);
    let bytes = checks.size("limits.message_size", given, MESSAGE_BYTES, default);
    if let Some(given) = given.as_ref().filter(|_| bytes > room) {
        let segment = Size(u64::from(segment_bytes));
        let label = format!("does not fit a segment of {segment} beside {recipients} recipients");
        checks.note_relation(
            Finding::invalid("limits.message_size", given.span(), label)
                .with_help(format!("raise `spool.segment_size`, or allow at most {}", Size(room))),
        );
    }
    bytes
}

/// The largest message must fit, or it could never be received.
fn intake_bytes(checks: &mut Checks<'_>, given: &Given<Size>, message_bytes: u64) -> u64 {
    let default = INTAKE_MEMORY_DEFAULT.max(message_bytes);
    let bytes = checks.size("limits.intake_memory", given, MEMORY_BYTES, default);
    if let Some(given) = given.as_ref().filter(|_| bytes < message_bytes) {
        let label = format!("less than `limits.message_size`, {}", Size(message_bytes));
        checks.note_relation(Finding::invalid("limits.intake_memory", given.span(), label));
    }
    bytes
}

fn dns(checks: &mut Checks<'_>, given: &document::Dns) -> DnsSettings {
    checks.count("resolvers", &given.servers, DNS_SERVERS_MAX);
    let servers = given.servers.iter().take(DNS_SERVERS_MAX);
    DnsSettings {
        servers: servers
            .filter_map(|server| checks.text("dns.servers", server, names::resolver))
            .collect(),
        timeout: checks.period("dns.timeout", &given.timeout, &DNS_TIMEOUT, Duration::from_secs(5)),
    }
}

fn egress(checks: &mut Checks<'_>, given: &document::Egress) -> EgressSettings {
    EgressSettings {
        port: checks.number("egress.port", &given.port, 1..=u16::MAX, 25),
        allow_private: given.allow_private.unwrap_or(false),
        tls: given.tls.as_ref().map_or(TlsMode::Opportunistic, |tls| (*tls.get_ref()).into()),
    }
}

fn routes(checks: &mut Checks<'_>, given: &[Spanned<document::Route>]) -> Vec<RouteSettings> {
    checks.count("routes", given, ROUTES_MAX);
    let mut routes = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in given.iter().take(ROUTES_MAX) {
        let route = entry.get_ref();
        let domain = checks.required("route.domain", &route.domain, entry.span());
        let domain = domain.and_then(|text| {
            let pattern = checks.text("route.domain", text, names::pattern)?;
            reached(checks, &mut seen, text, &pattern);
            Some(pattern)
        });
        let via = checks.required("route.via", &route.via, entry.span());
        let via = via.and_then(|text| checks.text("route.via", text, names::next_hop));
        if let (Some(domain), Some(via)) = (domain, via) {
            routes.push(RouteSettings { domain, via });
        }
    }
    routes
}

/// Notes a route that no mail can take: the same pattern, or `*`, stands before it.
fn reached(
    checks: &mut Checks<'_>,
    seen: &mut BTreeSet<String>,
    text: &Spanned<String>,
    pattern: &DomainPattern,
) {
    let name = match pattern {
        DomainPattern::Any => "*".to_owned(),
        DomainPattern::Exact(name) | DomainPattern::Below(name) => name.to_string(),
    };
    let before = ["*", &*name].into_iter().find(|earlier| seen.contains(*earlier));
    if let Some(before) = before {
        let label = format!("no mail comes here: an earlier route takes \"{before}\"");
        let finding = Finding::invalid("route.domain", text.span(), label);
        checks.note(finding.with_help("the first match wins: put the special routes first"));
    }
    seen.insert(name);
}

fn order(checks: &mut Checks<'_>, given: &document::Order) -> OrderSettings {
    let default = OrderSettings::default();
    let Some(floor) = &given.bulk_floor else { return default };
    let percent = floor.get_ref().0;
    if BULK_FLOOR_PERCENT.contains(&percent) {
        return OrderSettings { bulk_floor_percent: percent };
    }
    let allowed = Percent(*BULK_FLOOR_PERCENT.start())..=Percent(*BULK_FLOOR_PERCENT.end());
    checks.refuse("order.bulk_floor", floor, &allowed, default)
}

fn admin(checks: &mut Checks<'_>, given: &Spanned<document::Admin>) -> Option<AdminSettings> {
    let socket = checks.required("admin.socket", &given.get_ref().socket, given.span())?;
    let path: &str = socket.get_ref();
    let label = match path.len() {
        0 => "expected a path for a unix socket".to_owned(),
        _ if path.contains('\0') || path.ends_with('/') => {
            "expected a path for a unix socket".to_owned()
        }
        1..=SOCKET_PATH_BYTES_MAX => return Some(AdminSettings { socket: PathBuf::from(path) }),
        _ => format!("the path of a unix socket has at most {SOCKET_PATH_BYTES_MAX} bytes"),
    };
    checks.note(Finding::invalid("admin.socket", socket.span(), label));
    None
}
