//! What can be said on the command line.

pub(crate) mod admin;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use postrider_engine::model::message::MessageId;
use tracing_subscriber::EnvFilter;

use admin::{MessageFlags, QueueFlags, SiteFlags};

/// An outbound mail engine: durable by default, thread per core, a good neighbour.
#[derive(Debug, Parser)]
#[command(name = "postrider", version)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take mail in and deliver it, until told to stop.
    Run(RunFlags),
    /// Read a settings file and say what is wrong with it, or what it amounts to.
    Check(CheckFlags),
    /// Turn settings of another mail server into settings of ours.
    Import(ImportFlags),
    /// Look at a spool, or move mail between spools, while no engine uses them.
    Spool(SpoolFlags),
    /// Ask a running engine about sites, or hold, release or flush one.
    Site(SiteFlags),
    /// Ask a running engine what waits, or hold, release, flush, cancel or reroute some of it.
    Queue(QueueFlags),
    /// Ask a running engine about one message.
    Message(MessageFlags),
    /// Deliver generated mail to a sink on this machine, and show how fast it went.
    Demo(DemoFlags),
}

#[derive(Args, Debug)]
pub(crate) struct RunFlags {
    /// The settings file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// What to log to stderr: a level, or levels by module as in "info,postrider_engine=debug".
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub(crate) log: String,
}

#[derive(Args, Debug)]
pub(crate) struct CheckFlags {
    /// The settings file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ImportFlags {
    #[command(subcommand)]
    pub(crate) command: ImportCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Read a shaping.toml of KumoMTA and print sites, providers and rules for a settings file.
    /// What has no counterpart is told on stderr, one line each; then it exits with 2.
    Shaping(ImportShapingFlags),
}

#[derive(Args, Debug)]
pub(crate) struct ImportShapingFlags {
    /// The files to read, each upon those before it, as KumoMTA is given them.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// How many sources the engine sends from: KumoMTA counts the limits of a site for each.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=SOURCES_MAX))]
    pub(crate) sources: u32,
}

/// More addresses than a machine has.
const SOURCES_MAX: i64 = 10_000;

#[derive(Args, Debug)]
pub(crate) struct SpoolFlags {
    #[command(subcommand)]
    pub(crate) command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// Read every record and say what is queued, what is damaged, and what a start would do.
    /// Changes nothing. Exits with 1 if something is damaged or does not belong there; what a crash
    /// leaves behind is told and is no damage.
    Check(SpoolCheckFlags),
    /// Write what is queued into an archive file: recipients, attempts, next tries, whole bodies.
    /// With --move the spool gives these messages up and never sends them again; without, the
    /// archive is a backup. An export with --move that was cut short is ended by running it again.
    /// Exits with 1 if something was damaged and left behind.
    Export(SpoolExportFlags),
    /// Take the messages of an archive into a spool, once. Refused unless the spool they came from
    /// has given them up. Exits with 1 if something was damaged and left behind.
    Import(SpoolImportFlags),
    /// Declare a copy of a spool folder, or one restored from a backup, to be a spool of its own.
    /// Until then it is not started: it would send again what the original sends.
    Adopt(SpoolAdoptFlags),
}

#[derive(Args, Debug)]
pub(crate) struct SpoolCheckFlags {
    /// The spool folder: `spool.path` of the settings.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also list so many of the queued deliveries, evenly spread, with attempts and next try.
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "json")]
    pub(crate) sample: usize,
}

#[derive(Args, Debug)]
pub(crate) struct SpoolExportFlags {
    /// The spool folder, which no engine uses meanwhile.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// The archive file to write; never one that is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Only this message, as named in the 250 reply and the log; may be given often.
    #[arg(long = "message", value_name = "ID")]
    pub(crate) messages: Vec<MessageId>,
    /// Give the messages up: this spool never sends them again.
    #[arg(long = "move")]
    pub(crate) give_up: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SpoolImportFlags {
    /// The spool folder, which no engine uses meanwhile; made if missing.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// The archive file; it is marked as taken by this spool.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// Import a backup, or what another spool has taken, though mail may be sent twice: only if the
    /// other spool is lost.
    #[arg(long)]
    pub(crate) accept_duplicates: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SpoolAdoptFlags {
    /// The spool folder.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct DemoFlags {
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Messages to deliver.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    pub(crate) messages: u64,
}

/// A demo is over in minutes even on a slow machine.
const MESSAGES_MAX: u64 = 100_000_000;

/// Takes a filter that can be parsed, so that a wrong one is a usage error.
fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Flags, clap::error::ErrorKind> {
        Flags::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn run_needs_a_file_and_logs_info() {
        let Ok(Flags { command: Command::Run(flags) }) = parse("postrider run -c a.toml") else {
            panic!("run with a file is a command");
        };
        assert_eq!((flags.config, &*flags.log), (PathBuf::from("a.toml"), "info"));
        assert!(parse("postrider run").is_err());
        assert!(parse("postrider").is_err());
    }

    #[test]
    fn a_wrong_log_filter_is_a_usage_error() {
        assert!(parse("postrider run -c a.toml --log info,postrider_engine=debug").is_ok());
        let wrong = parse("postrider run -c a.toml --log a=loudest").map(|_| ());
        assert_eq!(wrong, Err(clap::error::ErrorKind::ValueValidation));
    }

    #[test]
    fn an_import_names_its_file() {
        assert!(parse("postrider import shaping a.toml --sources 4").is_ok());
        assert!(parse("postrider import shaping").is_err() && parse("postrider import").is_err());
        assert!(parse("postrider import shaping a.toml --sources 0").is_err());
    }

    #[test]
    fn a_spool_to_check_is_named() {
        assert!(parse("postrider spool check /var/lib/postrider --json").is_ok());
        assert!(parse("postrider spool check").is_err() && parse("postrider spool").is_err());
    }

    #[test]
    fn a_transfer_names_its_file_and_messages_by_their_names() {
        assert!(parse("postrider spool export /spool --to a --message 1A-00000A --move").is_ok());
        assert!(parse("postrider spool export /spool").is_err());
        assert!(parse("postrider spool export /spool --to a --message mine").is_err());
        assert!(parse("postrider spool import /spool --from a --accept-duplicates").is_ok());
        assert!(parse("postrider spool import /spool").is_err());
        assert!(parse("postrider spool adopt /spool").is_ok());
    }

    #[test]
    fn what_is_steered_is_named_once() {
        let to = "-c a.toml";
        assert!(parse(&format!("postrider site list --top 5 {to}")).is_ok());
        assert!(parse("postrider site list --socket /run/a.sock --json").is_ok());
        assert!(parse("postrider site list").is_err());
        assert!(parse(&format!("postrider site hold mx.a.example --for 1h {to}")).is_ok());
        assert!(parse(&format!("postrider queue hold --tenant a --campaign b {to}")).is_ok());
        assert!(parse(&format!("postrider queue cancel --tenant a --yes {to}")).is_ok());
        assert!(parse(&format!("postrider queue cancel {to}")).is_err());
        assert!(parse(&format!("postrider queue cancel --tenant a --site b {to}")).is_err());
        assert!(parse(&format!("postrider queue cancel --site b --campaign c {to}")).is_err());
        assert!(parse(&format!("postrider message show 1A-00000A {to}")).is_ok());
        assert!(parse(&format!("postrider message show mine {to}")).is_err());
    }

    #[test]
    fn a_demo_delivers_something() {
        assert!(parse("postrider demo --json --messages 5").is_ok());
        assert!(parse("postrider demo --messages 0").is_err());
    }
}
