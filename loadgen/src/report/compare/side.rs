//! One side of a comparison: a folder with runs, of which only the valid ones are judged.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use thiserror::Error;

use super::Figure;
use crate::report::{Measured, words};
use crate::run::read::ReadError;
use crate::run::{MANIFEST_FILE, Manifest};

/// Runs of a side: more do not make it surer, and each takes seconds to read.
const REPEATS_MAX: usize = 100;

/// One run, as far as it is compared.
#[derive(Debug, Clone)]
pub struct Repeat {
    pub manifest: Manifest,
    /// Messages, else final dots, if any were measured.
    pub distribution: Option<Histogram<u64>>,
}

/// The runs of one build or setting, in the order of their starts.
#[derive(Debug, Clone)]
pub struct Side {
    /// The last part of the folder's name.
    pub name: String,
    pub repeats: Vec<Repeat>,
    /// Runs that are stamped invalid, with the first reason.
    pub left_out: Vec<(String, String)>,
}

/// Why a folder is not a side of a comparison.
#[derive(Debug, Error)]
pub enum SideError {
    #[error("cannot read {}: {error}", folder.display())]
    Unreadable { folder: PathBuf, error: io::Error },
    #[error("{} holds no run: neither {MANIFEST_FILE} nor folders with one", folder.display())]
    NoRuns { folder: PathBuf },
    #[error("{} holds more than {REPEATS_MAX} runs", folder.display())]
    TooMany { folder: PathBuf },
    #[error(transparent)]
    Run(#[from] ReadError),
}

impl Side {
    /// Reads a run's folder, or a folder of such folders.
    pub fn read(folder: &Path) -> Result<Self, SideError> {
        let runs = runs_in(folder)?;
        let mut side = Self { name: name_of(folder), repeats: Vec::new(), left_out: Vec::new() };
        for run in runs {
            let measured = Measured::read(&run)?;
            match measured.manifest.honesty.invalid.first() {
                Some(reason) => side.left_out.push((name_of(&run), reason.clone())),
                None => side.repeats.push(Repeat::of(measured)),
            }
        }
        side.repeats.sort_by(|one, other| one.manifest.started.total_cmp(&other.manifest.started));
        Ok(side)
    }

    /// A figure of each run that has it.
    pub(super) fn figures(&self, figure: Figure) -> Vec<f64> {
        self.repeats.iter().filter_map(|repeat| figure.of(&repeat.manifest)).collect()
    }

    pub(in crate::report) fn distributions(&self) -> impl Iterator<Item = &Histogram<u64>> {
        self.repeats.iter().filter_map(|repeat| repeat.distribution.as_ref())
    }
}

impl Repeat {
    fn of(run: Measured) -> Self {
        let distribution = run.phase("message").or_else(|| run.phase("dot")).cloned();
        Self { manifest: run.manifest, distribution }
    }
}

fn name_of(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let last = full.file_name().unwrap_or(full.as_os_str());
    words::printable(&last.to_string_lossy(), 60)
}

fn runs_in(folder: &Path) -> Result<Vec<PathBuf>, SideError> {
    if folder.join(MANIFEST_FILE).exists() {
        return Ok(vec![folder.to_owned()]);
    }
    let unreadable = |error| SideError::Unreadable { folder: folder.to_owned(), error };
    let mut runs = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.join(MANIFEST_FILE).exists() {
            runs.push(path);
        }
        if runs.len() > REPEATS_MAX {
            return Err(SideError::TooMany { folder: folder.to_owned() });
        }
    }
    runs.sort();
    if runs.is_empty() { Err(SideError::NoRuns { folder: folder.to_owned() }) } else { Ok(runs) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::latency::Quantiles;

    /// A manifest of a run of a minute.
    pub(in crate::report::compare) fn manifest(started: f64, p99_ms: f64) -> Manifest {
        let text = r#"{
            "format": 1, "started": 0, "command": ["loadgen"], "version": "0.1.0", "commit": null,
            "target": null,
            "machine": {"processor": "x", "cores": 2, "memory_bytes": 1, "kernel": "6.1",
                        "governor": null, "load_before": 0.1},
            "load": {"kind": "open_loop", "schedule": "constant 100/s", "seed": 1, "sessions": 10,
                     "threads": 1, "sizes": "4096", "domains": "1", "recipients_per_message": 1,
                     "pipelining": false, "chunking": false, "tls": false, "auth": false},
            "totals": {"offered": 6000, "acknowledged": 6000, "tempfailed": 0, "refused": 0,
                       "unacknowledged": 0, "delivered": 0, "connections": 10,
                       "connection_losses": 0, "connect_failures": 0, "elapsed_s": 60,
                       "rate_per_s": 100},
            "ledger": null, "seconds": [], "steps": [], "phases": {}, "errors": [],
            "honesty": {"slip": {"count": 0, "p50_ms": 0, "p90_ms": 0, "p99_ms": 0, "p999_ms": 0,
                                 "max_ms": 0},
                        "pauses": {"count": 0, "p50_ms": 0, "p90_ms": 0, "p99_ms": 0, "p999_ms": 0,
                                   "max_ms": 0},
                        "source_load": [0.1], "sink_load": [0.1], "invalid": []},
            "requirements": []
        }"#;
        let mut manifest = Manifest::parse(text).unwrap();
        manifest.started = started;
        let message = Quantiles {
            count: 6000,
            p50_ms: 1.0,
            p90_ms: 2.0,
            p99_ms,
            p999_ms: 30.0,
            max_ms: 40.0,
        };
        manifest.phases.insert("message".to_owned(), message);
        manifest
    }

    /// Runs that start at these times, their p99 a little around a middle.
    pub(in crate::report::compare) fn side(name: &str, starts: &[f64], p99_ms: f64) -> Side {
        let wobble = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0];
        let runs = starts.iter().zip(wobble);
        let repeat = |(started, factor): (&f64, f64)| Repeat {
            manifest: manifest(*started, p99_ms * factor),
            distribution: None,
        };
        Side { name: name.to_owned(), repeats: runs.map(repeat).collect(), left_out: Vec::new() }
    }

    #[test]
    fn a_folder_without_runs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Side::read(folder.path()), Err(SideError::NoRuns { .. })));
        let missing = folder.path().join("missing");
        assert!(matches!(Side::read(&missing), Err(SideError::Unreadable { .. })));
    }
}
