//! What happened.

pub mod counters;
