//! A message while it is being received.

use super::admission::{Admission, Busy};
use super::reply;
use crate::base::time::Mono;
use crate::wire::envelope::{Envelope, EnvelopeFlags, Labels};
use crate::wire::header_scan::{HOPS_MAX, HeaderScan};
use crate::wire::label_fields::{FieldFlaw, LabelFields};
use crate::wire::smtp::text::TextFacts;

/// Text beyond this is handed out as it arrives: what one session holds is bounded, and a commit
/// block stays of a size that the disk takes at once.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// What MAIL reserves if the client does not say more: most mail fits.
const RESERVE_BYTES: u64 = 16 * 1024;
/// What an emptied draft keeps of its body buffer.
const BODY_BYTES_KEPT: usize = 64 * 1024;

/// Envelope and text of one message, and the room that is reserved for them.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) envelope: Envelope,
    /// When its text began.
    pub(super) started: Mono,
    /// Text that was not handed out yet.
    body: Vec<u8>,
    /// How much at the start of `body` was lent by the last poll.
    handed: usize,
    /// Bytes that left `body` as chunks.
    chunked: u64,
    /// All text so far, with what was taken out of it.
    total: u64,
    reserved: u64,
    /// How much of `reserved` is beyond the budget.
    overdrawn: u64,
    header: HeaderScan,
    /// Some byte of what stayed is above 127.
    eight_bit: bool,
    fate: Fate,
}

/// What becomes of the text, as far as can be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Kept,
    /// The budget is short: hand out what there is, rather than wait.
    Short,
    /// The message will be refused at its end; its text is dropped.
    Doomed,
}

impl Draft {
    /// Reserves room for a message that may measure `size`. `reads_labels`: what its header says of
    /// its flow counts.
    pub(super) fn open(
        &mut self,
        size: Option<u64>,
        reads_labels: bool,
        admission: &mut Admission,
    ) -> Result<(), Busy> {
        admission.admit_mail()?;
        self.header = HeaderScan::new(reads_labels);
        let wanted = size.unwrap_or(RESERVE_BYTES).clamp(RESERVE_BYTES, CHUNK_BYTES as u64);
        // A large message can do with less: it is handed out in smaller chunks.
        let room = [wanted, RESERVE_BYTES].into_iter().find(|bytes| admission.reserve(*bytes));
        self.reserved = room.ok_or(Busy::Memory)?;
        Ok(())
    }

    /// Makes room for one more recipient.
    pub(super) fn make_room(&mut self, bytes: usize, admission: &mut Admission) -> bool {
        let needed = (self.envelope.bytes() + bytes) as u64;
        if needed <= self.reserved {
            return true;
        }
        let is_reserved = admission.reserve(RESERVE_BYTES);
        self.reserved += if is_reserved { RESERVE_BYTES } else { 0 };
        is_reserved
    }

    /// Lets `read` append text, then sees to limits and room. The text may overdraw the budget by
    /// what one call brings.
    pub(super) fn append<T>(
        &mut self,
        limit: u64,
        admission: &mut Admission,
        read: impl FnOnce(&mut Vec<u8>) -> (T, TextFacts),
    ) -> T {
        self.repay(admission);
        let from = self.body.len();
        let (result, facts) = read(&mut self.body);
        self.total = self.total.saturating_add((self.body.len() - from) as u64);
        // Of what was held, some may be dropped, and what follows moves there.
        let from_held = from - self.header.held();
        self.header.feed(&mut self.body, from);
        self.eight_bit |= !self.body[from_held..].is_ascii();
        if self.fate == Fate::Doomed || self.verdict(facts, limit).is_some() {
            self.doom();
        } else {
            self.cover(admission);
        }
        result
    }

    /// Announces that `bytes` more will come; beyond the limit there is no use in keeping them.
    pub(super) fn announce(&mut self, bytes: u64, limit: u64) {
        if self.total.saturating_add(bytes) > limit {
            self.doom();
        }
    }

