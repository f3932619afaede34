//! Mail is made safe: segments, commits, recovery, reclaim.

pub mod files;
