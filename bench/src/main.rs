//! `postrider-bench`: one question per command, answered on this machine, some side by side with a rival.

#![expect(clippy::print_stdout, reason = "a benchmark prints its answer")]

mod backlog;
mod cpu;
mod engine;
mod figures;
mod memory;
mod neighbour;
mod postfix;
mod relay;
mod restart;
mod started;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "How fast, and against whom: interleaved runs on this machine")]
struct Arguments {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Durable relay: sessions without pipelining, one next hop, source and sink on the same cores.
    Relay(relay::Options),
    /// A start on a spool full of deferred mail: the first 220, everything scheduled, memory. Root.
    Restart(restart::Options),
    /// Ten million deferred deliveries in the scheduler alone: memory, idle turns, orders, their return.
    Backlog(backlog::Options),
    /// Providers that limit, greylist, tarpit and go away, in virtual time: against Postfix's algorithm.
    Neighbour(neighbour::Options),
}

/// What postrider is held against. Each is started privately in a scratch folder.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rival {
    /// Debian's package `postfix`, with the settings in `bench/postfix/`.
    Postfix,
}

fn main() -> Result<()> {
    match Arguments::parse().question {
        Question::Relay(options) => relay::run(&options),
        Question::Restart(options) => restart::run(&options),
        Question::Backlog(options) => backlog::run(&options),
        Question::Neighbour(options) => neighbour::run(&options),
    }
}
