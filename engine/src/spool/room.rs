//! How much more is taken, and for what: mail first has to leave the reserve alone.

use super::active::Active;
use super::group::Group;
use super::record::padded_record_bytes;
use super::segment::data_end;
use super::{COMMIT_BYTES_MAX, SPARES_MIN, Spool, SpoolFull};
use crate::base::time::Now;

/// Bytes that wait for a free place among the commits in flight before mail is refused: the disk
/// is behind by that much.
const BACKLOG_BYTES_MAX: usize = 32 << 20;
/// The longest record payload: a larger body belongs into chunks.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Spares that messages leave alone: one for cleaning, one for outcomes and reports.
pub(super) const SPARES_RESERVED: usize = 2;

/// What a record is written for, and so how far it may use up the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Mail,
    /// A copy while new files can be made: mail goes first.
    EarlyCopy,
    /// A copy of what lies in a segment with much more to copy.
    Copy,
    /// One of the last copies from a segment, which comes back for it.
    LastCopies,
    /// A report: without it a failure could not be settled, and its segment never be recycled.
    Notice,
}

impl Need {
    /// Spares to be left alone.
    pub(super) fn keep(self) -> usize {
        match self {
            Self::EarlyCopy => SPARES_MIN,
            Self::Mail => SPARES_RESERVED,
            Self::Copy => SPARES_RESERVED - 1,
            Self::LastCopies | Self::Notice => 0,
        }
    }
}

/// How much the spool can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What `begin_message` would say to a small message.
    pub messages: Result<(), SpoolFull>,
    /// What `store_notice` would say to a small report.
    pub notices: Result<(), SpoolFull>,
    pub spares: usize,
    /// Bytes that wait to be written, those in flight not counted.
    pub waiting_bytes: usize,
    /// Outcome bytes that wait to be written.
    pub outcome_bytes: usize,
}

impl Spool {
    #[must_use]
    pub fn room(&self) -> Room {
        Room {
            messages: self.admits(0, Need::Mail),
            notices: self.admits(0, Need::Notice),
            spares: self.spares.len(),
            waiting_bytes: self.waiting_bytes(),
            outcome_bytes: self.batches.iter().map(|batch| batch.payload.len()).sum(),
        }
    }

    /// Whether a record of this many payload bytes can be taken, after sealing if need be.
    pub(super) fn admits(&self, payload_bytes: usize, need: Need) -> Result<(), SpoolFull> {
        if !self.fits_a_fresh_segment(payload_bytes) {
            return Err(SpoolFull::TooLarge);
        }
        if self.waiting_bytes() > BACKLOG_BYTES_MAX {
            return Err(SpoolFull::Backlog);
        }
        let fits = self.fits_active(payload_bytes);
        // While the reserve is in use, what room there is belongs to those it is for.
        let spares_needed = if fits { need.keep() } else { need.keep() + 1 };
        if self.spares.len() < spares_needed {
            return Err(SpoolFull::NoSegment);
        }
        if !fits && self.is_activating() {
            return Err(SpoolFull::Backlog);
        }
        Ok(())
    }

    pub(super) fn make_room(
        &mut self,
        now: Now,
        payload_bytes: usize,
        need: Need,
    ) -> Result<(), SpoolFull> {
        let admitted = self.admits(payload_bytes, need);
        if admitted.is_ok() {
            let record_bytes = padded_record_bytes(payload_bytes);
            let full = |open: &Group| open.block.len() + record_bytes > COMMIT_BYTES_MAX;
            if self.open.as_ref().is_some_and(full) {
                self.close_group();
            }
            if self.fits_active(payload_bytes) {
                return Ok(());
            }
        }
        // A full segment is sealed even if no other can be had: only so can it be recycled. But while
        // the reserve is in use, not to make room for mail.
        let may_seal =
            admitted.is_ok() || admitted == Err(SpoolFull::NoSegment) && need == Need::Mail;
        if may_seal && !self.fits_active(payload_bytes) {
            self.seal_active();
        }
        admitted?;
        if self.activate_spare(now, need.keep()) { Ok(()) } else { Err(SpoolFull::NoSegment) }
    }

    pub(super) fn fits_a_fresh_segment(&self, payload_bytes: usize) -> bool {
        let active_end = self.active.as_ref().map(|active| active.data_end);
        let spare_end = self.spares.front().map(|spare| data_end(spare.bytes));
        // Without any segment in sight, that is what is wrong.
        let end = active_end.or(spare_end).unwrap_or(u32::MAX);
        payload_bytes <= PAYLOAD_BYTES_MAX && Active::ending_at(end).takes(0, payload_bytes)
    }

    pub(super) fn fits_active(&self, payload_bytes: usize) -> bool {
        self.active.as_ref().is_some_and(|active| self.fits(active, payload_bytes))
    }

    pub(super) fn fits(&self, active: &Active, payload_bytes: usize) -> bool {
        let open_bytes = self.open.as_ref().map_or(0, |open| open.block.len());
        let outcome_bytes: usize =
            self.batches.iter().take(2).map(|batch| padded_record_bytes(batch.payload.len())).sum();
        active.takes(open_bytes + outcome_bytes, payload_bytes)
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.open.iter().chain(&self.closed).map(|group| group.block.len()).sum()
    }
}
