//! Caps that several sites share: permits are taken in one order, and who is refused waits in line at
//! one cell and holds nothing meanwhile. See `base/cell/permits.rs` for why nobody waits for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dispatch::RATE_LOST_WAIT;
use super::order::Blocked;
use super::path::Path;
use super::warm_up::Counted;
use super::{Action, Scheduler};
use crate::base::cell::{Answer, Cell, CellId, CellKey, Grant, Permit, PermitsCell};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::connection::ShardId;
use crate::model::settings::Caps;

/// Shared permits of one lease, or of one delivery.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<(Arc<Cell>, Permit)>);

/// A permit that was granted for this.
pub(super) type InHand = (Arc<Cell>, Permit);

/// Who stands in line at a cell.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    /// A path of a site, with the serial of the site.
    Path { site: u32, serial: u32, path: u16 },
    /// A tenant's mail at a site.
    Branch(u32),
}

/// Who waits at which cell, in order.
#[derive(Debug, Default)]
pub(super) struct Parked(Map<CellId, VecDeque<Waiter>>);

impl Parked {
    fn push(&mut self, cell: CellId, waiter: Waiter) {
        self.0.entry(cell).or_default().push_back(waiter);
    }

    fn pop(&mut self, cell: CellId) -> Option<Waiter> {
        let line = self.0.get_mut(&cell)?;
        let first = line.pop_front();
        if line.is_empty() {
            self.0.remove(&cell);
        }
        first
    }

    fn holds(&self, cell: CellId) -> bool {
        self.0.contains_key(&cell)
    }
}

impl Scheduler {
    /// The shared cells of a path, looked up once.
    pub(super) fn cells_for(
        &self,
        now: Now,
        provider: Option<&str>,
        source: &str,
    ) -> Vec<Arc<Cell>> {
        let keys = [
            provider.map(|name| CellKey::Provider(name.into())),
            (!source.is_empty()).then(|| CellKey::Source(source.into())),
            provider.map(|name| CellKey::SourceProvider(source.into(), name.into())),
        ];
        let cell = |key: CellKey| {
            let caps = self.caps_of(&key).filter(|caps| **caps != Caps::default())?;
            // Only names that come from the world can be too many.
            self.cells.cell(&key, caps.connections, now.mono).ok()
        };
        keys.into_iter().flatten().filter_map(cell).collect()
    }

    /// One permit of each cell of a path; `in_hand`: one that was granted for this. Refused by one,
    /// the path waits there.
    pub(super) fn acquire(
        &mut self,
        (number, path): (u32, u16),
        in_hand: Option<InHand>,
    ) -> Option<Held> {
        let (mut held, mut in_hand) = (Held::default(), in_hand);
        let cells = self.sites[number].paths[usize::from(path)].cells.clone();
        for cell in cells {
            let answer = match in_hand.take_if(|(of, _)| of.id() == cell.id()) {
                Some((_, permit)) => Answer::Taken(permit),
                None => cell.permits().acquire(self.shard.0),
            };
            match answer {
                Answer::Taken(permit) => held.0.push((cell, permit)),
                Answer::Parked => {
                    self.park((number, path), cell.id());
                    held.0.extend(in_hand);
                    self.release(held);
                    return None;
                }
            }
        }
        // Of a cap that a reload took away meanwhile.
        self.release(Held(in_hand.into_iter().collect()));
        Some(held)
    }

    /// A permit that was waited for and is not wanted any more.
    pub(super) fn give_up(&mut self, in_hand: InHand) {
        self.release(Held(vec![in_hand]));
    }

    fn park(&mut self, (number, path): (u32, u16), cell: CellId) {
        let site = &mut self.sites[number];
        site.path(path).parked = Some(cell);
        self.parked.push(cell, Waiter::Path { site: number, serial: site.serial, path });
    }

    /// Permits go back, and on to who waits for them.
    pub(super) fn release(&mut self, held: Held) {
        for (cell, permit) in held.0 {
            let grant = cell.permits().release(permit);
            self.send_grant(cell, grant);
        }
    }

    fn send_grant(&mut self, cell: Arc<Cell>, grant: Option<Grant>) {
        if let Some(grant) = grant {
            self.actions.push_back(Action::Grant { to: ShardId(grant.to), cell, grant });
        }
    }

