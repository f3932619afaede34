//! Settings as sites see them: the strictest of what their domains ask for.

use std::sync::Arc;

use super::control::ControlSettings;
use crate::base::map::Map;
use crate::model::route::{Target, Way};
use crate::model::settings::{
    DEFAULT_SITE, Origin, ProviderMatch, ProviderSettings, Rate, Settings, SiteSettings,
};

/// The settings of one domain, or the default ones, under the name an operator gave them.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<SiteSettings>,
    control: Arc<ControlSettings>,
}

/// All policies: the default first, then those of domains, sorted by name, then those of providers.
#[derive(Debug)]
pub(super) struct Policies {
    list: Vec<Policy>,
    domains: usize,
    providers: Vec<ProviderSettings>,
    provider_numbers: Map<Box<str>, usize>,
    has_byte_rates: bool,
}

impl Policies {
    pub(super) fn new(settings: &Settings) -> Self {
        let own = |name: &str, settings: &SiteSettings| Policy {
            name: name.into(),
            settings: Arc::new(settings.clone()),
            control: Arc::new(control_of(settings)),
        };
        let table = &settings.sites;
        let mut list = vec![own(DEFAULT_SITE, &table.default)];
        list.extend(table.by_domain.iter().map(|(name, settings)| own(name, settings)));
        let providers = settings.providers.iter();
        list.extend(providers.map(|one| own(&format!("provider {}", one.name), &one.site)));
        let names = settings.providers.iter().map(|one| one.name.clone());
        Self {
            list,
            domains: table.by_domain.len(),
            providers: settings.providers.clone(),
            provider_numbers: names.zip(0..).collect(),
            has_byte_rates: has_byte_rates(settings),
        }
    }

    /// Whether anything is limited by bytes: sites, providers, sources or tenants.
    pub(super) fn has_byte_rates(&self) -> bool {
        self.has_byte_rates
    }

    /// The number of the policy that a domain of a provider's site falls under: its own, else that of
    /// the provider.
    pub(super) fn of(&self, domain: &str, provider: Option<&str>) -> usize {
        let own = &self.list[1..=self.domains];
        if let Ok(index) = own.binary_search_by(|policy| (*policy.name).cmp(domain)) {
            return index + 1;
        }
        let place = provider.and_then(|name| self.provider_numbers.get(name));
        place.map_or(0, |place| 1 + self.domains + place)
    }

    pub(super) fn provider(&self, name: &str) -> Option<&ProviderSettings> {
        self.provider_numbers.get(name).map(|number| &self.providers[*number])
    }

    /// Whether the one stands before the other in the settings; none stands last.
    pub(super) fn is_before(&self, one: Option<&str>, other: Option<&str>) -> bool {
        let place = |name: Option<&str>| {
            name.and_then(|name| self.provider_numbers.get(name)).copied().unwrap_or(usize::MAX)
        };
        place(one) < place(other)
    }

    /// The provider that a target of mail for `domain` belongs to: the first that matches.
    pub(super) fn provider_of(&self, target: &Target, domain: &str) -> Option<Arc<str>> {
        let hosts = match &target.way {
            Way::Hosts(hosts) => &hosts[..],
            Way::Deferred(_) | Way::Failed(_) => &[],
        };
        let matches = |provider: &&ProviderSettings| {
            let ProviderMatch { mx, domains } = &provider.matches;
            domains.iter().any(|pattern| pattern.matches(domain))
                || hosts.iter().any(|host| mx.iter().any(|pattern| pattern.matches(&host.name)))
        };
        self.providers.iter().find(matches).map(|provider| (*provider.name).into())
    }
}

impl std::ops::Index<usize> for Policies {
    type Output = Policy;

    fn index(&self, number: usize) -> &Policy {
        &self.list[number]
    }
}

/// What a site does, and under whose name it does so. Sites under the same policies share it.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) settings: Arc<SiteSettings>,
    /// The domain, or "default", whose connection limit binds.
    pub(super) bound_by: Arc<str>,
    pub(super) control: Arc<ControlSettings>,
}

