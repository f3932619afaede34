//! Stories about the real binary, told by what a source sent and a sink received.

#![expect(clippy::unwrap_used, reason = "a story whose world breaks should stop")]

mod foreign_programs;
mod killed;
mod limits;
mod notices;
mod refusals;
mod stopping;
mod world;
