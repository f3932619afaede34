//! Reading: each reply is the answer to the oldest command.

use super::{Break, Exchange, Expect, Ground};
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::egress::body::BodyCursor;
use crate::egress::order::Outbox;
use crate::egress::transaction::{Step, Transaction, Word};
use crate::egress::verdict::{Stage, Verdict, is_go, judge};
use crate::model::message::{Place, Slice};
use crate::model::note::{Cause, Took};
use crate::wire::smtp::reply::ReplyReader;

impl Exchange {
    /// Takes the reply that `reader` holds as the answer to the oldest command.
    pub(in crate::egress) fn handle_reply(
        &mut self,
        reader: &ReplyReader,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), Break> {
        if self.expected.is_empty() {
            return Err(Break::OutOfStep(reader.to_reply()));
        }
        let expect = self.expected.remove(0);
        self.heard += 1;
        let took = Took::between(std::mem::replace(&mut self.since, now.mono), now.mono);
        if expect == Expect::Rset {
            // The transaction it made room for may have come to nothing since.
            let refusal = read(Stage::Mail, reader)?;
            return refusal.map_or(Ok(()), |word| Err(Break::OutOfStep(word.reply)));
        }
        let Some(front) = self.front_mut() else {
            return Err(Break::OutOfStep(reader.to_reply()));
        };
        front.heard += 1;
        front.note_time(expect, took);
        match expect {
            Expect::Rset => Ok(()),
            Expect::Mail => {
                if let Some(word) = read(Stage::Mail, reader)? {
                    front.refuse_sender(word);
                }
                Ok(())
            }
            Expect::Rcpt(recipient) => {
                match read(Stage::Rcpt, reader)? {
                    None => front.accepted += 1,
                    Some(word) => front.refuse_recipient(recipient, word),
                }
                Ok(())
            }
            Expect::Data => self.handle_go(reader, out),
            Expect::Dot => self.handle_verdict(reader, out),
            Expect::Chunk => self.handle_verdict_on_chunk(reader, out),
        }
    }

    /// After 354 the host waits for content, even where it has refused every recipient: then the
    /// final dot alone (RFC 2920 §3.1).
    fn handle_go(&mut self, reader: &ReplyReader, out: &mut Outbox) -> Result<(), Break> {
        let refusal = read(Stage::Data, reader)?;
        let Some(front) = self.front_mut() else { return Ok(()) };
        match refusal {
            None if front.is_refused() => front.step = Step::Dot(b".\r\n"),
            None => front.step = Step::Body(BodyCursor::new()),
            Some(word) => {
                self.ground = Ground::Littered;
                self.finish_front(word, out);
            }
        }
        Ok(())
    }

    fn handle_verdict(&mut self, reader: &ReplyReader, out: &mut Outbox) -> Result<(), Break> {
        let refusal = read(Stage::Dot, reader)?;
        if self.front().is_some_and(Transaction::is_refused) {
            // A lone dot: whatever it was answered, the refusals stand.
            self.ground = Ground::Littered;
        }
        self.finish_front(refusal.unwrap_or_else(|| accepted(reader)), out);
        Ok(())
    }

    /// After a refusal of any kind the transaction may be open still (RFC 3030 §2). A host that took
    /// recipients and does not know BDAT is out of order: it may have read content as commands. That
    /// is no word on the message, which goes by DATA when it is tried again.
    fn handle_verdict_on_chunk(
        &mut self,
        reader: &ReplyReader,
        out: &mut Outbox,
    ) -> Result<(), Break> {
        let is_refused = self.front().is_some_and(Transaction::is_refused);
        if !is_refused && matches!(reader.code(), 500..=504) {
            return Err(Break::OutOfStep(reader.to_reply()));
        }
        if !is_go(Stage::Dot, reader.code()) && !planted(Bug::RefusedChunkLeftOpen) {
            self.ground = Ground::Littered;
        }
        self.handle_verdict(reader, out)
    }

    /// Takes the chunk that was asked for.
    pub(in crate::egress) fn handle_chunk(
        &mut self,
        place: Place,
        chunk: Option<&Slice>,
        out: &mut Outbox,
    ) -> Result<(), Break> {
        let Some(front) = self.front_mut() else { return Ok(()) };
        let Step::Body(cursor) = &mut front.step else { return Ok(()) };
        cursor.handle_chunk(place, chunk, &front.letter, out).map_err(|_| Break::Unreadable)
    }

    /// The kernel has taken all that was queued.
    pub(in crate::egress) fn handle_drained(&mut self, now: Now) {
        let Some(front) = self.front_mut() else { return };
        match &mut front.step {
            Step::Body(cursor) => cursor.handle_drained(),
            step @ Step::Flushing => {
                *step = Step::Dotted;
                self.since = now.mono;
            }
            _ => {}
        }
    }

    /// One outcome reported before is on disk.
    pub(in crate::egress) fn handle_settled(&mut self) {
        self.unsettled = self.unsettled.saturating_sub(1);
    }
}

impl Transaction {
    fn note_time(&mut self, reply_to: Expect, took: Took) {
        let phase = match reply_to {
            Expect::Rset => return,
            Expect::Mail => &mut self.phases.mail,
            Expect::Rcpt(_) => &mut self.phases.rcpt,
            Expect::Data => &mut self.phases.data,
            Expect::Dot | Expect::Chunk => &mut self.phases.dot,
        };
        *phase = phase.and(took);
    }
}

fn accepted(reader: &ReplyReader) -> Word {
    Word { verdict: Verdict::Accepted, cause: Cause::None, reply: reader.to_reply() }
}

/// `None`: go on. Otherwise what the reply says about the message or the recipient.
fn read(stage: Stage, reader: &ReplyReader) -> Result<Option<Word>, Break> {
    if is_go(stage, reader.code()) {
        return Ok(None);
    }
    let reply = reader.to_reply();
    let (verdict, cause) = judge(stage, &reply);
    match verdict {
        Verdict::Accepted => Ok(None),
        Verdict::SiteTrouble => Err(Break::OutOfStep(reply)),
        Verdict::Throttled if reply.code == 421 => {
            Err(Break::TurnedDown(Word { verdict, cause, reply }))
        }
        verdict => Ok(Some(Word { verdict, cause, reply })),
    }
}
