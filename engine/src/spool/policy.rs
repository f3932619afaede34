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
//! - Copying may give less than the shares promise, as where the rest of a segment is too short for the
//!   next piece of a body: then what was copied would be copied again, and so on for ever. So on a full
//!   disk it is paid for by mail that comes and mail that is over.
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
    pub(super) credit: Credit,
}

/// Whether new files can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Possible,
    /// The last one asked for could not be made.
    Refused,
}

/// Bytes that may be copied on a full disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Credit(u64);

impl Credit {
    /// A byte that is over pays for so many: at a live share of seven eighths, each that comes free
    /// takes seven copies.
    const PER_DEAD_BYTE: u64 = 8;
    /// Two rounds over all that is in use are saved up at most.
    const ROUNDS_MAX: u64 = 2;

    /// Of mail that comes, or was found by a start.
    pub(super) fn earn_live(&mut self, bytes: u64, used_bytes: u64) {
        self.0 = (self.0 + bytes).min(used_bytes.saturating_mul(Self::ROUNDS_MAX));
    }

    /// Of mail that is over.
    pub(super) fn earn_dead(&mut self, bytes: u64, used_bytes: u64) {
        self.earn_live(bytes.saturating_mul(Self::PER_DEAD_BYTE), used_bytes);
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(bytes);
    }
}

/// Whether the oldest segment is to be cleaned now.
pub(super) fn wants_cleaning(usage: &Usage) -> bool {
    let is_short = usage.growth == Growth::Refused && usage.spares < super::SPARES_MIN;
    if is_short {
        return usage.live_bytes.saturating_mul(8) < usage.bytes.saturating_mul(7)
            && usage.credit > Credit::default();
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
        wants_cleaning(&Usage { segments, bytes, live_bytes, spares, growth, credit: Credit(1) })
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

    #[test]
    fn on_a_full_disk_what_is_copied_must_have_been_paid_for() {
        let (mut credit, used) = (Credit::default(), 1000);
        let wants = |credit, growth| {
            let (segments, bytes, live_bytes) = (8, used, 400);
            wants_cleaning(&Usage { segments, bytes, live_bytes, spares: 2, growth, credit })
        };
        assert!(!wants(credit, Growth::Refused));
        assert!(wants(credit, Growth::Possible), "its bound is the share of what is live");
        credit.earn_live(100, used);
        credit.earn_dead(10, used);
        credit.spend(179);
        assert!(wants(credit, Growth::Refused));
        credit.spend(1);
        assert!(!wants(credit, Growth::Refused));
        credit.earn_dead(1000, used);
        credit.spend(2 * used);
        assert!(!wants(credit, Growth::Refused), "no more than two rounds are saved up");
    }
}
