//! Egress addresses, and the pools that share mail among them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use toml::Spanned;

use super::bounds::Checks;
use super::caps::caps;
use super::document::{self, Given, Member, Named, Pool, Source};
use super::names;
use super::problem::Finding;
use crate::model::settings::{
    DEFAULT_POOL, Overflow, PoolMember, PoolSettings, SourceSettings, WarmUp,
};

/// A large sender has hundreds; each is paced by itself at each of its sites.
const SOURCES_MAX: usize = 10_000;
const _: () = assert!(SOURCES_MAX <= u16::MAX as usize, "a pool names its sources by u16");

/// A pool for each source.
const POOLS_MAX: usize = 10_000;
const _: () = assert!(POOLS_MAX < u16::MAX as usize, "a tenant names its pool by u16");

/// A year; the curves in use have four to eight weeks.
const DAYS_MAX: usize = 366;

const WARM_UP_MESSAGES: RangeInclusive<u32> = 1..=1_000_000_000;
const FREEZE_PERCENT: RangeInclusive<u8> = 1..=100;
const FREEZE_PERCENT_DEFAULT: u8 = 10;
const FREEZE_SAMPLE: RangeInclusive<u32> = 1..=1_000_000;
const FREEZE_SAMPLE_DEFAULT: u32 = 50;

pub(super) const WEIGHT: RangeInclusive<u16> = 1..=1000;

pub(super) fn sources(checks: &mut Checks<'_>, given: &Named<Source>) -> Vec<SourceSettings> {
    checks.count_named("sources", given, SOURCES_MAX);
    let mut sources = Vec::new();
    for (name, source) in given.iter().take(SOURCES_MAX) {
        let table = format!("source.{}", name.get_ref());
        let (address_v4, address_v6) = addresses(checks, &table, source);
        let hostname = source.hostname.as_ref();
        let settings = SourceSettings {
            name: checks
                .text("source", name, names::name)
                .unwrap_or_else(|| name.get_ref().as_str().into()),
            address_v4,
            address_v6,
            hostname: hostname.and_then(|hostname| {
                checks.text(format_args!("{table}.hostname"), hostname, names::domain)
            }),
            caps: caps(checks, &table, &source.caps()),
            warm_up: source.warm_up.as_ref().map(|warm_up| warms_up(checks, &table, warm_up)),
            origin: checks.places.origin(format!("source.\"{}\"", name.get_ref()), &name.span()),
        };
        sources.push(settings);
    }
    sources
}

/// At most one of each family: a source is one sender, to whatever host.
fn addresses(
    checks: &mut Checks<'_>,
    table: &str,
    source: &Source,
) -> (Option<IpAddr>, Option<IpAddr>) {
    if let (Some(_), Some(both)) = (&source.address, &source.addresses) {
        let label = "beside `address`: write all in one of the two";
        checks.note(Finding::invalid(format_args!("{table}.addresses"), both.span(), label));
    }
    let one = source.address.iter().map(|given| ("address", given));
    let several = source.addresses.iter().flat_map(|given| given.get_ref());
    let (mut v4, mut v6) = (None, None);
    for (key, given) in one.chain(several.map(|given| ("addresses", given))) {
        let key = format_args!("{table}.{key}");
        let Some(address) = checks.text(key, given, names::source_address) else { continue };
        let (family, slot) = match address {
            IpAddr::V4(_) => ("IPv4", &mut v4),
            IpAddr::V6(_) => ("IPv6", &mut v6),
        };
        if slot.replace(address).is_some() {
            let label = format!("a second {family} address: make it another source");
            checks.note(Finding::invalid(key, given.span(), label));
        }
    }
    (v4, v6)
}

fn warms_up(checks: &mut Checks<'_>, source: &str, given: &Spanned<document::WarmUp>) -> WarmUp {
    let warm_up = given.get_ref();
    let table = format_args!("{source}.warm_up");
    let days = checks.required(format_args!("{table}.days"), &warm_up.days, given.span());
    WarmUp {
        days: days.map(|days| curve(checks, &format!("{table}.days"), days)).unwrap_or_default(),
        overflow: warm_up
            .overflow
            .as_ref()
            .map_or(Overflow::Pool, |overflow| (*overflow.get_ref()).into()),
        freeze_percent: checks.number(
            format_args!("{table}.freeze_percent"),
            &warm_up.freeze_percent,
            FREEZE_PERCENT,
            FREEZE_PERCENT_DEFAULT,
        ),
        freeze_sample: checks.number(
            format_args!("{table}.freeze_sample"),
            &warm_up.freeze_sample,
            FREEZE_SAMPLE,
            FREEZE_SAMPLE_DEFAULT,
        ),
    }
}

