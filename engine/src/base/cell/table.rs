//! Cells by name: looked up once by each site, connection or flow that keeps its handle.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::CachePadded;

use crate::base::cell::day::{Day, DayKey};
use crate::base::cell::permits::PermitsCell;
use crate::base::cell::rates::SharedRate;
use crate::base::map::Map;
use crate::base::time::Mono;

#[expect(clippy::disallowed_types, reason = "taken once per site or connection, never per message")]
type Lock<T> = std::sync::Mutex<T>;

/// Cells whose names come from the world, remote addresses: more than an engine has connections, and
/// about 24 MiB.
pub const PASSING_CELLS_MAX: usize = 65_536;

/// Days of sources in their warm-up, or behind it: sites of no provider come from the world. About
/// 20 MiB.
pub const DAYS_MAX: usize = 100_000;

/// Passing cells, or days, looked at for each new one. More than one, so that idle ones go faster than others
/// come; few, because others wait for the lock.
const LOOKED_AT_PER_NEW: usize = 8;

/// What a cap or rate holds for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellKey {
    Provider(Box<str>),
    Source(Box<str>),
    SourceProvider(Box<str>, Box<str>),
    RemoteIp(IpAddr),
    Tenant(Box<str>),
}

/// Tells cells apart as long as anybody has a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(pub u64);

/// What a rate of a cell counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Connections,
    Messages,
    Recipients,
    Bytes,
}

/// The shared numbers of one name. Who holds a permit, waits, or has a grant on its way keeps the
/// handle: a cell that anybody keeps is never reclaimed.
pub struct Cell {
    id: CellId,
    key: CellKey,
    shared: CachePadded<Shared>,
}

#[derive(Debug)]
struct Shared {
    permits: PermitsCell,
    rates: [SharedRate; 4],
}

/// No room for another passing cell: all are in use. The work is tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{PASSING_CELLS_MAX} remote addresses are in use")]
pub struct TableFull;

/// All cells of an engine.
#[derive(Debug)]
pub struct CellTable {
    shards: u16,
    passing_max: usize,
    days_max: usize,
    cells: Lock<Cells>,
}

/// A day, and those that made room for it.
#[derive(Debug, Default)]
pub struct Days {
    /// `None`: too many have sent something today.
    pub day: Option<Arc<Day>>,
    pub forgotten: Vec<Arc<Day>>,
}

#[derive(Debug, Default)]
struct Cells {
    by_key: Map<CellKey, Arc<Cell>>,
    /// The passing ones, in the order in which they are looked at next.
    passing: VecDeque<CellKey>,
    days: Map<DayKey, Arc<Day>>,
    /// In the order in which they are looked at next.
    days_in_turn: VecDeque<DayKey>,
    ids: u64,
}

impl CellTable {
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { shards, passing_max: PASSING_CELLS_MAX, days_max: DAYS_MAX, cells: Lock::default() }
    }

    /// The cell of this name. One that is new gets `cap`; one that is there keeps its own.
    ///
    /// # Errors
    /// The name is a remote address, and there are too many of them in use.
    pub fn cell(&self, key: &CellKey, cap: Option<u32>, now: Mono) -> Result<Arc<Cell>, TableFull> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.by_key.get(key) {
            return Ok(Arc::clone(cell));
        }
        if key.is_passing() {
            cells.reclaim(now);
            if cells.passing.len() >= self.passing_max {
                return Err(TableFull);
            }
            cells.passing.push_back(key.clone());
        }
        Ok(cells.add(key, PermitsCell::new(self.shards, cap)))
    }

    /// The day of this name, new if need be. Where there are too many, some make room that nobody
    /// keeps and that are of dates before `today`: their source starts its curve again.
    #[must_use = "what was forgotten must be forgotten on disk"]
    pub fn day(&self, key: &DayKey, today: u32) -> Days {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(day) = cells.days.get(key) {
            return Days { day: Some(Arc::clone(day)), forgotten: Vec::new() };
        }
        let is_full = cells.days.len() >= self.days_max;
        let forgotten = if is_full { cells.forget_days(today) } else { Vec::new() };
        if cells.days.len() >= self.days_max {
            return Days { day: None, forgotten };
        }
        let day = Arc::new(Day::new(key.clone()));
        cells.days.insert(key.clone(), Arc::clone(&day));
        cells.days_in_turn.push_back(key.clone());
        Days { day: Some(day), forgotten }
    }

    /// The day of this name, if there is one.
    #[must_use]
    pub fn known_day(&self, key: &DayKey) -> Option<Arc<Day>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.days.get(key).map(Arc::clone)
    }

    /// Every day there is, in an order that is the same in every run.
    #[must_use]
    pub fn days(&self) -> Vec<Arc<Day>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.days.values().map(Arc::clone).collect()
    }

    /// Every cell there is, for reports and for the simulator's checks.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Cell>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = cells.by_key.values().map(Arc::clone).collect();
        all.sort_unstable_by_key(|cell| cell.id);
        all
    }
}

