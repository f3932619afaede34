//! The manifest of a run, as it stands in `run.json`: everything but the latencies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Quantiles;

/// What a reader of this version understands; a higher number in the file is refused.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Seconds since 1970 at the intended start of the first message.
    pub started: f64,
    /// The command that makes this run again, word by word.
    pub command: Vec<String>,
    /// Version of the program, and the commit it was built from if known.
    pub version: String,
    pub commit: Option<String>,
    /// What the target said of itself in its banner.
    pub target: Option<String>,
    pub machine: Machine,
    pub load: Load,
    pub totals: Totals,
    /// What became of the recipients, if a sink took part.
    pub ledger: Option<Ledger>,
    /// Per second, in order of time: what a picture of the run over time needs beside the latencies.
    pub seconds: Vec<Second>,
    /// The levels of a sweep or a ramp, in order of time; one for every other schedule.
    pub steps: Vec<Step>,
    /// Over the whole run, by phase.
    pub phases: BTreeMap<String, Quantiles>,
    /// Unwelcome replies and socket errors with their counts, most frequent first.
    pub errors: Vec<(String, u64)>,
    pub honesty: Honesty,
    /// What `--require` asked, and whether it held.
    pub requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    /// The frequency governor of the first core, where the machine tells.
    pub governor: Option<String>,
    /// Load average of a minute before the start: what else was going on.
    pub load_before: f64,
}

/// What was asked of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub kind: LoadKind,
    /// The schedule in words of the command line, for example `poisson 2000/s`.
    pub schedule: String,
    pub seed: u64,
    pub sessions: usize,
    pub threads: usize,
    /// Sizes in words of the command line, for example `4096` or `lognormal(8192, 1.2)`.
    pub sizes: String,
    pub domains: String,
    pub recipients_per_message: usize,
    pub pipelining: bool,
    pub chunking: bool,
    pub tls: bool,
    pub auth: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// Each message has an intended start; latency counts from there.
    OpenLoop,
    /// A session sends when it was answered: a measure of throughput, not of latency.
    Saturation,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub offered: u64,
    pub acknowledged: u64,
    pub tempfailed: u64,
    pub refused: u64,
    pub unacknowledged: u64,
    /// Messages that reached the sink; zero without one.
    pub delivered: u64,
    pub connections: u64,
    pub connection_losses: u64,
    pub connect_failures: u64,
    /// Start to the last reply, and to the last delivery.
    pub elapsed_s: f64,
    /// Acknowledged messages per second of `elapsed_s`.
    pub rate_per_s: f64,
}

/// Recipients, each counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub lost: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub invented: u64,
    pub smuggled: u64,
    /// Hosts whose cap was passed, with what was seen, in words.
    pub caps_broken: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// End of the second, in seconds since the start.
    pub at_s: f64,
    pub offered: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub errors: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub from_s: f64,
    pub to_s: f64,
    pub offered_per_s: f64,
    pub achieved_per_s: f64,
    /// Intended start to the reply to the dot, of the messages begun in this step.
    pub message: Quantiles,
    /// Whether it is the last step before latency or rate gave way.
    pub is_knee: bool,
}

/// Whether the generator measured the target or itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Honesty {
    /// How late messages were begun: intended to actual start.
    pub slip: Quantiles,
    /// How late a sleep of a millisecond on a thread of its own ended.
    pub pauses: Quantiles,
    /// Processor seconds per second of the run, each thread of the source and of the sink for itself.
    pub source_load: Vec<f64>,
    pub sink_load: Vec<f64>,
    /// Why the run says nothing of the target; empty for a valid run.
    pub invalid: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// As given: `p99.9<50ms`.
    pub text: String,
    /// What was measured, in words.
    pub seen: String,
    pub held: bool,
}

impl Manifest {
    /// Reads a manifest; says what is wrong with one that cannot be read or is of a later format.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if manifest.format > FORMAT {
            return Err(format!(
                "format {} is newer than this program, which reads up to {FORMAT}",
                manifest.format
            ));
        }
        Ok(manifest)
    }
}