    /// The reply that refuses the message, if what is known of it so far asks for one. It depends
    /// on the text alone, not on the pieces in which it came.
    pub(super) fn verdict(&self, facts: TextFacts, limit: u64) -> Option<&'static str> {
        if self.total > limit {
            return Some(reply::TOO_LARGE);
        }
        match facts.flaw {
            Some(flaw) => Some(flaw.reply()),
            None if self.header.hops() > HOPS_MAX => Some(reply::LOOP),
            None => self.header.flaw().map(FieldFlaw::reply),
        }
    }

    /// The text has ended: what was held stays. Whether what stayed ends where a line would begin,
    /// though the text did not.
    pub(super) fn end_text(&mut self) -> bool {
        self.header.finish()
    }

    /// Notes in the envelope the flow that follows from what the header says of it, if that counts.
    pub(super) fn label<'a>(
        &'a mut self,
        labels: impl FnOnce(Option<&'a LabelFields>) -> Labels<'a>,
    ) {
        self.envelope.set_labels(labels(self.header.labels()));
    }

    /// Notes in the envelope what the way out must know, and ends the text.
    ///
    /// RFC 3030 §2 leaves the final CRLF to the client; where it is missing it is added, so that
    /// every stored text can also be sent with DATA.
    pub(super) fn seal(&mut self, facts: TextFacts, ends_with_crlf: bool) {
        let flags = self.envelope.flags();
        let flags = flags.with(EnvelopeFlags::HAS_8BIT, self.eight_bit);
        self.envelope.set_flags(flags.with(EnvelopeFlags::LEADING_DOTS, facts.leading_dots));
        if !ends_with_crlf {
            self.body.extend_from_slice(b"\r\n");
        }
    }

    /// Whether a piece should be written before anything else.
    pub(super) fn is_chunk_due(&self) -> bool {
        match self.fate {
            Fate::Kept => self.settled() > CHUNK_BYTES,
            Fate::Short => self.settled() > 0,
            Fate::Doomed => false,
        }
    }

    /// The next piece to write. Lent until [`Draft::forget_handed`].
    pub(super) fn lend_chunk(&mut self) -> &[u8] {
        self.handed = self.settled().min(CHUNK_BYTES);
        &self.body[..self.handed]
    }

    /// Drops what [`Draft::lend_chunk`] lent: it is written.
    pub(super) fn forget_handed(&mut self) {
        if self.handed > 0 {
            self.chunked += self.handed as u64;
            self.body.drain(..std::mem::take(&mut self.handed));
        }
        if self.fate == Fate::Short && self.settled() == 0 {
            self.fate = Fate::Kept;
        }
    }

    /// The text that is not in chunks.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Bytes that went out as chunks.
    pub(super) fn chunked(&self) -> u64 {
        self.chunked
    }

    /// Whether any chunk of it was ever handed out.
    pub(super) fn has_chunks(&self) -> bool {
        self.chunked > 0 || self.handed > 0
    }

    /// Empties the draft for the next message: the bytes that were reserved for this one.
    pub(super) fn clear(&mut self) -> u64 {
        let reserved = self.reserved;
        self.envelope.clear();
        self.body.clear();
        self.body.shrink_to(BODY_BYTES_KEPT);
        let (envelope, body) = (std::mem::take(&mut self.envelope), std::mem::take(&mut self.body));
        *self = Self { envelope, body, ..Self::default() };
        reserved
    }

    /// Bytes of `body` that stay whatever comes.
    fn settled(&self) -> usize {
        self.body.len() - self.header.held()
    }

    fn doom(&mut self) {
        self.fate = Fate::Doomed;
        self.header.drop_held();
        self.chunked += std::mem::take(&mut self.handed) as u64;
        self.body.clear();
    }

    /// Reserves for what is in memory now, in steps.
    fn cover(&mut self, admission: &mut Admission) {
        let needed = (self.body.len() + self.envelope.bytes()) as u64;
        if needed <= self.reserved {
            return;
        }
        let step = needed.next_multiple_of(RESERVE_BYTES) - self.reserved;
        if admission.reserve(step) {
            self.reserved += step;
        } else {
            self.overdrawn += needed - self.reserved;
            admission.overdraw(needed - self.reserved);
            self.reserved = needed;
            self.fate = Fate::Short;
        }
    }

    /// Gives back what was overdrawn once the text that took it is written.
    fn repay(&mut self, admission: &mut Admission) {
        let needed = (self.body.len() + self.envelope.bytes()) as u64;
        if self.overdrawn > 0 && needed + self.overdrawn <= self.reserved {
            self.reserved -= self.overdrawn;
            admission.release(std::mem::take(&mut self.overdrawn));
        }
    }
}
