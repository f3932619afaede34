//! Segment files as the core names them.

/// Names one segment file of the spool folder for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A segment file that is fully written, holds nothing that matters and may be taken into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpareSegment {
    pub file: FileId,
    /// Bytes of the whole file.
    pub bytes: u32,
    /// Generation its next use must carry: one more than any it carried before.
    pub generation: u32,
    /// Which of the two header slots the next header goes to, and its write counter.
    pub header_writes: u64,
    /// The sequence its next use gets: drawn process-wide, never reused.
    pub sequence: u64,
}
