//! The one place that says "not now": what room a shard has for more mail.

use super::draft::Draft;
use super::reply;

/// Emptied drafts kept for the next message: with `draft::BODY_BYTES_KEPT` each, 4 MiB a shard.
const DRAFTS_KEPT: usize = 64;

/// The room of one shard; its sessions ask, the shard keeps it true.
#[derive(Debug)]
pub struct Admission {
    /// Bytes that messages being received may take.
    limit: u64,
    used: u64,
    spool_open: bool,
    backlog_full: bool,
    #[expect(clippy::vec_box, reason = "a draft stays where it is while sessions pass it around")]
    spare: Vec<Box<Draft>>,
}

/// Why no mail is taken now; the client is told to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The spool takes no commits.
    SpoolClosed,
    /// Too many deliveries wait already.
    BacklogFull,
    /// Messages being received take all the memory that they may.
    Memory,
}

impl Busy {
    pub(super) fn reply(self) -> &'static str {
        match self {
            Self::SpoolClosed => reply::SPOOL_FULL,
            Self::BacklogFull => reply::BACKLOG,
            Self::Memory => reply::NO_MEMORY,
        }
    }
}

impl Admission {
    /// `limit`: bytes that messages being received may take, all sessions of the shard together.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, spool_open: true, backlog_full: false, spare: Vec::new() }
    }

    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    pub fn set_spool_open(&mut self, is_open: bool) {
        self.spool_open = is_open;
    }

    pub fn set_backlog_full(&mut self, is_full: bool) {
        self.backlog_full = is_full;
    }

    /// Whether one more message may begin.
    ///
    /// # Errors
    /// Answer the client with 452 and take nothing.
    pub fn admit_mail(&self) -> Result<(), Busy> {
        match self {
            Self { spool_open: false, .. } => Err(Busy::SpoolClosed),
            Self { backlog_full: true, .. } => Err(Busy::BacklogFull),
            _ if self.used >= self.limit => Err(Busy::Memory),
            _ => Ok(()),
        }
    }

    /// Takes `bytes` from the budget, or nothing if there is not enough.
    pub fn reserve(&mut self, bytes: u64) -> bool {
        let after = self.used.saturating_add(bytes);
        if after > self.limit {
            return false;
        }
        self.used = after;
        true
    }

    /// Takes `bytes` that are in memory already. What a session overdraws is at most one receive
    /// buffer, since it hands its text out as a chunk at once.
    pub fn overdraw(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
    }

    pub fn release(&mut self, bytes: u64) {
        debug_assert!(self.used >= bytes, "the budget got back more than was taken");
        self.used = self.used.saturating_sub(bytes);
    }

    /// Bytes taken at present.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn take_draft(&mut self) -> Box<Draft> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a draft back with all that was reserved for it.
    pub(super) fn take_back(&mut self, mut draft: Box<Draft>) {
        self.release(draft.clear());
        if self.spare.len() < DRAFTS_KEPT {
            self.spare.push(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept() {
        let mut admission = Admission::new(100);
        assert!(admission.reserve(60) && !admission.reserve(41) && admission.reserve(40));
        assert_eq!(admission.admit_mail(), Err(Busy::Memory));
        admission.overdraw(5);
        admission.release(105);
        assert_eq!((admission.used(), admission.admit_mail()), (0, Ok(())));
    }

    #[test]
    fn mail_is_admitted_only_where_it_can_be_stored_and_queued() {
        let mut admission = Admission::new(100);
        admission.set_backlog_full(true);
        assert_eq!(admission.admit_mail(), Err(Busy::BacklogFull));
        admission.set_spool_open(false);
        assert_eq!(admission.admit_mail(), Err(Busy::SpoolClosed));
        admission.set_spool_open(true);
        admission.set_backlog_full(false);
        assert_eq!(admission.admit_mail(), Ok(()));
    }
}
