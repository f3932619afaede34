//! The pen of one sink thread: what an arrival says of the way that a message took.

use std::sync::Arc;

use super::board::Board;
use super::recorder::Recorder;
use crate::latency::Phase;
use crate::message::Token;

/// Records arrivals for the run that this process measures.
pub(crate) struct Arrivals {
    pub(crate) recorder: Recorder,
    board: Arc<Board>,
}

impl Arrivals {
    pub(crate) fn new(recorder: Recorder, board: Arc<Board>) -> Self {
        Self { recorder, board }
    }

    /// An intact message of this run, whose transaction began at `mail_ns`, was taken.
    pub(crate) fn record(&mut self, token: &Token, mail_ns: u64, now: u64) {
        self.board.deliver();
        self.recorder.record(Phase::EndToEnd, now.saturating_sub(token.sent_ns));
        self.recorder.record(Phase::Delivery, now.saturating_sub(mail_ns));
        if let Some(queued_ns) = self.board.queued_ns(token, mail_ns) {
            self.recorder.record(Phase::Queue, queued_ns);
        }
    }

    /// So many recipients arrived, or bounced, for the first time.
    pub(crate) fn conclude(&self, recipients: u64) {
        self.board.conclude(recipients);
    }
}