fn curve(checks: &mut Checks<'_>, key: &str, given: &Spanned<Vec<Spanned<i64>>>) -> Vec<u32> {
    if given.get_ref().is_empty() {
        checks.note(Finding::invalid(key, given.span(), "expected at least one day"));
    }
    checks.count("days", given.get_ref(), DAYS_MAX);
    let mut days: Vec<u32> = Vec::new();
    for day in given.get_ref().iter().take(DAYS_MAX) {
        let before = days.last().copied().unwrap_or(0);
        let given = Some(Spanned::new(day.span(), *day.get_ref()));
        let messages = checks.number(key, &given, WARM_UP_MESSAGES, before);
        if messages < before {
            let label = format!("fewer than the {before} of the day before");
            checks.note(Finding::invalid(key, day.span(), label));
        }
        days.push(messages);
    }
    days
}

/// The pools by name, among them always the default one if there is any source.
pub(super) fn pools(
    checks: &mut Checks<'_>,
    given: &Named<Pool>,
    sources: &[SourceSettings],
) -> Vec<PoolSettings> {
    checks.count_named("pools", given, POOLS_MAX);
    let mut pools: Vec<PoolSettings> = Vec::new();
    for (name, pool) in given.iter().take(POOLS_MAX) {
        let members = checks.required("pool.sources", &pool.sources, name.span());
        let key = format!("pool.{}.sources", name.get_ref());
        pools.push(PoolSettings {
            name: checks
                .text("pool", name, names::name)
                .unwrap_or_else(|| name.get_ref().as_str().into()),
            members: members
                .map(|members| pool_members(checks, &key, members, sources))
                .unwrap_or_default(),
        });
    }
    if let Err(place) = pools.binary_search_by(|pool| (*pool.name).cmp(DEFAULT_POOL))
        && !sources.is_empty()
    {
        pools.insert(place, every_source(sources));
    }
    pools
}

fn every_source(sources: &[SourceSettings]) -> PoolSettings {
    let members = (0..).zip(sources).map(|(source, _)| PoolMember { source, weight: 1 });
    PoolSettings { name: DEFAULT_POOL.into(), members: members.collect() }
}

fn pool_members(
    checks: &mut Checks<'_>,
    key: &str,
    given: &Spanned<Vec<Spanned<Member>>>,
    sources: &[SourceSettings],
) -> Vec<PoolMember> {
    if given.get_ref().is_empty() {
        checks.note(Finding::invalid(key, given.span(), "expected at least one source"));
    }
    checks.count("sources of a pool", given.get_ref(), SOURCES_MAX);
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for entry in given.get_ref().iter().take(SOURCES_MAX) {
        let Some((name, weight)) = member(checks, key, entry) else { continue };
        let source = checks.known(key, name.get_ref(), name.span(), sources, |source| &source.name);
        let Some(source) = source.and_then(|index| u16::try_from(index).ok()) else { continue };
        if !seen.insert(source) {
            checks.note(Finding::invalid(key, name.span(), "given twice"));
        }
        members.push(PoolMember { source, weight });
    }
    members
}

fn member(
    checks: &mut Checks<'_>,
    key: &str,
    entry: &Spanned<Member>,
) -> Option<(Spanned<String>, u16)> {
    match entry.get_ref() {
        Member::Plain(name) => Some((Spanned::new(entry.span(), name.clone()), 1)),
        Member::Weighed(weighed) => {
            let weight = weight(checks, format_args!("{key}.weight"), &weighed.weight);
            let name =
                checks.required(format_args!("{key}.source"), &weighed.source, entry.span())?;
            Some((name.clone(), weight))
        }
    }
}

pub(super) fn weight(
    checks: &mut Checks<'_>,
    key: impl std::fmt::Display,
    given: &Given<i64>,
) -> u16 {
    checks.number(key, given, WEIGHT, 1)
}