    /// A permit this shard stood in line for: the first path that still has a use for it gets it.
    pub fn handle_grant(&mut self, now: Now, cell: Arc<Cell>, grant: Grant) {
        let mut answer = cell.permits().accept(grant);
        while let Answer::Taken(permit) = answer {
            let in_hand = (Arc::clone(&cell), permit);
            match self.next_parked(cell.id()) {
                None => return self.give_up(in_hand),
                Some(Waiter::Path { site, path, .. }) => {
                    self.open_parked(now, (site, path), in_hand)
                }
                Some(Waiter::Branch(branch)) => self.uncap_with(now, branch, in_hand),
            }
            if !self.parked.holds(cell.id()) {
                return;
            }
            answer = cell.permits().acquire(self.shard.0);
        }
    }

    /// The first in line at a cell that is still there.
    fn next_parked(&mut self, cell: CellId) -> Option<Waiter> {
        if planted(Bug::ParkedNeverWoken) {
            return None;
        }
        while let Some(waiter) = self.parked.pop(cell) {
            match waiter {
                Waiter::Path { site, serial, path } => {
                    let Some(site) = self.sites.current(site, serial) else { continue };
                    let waits = &mut site.path(path).parked;
                    if *waits == Some(cell) {
                        *waits = None;
                        return Some(waiter);
                    }
                }
                Waiter::Branch(branch) if self.order.is_capped(branch) => return Some(waiter),
                Waiter::Branch(_) => {}
            }
        }
        None
    }

    /// What the tenant of a leaf allows besides: a permit for a delivery under way, and its rates.
    /// Refused, its mail at this site stands in no line until there is room.
    pub(super) fn admit_tenant(&mut self, now: Now, leaf: u32, bytes: u32) -> Option<Held> {
        let branch = self.order.leaves[leaf as usize].branch;
        let tenant = self.roster.tenant(self.order.branches[branch as usize].tenant());
        let Some(cell) = tenant.and_then(|tenant| tenant.cell.clone()) else {
            return Some(Held::default());
        };
        if let Some((due, _)) =
            self.cell_due(&cell, now.mono, bytes).filter(|(due, _)| *due > now.mono)
        {
            self.cap(branch, due);
            return None;
        }
        let answer = match self.tenant_permit.take_if(|(of, _)| of.id() == cell.id()) {
            Some((_, permit)) => Answer::Taken(permit),
            None => cell.permits().acquire(self.shard.0),
        };
        match answer {
            Answer::Taken(permit) => {
                let held = Held(vec![(Arc::clone(&cell), permit)]);
                if planted(Bug::TenantRateNeverTaken) || self.take_shared(&cell, now.mono, bytes) {
                    return Some(held);
                }
                self.release(held);
                self.cap(branch, now.mono.plus(RATE_LOST_WAIT));
            }
            Answer::Parked => {
                self.block_capped(branch);
                self.parked.push(cell.id(), Waiter::Branch(branch));
            }
        }
        None
    }

    fn cap(&mut self, branch: u32, until: Mono) {
        self.block_capped(branch);
        self.tenant_wakes.insert((until, branch));
    }

    fn block_capped(&mut self, branch: u32) {
        self.order.block_branch(branch, Blocked::Capped);
        let trunk = self.order.branches[branch as usize].trunk;
        let number = self.order.trunks[trunk as usize].site;
        self.sites[number].capped = Some(branch);
    }

    /// Tenants whose rates let them go on.
    pub(super) fn wake_tenants(&mut self, now: Now) {
        while let Some((until, branch)) = self.tenant_wakes.first().copied() {
            if until > now.mono {
                return;
            }
            self.tenant_wakes.pop_first();
            if self.order.is_capped(branch) {
                self.uncap(now, branch);
            }
        }
    }

    /// With the permit that it waited for. Given back before, it might be granted to the next of this
    /// shard, this branch would stand in line behind that one, and so on without end.
    fn uncap_with(&mut self, now: Now, branch: u32, in_hand: InHand) {
        self.tenant_permit = Some(in_hand);
        self.uncap(now, branch);
        if let Some(unused) = self.tenant_permit.take() {
            self.give_up(unused);
        }
    }

