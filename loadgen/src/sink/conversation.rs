//! The conversation with one client: bytes in, replies out, no socket and no clock.

use super::behaviour::{Behaviour, Stage};
use super::clerk::{Addressee, Clerk};
use super::command::{Command, LINE_BYTES_MAX};
use super::inspection::Inspection;
use super::text::TextReader;
use crate::message::read_recipient;
use crate::outgoing::Outgoing;

/// Recipients of one transaction; more get 452.
const RECIPIENTS_MAX: usize = 1000;

pub(super) struct Conversation {
    pub(super) out: Outgoing,
    pub(super) host: usize,
    receiving: Receiving,
    ending: Ending,
    /// Replies written since the last [`Conversation::take_replies`].
    replies: u32,
    /// The start of a command whose end is still to come.
    rest: Vec<u8>,
    has_sender: bool,
    /// When the transaction began.
    mail_ns: u64,
    recipients: Vec<Addressee>,
    reader: TextReader,
    inspection: Inspection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Commands,
    Text,
    Chunk {
        left: u64,
        last: bool,
    },
    /// A chunk without a transaction, which must not be taken for commands.
    Refused {
        left: u64,
    },
    /// Bytes are thrown away.
    Nothing,
}

/// Whether, and when, our side closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    AfterReplies,
    Now,
}

impl Conversation {
    /// Greets the `nth` connection of `host` as its behaviour wants.
    pub(super) fn begin(host: usize, nth: u64, clerk: &Clerk) -> Self {
        let mut conversation = Self {
            out: Outgoing::default(),
            host,
            receiving: Receiving::Commands,
            ending: Ending::No,
            replies: 0,
            rest: Vec::new(),
            has_sender: false,
            mail_ns: 0,
            recipients: Vec::new(),
            reader: TextReader::new(true),
            inspection: Inspection::new(),
        };
        match clerk.behaviour(host) {
            Behaviour::Throttle421 => conversation.throttle(clerk),
            Behaviour::ConnectionCap(cap) if nth > cap => conversation.throttle(clerk),
            Behaviour::Silent => conversation.receiving = Receiving::Nothing,
            _ => conversation.reply_bytes(clerk.banner(host)),
        }
        conversation
    }

    pub(super) fn handle_bytes(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) {
        let mut at = 0;
        while at < bytes.len() && self.ending == Ending::No {
            let left = &bytes[at..];
            if clerk.behaviour(self.host) == Behaviour::Silent {
                self.receiving = Receiving::Nothing;
            }
            at += match self.receiving {
                Receiving::Commands => self.take_line(left, now, clerk),
                Receiving::Text => self.take_text(left, now, clerk),
                Receiving::Chunk { .. } => self.take_chunk(left, now, clerk),
                Receiving::Refused { left: chunk } => self.drop_chunk(chunk, left.len(), clerk),
                Receiving::Nothing => left.len(),
            };
        }
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    /// How many replies were written since the last call.
    pub(super) fn take_replies(&mut self) -> u32 {
        std::mem::take(&mut self.replies)
    }

    fn take_line(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let used = end.map_or(bytes.len(), |end| end + 1);
        if self.rest.len() + used > LINE_BYTES_MAX {
            self.reply(clerk, 500, "5.5.2 line too long");
            self.ending = Ending::AfterReplies;
        } else if end.is_none() {
            self.rest.extend_from_slice(bytes);
        } else if self.rest.is_empty() {
            self.handle_command(&Command::read(bytes[..used].trim_ascii_end()), now, clerk);
        } else {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&bytes[..used]);
            self.handle_command(&Command::read(line.trim_ascii_end()), now, clerk);
            line.clear();
            self.rest = line;
        }
        used
    }

    fn handle_command(&mut self, command: &Command<'_>, now: u64, clerk: &mut Clerk) {
        let behaviour = clerk.behaviour(self.host);
        if command.stage().is_some_and(|stage| behaviour == Behaviour::Throttle421At(stage)) {
            self.throttle(clerk);
            return;
        }
        match *command {
            Command::Ehlo => {
                self.reset();
                self.reply_bytes(clerk.ehlo(self.host));
            }
            Command::Helo => {
                self.reset();
                self.reply(clerk, 250, "loadgen");
            }
            Command::Mail if self.has_sender => self.reply(clerk, 503, "5.5.1 MAIL was given"),
            Command::Mail => {
                self.has_sender = true;
                self.mail_ns = now;
                self.reply(clerk, 250, "2.1.0 ok");
            }
            Command::Rcpt(address) => self.handle_rcpt(address, behaviour, clerk),
            Command::Data if self.recipients.is_empty() => self.reply_out_of_order(clerk),
            Command::Data => {
                self.begin_text(true);
                self.receiving = Receiving::Text;
                self.reply(clerk, 354, "go on");
            }
            Command::Bdat { bytes, last } => self.handle_bdat(bytes, last, now, clerk),
            Command::Rset => {
                self.reset();
                self.reply(clerk, 250, "2.0.0 ok");
            }
            Command::Noop => self.reply(clerk, 250, "2.0.0 ok"),
            Command::Quit => {
                self.reply(clerk, 221, "2.0.0 bye");
                self.ending = Ending::AfterReplies;
            }
            Command::Unknown => self.reply(clerk, 500, "5.5.2 not a command"),
        }
    }

