//! A report to a sender and the failures that it tells of are one commit.
//!
//! ```text
//! store_notice ─▶ Message record | Outcomes record, in one group ─▶ landed
//!                                    └─ refused: the failures wait here ─▶ store_notice, AsBefore
//! ```
//! So neither is ever durable alone, but for a commit that was torn: then a failure without its report
//! does not count (`recovery.rs`), nor does one in a commit that was refused (`plan.rs`).

use super::group::Batch;
use super::index::Run;
use super::outcomes::{entries, entry_bytes};
use super::record::{RECORD_HEADER_BYTES, padded_record_bytes};
use super::{MessageParts, Need, Spool, SpoolFull, record_segments};
use crate::base::map::Map;
use crate::base::time::Now;
use crate::model::message::MessageId;
use crate::model::outcome::RangeOutcome;

/// What a report tells of.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// These recipients of a message homed here failed for good. With a token, `poll_durable` tells
    /// when that is on disk.
    Failures { message: MessageId, failed: &'a [RangeOutcome], settled: Option<u64> },
    /// What the refused report of the same token told of.
    AsBefore,
}

/// Failures whose report was refused, by its token: they are on no disk until it is stored again.
/// Bounded by what was in flight when a segment failed.
pub(super) type Unreported = Map<u64, Batch>;

impl Spool {
    /// Writes a report, and behind it the failures it tells of. `poll_durable` tells of the report
    /// under `token`: if it is refused, it is to be stored again under the same.
    ///
    /// # Errors
    /// If it is to be tried again; nothing was written, and nothing failed.
    pub fn store_notice(
        &mut self,
        now: Now,
        parts: MessageParts<'_>,
        token: u64,
        about: About<'_>,
    ) -> Result<(), SpoolFull> {
        let failures_bytes = match about {
            About::Failures { failed, .. } => failed.iter().map(entry_bytes).sum(),
            About::AsBefore => self.unreported.get(&token).map_or(0, |batch| batch.payload.len()),
        };
        let both = parts.payload_bytes() + padded_record_bytes(failures_bytes);
        let id = self.begin(now, both + RECORD_HEADER_BYTES, Need::Notice)?;
        self.append_message(now, id, parts, token);
        let batch = match about {
            About::Failures { message, failed, settled } => {
                self.failures(now, token, message, failed, settled)
            }
            About::AsBefore => match self.unreported.remove(&token) {
                Some(batch) => batch,
                None => return Ok(()),
            },
        };
        self.append_failures(batch);
        Ok(())
    }

    fn failures(
        &mut self,
        now: Now,
        token: u64,
        message: MessageId,
        failed: &[RangeOutcome],
        settled: Option<u64>,
    ) -> Batch {
        let mut batch = Batch::new(now.mono);
        batch.notice = Some(token);
        batch.tokens.extend(settled);
        let mut found = std::mem::take(&mut self.found);
        for outcome in failed {
            self.index.pending_within(message, Run::of(outcome), &mut found);
            for run in &found {
                batch.add(message, run.first, run.count, outcome);
                self.index.finish(message, *run);
                self.counters.outcomes += 1;
            }
        }
        self.found = found;
        record_segments(&self.index, &self.cleaning, message).for_each(|one| batch.refer(one));
        if self.index.pending(message) == 0 {
            batch.finished.push(message);
        }
        batch
    }

    fn append_failures(&mut self, batch: Batch) {
        let (Some(active), Some(open)) = (&mut self.active, &mut self.open) else { return };
        let segment = self.segments.get_mut(&active.tag.sequence);
        segment.expect("the active one is there").refer(&batch.refers);
        let (place, payload) = open.append_batch(batch);
        active.footer.add_outcomes(place.offset, place.bytes, payload);
    }

    /// A message is over, as a commit says; if not all of its failures are on disk, it stays until
    /// they are.
    pub(super) fn message_over(&mut self, id: MessageId) {
        let tells_of_it =
            |batch: &&mut Batch| entries(&batch.payload).any(|entry| entry.message == id);
        match self.unreported.values_mut().find(tells_of_it) {
            Some(batch) => batch.finished.push(id),
            None => self.drop_message(id),
        }
    }
}
