//! Segment files, and writes to them, as the core names them.

/// Names one segment file of the spool folder for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Names one commit in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u32);

/// A write or read that did not happen as asked. Final for a commit: it is never tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// ENOSPC or EDQUOT.
    Full,
    /// Anything else, a short write included; the number is the errno, 0 if there was none.
    Failed(i32),
}

/// A segment file that is fully written, holds nothing that matters and may be taken into use.
/// Both its header slots say so, durably. Its next use draws its own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareSegment {
    pub file: FileId,
    /// Bytes of the whole file.
    pub bytes: u32,
    /// Generation its next use must carry: one more than any it carried before.
    pub generation: u32,
    /// The write counter of its newest header; the next header carries one more.
    pub header_writes: u64,
}
