//! Where the window of a path begins and how low it may fall, against what the site allows.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;

use super::bounds::Checks;
use super::document::Site;
use super::problem::Finding;
use crate::model::settings::{RampSettings, SiteSettings};

/// As many as a site may have connections.
const CONNECTIONS: RangeInclusive<u32> = 1..=100_000;

/// Reads the ramp of a table. What is written in it and contradicts its limits is noted.
pub(super) fn read(
    checks: &mut Checks<'_>,
    table: impl Display,
    site: &Site,
    settings: &mut SiteSettings,
) {
    let above = settings.ramp.clone();
    settings.ramp = RampSettings {
        start: checks.number(
            format_args!("{table}.start_connections"),
            &site.start_connections,
            CONNECTIONS,
            above.start,
        ),
        floor: checks.number(
            format_args!("{table}.floor_connections"),
            &site.floor_connections,
            CONNECTIONS,
            above.floor,
        ),
        adaptive: site.adaptive.unwrap_or(above.adaptive),
    };
    // A start of its own below an inherited floor lowers it.
    if site.start_connections.is_some() && site.floor_connections.is_none() {
        settings.ramp.floor = settings.ramp.floor.min(settings.ramp.start);
    }
    for (key, given) in [
        ("start_connections", &site.start_connections),
        ("floor_connections", &site.floor_connections),
    ] {
        if let Some(given) = given {
            fits(checks, format_args!("{table}.{key}"), given, settings);
        }
    }
    floor_below_start(checks, table, site);
}

fn fits(checks: &mut Checks<'_>, key: impl Display, given: &Spanned<i64>, settings: &SiteSettings) {
    let (limit, most) = binding(settings);
    let label = if !settings.ramp.adaptive {
        "has no effect where `adaptive` is false".to_owned()
    } else if *given.get_ref() > i64::from(most) {
        format!("more than `{limit}`, {most}")
    } else {
        return;
    };
    checks.note_relation(Finding::invalid(key, given.span(), label));
}

fn floor_below_start(checks: &mut Checks<'_>, table: impl Display, site: &Site) {
    let (Some(start), Some(floor)) = (&site.start_connections, &site.floor_connections) else {
        return;
    };
    if floor.get_ref() > start.get_ref() {
        let label = format!("more than `start_connections`, {}", start.get_ref());
        let key = format_args!("{table}.floor_connections");
        checks.note_relation(Finding::invalid(key, floor.span(), label));
    }
}

/// The limit of a path, and the key it comes from.
fn binding(settings: &SiteSettings) -> (&'static str, u32) {
    match settings.connections_per_source.filter(|most| *most < settings.connections) {
        Some(most) => ("connections_per_source", most),
        None => ("connections", settings.connections),
    }
}

/// Brings an inherited ramp within the limits that a table lowered: floor ≤ start ≤ limit.
pub(super) fn narrow(mut settings: SiteSettings) -> SiteSettings {
    let (_, most) = binding(&settings);
    settings.ramp.floor = settings.ramp.floor.min(most);
    settings.ramp.start = settings.ramp.start.clamp(settings.ramp.floor, most);
    settings
}
