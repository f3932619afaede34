//! The only place of the core with atomics: numbers that several shards move together.
//!
//! A [`CellTable`] gives out [`Cell`]s by name; in each, [`PermitsCell`] counts what is open at one
//! time and [`SharedRate`]s pace what passes. [`Day`]s count what a source in its warm-up has sent, a
//! [`LastSlot`] tells where to look first.
//! Nothing here sends, waits or knows a clock: what a shard must be told is returned as a value, so
//! one thread can drive several shards in any order.
//! `cargo loom` looks through the orders in which two and three threads can meet (`models.rs`).

mod budget;
mod day;
mod last_slot;
mod permits;
mod rates;
mod table;
mod waiters;

#[cfg(all(test, not(feature = "loom")))]
mod hammer;
#[cfg(all(test, feature = "loom"))]
mod models;
#[cfg(all(test, not(feature = "loom")))]
mod schedules;

pub use budget::Budget;
pub use day::{DATE_MAX, Day, DayCount, DayKey, Receiver, Refused, STEP_MAX, Tally};
pub use last_slot::LastSlot;
pub use permits::{Answer, CAP_MAX, Grant, Permit, PermitsCell};
pub use rates::SharedRate;
pub use table::{
    Cell, CellId, CellKey, CellTable, DAYS_MAX, Days, Measure, PASSING_CELLS_MAX, TableFull,
};
pub use waiters::SHARDS_MAX;

/// The atomics of this place; with the feature `loom` those that its models can put in any order.
mod atomics {
    #[cfg(not(feature = "loom"))]
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};

    #[cfg(feature = "loom")]
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};

    /// A number that is right whatever it says: no model needs to see it.
    pub(super) use std::sync::atomic::AtomicU16 as Hint;
    /// Likewise.
    pub(super) use std::sync::atomic::AtomicU32 as Place;

    /// Reads `at` after this thread changed another number. Both were SeqCst, so of two threads
    /// that each change one number and then read the other's, at least one sees the change.
    pub(super) fn read_after_change(at: &AtomicU64) -> u64 {
        // loom takes a SeqCst load for an acquire one; the fence gives it its place in the order.
        #[cfg(feature = "loom")]
        loom::sync::atomic::fence(Ordering::SeqCst);
        at.load(Ordering::SeqCst)
    }
}