impl Policy {
    /// Of a site whose domains fall under nothing else.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            settings: Arc::clone(&self.settings),
            bound_by: Arc::clone(&self.name),
            control: Arc::clone(&self.control),
        }
    }
}

fn control_of(settings: &SiteSettings) -> ControlSettings {
    let built_in = ControlSettings::default();
    ControlSettings {
        start_window: settings.ramp.start,
        floor: settings.ramp.floor,
        retry_first: settings.retry.first().copied().unwrap_or(built_in.retry_first),
        retry_last: settings.retry.last().copied().unwrap_or(built_in.retry_last),
        ..built_in
    }
}

/// The strictest of several policies: fewest connections (these bind, and their time-outs hold),
/// fewest messages on each, shortest idling, longest waits. Expiry stays each domain's own.
pub(super) fn strictest<'a>(policies: impl Iterator<Item = &'a Policy> + Clone) -> Option<Pace> {
    let binding = policies.clone().min_by_key(|policy| policy.settings.connections)?;
    let mut pace = binding.pace();
    for policy in policies {
        let other = &policy.settings;
        if !Arc::ptr_eq(other, &binding.settings) {
            tighten(Arc::make_mut(&mut pace.settings), other);
        }
    }
    if !Arc::ptr_eq(&pace.settings, &binding.settings) {
        pace.control = Arc::new(control_of(&pace.settings));
    }
    Some(pace)
}

fn tighten(settings: &mut SiteSettings, other: &SiteSettings) {
    tighten_limits(settings, other);
    settings.recipients_per_message =
        settings.recipients_per_message.min(other.recipients_per_message);
    settings.chunking &= other.chunking;
    settings.ramp.start = settings.ramp.start.min(other.ramp.start);
    settings.ramp.floor = settings.ramp.floor.min(other.ramp.floor);
    settings.ramp.adaptive |= other.ramp.adaptive;
    settings.messages_per_connection =
        settings.messages_per_connection.min(other.messages_per_connection);
    settings.idle_timeout = settings.idle_timeout.min(other.idle_timeout);
    if other.retry > settings.retry {
        settings.retry.clone_from(&other.retry);
    }
}

/// The tighter of each limit, and with it where that was set.
fn tighten_limits(settings: &mut SiteSettings, other: &SiteSettings) {
    let (from, others) = (&mut settings.limits_from, &other.limits_from);
    let fewer = |limit: &mut Option<u32>, from: &mut _, other: Option<u32>, other_from: &_| {
        tighter((limit, from), (other, other_from), |limit| *limit);
    };
    fewer(
        &mut settings.connections_per_source,
        &mut from.connections_per_source,
        other.connections_per_source,
        &others.connections_per_source,
    );
    fewer(
        &mut settings.connections_per_ip,
        &mut from.connections_per_ip,
        other.connections_per_ip,
        &others.connections_per_ip,
    );
    let slower = |rate: &mut Option<Rate>, from: &mut _, other: Option<Rate>, other_from: &_| {
        tighter((rate, from), (other, other_from), speed);
    };
    slower(
        &mut settings.connection_rate,
        &mut from.connection_rate,
        other.connection_rate,
        &others.connection_rate,
    );
    slower(
        &mut settings.message_rate,
        &mut from.message_rate,
        other.message_rate,
        &others.message_rate,
    );
    slower(&mut settings.byte_rate, &mut from.byte_rate, other.byte_rate, &others.byte_rate);
}

fn has_byte_rates(settings: &Settings) -> bool {
    let providers = || settings.providers.iter();
    let own = settings.sites.by_domain.iter().map(|(_, site)| site);
    let mut sites = own.chain([&settings.sites.default]).chain(providers().map(|one| &one.site));
    let caps = providers().flat_map(|one| [&one.caps, &one.caps_per_source]);
    let caps = caps.chain(settings.sources.iter().map(|one| &one.caps));
    let mut caps = caps.chain(settings.tenants.iter().map(|one| &one.caps));
    sites.any(|site| site.byte_rate.is_some()) || caps.any(|caps| caps.byte_rate.is_some())
}

