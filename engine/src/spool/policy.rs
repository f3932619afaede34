//! When the live messages of the oldest segment are copied forward, so that it can be used again.
//!
//! A segment waits for its last live message, and whatever speaks of it in later segments waits
//! with it: a message that stays for days would hold days of traffic. Copying costs disk writes, so
//! it is put off while space is cheap:
//!
//! - Few segments in use cost less than the copying would.
//! - While spares abound, a new segment costs nothing.
//! - At a live share of one half, each byte copied gives back at least one: no more than every second
//!   byte written is a copy, and no more than twice what is live is in use, but for the slack.
//! - On a full disk only copying makes room. Up to seven eighths it still gives more than it takes;
//!   beyond that the spool is full with mail, and mail is refused.
//!
//! So, per shard, files ≤ 2 × live bytes + `SLACK_SEGMENTS`, as long as the disk copies as fast
//! as mail comes in; files once made are kept as spares.

/// As many segments may be in use before any is cleaned.
const IN_USE_UNTROUBLED: usize = 4;
/// From so many spares on, cleaning can wait. More than are kept ready at least, so that cleaning
/// comes before the making of new files.
pub(super) const SPARES_ENOUGH: usize = super::SPARES_MIN + 2;
/// What is in use beyond twice the live bytes: the untroubled, the spares that cleaning fills up
/// to, and the segment being written.
#[cfg(test)]
pub(super) const SLACK_SEGMENTS: usize = IN_USE_UNTROUBLED + SPARES_ENOUGH + 1;

/// How the files of a shard are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Segments that are not spares.
    pub(super) segments: usize,
    /// Bytes of those files.
    pub(super) bytes: u64,
    /// Bytes of live messages and of their pieces.
    pub(super) live_bytes: u64,
    pub(super) spares: usize,
    pub(super) growth: Growth,
}

/// Whether new files can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Possible,
    /// The last one asked for could not be made.
    Refused,
}

/// Whether the oldest segment is to be cleaned now.
pub(super) fn wants_cleaning(usage: &Usage) -> bool {
    let is_short = usage.growth == Growth::Refused && usage.spares < super::SPARES_MIN;
    if is_short {
        return usage.live_bytes.saturating_mul(8) < usage.bytes.saturating_mul(7);
    }
    usage.spares < SPARES_ENOUGH
        && usage.segments > IN_USE_UNTROUBLED
        && usage.live_bytes.saturating_mul(2) < usage.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(segments: usize, live_of_64: u64, spares: usize, growth: Growth) -> bool {
        let bytes = 64 * segments as u64;
        let live_bytes = live_of_64 * segments as u64;
        wants_cleaning(&Usage { segments, bytes, live_bytes, spares, growth })
    }

    #[test]
    fn mostly_dead_segments_are_cleaned_once_spares_run_low() {
        assert!(wants(5, 31, 4, Growth::Possible));
        assert!(!wants(5, 31, 5, Growth::Possible), "spares abound");
        assert!(!wants(5, 32, 4, Growth::Possible), "half is live");
        assert!(!wants(4, 1, 0, Growth::Possible), "a few segments trouble nobody");
    }

    #[test]
    fn a_full_disk_is_cleaned_until_nearly_all_is_live() {
        assert!(wants(3, 55, 2, Growth::Refused));
        assert!(!wants(3, 56, 2, Growth::Refused));
        assert!(!wants(3, 55, 3, Growth::Refused), "there is room");
    }
}
