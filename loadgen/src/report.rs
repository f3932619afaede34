//! What a run, or the difference between two builds, looks like: text, pictures, a page for the browser.
//!
//! A page is one file, shows everything without a script, and takes nothing from the network. What it
//! quotes (replies, banners, commands) is hostile and goes through the templates' escaping, or, into a
//! picture, through `words::printable`.

pub mod compare;
pub mod measured;
mod page;
mod picture;
mod summary;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use compare::Comparison;
pub use measured::Measured;
pub use summary::{comparison_text, run_text};

/// The name of a run's page in its folder; the picture beside it has the same name with `svg`.
pub const PAGE_FILE: &str = "run.html";
/// The name of the page that compares two folders of runs.
pub const COMPARISON_FILE: &str = "compare.html";

/// Why a report could not be made of what was read.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error("cannot write {}: {error}", file.display())]
    Unwritable { file: PathBuf, error: io::Error },
    #[error("cannot draw: {0}")]
    Picture(String),
    #[error("cannot lay out the page: {0}")]
    Page(#[from] askama::Error),
}

/// Writes the page of a run, and its picture beside it; returns the picture's name.
pub fn write_run(run: &Measured, page: &Path) -> Result<PathBuf, ReportError> {
    write(page, &page::of_run(run)?)?;
    let picture = page.with_extension("svg");
    write(&picture, &picture::of_run(run)?)?;
    Ok(picture)
}

/// Writes the page of a comparison, and its picture beside it; returns the picture's name.
pub fn write_comparison(comparison: &Comparison, page: &Path) -> Result<PathBuf, ReportError> {
    write(page, &page::of_comparison(comparison)?)?;
    let picture = page.with_extension("svg");
    write(&picture, &picture::of_comparison(comparison)?)?;
    Ok(picture)
}

fn write(file: &Path, text: &str) -> Result<(), ReportError> {
    let unwritable = |error| ReportError::Unwritable { file: file.to_owned(), error };
    fs::write(file, text).map_err(unwritable)
}
