//! What an operator or a rule may stop, and for how long.

use crate::base::time::Mono;

/// Mail that is stopped together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// By the name of its key: a next hop, or an MX set.
    Site(Box<str>),
    /// An egress source, at all sites.
    Source(Box<str>),
    Tenant(Box<str>),
    Campaign {
        tenant: Box<str>,
        campaign: Box<str>,
    },
}

/// A scope to look one up by. Its variants are those of [`Scope`], in their order: both hash alike.
#[derive(Clone, Copy, Debug, Hash)]
pub enum ScopeName<'a> {
    Site(&'a str),
    Source(&'a str),
    Tenant(&'a str),
    Campaign { tenant: &'a str, campaign: &'a str },
}

impl hashbrown::Equivalent<Scope> for ScopeName<'_> {
    fn equivalent(&self, scope: &Scope) -> bool {
        match (*self, scope) {
            (Self::Site(own), Scope::Site(name))
            | (Self::Source(own), Scope::Source(name))
            | (Self::Tenant(own), Scope::Tenant(name)) => *own == **name,
            (
                Self::Campaign { tenant, campaign },
                Scope::Campaign { tenant: of, campaign: name },
            ) => *tenant == **of && *campaign == **name,
            _ => false,
        }
    }
}

/// A stop that lasts until it is released, or until its time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// `operator`, or `rule NAME`.
    pub by: Box<str>,
    pub until: Option<Mono>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::map::Map;

    #[test]
    fn a_scope_is_found_by_its_name() {
        let campaign = |tenant: &str, campaign: &str| Scope::Campaign {
            tenant: tenant.into(),
            campaign: campaign.into(),
        };
        let scopes = [
            Scope::Site("a".into()),
            Scope::Source("a".into()),
            Scope::Tenant("a".into()),
            campaign("a", "b"),
            campaign("ab", ""),
        ];
        let map: Map<Scope, usize> = scopes.into_iter().zip(0..).collect();
        let names = [
            ScopeName::Site("a"),
            ScopeName::Source("a"),
            ScopeName::Tenant("a"),
            ScopeName::Campaign { tenant: "a", campaign: "b" },
            ScopeName::Campaign { tenant: "ab", campaign: "" },
            ScopeName::Campaign { tenant: "", campaign: "ab" },
        ];
        let found = names.map(|name| map.get(&name).copied());
        assert_eq!(found, [Some(0), Some(1), Some(2), Some(3), Some(4), None]);
    }
}
