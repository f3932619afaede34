//! The engine of postrider, in the order mail travels.
//!
//! ```text
//! intake -> spool -> schedule -> egress -> report      the five rooms, never importing each other
//! ```
//! Everything but [`runtime`] is the deterministic core: events in, effects out, no clock, no I/O.
//! `engine/ARCHITECTURE.md` tells the life of a message and the invariants.

pub mod base;
pub mod model;
pub mod wire;

pub mod egress;
pub mod intake;
pub mod report;
pub mod schedule;
pub mod spool;

pub mod config;
pub mod shard;

#[cfg(feature = "runtime")]
pub mod runtime;
