//! Stories about the real binary, told by what a source sent and a sink received.

#![expect(clippy::unwrap_used, reason = "a story whose world breaks should stop")]

mod admin;
mod chunking;
mod cleaning;
mod deferred;
mod foreign_programs;
mod hostile;
mod kept;
mod killed;
mod labels;
mod large;
mod last_replies;
mod limits;
mod long_reports;
mod notices;
mod pacing;
mod refusals;
mod reload;
mod routes;
mod secured;
mod stopping;
mod strict;
mod transfers;
mod warm_up;
mod world;
