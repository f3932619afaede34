//! One client's conversation: bytes and results in, orders out, no I/O.

use std::net::SocketAddr;
use std::sync::Arc;

use super::admission::Admission;
use super::draft::Draft;
use super::reply;
use super::settings::IntakeSettings;
use crate::base::time::{Mono, Now, Wall};
use crate::model::message::MessageId;
use crate::wire::envelope::{Envelope, Origin};
use crate::wire::header::{self, Protocol, Trace};
use crate::wire::smtp::dot::Unstuffer;
use crate::wire::smtp::line::{LineReader, Taken};
use crate::wire::smtp::text::TextScan;

/// Bytes kept while a message is being stored; reading stops there, so at most one receive buffer
/// more is held. A window of pipelined commands fits many times.
pub const PENDING_BYTES_MAX: usize = 64 * 1024;
/// 5xx replies since the last stored message before the client is sent away: far more than honest
/// programs get, few enough to make probing slow. The same number as Postfix's hard limit.
const ERRORS_MAX: u32 = 20;
/// Reply bytes kept allocated between bursts; an ordinary exchange fits.
const REPLY_BYTES_KEPT: usize = 1024;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub peer: SocketAddr,
    pub listener: u16,
    /// Whether it may send to any domain: see [`super::relay_allowed`].
    pub relay_allowed: bool,
    /// Whether what its headers say of the flow counts; else they are taken out unread.
    pub labels_trusted: bool,
}

/// The server's side of one SMTP connection.
///
/// After each `handle_*`, call [`Session::poll`] until it gives `None`, then arm a timer for
/// [`Session::next_wakeup`].
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Arc<IntakeSettings>,
    pub(super) client: Client,
    pub(super) greeting: Greeting,
    pub(super) state: State,
    lines: LineReader,
    /// Bytes that arrived while a message was being stored.
    pending: Vec<u8>,
    replies: Vec<u8>,
    /// How much of `replies` was lent by the last poll.
    replies_handed: usize,
    /// When the last whole command or text came.
    pub(super) active: Mono,
    errors: u32,
    /// Commands since the last stored message that brought no message nearer.
    pub(super) idle_commands: u32,
    /// Chunks were handed out for a message that will not be.
    abandoned: bool,
    /// What the last [`Order::Reading`] said.
    is_reading: bool,
    is_stopping: bool,
}

/// How the client introduced itself.
#[derive(Debug)]
pub(super) enum Greeting {
    None,
    Known { name: Box<str>, protocol: Protocol },
}

#[derive(Debug)]
pub(super) enum State {
    /// Between messages.
    Idle,
    /// MAIL was accepted.
    Addressing(Box<Draft>),
    /// Behind 354.
    Data {
        draft: Box<Draft>,
        unstuffer: Unstuffer,
    },
    /// In the text behind a BDAT line.
    Chunk {
        draft: Box<Draft>,
        scan: TextScan,
        left: u64,
        last: bool,
    },
    /// A BDAT chunk was taken, more will come.
    BetweenChunks {
        draft: Box<Draft>,
        scan: TextScan,
    },
    /// In the text behind a BDAT line that is refused: it is eaten, never run.
    Eating {
        kept: Option<Box<Draft>>,
        left: u64,
        started: Mono,
        refusal: &'static str,
    },
    /// All of the message is here, and nobody was told.
    Complete(Box<Draft>),
    /// Waiting for [`Session::handle_stored`].
    Storing(Box<Draft>),
    /// The last reply is queued.
    Closing,
    Closed,
}

/// What became of a message that was ordered to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk, and so is every commit before it.
    Durable(MessageId),
    /// There is no room in the spool.
    Full,
    /// It could not be written, or its sync failed.
    Failed,
}

/// What the shard is to do for the session; bytes are lent until the next call of the session.
#[derive(Debug)]
pub enum Order<'a> {
    /// Send this.
    Reply(&'a [u8]),
    /// Write this piece of the present message's text, behind the pieces before it; at most
    /// [`super::CHUNK_BYTES`]. Our Received field comes before the first piece.
    Chunk(&'a [u8]),
    /// The chunks handed out so far belong to no message.
    Abandon,
    /// Store the message, then call [`Session::handle_stored`].
    Store(Message<'a>),
    /// Turn receiving on or off; it starts on.
    Reading(bool),
    /// Close once all replies are sent. The last order of a session.
    Close,
}

/// A whole message: as stored, the envelope, the Received field, the chunks in order, the body.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub envelope: &'a Envelope,
    pub trace: Trace<'a>,
    pub listener: u16,
    /// The text behind the chunks, at most [`super::CHUNK_BYTES`] and a CRLF; all of it if there
    /// are none. A text that is not empty ends with CRLF.
    pub body: &'a [u8],
    /// Bytes that were handed out as chunks.
    pub chunked: u64,
}

impl Message<'_> {
    /// Appends the stored form of the envelope.
    pub fn write_envelope(&self, accepted: Wall, out: &mut Vec<u8>) {
        let origin = Origin { peer: self.trace.peer, listener: self.listener, accepted };
        self.envelope.encode(self.trace.helo, origin, out);
    }

    /// Appends our Received field.
    pub fn write_received(&self, host: &str, id: MessageId, at: Wall, out: &mut Vec<u8>) {
        header::write_received(out, self.trace, host, id, at);
    }
}

