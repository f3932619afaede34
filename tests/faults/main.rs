//! `cargo faults COMMAND`: the real binary killed, cut from power, and on disks that fail or are
//! full; every acknowledged message is compared by content. Run by hand or at night.
//!
//! Exit codes: 0 the promises held, 1 one was broken, 77 skipped, with the reason printed.

#![expect(clippy::unwrap_used, reason = "a run whose world breaks should stop")]
#![expect(clippy::print_stdout, reason = "a program for people")]

mod full_disk;
mod ground;
mod holes;
mod kills;
mod power_cut;
mod spread;
mod volume;
mod write_errors;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Kills, power cuts and disk faults against the real binary.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// The binary under test [default: `postrider` of the release build beside this program]
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Decides the moments and sizes, as far as anything decides a race
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    #[arg(long, global = true, default_value_t = 2)]
    shards: u16,
    /// When an outcome is written: `grouped` or `strict`
    #[arg(long, global = true, default_value = "grouped")]
    outcomes: String,
}

#[derive(Subcommand)]
enum Command {
    /// SIGKILL at random moments under load
    Kills(kills::Flags),
    /// The file system goes away under load, with all that is not durable (needs root)
    PowerCut(power_cut::Flags),
    /// Writes into segments fail with EIO or ENOSPC (needs root)
    WriteErrors(write_errors::Flags),
    /// A small file system filled to its last byte, and freed again (needs root)
    FullDisk(full_disk::Flags),
}

/// How a run ended that did not panic.
enum End {
    Held,
    Broken,
    /// It cannot run here.
    Skipped(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let common = &arguments.common;
    let end = match &arguments.command {
        Command::Kills(flags) => kills::run(common, flags),
        Command::PowerCut(flags) => power_cut::run(common, flags),
        Command::WriteErrors(flags) => write_errors::run(common, flags),
        Command::FullDisk(flags) => full_disk::run(common, flags),
    };
    match end {
        End::Held => {
            println!("held");
            ExitCode::SUCCESS
        }
        End::Broken => {
            println!("BROKEN");
            ExitCode::from(1)
        }
        End::Skipped(reason) => {
            println!("skipped: {reason}");
            ExitCode::from(77)
        }
    }
}

impl Common {
    fn binary(&self) -> String {
        let beside = || {
            let own = std::env::current_exe().unwrap();
            own.parent().unwrap().parent().unwrap().join("release/postrider")
        };
        let path = self.binary.clone().unwrap_or_else(beside);
        let hint = "not there: cargo build --release -p postrider, or give --binary";
        assert!(path.exists(), "{}: {hint}", path.display());
        path.to_str().unwrap().to_owned()
    }
}
