//! What a client may say when, and what it is answered (RFC 5321 §4.1.4).

use super::admission::Admission;
use super::reply;
use super::session::{Greeting, Session, State};
use crate::base::time::Now;
use crate::model::address::ADDRESS_BYTES_MAX;
use crate::wire::envelope::{Added, EnvelopeFlags};
use crate::wire::header::Protocol;
use crate::wire::smtp::address::Path;
use crate::wire::smtp::command::{BodyType, Command, CommandError, MailParams};

/// Commands in a row that bring no message nearer, before each also counts as an error: nobody
/// holds a connection with NOOP for ever. The same number as Postfix's junk limit.
const IDLE_COMMANDS_MAX: u32 = 100;

/// The extensions we offer, SIZE apart.
const EXTENSIONS: [&str; 4] = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"];

impl Session {
    pub(super) fn handle_line(&mut self, now: Now, line: &[u8], admission: &mut Admission) {
        self.active = now.mono;
        match Command::parse(line) {
            Ok(command) => self.handle_command(now, command, admission),
            // Where the next command begins is unknown, so none can be executed.
            Err(error @ CommandError::ChunkSize) => self.close(error.reply(), admission),
            Err(error) => self.refuse(error.reply(), admission),
        }
    }

    fn handle_command(&mut self, now: Now, command: Command<'_>, admission: &mut Admission) {
        match command {
            Command::Ehlo(name) => self.ehlo(name, admission),
            Command::Helo(name) => self.helo(name, admission),
            Command::Mail { sender, params } => self.mail(sender, params, admission),
            Command::Rcpt { recipient } => self.rcpt(recipient, admission),
            Command::Data => self.data(now, admission),
            Command::Bdat { bytes, last } => self.bdat(now, bytes, last, admission),
            Command::Rset => {
                self.discard(State::Idle, admission);
                self.idle_command(reply::OK, admission);
            }
            Command::Noop => self.idle_command(reply::OK, admission),
            Command::Vrfy => self.idle_command(reply::CANNOT_VERIFY, admission),
            Command::Help => self.idle_command(reply::HELP, admission),
            Command::Quit => self.close(reply::BYE, admission),
            Command::Expn | Command::StartTls => self.refuse(reply::NOT_OFFERED, admission),
            Command::Unknown => self.refuse(reply::UNKNOWN, admission),
            Command::Foreign => self.close(reply::FOREIGN, admission),
        }
    }

    fn ehlo(&mut self, name: &str, admission: &mut Admission) {
        self.greet(name, Protocol::Esmtp, admission);
        let hello = format!("250-{}", self.settings.hostname);
        self.reply(&hello);
        for extension in EXTENSIONS {
            self.reply(&format!("250-{extension}"));
        }
        let size = format!("250 SIZE {}", self.settings.message_bytes);
        self.idle_command(&size, admission);
    }

    fn helo(&mut self, name: &str, admission: &mut Admission) {
        self.greet(name, Protocol::Smtp, admission);
        let hello = format!("250 {}", self.settings.hostname);
        self.idle_command(&hello, admission);
    }

    /// EHLO and HELO also do what RSET does (RFC 5321 §4.1.4).
    fn greet(&mut self, name: &str, protocol: Protocol, admission: &mut Admission) {
        self.discard(State::Idle, admission);
        self.greeting = Greeting::Known { name: name.into(), protocol };
    }

    fn mail(&mut self, sender: Path<'_>, params: MailParams, admission: &mut Admission) {
        if matches!(self.greeting, Greeting::None) {
            return self.refuse(reply::GREET_FIRST, admission);
        }
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::NESTED_MAIL, admission);
        }
        if params.size.is_some_and(|size| size > self.settings.message_bytes) {
            return self.refuse(reply::TOO_LARGE, admission);
        }
        let mut draft = admission.take_draft();
        if let Err(busy) = draft.open(params.size, self.client.labels_trusted, admission) {
            admission.take_back(draft);
            return self.reply(busy.reply());
        }
        if let Path::Mailbox(mailbox) = sender {
            draft.envelope.set_sender(mailbox.as_str());
        }
        let is_8bit = params.body == BodyType::EightBitMime;
        let flags = EnvelopeFlags::default().with(EnvelopeFlags::DECLARED_8BIT, is_8bit);
        draft.envelope.set_flags(flags);
        self.state = State::Addressing(draft);
        self.reply(reply::SENDER_OK);
    }

    fn rcpt(&mut self, recipient: Path<'_>, admission: &mut Admission) {
        let State::Addressing(draft) = &mut self.state else {
            return self.refuse_early(admission);
        };
        // No address is looked at to decide this, so no form of address gets round it.
        if !self.client.relay_allowed {
            return self.refuse(reply::RELAY_DENIED, admission);
        }
        if draft.envelope.count() >= usize::from(self.settings.recipients) {
            return self.reply(reply::TOO_MANY_RECIPIENTS);
        }
        if !draft.make_room(ADDRESS_BYTES_MAX, admission) {
            return self.reply(reply::NO_MEMORY);
        }
        let added = match recipient {
            Path::Mailbox(mailbox) => draft.envelope.add_recipient(mailbox.as_str()),
            // RFC 5321 §4.5.1: it means the postmaster of this host; nobody is local here.
            _ => draft.envelope.add_recipient(&format!("postmaster@{}", self.settings.hostname)),
        };
        match added {
            Added::New | Added::Again => self.reply(reply::RECIPIENT_OK),
            Added::Full => self.reply(reply::TOO_MANY_RECIPIENTS),
        }
    }

    /// RCPT or DATA where there is no transaction, or one whose text has begun.
    pub(super) fn refuse_early(&mut self, admission: &mut Admission) {
        let has_text = matches!(self.state, State::BetweenChunks { .. });
        let text = if has_text { reply::CHUNKS_BEGAN } else { reply::MAIL_FIRST };
        self.refuse(text, admission);
    }

    /// Answers a command that brings no message nearer.
    fn idle_command(&mut self, text: &str, admission: &mut Admission) {
        self.idle_commands += 1;
        if self.idle_commands > IDLE_COMMANDS_MAX {
            self.refuse(text, admission);
        } else {
            self.reply(text);
        }
    }
}
