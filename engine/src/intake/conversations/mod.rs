//! Whole conversations with a session, cut at every byte.

mod labels;
mod limits;
mod order;
mod text;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::time::{Mono, Now, Wall};
use crate::model::flow::Flow;
use crate::model::message::{MessageId, SegmentSeq};
use crate::wire::envelope::{EnvelopeFlags, EnvelopeView};

const HELLO: &str = "EHLO c.example\r\n";
const TO_ONE: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

/// What came out of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mail {
    sender: String,
    recipients: Vec<String>,
    flags: EnvelopeFlags,
    flow: Flow,
    text: Vec<u8>,
}

/// A shard with one session and a spool that is always at once done, unless told otherwise.
struct Bench {
    session: Session,
    admission: Admission,
    now: Now,
    replies: String,
    mails: Vec<Mail>,
    chunks: Vec<Vec<u8>>,
    abandoned: usize,
    reading: bool,
    closed: bool,
    /// What the spool answers; `None`: not yet.
    spool: Option<fn(u32) -> Stored>,
}

fn durable(ordinal: u32) -> Stored {
    Stored::Durable(MessageId::new(SegmentSeq(1), ordinal))
}

fn settings() -> IntakeSettings {
    IntakeSettings {
        hostname: "mx.example".into(),
        message_bytes: 1_000_000,
        recipients: 100,
        idle_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(600),
        flows: Vec::new(),
        classes: Vec::new(),
    }
}

impl Bench {
    fn with(settings: IntakeSettings, relay_allowed: bool) -> Self {
        let peer = "192.0.2.9:4321".parse().unwrap();
        Self::of(settings, Client { peer, listener: 2, relay_allowed, labels_trusted: false })
    }

    fn of(settings: IntakeSettings, client: Client) -> Self {
        let now = Now::default();
        let mut bench = Self {
            session: Session::new(Arc::new(settings), client, now),
            admission: Admission::new(100_000_000),
            now,
            replies: String::new(),
            mails: Vec::new(),
            chunks: Vec::new(),
            abandoned: 0,
            reading: true,
            closed: false,
            spool: Some(durable),
        };
        bench.drain();
        bench
    }

    fn new() -> Self {
        Self::with(settings(), true)
    }

    /// Past the greeting and EHLO, with the replies to them forgotten.
    fn greeted() -> Self {
        let mut bench = Self::new();
        bench.say(HELLO);
        bench.replies.clear();
        bench
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(self.now, bytes, &mut self.admission);
        self.drain();
    }

    /// The replies to `text`.
    fn say(&mut self, text: impl AsRef<[u8]>) -> String {
        let before = self.replies.len();
        self.feed(text.as_ref());
        self.replies[before..].to_owned()
    }

    fn drain(&mut self) {
        while let Some(is_stored) = self.drain_to_store() {
            let Some(answer) = self.spool.filter(|_| is_stored) else { return };
            let answer = answer(u32::try_from(self.mails.len()).unwrap());
            self.session.handle_stored(self.now, answer, &mut self.admission);
        }
    }

    /// Carries orders out; whether a message waits to be stored, `None` if all is quiet.
    fn drain_to_store(&mut self) -> Option<bool> {
        let mut is_stored = None;
        while let Some(order) = self.session.poll() {
            assert!(!self.closed, "nothing is ordered after the close");
            match order {
                Order::Reply(bytes) => self.replies.push_str(std::str::from_utf8(bytes).unwrap()),
                Order::Chunk(bytes) => {
                    assert!(bytes.len() <= CHUNK_BYTES && !bytes.is_empty());
                    self.chunks.push(bytes.to_vec());
                }
                Order::Abandon => {
                    self.abandoned += 1;
                    self.chunks.clear();
                }
                Order::Store(message) => {
                    assert!(message.body.len() <= CHUNK_BYTES + 2);
                    self.mails.push(mail(&message, std::mem::take(&mut self.chunks).concat()));
                    is_stored = Some(true);
                }
                Order::Reading(on) => self.reading = on,
                Order::Close => self.closed = true,
            }
        }
        is_stored
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono = self.now.mono.plus(Duration::from_secs(seconds));
        self.session.handle_time(self.now, &mut self.admission);
        self.drain();
    }

    fn end(&mut self) {
        self.session.handle_ended(&mut self.admission);
        assert_eq!(self.admission.used(), 0, "all that was reserved came back");
    }
}

/// The message as a reader of the spool would see it.
fn mail(message: &Message<'_>, chunks: Vec<u8>) -> Mail {
    assert_eq!(message.chunked, chunks.len() as u64);
    let mut stored = Vec::new();
    message.write_envelope(Wall(5), &mut stored);
    let (view, _) = EnvelopeView::parse(&stored).unwrap();
    assert_eq!((view.helo(), view.origin().listener), ("c.example", 2));
    Mail {
        sender: view.sender().to_owned(),
        recipients: view.recipients(0..view.count()).map(str::to_owned).collect(),
        flags: view.flags(),
        flow: view.flow(),
        text: [&chunks, message.body].concat(),
    }
}

/// Replies and mails of a stream that comes in these pieces.
fn converse(pieces: &[&[u8]]) -> (String, Vec<Mail>, bool) {
    let mut bench = Bench::new();
    pieces.iter().for_each(|piece| bench.feed(piece));
    bench.end();
    (bench.replies, bench.mails, bench.closed)
}

/// The same for a stream cut at every byte, which must change nothing.
fn converse_cut(stream: &[u8]) -> (String, Vec<Mail>, bool) {
    let whole = converse(&[stream]);
    for cut in 1..stream.len() {
        assert_eq!(converse(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(converse(&stream.chunks(1).collect::<Vec<_>>()), whole);
    whole
}

/// The codes of final reply lines.
fn codes(replies: &str) -> Vec<&str> {
    replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect()
}

fn check(stream: &str, expected: &[&str]) -> Vec<Mail> {
    let (replies, mails, _) = converse_cut([HELLO, stream].concat().as_bytes());
    assert_eq!(codes(&replies)[2..], *expected, "{stream:?}\n{replies}");
    mails
}
