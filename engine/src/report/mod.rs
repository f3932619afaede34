//! What happened: counts for operators, reports of failure for senders.

pub mod bounce;
pub mod counters;
