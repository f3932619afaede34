//! The text of a message: DATA and BDAT (RFC 5321 §4.1.1.4, RFC 3030 §2).

use super::admission::Admission;
use super::draft::Draft;
use super::reply;
use super::session::{Session, State};
use crate::base::time::Now;
use crate::wire::smtp::dot::{Fed, Unstuffer};
use crate::wire::smtp::text::{TextFacts, TextScan};

impl Session {
    pub(super) fn data(&mut self, now: Now, admission: &mut Admission) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Addressing(mut draft) if draft.envelope.count() > 0 => {
                draft.started = now.mono;
                self.state = State::Data { draft, unstuffer: Unstuffer::default() };
                self.reply(reply::START_TEXT);
            }
            state @ State::Addressing(_) => {
                self.state = state;
                self.refuse(reply::NO_RECIPIENTS, admission);
            }
            state => {
                self.state = state;
                self.refuse_early(admission);
            }
        }
    }

    pub(super) fn receive_data(&mut self, now: Now, rest: &mut &[u8], admission: &mut Admission) {
        let State::Data { draft, unstuffer } = &mut self.state else { return };
        self.active = now.mono;
        let fed = draft.append(self.settings.message_bytes, admission, |body| {
            (unstuffer.feed(rest, body), unstuffer.facts())
        });
        let Fed::Ended { taken } = fed else {
            *rest = &[];
            return;
        };
        *rest = &rest[taken..];
        if let State::Data { draft, unstuffer } = std::mem::replace(&mut self.state, State::Idle) {
            self.complete(draft, unstuffer.facts(), true, admission);
        }
    }

    /// The chunk behind this command is always read to its end: what is not wanted is eaten.
    pub(super) fn bdat(&mut self, now: Now, bytes: u64, last: bool, admission: &mut Admission) {
        let limit = self.settings.message_bytes;
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Addressing(mut draft) if draft.envelope.count() > 0 => {
                draft.started = now.mono;
                draft.announce(bytes, limit);
                State::Chunk { draft, scan: TextScan::default(), left: bytes, last }
            }
            State::BetweenChunks { mut draft, scan } => {
                draft.announce(bytes, limit);
                State::Chunk { draft, scan, left: bytes, last }
            }
            State::Addressing(draft) => {
                let (kept, refusal) = (Some(draft), reply::NO_RECIPIENTS);
                State::Eating { kept, left: bytes, started: now.mono, refusal }
            }
            _ => {
                let (kept, refusal) = (None, reply::MAIL_FIRST);
                State::Eating { kept, left: bytes, started: now.mono, refusal }
            }
        };
        // An empty chunk is over before any byte of it comes.
        self.end_chunk(admission);
    }

    pub(super) fn receive_chunk(&mut self, now: Now, rest: &mut &[u8], admission: &mut Admission) {
        let State::Chunk { draft, scan, left, .. } = &mut self.state else { return };
        self.active = now.mono;
        let text = take_up_to(left, rest);
        draft.append(self.settings.message_bytes, admission, |body| {
            scan.feed(text);
            body.extend_from_slice(text);
            ((), scan.facts())
        });
        self.end_chunk(admission);
    }

    pub(super) fn eat_chunk(&mut self, now: Now, rest: &mut &[u8], admission: &mut Admission) {
        let State::Eating { left, .. } = &mut self.state else { return };
        self.active = now.mono;
        take_up_to(left, rest);
        self.end_chunk(admission);
    }

    /// Answers a chunk of which nothing is left to come.
    fn end_chunk(&mut self, admission: &mut Admission) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Chunk { draft, scan, left: 0, last: true } => {
                let ends_with_crlf = scan.is_at_line_start();
                self.complete(draft, scan.finish(), ends_with_crlf, admission);
            }
            State::Chunk { draft, scan, left: 0, last: false } => {
                self.keep_chunk(draft, scan, admission);
            }
            State::Eating { kept, left: 0, refusal, .. } => {
                self.state = kept.map_or(State::Idle, State::Addressing);
                self.refuse(refusal, admission);
            }
            unfinished => self.state = unfinished,
        }
    }

    fn keep_chunk(&mut self, draft: Box<Draft>, scan: TextScan, admission: &mut Admission) {
        match draft.verdict(scan.facts(), self.settings.message_bytes) {
            Some(refusal) => self.refuse_message(draft, refusal, admission),
            None => {
                self.state = State::BetweenChunks { draft, scan };
                self.reply(reply::OK);
            }
        }
    }

    fn complete(
        &mut self,
        mut draft: Box<Draft>,
        facts: TextFacts,
        ends_with_crlf: bool,
        admission: &mut Admission,
    ) {
        let ends_line = draft.end_text() || ends_with_crlf;
        match draft.verdict(facts, self.settings.message_bytes) {
            Some(refusal) => self.refuse_message(draft, refusal, admission),
            None => {
                let (settings, listener) = (&self.settings, self.client.listener);
                draft.label(|fields| settings.labels(listener, fields));
                draft.seal(facts, ends_line);
                self.state = State::Complete(draft);
            }
        }
    }

    fn refuse_message(&mut self, draft: Box<Draft>, text: &str, admission: &mut Admission) {
        self.state = State::Addressing(draft);
        self.discard(State::Idle, admission);
        self.refuse(text, admission);
    }
}

/// The next bytes of a chunk of which `left` are still to come.
fn take_up_to<'a>(left: &mut u64, rest: &mut &'a [u8]) -> &'a [u8] {
    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
    let (text, behind) = rest.split_at(taken);
    *rest = behind;
    *left -= taken as u64;
    text
}
