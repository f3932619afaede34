//! How good a neighbour: postrider's scheduler and Postfix's algorithm, in virtual time, against
//! models of mail providers.

mod arrivals;
mod chance;
mod figures;
mod ours;
mod picture;
mod postfix;
mod receiver;
mod require;
mod scenario;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use figures::Figures;
use postfix::Rounding;
use require::Requirement;
use scenario::{ALL, Contestant, Scenario};
use tally::Tally;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these scenarios; all of them without.
    #[arg(long)]
    scenario: Vec<String>,
    /// Virtual days of those scenarios that are not over sooner.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
    /// Decides arrivals, service times and all else.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Postfix's sums of feedback: as in its code, or as in its SCHEDULER_README.
    #[arg(long, value_enum, default_value_t = Rounding::AsCoded)]
    rounding: Rounding,
    /// Writes all figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws each scenario into this folder.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Fails unless postrider keeps to it, like `deferred<3%` or `limiter:utilisation>=95%`.
    #[arg(long)]
    require: Vec<Requirement>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut missed = Vec::new();
    let mut judged = vec![false; options.require.len()];
    let mut report = serde_json::Map::new();
    for scenario in chosen(&options.scenario)? {
        let runs = run_all(scenario, options)?;
        let figures = runs
            .each_ref()
            .map(|(contestant, tally)| (contestant.name(), Figures::new(scenario, tally)));
        show(scenario, &figures);
        report.insert(scenario.name.to_owned(), json(&figures));
        if let Some(folder) = &options.svg {
            draw(scenario, &runs, folder)?;
        }
        for (requirement, judged) in options.require.iter().zip(&mut judged) {
            match requirement.is_met(scenario.name, &figures[0].1) {
                Some(true) => *judged = true,
                Some(false) => missed.push(format!("{}: {requirement}", scenario.name)),
                None => {}
            }
        }
    }
    write_json(options, report)?;
    for (requirement, judged) in options.require.iter().zip(judged) {
        let named = missed.iter().any(|one| one.ends_with(&requirement.to_string()));
        ensure!(judged || named, "{requirement}: no scenario that ran has this figure");
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    Ok(())
}

/// Each contestant in a world of its own, so all at once.
fn run_all(scenario: &Scenario, options: &Options) -> Result<[(Contestant, Tally); 4]> {
    let run = |contestant| (contestant, scenario.run(contestant, options.days, options.seed));
    thread::scope(|scope| {
        let runs = Contestant::all(options.rounding)
            .map(|contestant| scope.spawn(move || run(contestant)));
        let runs = runs.into_iter().map(|run| run.join().map_err(|_| anyhow!("a run panicked")));
        let runs = runs.collect::<Result<Vec<_>>>()?;
        runs.try_into().map_err(|_| anyhow!("every contestant has one run"))
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let known = || ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    for name in names {
        let is_known = ALL.iter().any(|scenario| scenario.name == name);
        ensure!(is_known, "no scenario is named {name}; there are {}", known());
    }
    let is_chosen =
        |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(ALL.iter().filter(is_chosen).collect())
}

fn show(scenario: &Scenario, figures: &[(&'static str, Figures)]) {
    println!("{}: {}", scenario.name, scenario.title);
    println!("{}\n", table::table(figures.iter().map(|(name, figures)| (*name, figures))));
}

fn json(figures: &[(&'static str, Figures)]) -> Value {
    figures.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect()
}

fn write_json(options: &Options, report: serde_json::Map<String, Value>) -> Result<()> {
    let Some(file) = &options.json else { return Ok(()) };
    let whole = json!({ "seed": options.seed, "days": options.days, "scenarios": report });
    fs::write(file, format!("{whole:#}\n")).with_context(|| file.display().to_string())
}

/// Ours and the Postfix of default settings, in one picture.
fn draw(scenario: &Scenario, runs: &[(Contestant, Tally)], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("{}.svg", scenario.name));
    let [(_, ours), (_, theirs), ..] = runs else { return Ok(()) };
    picture::draw(scenario, ours, theirs, &file).with_context(|| file.display().to_string())
}
