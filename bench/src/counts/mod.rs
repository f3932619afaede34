//! The question of the counts: what a relayed message costs in what does not depend on the machine's speed.

mod budgets;
pub(crate) mod core_relay;
mod instructions;
mod kernel;
mod peers;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::engine::{self, Postrider, Wiring};
use crate::figures::Figures;
use crate::run::{Scenario, Stand, number};
use budgets::{Budgets, Judged};
use kernel::{AllocatorProbes, Counting};

/// Bytes of a message, as in the table of figures.
const SIZE: usize = 4096;
/// In a run; connections and start count, and are nothing beside them.
const MESSAGES: u64 = 30_000;
/// Probes take a microsecond each.
const MESSAGES_PROBED: u64 = 10_000;
/// As in the table of figures, whatever cores the machine has.
const SHARDS: &str = "2";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure anew, and write the budgets; no `must` is passed.
    #[arg(long)]
    update: bool,
    /// Relays of each kind; the median of a figure counts, as how much shares a commit or a system
    /// call goes with the machine's other work
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=15))]
    rounds: u8,
}

#[derive(clap::Args)]
pub(crate) struct CoreRelayOptions {
    #[arg(long)]
    messages: u64,
    #[arg(long)]
    size: usize,
    /// Destinations, each a next hop of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    domains: u64,
}

/// Scenario, figure, value.
type Count = (&'static str, &'static str, f64);

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut budgets = Budgets::read()?;
    let binary = engine::build()?;
    let mut counts = relays(&binary, "relay-50", 50, options.rounds)?;
    counts.extend(relays(&binary, "relay-200", 200, options.rounds)?);
    counts.extend(allocations(&binary)?.map(|calls| ("relay-50", "allocations", calls)));
    counts.push(("core", "instructions", instructions::per_message(SIZE)?));
    let judge = |&(scenario, figure, value): &Count| budgets.judge(scenario, figure, value);
    let mut judged: Vec<_> = counts.iter().map(judge).collect();
    if options.update {
        judged.iter().for_each(|one| budgets.update(one));
        budgets.write()?;
        judged = counts
            .iter()
            .map(|&(name, figure, value)| budgets.judge(name, figure, value))
            .collect();
    }
    print(&judged);
    verdict(&judged)
}

pub(crate) fn run_core(options: &CoreRelayOptions) -> Result<()> {
    let turns = core_relay::run(options.messages, options.size, options.domains)?;
    println!("{} messages in {turns} turns", options.messages);
    Ok(())
}

/// The median of each figure, of so many relays.
fn relays(binary: &Path, name: &'static str, sessions: usize, rounds: u8) -> Result<Vec<Count>> {
    let mut by_figure: BTreeMap<&'static str, Figures> = BTreeMap::new();
    for _ in 0..rounds {
        for (figure, value) in relay(binary, sessions)? {
            by_figure.entry(figure).or_default().push(value);
        }
    }
    Ok(by_figure.into_iter().map(|(figure, values)| (name, figure, values.median())).collect())
}

/// What the kernel counts of the release binary. Where it lets nobody count, `strace` does, and the
/// figures it cannot see are missing; where that may not trace either, all but the bytes are.
fn relay(binary: &Path, sessions: usize) -> Result<Vec<(&'static str, f64)>> {
    let scenario = Scenario::relay(MESSAGES, sessions, SIZE);
    let mut pid = 0;
    let stand = stand(binary, &scenario, &mut pid)?;
    let written_before = kernel::bytes_written(pid)?;
    let counting = Counting::system_calls(pid);
    let sent = stand.send()?;
    let counts = counting.and_then(Counting::read);
    let written = kernel::bytes_written(pid)? - written_before;
    stand.finish(sent)?;
    let mut found = match counts {
        Ok(counts) => {
            let figures = ["syscalls", "enters", "submissions", "commits"];
            figures
                .into_iter()
                .zip(counts)
                .map(|(figure, count)| (figure, per_message(count)))
                .collect()
        }
        Err(error) => {
            println!("{error:#}; strace counts system calls instead");
            with_strace(binary, &scenario).unwrap_or_else(|error| {
                println!("{error:#}; system calls are not counted");
                Vec::new()
            })
        }
    };
    found.push(("bytes", per_message(written) / number(SIZE as u64)));
    Ok(found)
}

fn with_strace(binary: &Path, scenario: &Scenario) -> Result<Vec<(&'static str, f64)>> {
    let mut pid = 0;
    let stand = stand(binary, scenario, &mut pid)?;
    let mut sent = None;
    let [calls, enters] = kernel::by_strace(pid, || {
        sent = Some(stand.send()?);
        Ok(())
    })?;
    if let Some(sent) = sent {
        stand.finish(sent)?;
    }
    Ok(vec![("syscalls", per_message(calls)), ("enters", per_message(enters))])
}

/// Calls of the allocator by all threads of the release binary; `None` where nobody may set probes.
fn allocations(binary: &Path) -> Result<Option<f64>> {
    let scenario = Scenario::relay(MESSAGES_PROBED, 50, SIZE);
    let mut pid = 0;
    let stand = stand(binary, &scenario, &mut pid)?;
    let probes = match AllocatorProbes::set(pid) {
        Ok(probes) => probes,
        Err(error) => {
            println!("{error:#}; allocations are not counted");
            return Ok(None);
        }
    };
    let counting = probes.count(pid)?;
    let sent = stand.send()?;
    let calls: u64 = counting.read()?.iter().sum();
    stand.finish(sent)?;
    Ok(Some(number(calls) / number(MESSAGES_PROBED)))
}

fn stand<'a>(binary: &Path, scenario: &'a Scenario, pid: &mut u32) -> Result<Stand<'a>> {
    Stand::new(scenario, |hosts| {
        let wiring = Wiring { shards: SHARDS, tls: false, domains: &scenario.domains, hosts };
        let engine = Postrider::start(binary, &wiring)?;
        *pid = engine.pid();
        Ok(Box::new(engine))
    })
}

fn per_message(count: u64) -> f64 {
    number(count) / number(MESSAGES)
}

fn print(judged: &[Judged]) {
    let mut table = Table::new();
    let head = ["scenario", "a message", "count", "budget", ""];
    table.load_style(UTF8_FULL_CONDENSED).set_header(head);
    for one in judged {
        let budget = one.budget.map_or_else(|| "none".to_owned(), |budget| budget.to_string());
        let verdict = if one.is_within() { "" } else { "OVER" };
        let value = format!("{:.4}", one.value);
        table.add_row([one.scenario, one.figure, &value, &budget, verdict]);
    }
    println!("{table}");
}

fn verdict(judged: &[Judged]) -> Result<()> {
    let over = judged.iter().filter(|one| !one.is_within());
    let names: Vec<_> = over.map(|one| format!("{}.{}", one.scenario, one.figure)).collect();
    if names.is_empty() { Ok(()) } else { bail!("over budget: {}", names.join(", ")) }
}