impl Session {
    /// Begins a conversation; the greeting is its first order.
    #[must_use]
    pub fn new(settings: Arc<IntakeSettings>, client: Client, now: Now) -> Self {
        let replies = format!("220 {} ESMTP postrider\r\n", settings.hostname).into_bytes();
        Self {
            settings,
            client,
            greeting: Greeting::None,
            state: State::Idle,
            lines: LineReader::default(),
            pending: Vec::new(),
            replies,
            replies_handed: 0,
            active: now.mono,
            errors: 0,
            idle_commands: 0,
            abandoned: false,
            is_reading: true,
            is_stopping: false,
        }
    }

    /// A conversation that is over before it begins: there are connections enough.
    #[must_use]
    pub fn turned_away(settings: Arc<IntakeSettings>, client: Client, now: Now) -> Self {
        let mut session = Self::new(settings, client, now);
        session.replies.clear();
        session.reply(reply::TOO_MANY_CONNECTIONS);
        session.state = State::Closing;
        session
    }

    pub fn handle_bytes(&mut self, now: Now, bytes: &[u8], admission: &mut Admission) {
        let left = self.run(now, bytes, admission);
        if self.is_waiting() {
            self.pending.extend_from_slice(&bytes[bytes.len() - left..]);
        }
    }

    /// The answer to [`Order::Store`]: replies, and goes on with what arrived meanwhile.
    pub fn handle_stored(&mut self, now: Now, result: Stored, admission: &mut Admission) {
        // The client may have gone meanwhile; its mail is stored all the same.
        if !matches!(self.state, State::Storing(_)) {
            return;
        }
        self.discard(State::Idle, admission);
        self.active = now.mono;
        match result {
            Stored::Durable(id) => {
                (self.errors, self.idle_commands) = (0, 0);
                self.replies.extend_from_slice(reply::QUEUED_AS);
                id.append_to(&mut self.replies);
                self.replies.extend_from_slice(b"\r\n");
            }
            Stored::Full => self.reply(reply::SPOOL_FULL),
            Stored::Failed => self.reply(reply::SPOOL_FAILED),
        }
        let mut pending = std::mem::take(&mut self.pending);
        let left = self.run(now, &pending, admission);
        if self.is_waiting() {
            pending.drain(..pending.len() - left);
            self.pending = pending;
        }
    }

    pub fn handle_time(&mut self, now: Now, admission: &mut Admission) {
        if now.mono >= self.next_wakeup() {
            self.close(reply::TIMED_OUT, admission);
        }
    }

    /// The engine stops: what is being received may end, nothing more may begin.
    pub fn handle_stop(&mut self, now: Now, admission: &mut Admission) {
        self.is_stopping = true;
        self.run(now, &[], admission);
    }

    /// The connection is gone: gives back what was reserved. A message that is being stored stays;
    /// chunks of any other belong to no message, and no order says so.
    pub fn handle_ended(&mut self, admission: &mut Admission) {
        self.discard(State::Closed, admission);
        self.pending = Vec::new();
    }