impl Cells {
    fn add(&mut self, key: &CellKey, permits: PermitsCell) -> Arc<Cell> {
        let shared = Shared { permits, rates: Default::default() };
        let id = CellId(self.ids);
        self.ids += 1;
        let cell = Arc::new(Cell { id, key: key.clone(), shared: CachePadded::new(shared) });
        self.by_key.insert(key.clone(), Arc::clone(&cell));
        cell
    }

    fn forget_days(&mut self, today: u32) -> Vec<Arc<Day>> {
        let mut forgotten = Vec::new();
        for _ in 0..LOOKED_AT_PER_NEW.min(self.days_in_turn.len()) {
            let Some(key) = self.days_in_turn.pop_front() else { break };
            let is_kept =
                |day: &mut Arc<Day>| Arc::get_mut(day).is_none_or(|day| day.count().date >= today);
            if self.days.get_mut(&key).is_some_and(is_kept) {
                self.days_in_turn.push_back(key);
            } else {
                forgotten.extend(self.days.remove(&key));
            }
        }
        forgotten
    }

    /// Looks at a few of the passing cells, and drops those that nobody would miss.
    fn reclaim(&mut self, now: Mono) {
        for _ in 0..LOOKED_AT_PER_NEW.min(self.passing.len()) {
            let Some(key) = self.passing.pop_front() else { return };
            if self.by_key.get_mut(&key).is_some_and(|cell| is_idle(cell, now)) {
                self.by_key.remove(&key);
            } else {
                self.passing.push_back(key);
            }
        }
    }
}

/// Whether the table's is the only handle, and a new cell would behave alike. Handles are made from
/// handles or under the lock, so nobody can come by one meanwhile.
fn is_idle(cell: &mut Arc<Cell>, now: Mono) -> bool {
    Arc::get_mut(cell).is_some_and(|cell| {
        let permits = cell.permits();
        permits.in_use() == 0
            && permits.waiting() == 0
            && cell.shared.rates.iter().all(|rate| rate.is_rested(now))
    })
}

impl Cell {
    #[must_use]
    pub fn id(&self) -> CellId {
        self.id
    }

    #[must_use]
    pub fn key(&self) -> &CellKey {
        &self.key
    }

    #[must_use]
    pub fn permits(&self) -> &PermitsCell {
        &self.shared.permits
    }

    #[must_use]
    pub fn rate(&self, of: Measure) -> &SharedRate {
        &self.shared.rates[of as usize]
    }
}

impl fmt::Debug for Cell {
    /// The name alone: the numbers are another shard's business at any moment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({} {:?})", self.id.0, self.key)
    }
}