/// Takes another limit if it is less than the own one, or the only one.
fn tighter<T, K: Ord>(
    (limit, from): (&mut Option<T>, &mut Arc<Origin>),
    (other, other_from): (Option<T>, &Arc<Origin>),
    key: impl Fn(&T) -> K,
) {
    let is_tighter = match (&*limit, &other) {
        (Some(own), Some(other)) => key(other) < key(own),
        (own, other) => own.is_none() && other.is_some(),
    };
    if is_tighter {
        *limit = other;
        *from = Arc::clone(other_from);
    }
}

/// Of two rates of the same speed the one with the smaller burst is slower.
fn speed(rate: &Rate) -> (u128, u64) {
    let units = u128::from(rate.units) << 40;
    (units / rate.per.as_nanos().max(1), rate.burst)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::whole;
    use super::*;
    use crate::model::settings::{LimitOrigins, SiteTable};

    #[test]
    fn the_strictest_binds_and_is_named() {
        let wide =
            SiteSettings { connections: 50, messages_per_connection: 10, ..Default::default() };
        let long = vec![Duration::from_secs(900)];
        let narrow = SiteSettings { connections: 3, retry: long.clone(), ..Default::default() };
        let wide = SiteSettings { chunking: false, ..wide };
        let by_domain = vec![("narrow.example".into(), narrow)];
        let policies = Policies::new(&whole(SiteTable { default: wide, by_domain }));
        assert_eq!(policies.of("other.example", None), 0);
        let number = policies.of("narrow.example", None);
        let pace = strictest([&policies[0], &policies[number]].into_iter()).unwrap();
        assert_eq!(&*pace.bound_by, "narrow.example");
        assert_eq!((pace.settings.connections, pace.settings.messages_per_connection), (3, 10));
        assert_eq!(pace.settings.retry, long);
        assert!(!pace.settings.chunking, "one that wants none is enough");
    }

    #[test]
    fn each_limit_is_told_with_the_table_that_set_it() {
        let from = |table: &str| {
            let origin = Arc::new(Origin { table: table.into(), place: Box::default() });
            LimitOrigins {
                connections: Arc::clone(&origin),
                connections_per_source: Arc::clone(&origin),
                connections_per_ip: Arc::clone(&origin),
                connection_rate: Arc::clone(&origin),
                message_rate: Arc::clone(&origin),
                byte_rate: origin,
            }
        };
        let narrow = SiteSettings {
            connections: 3,
            message_rate: Some(Rate::per_second(9, 1)),
            connections_per_ip: Some(2),
            limits_from: from("narrow"),
            ..Default::default()
        };
        let slow = SiteSettings {
            message_rate: Some(Rate::per_second(1, 1)),
            byte_rate: Some(Rate::per_second(1, 1)),
            connections_per_ip: Some(2),
            limits_from: from("slow"),
            ..Default::default()
        };
        let by_domain = vec![("narrow.example".into(), narrow), ("slow.example".into(), slow)];
        let default = SiteSettings::default();
        let policies = Policies::new(&whole(SiteTable { default, by_domain }));
        let pace = strictest([&policies[1], &policies[2]].into_iter()).unwrap();
        let limits = &pace.settings.limits_from;
        let tables = [&limits.connections, &limits.connections_per_ip, &limits.message_rate];
        assert_eq!(tables.map(|origin| &*origin.table), ["narrow", "narrow", "slow"]);
        assert_eq!(&*limits.byte_rate.table, "slow");
    }

    #[test]
    fn a_lone_policy_is_shared_not_copied() {
        let default = SiteSettings::default();
        let policies = Policies::new(&whole(SiteTable { default, by_domain: Vec::new() }));
        let pace = strictest(std::iter::once(&policies[0])).unwrap();
        assert!(Arc::ptr_eq(&pace.settings, &policies[0].settings));
    }
}
