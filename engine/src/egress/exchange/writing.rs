//! Writing: whatever the host may be sent now, in order.

use super::{EXPECTED_MAX, Exchange, Expect, Ground};
use crate::base::time::Now;
use crate::egress::body::Chunk;
use crate::egress::order::Outbox;
use crate::egress::transaction::{Step, Word};
use crate::egress::verdict::Verdict;
use crate::model::note::Cause;
use crate::model::outcome::{Enhanced, Reply};
use crate::model::settings::OutcomeDurability;
use crate::wire::smtp::reply::{MailParameters, SizeLimit, write_bdat, write_mail, write_rcpt};

impl Exchange {
    /// Writes whatever may be written now.
    pub(in crate::egress) fn pump(&mut self, now: Now, out: &mut Outbox) {
        while let Some(at) = self.work.iter().position(|transaction| !transaction.is_sent()) {
            let goes_on = match self.work[at].step {
                Step::Mail => self.write_mail(at, now, out),
                Step::Rcpt(next) => self.write_recipients((at, next), now, out),
                Step::Data => self.write_data(at, now, out),
                Step::Body(_) => self.send_body(at, out),
                Step::Dot(end) => self.send_dot((at, end), now, out),
                Step::Go | Step::Flushing | Step::Dotted => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn may_write(&self) -> bool {
        self.expected.len() < self.expected_most() && self.expected.last() != Some(&Expect::Chunk)
    }

    fn expected_most(&self) -> usize {
        if self.capabilities.pipelining { EXPECTED_MAX } else { 1 }
    }

    fn write_mail(&mut self, at: usize, now: Now, out: &mut Outbox) -> bool {
        if self.is_spent() {
            return false;
        }
        if let Some(word) = self.work[at].objection(&self.capabilities) {
            self.finish(at, word, out);
            return true;
        }
        if !self.may_write() {
            return false;
        }
        if self.ground == Ground::Littered {
            self.ground = Ground::Clear;
            self.expect(Expect::Rset, now);
            out.send(b"RSET\r\n");
            return true;
        }
        self.write_sender(at, now, out);
        true
    }

    fn write_sender(&mut self, at: usize, now: Now, out: &mut Outbox) {
        let transaction = &mut self.work[at];
        let letter = &transaction.letter;
        let Some(addresses) = letter.addresses() else {
            return self.set_aside(at, out);
        };
        let parameters = MailParameters {
            size: (self.capabilities.size != SizeLimit::Unknown).then_some(letter.bytes),
            eight_bit: letter.eight_bit,
        };
        if out.write(|text| write_mail(text, addresses.sender(), parameters)).is_err() {
            let reply = Reply::local(553, Enhanced(5, 1, 7), "the sender holds a control byte");
            return self.finish(at, Word::objection(reply), out);
        }
        transaction.step = Step::Rcpt(letter.delivery.first);
        self.expect(Expect::Mail, now);
        self.opened += 1;
    }

    fn write_recipients(&mut self, (at, next): (usize, u16), now: Now, out: &mut Outbox) -> bool {
        let most = self.expected_most();
        if self.expected.is_empty() {
            self.since = now.mono;
        }
        let transaction = &mut self.work[at];
        let end = transaction.letter.delivery.recipients().end;
        let mut next = if transaction.is_sender_refused() { end } else { next };
        let Some(addresses) = transaction.letter.addresses() else { return false };
        while next < end && self.expected.len() < most {
            if out.write(|text| write_rcpt(text, addresses.recipient(next))).is_ok() {
                self.expected.push(Expect::Rcpt(next));
            } else {
                let reply = Reply::local(553, Enhanced(5, 1, 3), "it holds a control byte");
                let word = Word { verdict: Verdict::Failed, cause: Cause::Recipient, reply };
                transaction.refused.push((next, word));
            }
            next += 1;
        }
        transaction.step = if next < end { Step::Rcpt(next) } else { Step::Data };
        next == end
    }

    /// DATA, unless it is already known that nobody is left to send it to.
    fn write_data(&mut self, at: usize, now: Now, out: &mut Outbox) -> bool {
        if self.work[at].is_refused() {
            if !self.expected.is_empty() {
                return false;
            }
            if !self.work[at].is_sender_refused() {
                self.ground = Ground::Littered;
            }
            self.finish_refused(at, out);
            return true;
        }
        if !self.may_write() {
            return false;
        }
        if let Some(chunk) = self.chunk(at) {
            out.write(|text| write_bdat(text, chunk.bytes(), true));
            chunk.send(out);
            self.expect(Expect::Chunk, now);
            self.work[at].step = Step::Flushing;
            return true;
        }
        out.send(b"DATA\r\n");
        self.expect(Expect::Data, now);
        self.work[at].step = Step::Go;
        false
    }

    /// The whole message as one chunk, where it may follow its recipients unasked. Strict outcomes hold
    /// back the end of a message, which has no place of its own here. A second attempt goes by DATA: not
    /// every host that offers CHUNKING knows how.
    fn chunk(&self, at: usize) -> Option<Chunk<'_>> {
        let letter = &self.work[at].letter;
        let may = self.capabilities.chunking
            && self.capabilities.pipelining
            && self.outcomes == OutcomeDurability::Grouped
            && letter.delivery.attempts == 0;
        may.then(|| Chunk::of(letter)).flatten()
    }

    fn send_body(&mut self, at: usize, out: &mut Outbox) -> bool {
        let transaction = &mut self.work[at];
        let Step::Body(cursor) = &mut transaction.step else { return false };
        let is_all = cursor.advance(&transaction.letter, out);
        if is_all {
            transaction.step = Step::Dot(cursor.end());
        }
        is_all
    }

    /// The final dot asks the host to take the message: with strict outcomes, not before the
    /// outcome of the one before is on disk.
    fn send_dot(&mut self, (at, end): (usize, &'static [u8]), now: Now, out: &mut Outbox) -> bool {
        if self.unsettled > 0 {
            return false;
        }
        out.send(end);
        self.expect(Expect::Dot, now);
        self.work[at].step = Step::Flushing;
        true
    }
}
