//! `postrider-bench`: one question per command, answered on this machine, some side by side with a rival.

#![expect(clippy::print_stdout, reason = "a benchmark prints its answer")]

mod backlog;
mod counts;
mod cpu;
mod engine;
mod figures;
mod generator;
mod many_domains;
mod memory;
mod model;
mod neighbour;
mod pairs;
mod relay;
mod restart;
mod rivals;
mod run;
mod scaling;
mod started;
mod tls;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    /// A thousand next hops against one.
    ManyDomains(many_domains::Options),
    /// STARTTLS to the next hop against clear.
    Tls(tls::Options),
    /// Two shards against one with a hot site; large bodies against no engine at all.
    Scaling(scaling::Options),
    /// CPU per message against the sum of its parts, which are measured beside it.
    Model(model::Options),
    /// What source and sink themselves cost, beside smtp-source and smtp-sink. Root.
    Generator(generator::Options),
    /// What a relayed message costs in system calls, commits, bytes, allocations and instructions,
    /// against `bench/budgets.toml`. Root, perf, valgrind.
    Counts(counts::Options),
    /// The core alone, relaying in memory: what `counts` runs under callgrind.
    #[command(hide = true)]
    CoreRelay(counts::CoreRelayOptions),
}

fn main() -> Result<()> {
    match Arguments::parse().question {
        Question::Relay(options) => relay::run(&options),
        Question::Restart(options) => restart::run(&options),
        Question::Backlog(options) => backlog::run(&options),
        Question::Neighbour(options) => neighbour::run(&options),
        Question::ManyDomains(options) => many_domains::run(&options),
        Question::Tls(options) => tls::run(&options),
        Question::Scaling(options) => scaling::run(&options),
        Question::Model(options) => model::run(&options),
        Question::Generator(options) => generator::run(&options),
        Question::Counts(options) => counts::run(&options),
        Question::CoreRelay(options) => counts::run_core(&options),
    }
}
