//! What the commands of the program share: signals, files, tables.

pub(crate) mod compare;
pub(crate) mod nameserver;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sink;
pub(crate) mod source;

mod live;
mod load;
mod measured;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::channel;
use hdrhistogram::Histogram;
use postrider_loadgen::latency::Quantiles;

/// How often a waiting command looks up.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Waits until `done` says so, or SIGINT or SIGTERM comes.
fn wait_until(mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let is_signalled = signals()?;
    let ticks = channel::tick(LOOK_UP);
    while !is_signalled() && !done() {
        ticks.recv()?;
    }
    Ok(())
}

/// Says, from now on, whether SIGINT or SIGTERM has come.
fn signals() -> anyhow::Result<impl Fn() -> bool> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&signalled))?;
    }
    Ok(move || signalled.load(Ordering::Relaxed))
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(BufWriter::new(file))
}

fn latency_heading() -> String {
    let titles = ["p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
    let columns: String = titles.iter().map(|title| format!("{title:>11}")).collect();
    format!("{:<12}{:>10}{columns}", "latency", "count")
}

fn latency_row(name: &str, values: &Histogram<u64>) -> String {
    quantiles_row(name, &Quantiles::of(values))
}

fn quantiles_row(name: &str, q: &Quantiles) -> String {
    let figures = [q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms];
    let columns: String = figures.iter().map(|figure| format!("{figure:>11.3}")).collect();
    format!("{name:<12}{:>10}{columns}", q.count)
}
