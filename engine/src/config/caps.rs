//! Rates and shared caps against their bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::bounds::Checks;
use super::document::{Given, GivenCaps};
use super::rates::{Amount, Pace, Speed};
use crate::model::settings::{Caps, Rate};

/// What shares a cap may be many sites; still fewer than the descriptors of a process.
const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The caps of the table `table`; what is not given has no limit.
pub(super) fn caps(checks: &mut Checks<'_>, table: impl Display, given: &GivenCaps<'_>) -> Caps {
    let connections = given.connections.as_ref().map(|_| {
        let key = format_args!("{table}.connections");
        checks.number(key, given.connections, CONNECTIONS, *CONNECTIONS.start())
    });
    Caps {
        connections,
        connection_rate: rate(
            checks,
            format_args!("{table}.connection_rate"),
            given.connection_rate,
        ),
        message_rate: rate(checks, format_args!("{table}.message_rate"), given.message_rate),
        byte_rate: rate(checks, format_args!("{table}.byte_rate"), given.byte_rate),
    }
}

pub(super) fn rate<A: Amount>(
    checks: &mut Checks<'_>,
    key: impl Display,
    given: &Given<Pace<A>>,
) -> Option<Rate> {
    let given = given.as_ref()?;
    Some(one_rate(checks, key, given, given.get_ref()))
}

/// A rate that is all or part of what is given.
pub(super) fn one_rate<A: Amount>(
    checks: &mut Checks<'_>,
    key: impl Display,
    given: &Spanned<impl Sized>,
    pace: &Pace<A>,
) -> Rate {
    match pace {
        Pace::Plain(speed) => bounded(checks, key, given, *speed),
        Pace::Table(table) => {
            let rate = bounded(checks, &key, &table.rate, *table.rate.get_ref());
            let burst = burst(checks, key, &table.burst, rate.burst);
            Rate { burst, ..rate }
        }
    }
}

fn bounded<A: Amount>(
    checks: &mut Checks<'_>,
    key: impl Display,
    given: &Spanned<impl Sized>,
    speed: Speed<A>,
) -> Rate {
    let slowest = Speed { amount: A::from_count(1), per: DAY };
    let fastest = Speed { amount: A::from_count(A::PER_SECOND_MAX), per: SECOND };
    let most = A::PER_SECOND_MAX.saturating_mul(speed.per.as_secs());
    if (1..=most).contains(&speed.amount.count()) {
        return speed.rate();
    }
    checks.refuse(key, given, &(slowest..=fastest), slowest.rate())
}

fn burst<A: Amount>(
    checks: &mut Checks<'_>,
    key: impl Display,
    given: &Given<A>,
    default: u64,
) -> u64 {
    let Some(given) = given else { return default };
    if (1..=A::BURST_MAX).contains(&given.get_ref().count()) {
        return given.get_ref().count();
    }
    let allowed = A::from_count(1)..=A::from_count(A::BURST_MAX);
    checks.refuse(format_args!("{key}.burst"), given, &allowed, default)
}
