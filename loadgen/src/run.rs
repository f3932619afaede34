//! One run on disk: a folder with what was measured, on what machine, and how far it can be trusted.
//!
//! ```text
//! RUN/run.json   the manifest: settings, machine, totals, honesty, verdicts
//! RUN/run.hlog   latencies, one interval a second and phase: HdrHistogram interval log, V2, tagged
//! ```

pub(crate) mod arrivals;
pub(crate) mod board;
pub mod manifest;
pub mod read;
pub(crate) mod recorder;

mod account;
mod collector;
mod conduct;
mod honesty;
mod intervals;
mod machine;
mod threshold;

pub use conduct::{Assignment, Findings, Moment, conduct};
pub use manifest::Manifest;
pub use threshold::Threshold;

/// The name of the manifest in the folder of a run.
pub const MANIFEST_FILE: &str = "run.json";
/// The name of the interval log in the folder of a run.
///
/// Values are nanoseconds, Interval_Max is in milliseconds, times are seconds since the start; the tag is the
/// name of the phase ([`crate::source::Phase::name`]; `queue`, `delivery` and `e2e` at the sink).
pub const INTERVALS_FILE: &str = "run.hlog";