impl CellKey {
    /// Whether the name comes from the world; all others are in the settings, which bounds them.
    fn is_passing(&self) -> bool {
        matches!(self, Self::RemoteIp(_))
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::base::cell::day::{DayCount, Receiver};
    use crate::base::cell::permits::Answer;
    use crate::base::gcra::Rate;

    const NOW: Mono = Mono(1_000);

    fn remote(number: u32) -> CellKey {
        CellKey::RemoteIp(IpAddr::from(number.to_be_bytes()))
    }

    fn small(passing_max: usize) -> CellTable {
        CellTable { passing_max, days_max: passing_max, ..CellTable::new(2) }
    }

    #[test]
    fn one_name_is_one_cell_and_a_source_is_no_tenant() {
        let table = CellTable::new(2);
        let cell = |key: CellKey| table.cell(&key, Some(1), NOW).unwrap();
        let source = cell(CellKey::Source("a".into()));
        assert!(Arc::ptr_eq(&source, &cell(CellKey::Source("a".into()))));
        assert_ne!(source.id(), cell(CellKey::Tenant("a".into())).id());
        assert_ne!(source.id(), cell(CellKey::SourceProvider("a".into(), "".into())).id());
        assert_eq!(source.permits().cap(), Some(1));
        assert_eq!(table.all().len(), 3);
    }

    #[test]
    fn idle_cells_make_room_and_their_number_stays_small() {
        let table = small(10);
        for number in 0..10_000 {
            table.cell(&remote(number), None, NOW).unwrap();
            assert!(table.all().len() <= 10);
        }
    }

    #[test]
    fn a_cell_that_is_kept_in_use_or_in_debt_is_never_reclaimed() {
        let table = small(10);
        let kept = table.cell(&remote(1), Some(1), NOW).unwrap();
        let Answer::Taken(permit) =
            table.cell(&remote(2), Some(1), NOW).unwrap().permits().acquire(0)
        else {
            panic!("there was room")
        };
        let rate = Rate::per_second(1, 1);
        let in_debt = table.cell(&remote(3), None, NOW).unwrap();
        in_debt.rate(Measure::Messages).take(NOW, &rate, 1).unwrap();
        let debtor = in_debt.id();
        drop(in_debt);
        for number in 10..1_000 {
            table.cell(&remote(number), None, NOW).unwrap();
        }
        assert!(Arc::ptr_eq(&kept, &table.cell(&remote(1), None, NOW).unwrap()));
        let used = table.cell(&remote(2), None, NOW).unwrap();
        assert_eq!((used.permits().in_use(), used.permits().cap()), (1, Some(1)));
        assert_eq!(used.permits().release(permit), None);
        assert_eq!(table.cell(&remote(3), None, NOW).unwrap().id(), debtor);
        let later = Mono(2_000_000_000);
        (1_000..1_010).for_each(|number| drop(table.cell(&remote(number), None, later).unwrap()));
        assert_ne!(table.cell(&remote(3), None, later).unwrap().id(), debtor);
    }

    #[test]
    fn a_full_table_refuses_addresses_but_no_name_from_the_settings() {
        let table = small(2);
        let kept = [0, 1].map(|number| table.cell(&remote(number), None, NOW).unwrap());
        assert_eq!(table.cell(&remote(2), None, NOW).err(), Some(TableFull));
        assert!(table.cell(&remote(1), None, NOW).is_ok());
        assert!(table.cell(&CellKey::Provider("p".into()), None, NOW).is_ok());
        drop(kept);
        assert!(table.cell(&remote(2), None, NOW).is_ok());
    }

    #[test]
    fn days_before_today_that_nobody_keeps_make_room_and_no_others() {
        let table = small(3);
        let key = |number: usize| DayKey {
            source: "s".into(),
            receiver: Receiver::Site(number.to_string().into()),
        };
        let sent_on = |number, date| {
            let day = table.day(&key(number), 20).day.unwrap();
            assert!(day.turn(DayCount::default(), DayCount { date, step: 0, sent: 1 }));
            day
        };
        drop((sent_on(0, 20), sent_on(1, 19)));
        let _kept = sent_on(2, 19);
        let Days { day, forgotten } = table.day(&key(3), 20);
        assert!(day.is_some());
        let names: Vec<&DayKey> = forgotten.iter().map(|day| day.key()).collect();
        assert_eq!(names, [&key(1)]);
        assert!(table.known_day(&key(1)).is_none() && table.known_day(&key(0)).is_some());
        assert!(day.unwrap().turn(DayCount::default(), DayCount { date: 20, step: 0, sent: 1 }));
        assert!(table.day(&key(4), 20).day.is_none(), "all have sent today, or are kept");
    }
}
