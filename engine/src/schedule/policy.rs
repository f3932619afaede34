//! Settings as sites see them: the strictest of what their domains ask for.

use std::sync::Arc;

use crate::model::settings::{SiteSettings, SiteTable};

/// The settings of one domain, or the default ones, under the name an operator gave them.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<SiteSettings>,
}

/// All policies: the default first, then those of domains, sorted by name.
#[derive(Debug)]
pub(super) struct Policies(Vec<Policy>);

impl Policies {
    pub(super) fn new(table: &SiteTable) -> Self {
        let own = |name: &str, settings: &SiteSettings| Policy {
            name: name.into(),
            settings: Arc::new(settings.clone()),
        };
        let domains = table.by_domain.iter().map(|(name, settings)| own(name, settings));
        Self(std::iter::once(own("default", &table.default)).chain(domains).collect())
    }

    /// The number of the policy that a domain falls under.
    pub(super) fn of_domain(&self, domain: &str) -> usize {
        let own = self.0.get(1..).unwrap_or_default();
        own.binary_search_by(|policy| (*policy.name).cmp(domain)).map_or(0, |index| index + 1)
    }
}

impl std::ops::Index<usize> for Policies {
    type Output = Policy;

    fn index(&self, number: usize) -> &Policy {
        &self.0[number]
    }
}

/// What a site does, and under whose name it does so.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) settings: Arc<SiteSettings>,
    /// The domain, or "default", whose connection limit binds.
    pub(super) bound_by: Arc<str>,
}

/// The strictest of several policies: fewest connections (these bind, and their time-outs hold),
/// fewest messages on each, shortest idling, longest waits. Expiry stays each domain's own.
pub(super) fn strictest<'a>(policies: impl Iterator<Item = &'a Policy> + Clone) -> Option<Pace> {
    let binding = policies.clone().min_by_key(|policy| policy.settings.connections)?;
    let mut settings = Arc::clone(&binding.settings);
    for policy in policies {
        let other = &policy.settings;
        if !Arc::ptr_eq(other, &binding.settings) {
            tighten(Arc::make_mut(&mut settings), other);
        }
    }
    Some(Pace { settings, bound_by: Arc::clone(&binding.name) })
}

fn tighten(settings: &mut SiteSettings, other: &SiteSettings) {
    settings.messages_per_connection =
        settings.messages_per_connection.min(other.messages_per_connection);
    settings.idle_timeout = settings.idle_timeout.min(other.idle_timeout);
    if other.retry > settings.retry {
        settings.retry.clone_from(&other.retry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_strictest_binds_and_is_named() {
        let wide =
            SiteSettings { connections: 50, messages_per_connection: 10, ..Default::default() };
        let long = vec![Duration::from_secs(900)];
        let narrow = SiteSettings { connections: 3, retry: long.clone(), ..Default::default() };
        let by_domain = vec![("narrow.example".into(), narrow)];
        let policies = Policies::new(&SiteTable { default: wide, by_domain });
        assert_eq!(policies.of_domain("other.example"), 0);
        let number = policies.of_domain("narrow.example");
        let pace = strictest([&policies[0], &policies[number]].into_iter()).unwrap();
        assert_eq!(&*pace.bound_by, "narrow.example");
        assert_eq!((pace.settings.connections, pace.settings.messages_per_connection), (3, 10));
        assert_eq!(pace.settings.retry, long);
    }

    #[test]
    fn a_lone_policy_is_shared_not_copied() {
        let default = SiteSettings::default();
        let policies = Policies::new(&SiteTable { default, by_domain: Vec::new() });
        let pace = strictest(std::iter::once(&policies[0])).unwrap();
        assert!(Arc::ptr_eq(&pace.settings, &policies[0].settings));
    }
}
