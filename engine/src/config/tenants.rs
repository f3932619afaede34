//! Tenants: their pool, weight, class and caps.

use super::bounds::Checks;
use super::caps::caps;
use super::document::{Class, Given, Named, Tenant};
use super::names;
use super::sources::weight;
use crate::model::flow::MailClass;
use crate::model::settings::{DEFAULT_POOL, PoolSettings, TenantSettings};

/// Tenants with settings of their own; any number may send without.
const TENANTS_MAX: usize = 100_000;

pub(super) fn tenants(
    checks: &mut Checks<'_>,
    given: &Named<Tenant>,
    pools: &[PoolSettings],
) -> Vec<TenantSettings> {
    checks.count_named("tenants", given, TENANTS_MAX);
    let mut tenants = Vec::new();
    for (name, tenant) in given.iter().take(TENANTS_MAX) {
        let table = format!("tenant.{}", name.get_ref());
        let settings = TenantSettings {
            name: checks.text("tenant", name, names::name).unwrap_or_default(),
            pool: pool(checks, &format!("{table}.pool"), &tenant.pool, pools),
            weight: weight(checks, format_args!("{table}.weight"), &tenant.weight),
            class: class(&tenant.class),
            caps: caps(checks, &table, &tenant.caps()),
            origin: checks.places.origin(format!("tenant.\"{}\"", name.get_ref()), &name.span()),
        };
        tenants.push(settings);
    }
    tenants
}

pub(super) fn class(given: &Given<Class>) -> Option<MailClass> {
    given.as_ref().map(|class| (*class.get_ref()).into())
}

fn pool(
    checks: &mut Checks<'_>,
    key: &str,
    given: &Given<String>,
    pools: &[PoolSettings],
) -> Option<u16> {
    let given = given.as_ref()?;
    // Without any source there is no pool at all, but the default one may still be named.
    if pools.is_empty() && given.get_ref() == DEFAULT_POOL {
        return None;
    }
    let index = checks.known(key, given.get_ref(), given.span(), pools, |pool| &pool.name)?;
    u16::try_from(index).ok()
}
