//! The `postrider` command: reads its flags, runs a command, says how it ended.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints by trade")]

mod commands;
mod flags;
mod settings;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use flags::{Command, Flags, ImportCommand, ImportFlags, SpoolCommand, SpoolFlags};
use settings::BadSettings;

/// Something is wrong with what was given or found. Wrong flags exit with 2, by clap.
const FOUND_PROBLEMS: u8 = 1;
/// A server or service that the command needs cannot be reached.
const CANNOT_REACH: u8 = 3;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = match &flags.command {
        Command::Run(flags) => {
            log_to_stderr(&flags.log);
            commands::run::run(flags)
        }
        Command::Check(flags) => commands::check::run(flags),
        Command::Import(ImportFlags { command: ImportCommand::Shaping(flags) }) => {
            commands::import::shaping(flags)
        }
        Command::Spool(SpoolFlags { command }) => match command {
            SpoolCommand::Check(flags) => commands::spool::check(flags),
            SpoolCommand::Export(flags) => commands::transfer::export(flags),
            SpoolCommand::Import(flags) => commands::transfer::import(flags),
            SpoolCommand::Adopt(flags) => commands::transfer::adopt(flags),
        },
        Command::Site(flags) => commands::admin::site(flags),
        Command::Queue(flags) => commands::admin::queue(flags),
        Command::Message(flags) => commands::admin::message(flags),
        Command::Demo(flags) => commands::demo::run(flags),
    };
    result.unwrap_or_else(|error| {
        tell(&error);
        ExitCode::from(exit_code(&error))
    })
}

fn log_to_stderr(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// Prints the error and what caused it, outermost first.
fn tell(error: &anyhow::Error) {
    if let Some(diagnostics) = error.downcast_ref::<BadSettings>() {
        eprintln!("{diagnostics}");
        return;
    }
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
    };
    let unreachable =
        error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
            matches!(
                cause.kind(),
                ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable | TimedOut
            )
        });
    if unreachable { CANNOT_REACH } else { FOUND_PROBLEMS }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn check(kind: io::ErrorKind, expected: u8) {
        let error = Err::<(), _>(io::Error::from(kind)).context("asking the engine").unwrap_err();
        assert_eq!(exit_code(&error), expected, "{kind}");
    }

    #[test]
    fn what_cannot_be_reached_has_its_own_exit_code() {
        check(io::ErrorKind::ConnectionRefused, CANNOT_REACH);
        check(io::ErrorKind::TimedOut, CANNOT_REACH);
        check(io::ErrorKind::NotFound, FOUND_PROBLEMS);
        check(io::ErrorKind::AddrInUse, FOUND_PROBLEMS);
    }
}
