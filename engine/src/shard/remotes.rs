//! Remote addresses: how many connections each may have, all sites and shards together.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::cell::{Answer, CAP_MAX, Cell, CellKey, CellTable, Grant, Permit};
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::settings::{Settings, SiteSettings};

/// A permit that is free again, and the shard that stands in line for it.
pub(super) type Freed = Option<(Arc<Cell>, Grant)>;

/// The caps of remote addresses, as one shard sees them.
pub(super) struct Remotes {
    shard: ShardId,
    cells: Arc<CellTable>,
    /// Whether any site has `connections_per_ip`: else nothing is counted.
    counts: bool,
}

impl Remotes {
    pub(super) fn new(shard: ShardId, cells: Arc<CellTable>, settings: &Settings) -> Self {
        Self { shard, cells, counts: has_caps(settings) }
    }

    /// New settings: each cap is set again by the next connection of a site that has one.
    pub(super) fn handle_settings(&mut self, settings: &Settings) -> Vec<(Arc<Cell>, Grant)> {
        self.counts = has_caps(settings);
        if self.shard != ShardId(0) {
            return Vec::new();
        }
        let addresses =
            self.cells.all().into_iter().filter(|cell| matches!(cell.key(), CellKey::RemoteIp(_)));
        let raise = |cell: Arc<Cell>| {
            let grants = cell.permits().set_cap(Some(CAP_MAX));
            grants.into_iter().map(move |grant| (Arc::clone(&cell), grant))
        };
        addresses.flat_map(raise).collect()
    }

    /// A permit for one connection to `ip`, of which there may be `cap`.
    fn admit(&self, now: Now, ip: IpAddr, cap: Option<u32>) -> Option<Counted> {
        if !self.counts {
            return Some(Counted::At(ip, None));
        }
        let own = cap.unwrap_or(CAP_MAX);
        let cell = self.cells.cell(&CellKey::RemoteIp(ip), Some(own), now.mono).ok()?;
        let permits = cell.permits();
        if permits.cap().is_none_or(|known| known > own) {
            // A cut grants nothing.
            let grants = permits.set_cap(Some(own));
            debug_assert!(grants.is_empty(), "a lower cap makes no room");
        }
        match permits.acquire(self.shard.0) {
            Answer::Taken(permit) => Some(Counted::At(ip, Some((cell, permit)))),
            // The owner of the site asks again in a moment: nobody stands in line here.
            Answer::Parked => {
                permits.leave(self.shard.0);
                None
            }
        }
    }
}

/// What one session counts at remote addresses: at most one connection. It lasts from connect to
/// connect, so that a second one to the same address, in clear, is under the same permit.
#[derive(Debug, Default)]
pub(super) enum Counted {
    #[default]
    Nowhere,
    At(IpAddr, Option<(Arc<Cell>, Permit)>),
}

impl Counted {
    /// Whether the session may connect to `ip`, and what it left free. It asks only when the end of
    /// its connection before is known, so the address of that one counts it no longer.
    pub(super) fn may_connect(
        &mut self,
        now: Now,
        (ip, cap): (IpAddr, Option<u32>),
        remotes: &Remotes,
    ) -> (bool, Freed) {
        if matches!(self, Self::At(counted, _) if *counted == ip) {
            return (true, None);
        }
        let freed = self.leave();
        let cap = cap.filter(|_| !planted(Bug::AddressNotCounted));
        let admitted = remotes.admit(now, ip, cap);
        let is_admitted = admitted.is_some();
        *self = admitted.unwrap_or_default();
        (is_admitted, freed)
    }

    /// The session is over, or goes elsewhere.
    pub(super) fn leave(&mut self) -> Freed {
        let Self::At(_, Some((cell, permit))) = std::mem::take(self) else { return None };
        let grant = cell.permits().release(permit)?;
        Some((cell, grant))
    }
}

fn has_caps(settings: &Settings) -> bool {
    let caps = |site: &SiteSettings| site.connections_per_ip.is_some();
    caps(&settings.sites.default)
        || settings.sites.by_domain.iter().any(|(_, site)| caps(site))
        || settings.providers.iter().any(|provider| caps(&provider.site))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_what_it_may_from_all_shards_together() {
        let cells = Arc::new(CellTable::new(2));
        let remotes =
            |shard| Remotes { shard: ShardId(shard), cells: Arc::clone(&cells), counts: true };
        let (here, there) = (remotes(0), remotes(1));
        let now = Now::default();
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let (mut one, mut other) = (Counted::default(), Counted::default());
        assert!(one.may_connect(now, (a, Some(1)), &here).0);
        assert!(one.may_connect(now, (a, Some(1)), &here).0, "again, under the same permit");
        assert!(!other.may_connect(now, (a, Some(1)), &there).0);
        assert!(other.may_connect(now, (b, Some(1)), &there).0);
        assert!(!one.may_connect(now, (b, Some(5)), &here).0, "the strictest cap binds");
        assert!(other.may_connect(now, (a, Some(1)), &there).0, "the other has left it");
        assert!(one.leave().is_none() && other.leave().is_none());
        assert!(cells.all().iter().all(|cell| cell.permits().in_use() == 0));
    }
}
