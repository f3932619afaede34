//! One mail transaction: how far it has been written, and what was said about each recipient.

use super::body::BodyCursor;
use super::letter::Letter;
use super::verdict::{Verdict, is_one_too_many};
use crate::model::note::{Attempt, Cause, Complaint, Phases, RecipientResult};
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

/// What a reply, or the lack of one, says about recipients.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) verdict: Verdict,
    pub(super) cause: Cause,
    pub(super) reply: Reply,
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
    sender_refused: Option<Word>,
    /// Recipients refused so far.
    pub(super) refused: Vec<(u16, Word)>,
    /// Recipients accepted before the first that was one too many.
    pub(super) accepted_first: Option<u16>,
    /// How long its replies took.
    pub(super) phases: Phases,
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
            accepted_first: None,
            phases: Phases::default(),
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

    pub(super) fn refuse_sender(&mut self, word: Word) {
        self.sender_refused = Some(word);
    }

    pub(super) fn refuse_recipient(&mut self, recipient: u16, word: Word) {
        if self.accepted_first.is_none() && self.accepted > 0 && is_one_too_many(&word.reply) {
            self.accepted_first = Some(self.accepted);
        }
        self.refused.push((recipient, word));
    }

    /// Why this host cannot take the message at all, known without asking it. Content is not
    /// re-encoded for hosts without 8BITMIME: it may be signed.
    pub(super) fn objection(&self, capabilities: &Capabilities) -> Option<Word> {
        let letter = &self.letter;
        if letter.eight_bit && !capabilities.eight_bit_mime {
            let text = "8-bit content, and the host does not offer 8BITMIME";
            return Some(Word::objection(Reply::local(554, Enhanced(5, 6, 3), text)));
        }
        match capabilities.size {
            SizeLimit::Bytes(limit) if letter.bytes > limit => {
                let text = format!("message of {} bytes, the host takes {limit}", letter.bytes);
                Some(Word::objection(Reply::local(552, Enhanced(5, 3, 4), &text)))
            }
            _ => None,
        }
    }

    /// The result, where `word` holds for every recipient not refused before.
    pub(super) fn conclude(self, word: Word) -> Attempt {
        let Self { letter, sender_refused, refused, .. } = self;
        let said = sender_refused.iter().chain([&word]);
        let complaint = complaint_of(said.chain(refused.iter().map(|(_, word)| word)));
        let (word, refused) = match sender_refused {
            Some(word) => (word, Vec::new()),
            None => (word, refused),
        };
        let is_all_refused = refused.len() == usize::from(letter.delivery.count);
        let says_nothing_else = (is_all_refused || word.is_throttle())
            && refused.iter().all(|(_, word)| word.is_throttle());
        match complaint {
            None if word.verdict == Verdict::Accepted && refused.is_empty() => {
                Attempt::Delivered(word.reply)
            }
            Some(complaint) if says_nothing_else => Attempt::Throttled(complaint),
            complaint => {
                let recipients = merge(letter.delivery.recipients(), refused, &word);
                Attempt::Mixed { recipients, complaint }
            }
        }
    }
}

impl Word {
    /// A refusal of our own, of a message that the host cannot take.
    pub(super) fn objection(reply: Reply) -> Self {
        Self { verdict: Verdict::Failed, cause: Cause::Content, reply }
    }

    /// The conversation cannot go on; nothing was said about the message.
    pub(super) fn of_trouble(reply: Reply) -> Self {
        Self { verdict: Verdict::SiteTrouble, cause: Cause::Site, reply }
    }

    fn is_throttle(&self) -> bool {
        self.verdict == Verdict::Throttled
    }
}

/// What of all that was said is not about recipients: a wish to slow down before anything else.
fn complaint_of<'a>(said: impl Iterator<Item = &'a Word> + Clone) -> Option<Complaint> {
    let first = |verdict| said.clone().find(move |word| word.verdict == verdict);
    let word = first(Verdict::Throttled).or_else(|| first(Verdict::SiteTrouble))?;
    Some(Complaint { cause: word.cause, reply: word.reply.clone() })
}

/// One result per recipient, in order.
fn merge(
    recipients: std::ops::Range<u16>,
    mut refused: Vec<(u16, Word)>,
    otherwise: &Word,
) -> Vec<RecipientResult> {
    refused.sort_by_key(|(recipient, _)| *recipient);
    let mut refused = refused.into_iter().peekable();
    recipients
        .map(|recipient| {
            let own = refused.next_if(|(other, _)| *other == recipient);
            let Word { verdict, cause, reply } =
                own.map_or_else(|| otherwise.clone(), |(_, word)| word);
            RecipientResult { recipient, class: verdict.class(), cause, reply }
        })
        .collect()
}