    /// The next order; what the one before it lent is then taken as done with.
    pub fn poll(&mut self) -> Option<Order<'_>> {
        self.forget_handed();
        if !self.replies.is_empty() {
            self.replies_handed = self.replies.len();
            return Some(Order::Reply(&self.replies));
        }
        if std::mem::take(&mut self.abandoned) {
            return Some(Order::Abandon);
        }
        let reading = !(self.is_waiting() && self.pending.len() >= PENDING_BYTES_MAX);
        if reading != self.is_reading {
            self.is_reading = reading;
            return Some(Order::Reading(reading));
        }
        self.poll_state()
    }

    /// When [`Session::handle_time`] should be called, unless something else happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Mono {
        let idle = self.active.plus(self.settings.idle_timeout);
        let text_end = |started: Mono| started.plus(self.settings.data_timeout).min(idle);
        match &self.state {
            State::Idle | State::Addressing(_) => idle,
            State::Data { draft, .. }
            | State::Chunk { draft, .. }
            | State::BetweenChunks { draft, .. } => text_end(draft.started),
            State::Eating { started, .. } => text_end(*started),
            State::Complete(_) | State::Storing(_) | State::Closing | State::Closed => Mono::NEVER,
        }
    }

    /// Whether a message is between its MAIL and its end: a commit may be worth waiting for it.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        matches!(
            self.state,
            State::Addressing(_)
                | State::Data { .. }
                | State::Chunk { .. }
                | State::BetweenChunks { .. }
        )
    }

    /// Reads until the bytes are used up or nothing more may be read; how many are left.
    fn run(&mut self, now: Now, bytes: &[u8], admission: &mut Admission) -> usize {
        let mut rest = bytes;
        let mut lines = std::mem::take(&mut self.lines);
        loop {
            if self.is_stopping && matches!(self.state, State::Idle | State::Addressing(_)) {
                self.close(reply::STOPPING, admission);
            }
            if rest.is_empty() || self.is_waiting() {
                break;
            }
            match self.state {
                State::Data { .. } => self.receive_data(now, &mut rest, admission),
                State::Chunk { .. } => self.receive_chunk(now, &mut rest, admission),
                State::Eating { .. } => self.eat_chunk(now, &mut rest, admission),
                State::Closing | State::Closed => rest = &[],
                _ => match lines.take(&mut rest) {
                    Taken::Line(line) => self.handle_line(now, line, admission),
                    Taken::Refused(error) => self.refuse(error.reply(), admission),
                    Taken::More => {}
                },
            }
        }
        self.lines = lines;
        rest.len()
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Complete(_) | State::Storing(_))
    }

    fn forget_handed(&mut self) {
        if self.replies_handed > 0 {
            self.replies.drain(..std::mem::take(&mut self.replies_handed));
            self.replies.shrink_to(REPLY_BYTES_KEPT);
        }
        if let State::Data { draft, .. }
        | State::Chunk { draft, .. }
        | State::BetweenChunks { draft, .. }
        | State::Complete(draft) = &mut self.state
        {
            draft.forget_handed();
        }
    }

    fn poll_state(&mut self) -> Option<Order<'_>> {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Closing => return Some(Order::Close),
            State::Complete(draft) if !draft.is_chunk_due() => {
                self.state = State::Storing(draft);
                return self.message().map(Order::Store);
            }
            unchanged => unchanged,
        };
        match &mut self.state {
            State::Data { draft, .. }
            | State::Chunk { draft, .. }
            | State::BetweenChunks { draft, .. }
            | State::Complete(draft)
                if draft.is_chunk_due() =>
            {
                Some(Order::Chunk(draft.lend_chunk()))
            }
            _ => None,
        }
    }

    fn message(&self) -> Option<Message<'_>> {
        let (State::Storing(draft), Greeting::Known { name, protocol }) =
            (&self.state, &self.greeting)
        else {
            return None;
        };
        Some(Message {
            envelope: &draft.envelope,
            trace: Trace { helo: name, peer: self.client.peer, protocol: *protocol },
            listener: self.client.listener,
            body: draft.body(),
            chunked: draft.chunked(),
        })
    }

    pub(super) fn reply(&mut self, text: &str) {
        self.replies.extend_from_slice(text.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }

    /// Queues a 5xx reply, and sends the client away after too many of them.
    pub(super) fn refuse(&mut self, text: &str, admission: &mut Admission) {
        self.reply(text);
        self.errors += 1;
        if self.errors >= ERRORS_MAX {
            self.close(reply::TOO_MANY_ERRORS, admission);
        }
    }

    /// Queues the last reply.
    pub(super) fn close(&mut self, text: &str, admission: &mut Admission) {
        self.reply(text);
        self.discard(State::Closing, admission);
    }

    /// Gives up the present message, if there is one.
    pub(super) fn discard(&mut self, next: State, admission: &mut Admission) {
        let is_stored = matches!(self.state, State::Storing(_));
        let draft = match std::mem::replace(&mut self.state, next) {
            State::Addressing(draft)
            | State::Data { draft, .. }
            | State::Chunk { draft, .. }
            | State::BetweenChunks { draft, .. }
            | State::Complete(draft)
            | State::Storing(draft) => draft,
            State::Eating { kept: Some(draft), .. } => draft,
            _ => return,
        };
        self.abandoned |= draft.has_chunks() && !is_stored;
        admission.take_back(draft);
    }
}
