//! The simulator: the real shards in a world that one seed decides.
//!
//! ```text
//! seed ─▶ options ─▶ world: agenda ─▶ step ─▶ turn of a shard ─▶ effects ─▶ agenda
//!                                       │                          │
//!                                       └────▶ checkers ◀──────────┘
//! ```
//! A run has two phases: faults, under which the promises must hold; then calm, in which
//! everything acknowledged must be delivered or reported, and the world come to rest.

pub mod agenda;
pub mod asking;
pub mod bounds;
pub mod chance;
pub mod checkers;
pub mod client;
pub mod clock;
pub mod crash_points;
pub mod crowd;
pub mod disk;
pub mod engine;
pub mod host;
pub mod ledger;
pub mod limit;
pub mod names;
pub mod net;
pub mod options;
pub mod orders;
#[cfg(feature = "planted")]
pub mod planted;
mod quiet;
pub mod run;
pub mod spooled;
pub mod trace;
pub mod trap;
pub mod world;

/// Prints a line of a loud run.
#[expect(clippy::print_stdout, reason = "a replay is read by people")]
pub(crate) fn show(line: &str) {
    println!("{line}");
}
