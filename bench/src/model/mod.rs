//! The question of the model: how far is a relayed message from what its parts cost on this machine?
//!
//! The parts are measured beside the relay, in every round: round trips on the loopback at each end, a
//! commit, a copy with its CRC. Parsing, envelope and scheduling are an estimate.

mod echo;
mod probes;

use std::path::Path;

use anyhow::{Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::engine;
use crate::figures::Figures;
use crate::run::{Run, Scenario, number};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of probes and relays.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of one relay.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Connections of the source.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Shards, as in the configuration: "auto" or a number.
    #[arg(long, default_value = "auto")]
    shards: String,
    /// Fail if the median of CPU per message by the model is more than this, in any scenario.
    #[arg(long)]
    require: Option<f64>,
}

const SIZE: usize = 4096;
/// A command or reply.
const LINE: usize = 64;
/// Parsing, envelope, scheduler, histograms: microseconds, estimated.
const THOUGHT: f64 = 2.5;
/// Microseconds of a message's share in the record of outcomes, estimated.
const OUTCOME: f64 = 0.1;

/// Of one round, in microseconds on a processor.
struct Parts {
    line: echo::Cost,
    body: echo::Cost,
    commit: f64,
    no_op: f64,
    copy: f64,
}

impl Parts {
    fn measure() -> Result<Self> {
        Ok(Self {
            line: echo::measure(LINE, LINE)?,
            body: echo::measure(SIZE, LINE)?,
            commit: probes::commit(SIZE)?,
            no_op: probes::no_op()?,
            copy: probes::copy_and_crc(SIZE),
        })
    }

    /// One round trip out, as the sink offers CHUNKING; in, so many with a line each way beside that with
    /// the body.
    fn model(&self, lines_in: f64) -> f64 {
        let into = lines_in * self.line.server + self.body.server;
        into + self.body.client
            + self.commit / number(probes::GROUP)
            + self.copy
            + OUTCOME
            + THOUGHT
    }
}

/// A source without and with pipelining: round trips in beside that of the body.
const SCENARIOS: [(&str, bool, f64); 2] = [("unpipelined", false, 3.0), ("pipelined", true, 1.0)];

#[derive(Default)]
struct Found {
    model: Figures,
    cpu: Figures,
    ratio: Figures,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = engine::build()?;
    let mut found: [Found; 2] = Default::default();
    let mut parts: [Figures; 7] = Default::default();
    for round in 1..=options.rounds {
        let measured = Parts::measure()?;
        let Parts { line, body, commit, no_op, copy } = &measured;
        let values = [line.server, line.client, body.server, body.client, *commit, *no_op, *copy];
        parts.iter_mut().zip(values).for_each(|(figures, value)| figures.push(value));
        for ((name, pipelining, lines_in), found) in SCENARIOS.iter().zip(&mut found) {
            let run = relay(&binary, options, *pipelining)?;
            let (model, cpu) = (measured.model(*lines_in), run.cpu_ms * 1000.0);
            println!("round {round}: {name} {cpu:.1} us a message, model {model:.1} us");
            found.model.push(model);
            found.cpu.push(cpu);
            found.ratio.push(cpu / model);
        }
    }
    print(options, &parts, &found);
    judge(options, &found)
}

fn relay(binary: &Path, options: &Options, pipelining: bool) -> Result<Run> {
    let relay = Scenario::relay(options.messages, options.sessions, SIZE);
    let scenario = Scenario { pipelining, ..relay };
    engine::run(binary, &options.shards, false, &scenario)
}

fn print(options: &Options, parts: &[Figures; 7], found: &[Found; 2]) {
    println!("\nparts, us on a processor, min / median / max:");
    let names = [
        "line in, line out: who answers",
        "line in, line out: who asks",
        "4 KiB in, line out: who answers",
        "4 KiB out, line in: who asks",
        "commit of 64 messages",
        "ring entry that does nothing",
        "copy and CRC of 4 KiB",
    ];
    for (name, figures) in names.iter().zip(parts) {
        println!("  {name:34} {}", figures.show(2));
    }
    println!("model: {} messages, {} sessions", options.messages, options.sessions);
    let mut table = Table::new();
    let head = ["min / median / max", "model, us", "CPU a message, us", "ratio"];
    table.load_style(UTF8_FULL_CONDENSED).set_header(head);
    for ((name, ..), found) in SCENARIOS.iter().zip(found) {
        let Found { model, cpu, ratio } = found;
        table.add_row([(*name).to_owned(), model.show(1), cpu.show(1), ratio.show(2)]);
    }
    println!("{table}");
}

fn judge(options: &Options, found: &[Found; 2]) -> Result<()> {
    let Some(most) = options.require else { return Ok(()) };
    let worst = found.iter().map(|found| found.ratio.median()).fold(0.0, f64::max);
    if worst > most { bail!("{worst:.2} times the model, {most} are allowed") } else { Ok(()) }
}
