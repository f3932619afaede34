//! Sources and pools under numbers that stay, whatever a reload does to their order.

use std::sync::Arc;

use crate::base::cell::Cell;
use crate::base::map::Map;
use crate::model::flow::Flow;
use crate::model::settings::{
    Caps, DEFAULT_POOL, PoolMember, Settings, SourceSettings, TenantSettings,
};
use crate::model::source::EgressSource;

/// The number of the source, or pool, that is there without being configured.
pub(super) const BUILT_IN: u16 = 0;

/// Names that were ever given; beyond, a reload's newcomers stand for the built-in one.
const NAMES_MAX: usize = 60_000;

/// An egress address.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    /// `None`: the kernel's choice, or a source that a reload took away.
    pub(super) settings: Option<Arc<SourceSettings>>,
    /// The same for who connects.
    pub(super) egress: Option<Arc<EgressSource>>,
}

/// Sources that share mail by weight.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) source: u16,
    pub(super) weight: u16,
}

/// All of them, and the tenants that use them.
#[derive(Debug)]
pub(super) struct Roster {
    sources: Vec<Source>,
    pools: Vec<Pool>,
    source_numbers: Map<Arc<str>, u16>,
    pool_numbers: Map<Arc<str>, u16>,
    tenants: Map<Box<str>, Tenant>,
}

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) pool: u16,
    pub(super) settings: Arc<TenantSettings>,
    /// Where its caps are counted, if it has any.
    pub(super) cell: Option<Arc<Cell>>,
}

impl Roster {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut roster = Self {
            sources: Vec::new(),
            pools: Vec::new(),
            source_numbers: Map::default(),
            pool_numbers: Map::default(),
            tenants: Map::default(),
        };
        roster.source("");
        roster.pool(DEFAULT_POOL);
        roster.load(settings);
        roster
    }

    /// New settings; a pool that is gone serves what is left of its mail as the default pool does.
    pub(super) fn load(&mut self, settings: &Settings) {
        self.sources.iter_mut().for_each(|source| source.settings = None);
        let numbers: Vec<u16> = settings.sources.iter().map(|one| self.source(&one.name)).collect();
        for (number, own) in numbers.iter().zip(&settings.sources) {
            let source = &mut self.sources[usize::from(*number)];
            source.settings = Some(Arc::new(own.clone()));
            source.egress = Some(Arc::new(egress_of(own)));
        }
        self.pools.iter_mut().for_each(|pool| pool.members.clear());
        for given in &settings.pools {
            let pool = self.pool(&given.name);
            let member = |member: &PoolMember| Member {
                source: numbers.get(usize::from(member.source)).copied().unwrap_or(BUILT_IN),
                weight: member.weight,
            };
            self.pools[usize::from(pool)].members = given.members.iter().map(member).collect();
        }
        self.fill_empty_pools();
        self.tenants.clear();
        for tenant in &settings.tenants {
            let pool = tenant.pool.and_then(|pool| settings.pools.get(usize::from(pool)));
            let pool = pool.map_or(BUILT_IN, |pool| self.pool(&pool.name));
            let settings = Arc::new(tenant.clone());
            self.tenants.insert(tenant.name.clone(), Tenant { pool, settings, cell: None });
        }
    }

    fn fill_empty_pools(&mut self) {
        if self.pools[usize::from(BUILT_IN)].members.is_empty() {
            let built_in = Member { source: BUILT_IN, weight: 1 };
            self.pools[usize::from(BUILT_IN)].members.push(built_in);
        }
        let default = self.pools[usize::from(BUILT_IN)].members.clone();
        let empty = self.pools.iter_mut().filter(|pool| pool.members.is_empty());
        empty.for_each(|pool| pool.members.clone_from(&default));
    }

    fn source(&mut self, name: &str) -> u16 {
        numbered(&mut self.source_numbers, name, self.sources.len(), |name| {
            self.sources.push(Source { name, settings: None, egress: None });
        })
    }

    fn pool(&mut self, name: &str) -> u16 {
        numbered(&mut self.pool_numbers, name, self.pools.len(), |_| {
            self.pools.push(Pool { members: Vec::new() });
        })
    }

    pub(super) fn pool_of(&self, flow: &Flow) -> u16 {
        self.tenants.get(&flow.tenant).map_or(BUILT_IN, |tenant| tenant.pool)
    }

    pub(super) fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants.get(name)
    }

    pub(super) fn tenants(&mut self) -> impl Iterator<Item = &mut Tenant> {
        self.tenants.values_mut()
    }

    pub(super) fn source_caps(&self, name: &str) -> Option<&Caps> {
        let number = self.source_numbers.get(name)?;
        self.sources[usize::from(*number)].settings.as_ref().map(|settings| &settings.caps)
    }

    pub(super) fn weight_of(&self, tenant: &str) -> u16 {
        self.tenants.get(tenant).map_or(1, |tenant| tenant.settings.weight)
    }

    pub(super) fn members(&self, pool: u16) -> &[Member] {
        &self.pools[usize::from(pool)].members
    }

    pub(super) fn source_at(&self, number: u16) -> &Source {
        &self.sources[usize::from(number)]
    }

    pub(super) fn source_number(&self, name: &str) -> Option<u16> {
        self.source_numbers.get(name).copied()
    }
}

fn egress_of(settings: &SourceSettings) -> EgressSource {
    EgressSource {
        name: settings.name.clone(),
        address: settings.address_v4,
        address6: settings.address_v6,
        hostname: settings.hostname.clone(),
    }
}

/// The number of a name; a new one is added at `next`.
fn numbered(
    numbers: &mut Map<Arc<str>, u16>,
    name: &str,
    next: usize,
    add: impl FnOnce(Arc<str>),
) -> u16 {
    if let Some(number) = numbers.get(name) {
        return *number;
    }
    let Some(number) = u16::try_from(next).ok().filter(|_| next < NAMES_MAX) else {
        return BUILT_IN;
    };
    let name: Arc<str> = name.into();
    numbers.insert(Arc::clone(&name), number);
    add(name);
    number
}
