//! The load generator as a program: one command, one printed report.

#![expect(clippy::print_stdout, reason = "a report is what this program is for")]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Feeds a mail engine and stands for the world's mail servers, on the loopback only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Submit marked messages, and tell what was acknowledged and how long it took.
    Source(Box<cli::source::Arguments>),
    /// Submit to a target and take what it delivers, in one process: latencies from end to end, the
    /// queue of the target, and the verdict of both ledgers.
    Run(Box<cli::run::Arguments>),
    /// Take the mail of one or many hosts, check it, and tell what arrived.
    Sink(cli::sink::Arguments),
    /// Answer MX and address questions for made-up domains.
    Nameserver(cli::nameserver::Arguments),
    /// Hold an arrival ledger against an acknowledgement ledger; ends with 1 if mail was lost,
    /// corrupted, invented or smuggled.
    Compare(cli::compare::Arguments),
    /// Show a run as a page, a picture and a table, or two folders of runs side by side.
    Report(cli::report::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Source(arguments) => cli::source::run(&arguments),
        Command::Run(arguments) => cli::run::run(&arguments),
        Command::Sink(arguments) => cli::sink::run(&arguments),
        Command::Nameserver(arguments) => cli::nameserver::run(&arguments),
        Command::Compare(arguments) => cli::compare::run(&arguments),
        Command::Report(arguments) => cli::report::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }
}
