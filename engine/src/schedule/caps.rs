//! Caps that several sites share: permits are taken in one order, and who is refused waits in line at
//! one cell and holds nothing meanwhile. See `base/cell/permits.rs` for why nobody waits for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use super::path::Path;
use super::{Action, Scheduler};
use crate::base::cell::{Answer, Cell, CellId, CellKey, Grant, Permit};
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::connection::ShardId;

/// Shared permits of one lease.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<(Arc<Cell>, Permit)>);

/// A permit that was granted for this.
pub(super) type InHand = (Arc<Cell>, Permit);

/// Who waits at which cell, in order: site and path, with the serial of the site.
#[derive(Debug, Default)]
pub(super) struct Parked(Map<CellId, VecDeque<(u32, u32, u16)>>);

impl Parked {
    fn push(&mut self, cell: CellId, place: (u32, u32, u16)) {
        self.0.entry(cell).or_default().push_back(place);
    }

    fn pop(&mut self, cell: CellId) -> Option<(u32, u32, u16)> {
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
            let caps = self.caps_of(&key).filter(|caps| **caps != Default::default())?;
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
        self.parked.push(cell, (number, site.serial, path));
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
            let Some(place) = self.next_parked(cell.id()) else {
                let grant = cell.permits().release(permit);
                return self.send_grant(cell, grant);
            };
            self.open_parked(now, place, (Arc::clone(&cell), permit));
            if !self.parked.holds(cell.id()) {
                return;
            }
            answer = cell.permits().acquire(self.shard.0);
        }
    }

    /// The first in line at a cell that is still there.
    fn next_parked(&mut self, cell: CellId) -> Option<(u32, u16)> {
        while let Some((number, serial, path)) = self.parked.pop(cell) {
            let Some(site) = self.sites.current(number, serial) else { continue };
            let waits = &mut site.path(path).parked;
            if *waits == Some(cell) {
                *waits = None;
                return Some((number, path));
            }
        }
        None
    }

    /// New caps: those of cells this scheduler knows.
    pub(super) fn reload_cells(&mut self, now: Now) {
        for number in self.sites.numbers() {
            for path in 0..self.sites[number].paths.len() {
                let source = self.sites[number].paths[path].source;
                let provider = self.sites[number].provider.clone();
                let name = Arc::clone(&self.roster.source_at(source).name);
                let cells = self.cells_for(now, provider.as_deref(), &name);
                for cell in &cells {
                    let cap = self.caps_of(cell.key()).and_then(|caps| caps.connections);
                    for grant in cell.permits().set_cap(cap) {
                        self.send_grant(Arc::clone(cell), Some(grant));
                    }
                }
                self.sites[number].paths[path].cells = cells;
            }
        }
    }
}

/// Whether two paths of a site may be told apart by what they share.
pub(super) fn waits_at(path: &Path) -> Option<Box<str>> {
    let id = path.parked?;
    let cell = path.cells.iter().find(|cell| cell.id() == id)?;
    Some(super::pacing::name_of(cell.key()))
}