    fn handle_rcpt(&mut self, address: &[u8], behaviour: Behaviour, clerk: &mut Clerk) {
        let addressee = read_recipient(address);
        let (code, text) = match behaviour {
            _ if !self.has_sender => (503, "5.5.1 MAIL first"),
            _ if self.recipients.len() >= RECIPIENTS_MAX => (452, "4.5.3 too many recipients"),
            Behaviour::TempfailRcpt => (451, "4.3.0 try again later"),
            Behaviour::RejectRcpt => (550, "5.1.1 no such user"),
            Behaviour::Greylist if !clerk.has_met(addressee) => (451, "4.7.1 greylisted"),
            _ => {
                self.recipients.push(addressee);
                (250, "2.1.5 ok")
            }
        };
        self.reply(clerk, code, text);
    }

    fn take_text(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) -> usize {
        let inspection = &mut self.inspection;
        let used = self.reader.read(bytes, |text| inspection.take(text));
        if self.reader.has_ended() {
            self.receiving = Receiving::Commands;
            self.finish_text(now, clerk);
        }
        used
    }

    fn handle_bdat(&mut self, bytes: u64, last: bool, now: u64, clerk: &mut Clerk) {
        if self.recipients.is_empty() || !clerk.capabilities.chunking {
            self.drop_chunk(bytes, 0, clerk);
            return;
        }
        if self.inspection.bytes() == 0 {
            self.begin_text(false);
        }
        self.receiving = Receiving::Chunk { left: bytes, last };
        if bytes == 0 {
            self.finish_chunk(last, now, clerk);
        }
    }

    /// Uses up to `held` bytes of a refused chunk; the reply comes behind its end (RFC 3030 2).
    fn drop_chunk(&mut self, chunk: u64, held: usize, clerk: &Clerk) -> usize {
        let used = usize::try_from(chunk).map_or(held, |chunk| chunk.min(held));
        let left = chunk - used as u64;
        self.receiving = Receiving::Refused { left };
        if left == 0 {
            self.receiving = Receiving::Commands;
            self.reply_out_of_order(clerk);
        }
        used
    }

    fn take_chunk(&mut self, bytes: &[u8], now: u64, clerk: &mut Clerk) -> usize {
        let Receiving::Chunk { left, last } = self.receiving else { return 0 };
        let used = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let inspection = &mut self.inspection;
        self.reader.read(&bytes[..used], |text| inspection.take(text));
        let left = left - used as u64;
        self.receiving = Receiving::Chunk { left, last };
        if left == 0 {
            self.finish_chunk(last, now, clerk);
        }
        used
    }

    fn finish_chunk(&mut self, last: bool, now: u64, clerk: &mut Clerk) {
        self.receiving = Receiving::Commands;
        if last {
            self.finish_text(now, clerk);
        } else {
            self.reply(clerk, 250, "2.0.0 chunk taken");
        }
    }

    fn begin_text(&mut self, dots: bool) {
        self.reader = TextReader::new(dots);
        self.inspection.begin();
    }

    /// The whole text is here: takes it or not, as the host behaves.
    fn finish_text(&mut self, now: u64, clerk: &mut Clerk) {
        clerk.records.ledger.smuggled += self.reader.smuggled();
        let size_max = clerk.capabilities.size_max;
        match clerk.behaviour(self.host) {
            Behaviour::Throttle421At(Stage::Dot) => self.throttle(clerk),
            Behaviour::TempfailData => self.reply(clerk, 451, "4.3.0 try again later"),
            Behaviour::RejectData => self.reply(clerk, 554, "5.7.1 refused"),
            _ if size_max > 0 && self.inspection.bytes() > size_max => {
                self.reply(clerk, 552, "5.3.4 too large");
            }
            behaviour => {
                clerk.enter(self.host, &self.inspection, &self.recipients, self.mail_ns, now);
                if behaviour == Behaviour::CloseAfterDot {
                    self.ending = Ending::Now;
                } else {
                    self.reply(clerk, 250, "2.0.0 taken");
                }
            }
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.has_sender = false;
        self.recipients.clear();
        self.inspection.begin();
    }

    fn throttle(&mut self, clerk: &Clerk) {
        self.reply(clerk, 421, "4.7.0 too much at once, try later");
        self.ending = Ending::AfterReplies;
    }

    fn reply_out_of_order(&mut self, clerk: &Clerk) {
        self.reply(clerk, 503, "5.5.1 no recipients");
    }

    fn reply(&mut self, clerk: &Clerk, code: u16, text: &str) {
        clerk.hosts[self.host].count_reply(code);
        let digit = |place: u16| b'0' + (code / place % 10).to_le_bytes()[0];
        let out = self.out.buffer();
        out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.replies += 1;
    }

    fn reply_bytes(&mut self, reply: &[u8]) {
        self.out.buffer().extend_from_slice(reply);
        self.replies += 1;
    }
}

impl Command<'_> {
    fn stage(&self) -> Option<Stage> {
        match self {
            Self::Ehlo | Self::Helo => Some(Stage::Ehlo),
            Self::Mail => Some(Stage::Mail),
            Self::Rcpt(_) => Some(Stage::Rcpt),
            Self::Data | Self::Bdat { .. } => Some(Stage::Data),
            _ => None,
        }
    }
}
