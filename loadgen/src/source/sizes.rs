//! How large messages are: one size, a log-normal spread, or real messages out of a folder.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::message::Composer;
use crate::seed::Seeded;

/// The smallest message of a spread: below it, the token and the head would be all.
pub const SIZE_BYTES_MIN: usize = 1_000;
/// The largest message of a spread: what the large providers still take.
pub const SIZE_BYTES_MAX: usize = 10 << 20;
/// A spread is drawn from so many of its quantiles, each as likely.
const QUANTILES: usize = 256;
/// Draws behind each quantile: it is off by about half a percent of the spread.
const DRAWS_PER_QUANTILE: usize = 256;
/// Memory for a corpus.
const CORPUS_BYTES_MAX: u64 = 64 << 20;
const CORPUS_FILES_MAX: usize = 10_000;

/// Bytes of a message, header block and body, before dot stuffing.
#[derive(Debug, Clone, PartialEq)]
pub enum Sizes {
    Fixed(usize),
    /// Clamped to [`SIZE_BYTES_MIN`] and [`SIZE_BYTES_MAX`]; sigma is that of the logarithm.
    LogNormal {
        median: usize,
        sigma: f64,
    },
    /// The files of a folder, a message each; the token line is put in front.
    Corpus(PathBuf),
}

impl Sizes {
    /// Gives a composer its texts; says what is wrong with sizes or files.
    pub(super) fn prepare(&self, composer: Composer, seed: u64) -> io::Result<Composer> {
        match self {
            Self::Fixed(size) => composer.with_size(*size),
            Self::LogNormal { median, sigma } => {
                composer.with_sizes(&quantiles(*median, *sigma, seed))
            }
            Self::Corpus(folder) => read_corpus(folder, composer),
        }
    }
}

/// The sizes in the middle of each 256th of the spread, in order.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size needs seven digits, and the cast saturates"
)]
fn quantiles(median: usize, sigma: f64, seed: u64) -> Vec<usize> {
    let mut seeded = Seeded::new(seed ^ 0x0073_697a_6573);
    let count = QUANTILES * DRAWS_PER_QUANTILE;
    let mut draws: Vec<f64> = (0..count).map(|_| seeded.normal()).collect();
    draws.sort_unstable_by(f64::total_cmp);
    draws
        .iter()
        .skip(DRAWS_PER_QUANTILE / 2)
        .step_by(DRAWS_PER_QUANTILE)
        .map(|draw| (median as f64 * (sigma * draw).exp()) as usize)
        .map(|size| size.clamp(SIZE_BYTES_MIN, SIZE_BYTES_MAX))
        .collect()
}

/// Reads a folder once, in the order of its names, so that a seed means the same everywhere.
fn read_corpus(folder: &Path, mut composer: Composer) -> io::Result<Composer> {
    let wrong = |path: &Path, text: &str| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {text}", path.display()))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| wrong(folder, &error.to_string()))? {
        let path = entry?.path();
        if path.is_file() {
            paths.push(path);
        }
        if paths.len() > CORPUS_FILES_MAX {
            return Err(wrong(folder, "a corpus has at most 10000 messages; take a part of it"));
        }
    }
    if paths.is_empty() {
        return Err(wrong(folder, "no file is in there"));
    }
    paths.sort_unstable();
    let mut bytes = 0;
    for path in &paths {
        bytes += fs::metadata(path)?.len();
        if bytes > CORPUS_BYTES_MAX {
            return Err(wrong(folder, "a corpus has at most 64 MiB; take a part of it"));
        }
        let stored = fs::read(path).map_err(|error| wrong(path, &error.to_string()))?;
        composer.add_found(&stored).map_err(|reason| wrong(path, reason))?;
    }
    Ok(composer)
}

impl FromStr for Sizes {
    type Err = String;

    /// Reads `4096`, `lognormal(8192, 1.2)` or `corpus(FOLDER)`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(folder) = inside("corpus") {
            return Ok(Self::Corpus(PathBuf::from(folder.trim())));
        }
        if let Some(numbers) = inside("lognormal") {
            let (median, sigma) = numbers.split_once(',').unwrap_or((numbers, ""));
            return match (median.trim().parse(), sigma.trim().parse::<f64>()) {
                (Ok(median), Ok(sigma)) if sigma.is_finite() && sigma >= 0.0 => {
                    Ok(Self::LogNormal { median, sigma })
                }
                _ => {
                    Err(format!("{text:?}: a median and a sigma are wanted: lognormal(8192, 1.2)"))
                }
            };
        }
        text.parse().map(Self::Fixed).map_err(|_| {
            format!("{text:?} is no size: 4096, lognormal(8192, 1.2), corpus(FOLDER) are some")
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::LogNormal { median, sigma } => write!(f, "lognormal({median}, {sigma})"),
            Self::Corpus(folder) => write!(f, "corpus({})", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_its_tail_and_its_bounds() {
        let sizes = quantiles(8192, 1.2, 1);
        assert!((7_900..8_500).contains(&sizes[128]), "{}", sizes[128]);
        let ninetieth = sizes[230];
        // exp(1.2 × 1.2816) × 8192 = 38,130
        assert!((34_000..43_000).contains(&ninetieth), "{ninetieth}");
        assert_eq!(quantiles(100, 0.0, 1)[5], SIZE_BYTES_MIN);
        assert!(quantiles(8192, 20.0, 1).iter().all(|size| *size <= SIZE_BYTES_MAX));
        assert_eq!(sizes, quantiles(8192, 1.2, 1));
    }

    #[test]
    fn sizes_read_as_written() {
        for text in ["4096", "lognormal(8192, 1.2)", "corpus(/mail)"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        for wrong in ["", "4k", "lognormal(8192)", "lognormal(a, 1)", "lognormal(1, -1)"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong:?}");
        }
    }
}
