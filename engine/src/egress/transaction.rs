//! One mail transaction: how far it has been written, and what was said about each recipient.

use super::body::BodyCursor;
use super::letter::Letter;
use super::verdict::Verdict;
use crate::model::note::{Attempt, RecipientResult};
use crate::model::outcome::{Enhanced, Reply};
use crate::wire::smtp::reply::{Capabilities, SizeLimit};

/// What is to be written next.
#[derive(Debug)]
pub(super) enum Step {
    Mail,
    /// RCPT for this recipient; behind the last one, nothing.
    Rcpt(u16),
    Data,
    /// Nothing, before the reply to DATA is read.
    Go,
    Body(BodyCursor),
    /// The end of the content, given here.
    Dot(&'static [u8]),
    /// Nothing; the final dot is on its way to the kernel.
    Flushing,
    /// Nothing; the final dot was taken, its reply is awaited.
    Dotted,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) letter: Letter,
    pub(super) step: Step,
    /// Replies to this transaction's commands so far.
    pub(super) heard: u32,
    /// Recipients accepted so far.
    pub(super) accepted: u16,
    /// The refusal of MAIL; the recipients' own replies then mean nothing.
    sender_refused: Option<(Verdict, Reply)>,
    /// Recipients refused so far.
    pub(super) refused: Vec<(u16, Verdict, Reply)>,
}

impl Transaction {
    pub(super) fn new(letter: Letter) -> Self {
        Self {
            letter,
            step: Step::Mail,
            heard: 0,
            accepted: 0,
            sender_refused: None,
            refused: Vec::new(),
        }
    }

    /// Whether any command was written.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.step, Step::Mail)
    }

    /// Whether all of it was written.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.step, Step::Flushing | Step::Dotted)
    }

    /// Whether MAIL, or every recipient, was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.sender_refused.is_some()
            || self.refused.len() == usize::from(self.letter.delivery.count)
    }

    pub(super) fn is_sender_refused(&self) -> bool {
        self.sender_refused.is_some()
    }

    pub(super) fn refuse_sender(&mut self, verdict: Verdict, reply: Reply) {
        self.sender_refused = Some((verdict, reply));
    }

    /// Why this host cannot take the message at all, known without asking it. Content is not
    /// re-encoded for hosts without 8BITMIME: it may be signed.
    pub(super) fn objection(&self, capabilities: &Capabilities) -> Option<Reply> {
        let letter = &self.letter;
        if letter.eight_bit && !capabilities.eight_bit_mime {
            let text = "8-bit content, and the host does not offer 8BITMIME";
            return Some(Reply::local(554, Enhanced(5, 6, 3), text));
        }
        match capabilities.size {
            SizeLimit::Bytes(limit) if letter.bytes > limit => {
                let text = format!("message of {} bytes, the host takes {limit}", letter.bytes);
                Some(Reply::local(552, Enhanced(5, 3, 4), &text))
            }
            _ => None,
        }
    }

    /// The result, where `verdict` holds for every recipient not refused before.
    pub(super) fn conclude(self, verdict: Verdict, reply: Reply) -> Attempt {
        let Self { letter, sender_refused, refused, .. } = self;
        let (verdict, reply, refused) = match sender_refused {
            Some((verdict, reply)) => (verdict, reply, Vec::new()),
            None => (verdict, reply, refused),
        };
        match verdict {
            Verdict::Accepted if refused.is_empty() => Attempt::Delivered(reply),
            Verdict::Throttled if refused.is_empty() => Attempt::Throttled(reply),
            _ if is_all_throttled(&refused, letter.delivery.count) => throttled(refused, reply),
            _ => Attempt::Mixed(merge(letter.delivery.recipients(), refused, verdict, &reply)),
        }
    }
}

fn is_all_throttled(refused: &[(u16, Verdict, Reply)], count: u16) -> bool {
    let is_throttled = |(_, verdict, _): &(u16, Verdict, Reply)| *verdict == Verdict::Throttled;
    refused.len() == usize::from(count) && refused.iter().all(is_throttled)
}

fn throttled(refused: Vec<(u16, Verdict, Reply)>, otherwise: Reply) -> Attempt {
    let first = refused.into_iter().next();
    Attempt::Throttled(first.map_or(otherwise, |(_, _, reply)| reply))
}

/// One result per recipient, in order; `refused` is in order, since replies are.
fn merge(
    recipients: std::ops::Range<u16>,
    refused: Vec<(u16, Verdict, Reply)>,
    verdict: Verdict,
    reply: &Reply,
) -> Vec<RecipientResult> {
    let mut refused = refused;
    refused.sort_by_key(|(recipient, ..)| *recipient);
    let mut refused = refused.into_iter().peekable();
    recipients
        .map(|recipient| match refused.next_if(|(other, ..)| *other == recipient) {
            Some((_, verdict, reply)) => {
                RecipientResult { recipient, class: verdict.class(), reply }
            }
            None => RecipientResult { recipient, class: verdict.class(), reply: reply.clone() },
        })
        .collect()
}
