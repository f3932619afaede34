//! What was acknowledged, what arrived, and what the difference proves.

mod acknowledged;
mod arrived;
mod planes;
mod repeats;
mod verdict;

pub use acknowledged::{AckLedger, Outcome};
pub use arrived::ArrivalLedger;
pub use repeats::Repeats;
pub use verdict::{Verdict, compare, compare_accounting};