    fn uncap(&mut self, now: Now, branch: u32) {
        self.order.block_branch(branch, Blocked::No);
        let trunk = self.order.branches[branch as usize].trunk;
        let site = self.order.trunks[trunk as usize].site;
        self.dispatch(now, site);
    }

    /// New settings: other caps, of other sites. What is open counts under those it falls under now.
    pub(super) fn reload_cells(&mut self, now: Now) {
        self.renew_caps();
        self.reload_tenants(now);
        for number in self.sites.numbers() {
            self.reload_paths(now, number);
        }
        for slot in self.leases.slots() {
            self.recount(slot);
        }
    }

    /// Also of cells that nothing here counts under: the next site that does finds them as they are.
    fn renew_caps(&mut self) {
        for cell in self.cells.all() {
            // The cap of an address is that of the site which connects.
            if !matches!(cell.key(), CellKey::RemoteIp(_)) {
                let cap = self.caps_of(cell.key()).and_then(|caps| caps.connections);
                self.set_cap(&cell, cap);
            }
        }
    }

    /// Looks the cells of tenants up, once for all of their mail.
    pub(super) fn reload_tenants(&mut self, now: Now) {
        for tenant in self.roster.tenants() {
            let caps = &tenant.settings.caps;
            if *caps == Caps::default() {
                continue;
            }
            let key = CellKey::Tenant(tenant.settings.name.clone());
            // Only names that come from the world can be too many.
            let Ok(cell) = self.cells.cell(&key, caps.connections, now.mono) else { continue };
            tenant.cell = Some(cell);
        }
    }

    fn set_cap(&mut self, cell: &Arc<Cell>, cap: Option<u32>) {
        for grant in cell.permits().set_cap(cap) {
            self.send_grant(Arc::clone(cell), Some(grant));
        }
    }

    fn reload_paths(&mut self, now: Now, number: u32) {
        for path in 0..self.sites[number].paths.len() {
            let site = &self.sites[number];
            let source = site.paths[path].source;
            let name = Arc::clone(&self.roster.source_at(source).name);
            let cells = self.cells_for(now, site.provider.as_deref(), &name);
            self.sites[number].paths[path].cells = cells;
            self.sites[number].paths[path].day = self.day_for(now, number, source);
        }
        self.find_all_days(now, number);
    }

    /// A site that a provider was found for: its connections count under the provider's caps.
    pub(super) fn count_site_anew(&mut self, now: Now, number: u32) {
        self.reload_paths(now, number);
        for slot in self.leases.slots() {
            if self.leases[slot].site == number {
                self.recount(slot);
            }
        }
    }

    /// Makes what a lease and its deliveries hold what they fall under.
    fn recount(&mut self, slot: u32) {
        let lease = &mut self.leases[slot];
        let (number, path) = lease.at();
        let cells = &self.sites[number].paths[usize::from(path)].cells;
        let mut given_up = lease.held.become_of(cells);
        for flight in lease.flights() {
            let tenant = self.roster.tenant(&self.courses[flight.course].flow.tenant);
            let cell = tenant.and_then(|tenant| tenant.cell.as_ref());
            given_up.extend(flight.held.become_of(cell));
            // It may be another day by now, which it is not to be taken off.
            flight.counted = Counted::default();
        }
        self.release(Held(given_up));
    }
}

impl Held {
    /// Makes it one permit of each of `cells`, adopted where there was none; tells what is left over.
    fn become_of<'a>(&mut self, cells: impl IntoIterator<Item = &'a Arc<Cell>>) -> Vec<InHand> {
        let mut before = std::mem::take(&mut self.0);
        for cell in cells {
            let known = before.iter().position(|(of, _)| of.id() == cell.id());
            let mut permit = known.map_or_else(PermitsCell::without, |at| before.swap_remove(at).1);
            cell.permits().adopt(&mut permit);
            self.0.push((Arc::clone(cell), permit));
        }
        before
    }
}

/// The shared cap at which a path stands in line, by name.
pub(super) fn waits_at(path: &Path) -> Option<Box<str>> {
    let id = path.parked?;
    let cell = path.cells.iter().find(|cell| cell.id() == id)?;
    Some(super::pacing::name_of(cell.key()))
}
