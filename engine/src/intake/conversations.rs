//! Whole conversations with a session, cut at every byte.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::time::{Mono, Now, Wall};
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
    }
}

impl Bench {
    fn with(settings: IntakeSettings, relay_allowed: bool) -> Self {
        let now = Now::default();
        let client = Client { peer: "192.0.2.9:4321".parse().unwrap(), listener: 2, relay_allowed };
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

#[test]
fn an_ordinary_conversation_word_for_word() {
    let text = format!("{TO_ONE}DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n");
    let (replies, mails, closed) = converse_cut([HELLO, &text].concat().as_bytes());
    let expected = "220 mx.example ESMTP postrider\r\n\
         250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n\
         250-CHUNKING\r\n250 SIZE 1000000\r\n\
         250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n\
         250 2.0.0 Ok: queued as 1-000001\r\n221 2.0.0 Bye\r\n";
    assert_eq!(replies, expected);
    assert!(closed);
    assert_eq!(mails.len(), 1);
    assert_eq!(
        (&*mails[0].sender, &mails[0].recipients[..]),
        ("a@b.example", &["c@d.example".to_owned()][..])
    );
    assert_eq!(mails[0].text, b"Subject: x\r\n\r\n.dot\r\n");
    assert!(mails[0].flags.has(EnvelopeFlags::LEADING_DOTS));
}

#[test]
fn pipelined_replies_leave_in_one_write() {
    let mut bench = Bench::greeted();
    let text = format!("{TO_ONE}DATA\r\n");
    bench.session.handle_bytes(bench.now, text.as_bytes(), &mut bench.admission);
    let Some(Order::Reply(bytes)) = bench.session.poll() else { panic!("a reply is due") };
    assert_eq!(codes(std::str::from_utf8(bytes).unwrap()), ["250", "250", "354"]);
    assert!(bench.session.poll().is_none());
}

#[test]
fn commands_out_of_order_get_503() {
    let (replies, mails, _) = converse_cut(format!("{TO_ONE}DATA\r\nRSET\r\nQUIT\r\n").as_bytes());
    assert_eq!(codes(&replies), ["220", "503", "503", "503", "250", "221"]);
    assert!(mails.is_empty());
    check("RCPT TO:<a@b>\r\nDATA\r\n", &["503", "503"]);
    check(&format!("{TO_ONE}MAIL FROM:<>\r\nRCPT TO:<e@f>\r\n"), &["250", "250", "503", "250"]);
    check("MAIL FROM:<>\r\nDATA\r\nRCPT TO:<a@b>\r\nDATA\r\n", &["250", "554", "250", "354"]);
    check(&format!("{TO_ONE}RSET\r\nDATA\r\n"), &["250", "250", "250", "503"]);
    check(&format!("{TO_ONE}HELO c.example\r\nDATA\r\n"), &["250", "250", "250", "503"]);
    check("MAIL FROM:<bad\r\nRCPT TO:<a@b>\r\nDATA\r\n", &["501", "503", "503"]);
}

#[test]
fn other_commands_are_answered() {
    let stream = "NOOP\r\nVRFY a\r\nEXPN a\r\nHELP\r\nSTARTTLS\r\nAUTH PLAIN =\r\nXCLIENT\r\n\
                  DEBUG\r\n\r\nRSET\r\nQUIT\r\nNOOP\r\n";
    let codes = ["250", "252", "502", "214", "502", "500", "500", "500", "500", "250", "221"];
    check(stream, &codes);
}

#[test]
fn every_reply_behind_the_greeting_has_a_status_of_its_class() {
    let stream = format!(
        "{TO_ONE}RCPT TO:<x\r\nNOOP\r\nFOO\r\nMAIL FROM:<>\r\nBDAT 1\r\nxVRFY a\r\nDATA\r\nQUIT\r\n"
    );
    let replies = Bench::greeted().say(stream);
    for line in replies.lines() {
        assert_eq!(line.as_bytes()[0], line.as_bytes()[4], "{line}");
        assert_eq!(line.as_bytes()[5], b'.', "{line}");
    }
}

#[test]
fn postmaster_is_taken_and_means_ours() {
    let mails = check(
        "MAIL FROM:<>\r\nRCPT TO:<PostMaster>\r\nDATA\r\n.\r\n",
        &["250", "250", "354", "250"],
    );
    assert_eq!(mails[0].recipients, ["postmaster@mx.example"]);
    assert_eq!((&*mails[0].sender, &mails[0].text[..]), ("", &b""[..]));
}

#[test]
fn a_bare_line_end_in_a_command_stops_all_of_the_line() {
    check("MAIL FROM:<a\rb@c>\r\nNOOP\r\n", &["500", "250"]);
    check("MAIL FROM:<a@b>\rRCPT TO:<x@y>\r\nRCPT TO:<x@y>\r\n", &["500", "503"]);
    check("MAIL FROM:<a@b>\nRCPT TO:<x@y>\r\nRCPT TO:<x@y>\r\n", &["500", "503"]);
    check("NOOP\0\r\nNOOP \x7f\r\n", &["500", "500"]);
    let long = format!("NOOP {}\r\nRSET\r\n", "x".repeat(2100));
    assert_eq!(codes(&Bench::greeted().say(long)), ["500", "250"]);
}

#[test]
fn another_protocol_is_shut_out_at_once() {
    let text = "POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b>\r\n";
    let (replies, _, closed) = converse_cut(text.as_bytes());
    assert_eq!((codes(&replies), closed), (vec!["220", "421"], true));
}

/// Every fake end of data known, before and behind the dot: the message does not end there, and
/// what stands behind it is never executed.
#[test]
fn no_fake_end_of_data_ends_a_message() {
    const BEFORE: [&str; 17] = [
        "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\r\r", "\r\n\n", "\r\0\n", "\0", "\x0b", "\x0c",
        "\u{85}", "\u{2028}", "\r\n\0", "\r\n ", "\n\0", "\r\n\x08",
    ];
    let mut tried = 0;
    for before in BEFORE {
        for behind in [before, " \r\n", "\t\r\n", "\0\r\n", "\n ", "\n", "\r"] {
            let fake = format!("{before}.{behind}");
            assert!(!fake.contains("\r\n.\r\n"), "the list holds fake ends only");
            let evil = "MAIL FROM:<evil@x>\r\nRCPT TO:<v@y>\r\nDATA\r\nevil";
            let stream = format!("{HELLO}{TO_ONE}DATA\r\nbody{fake}{evil}\r\n.\r\nNOOP\r\n");
            let (replies, mails, _) = converse_cut(stream.as_bytes());
            let last = codes(&replies)[2..].to_vec();
            let is_clean = !fake.contains('\0') && !fake.replace("\r\n", "").contains(['\r', '\n']);
            let verdict = if is_clean { "250" } else { "550" };
            assert_eq!(last, ["250", "250", "354", verdict, "250"], "{fake:?}");
            assert_eq!(mails.len(), usize::from(is_clean), "{fake:?}");
            assert!(mails.iter().all(|mail| mail.text.ends_with(b"evil\r\n")));
            tried += 1;
        }
    }
    assert_eq!(tried, 17 * 7);
}

#[test]
fn nothing_is_answered_before_the_true_end() {
    for fake in ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n"] {
        let mut bench = Bench::greeted();
        bench.say(format!("{TO_ONE}DATA\r\nbody"));
        assert_eq!(bench.say(fake), "", "{fake:?}");
        assert_eq!(bench.say("QUIT\r\n"), "");
    }
}

#[test]
fn a_flawed_message_is_refused_with_its_own_code() {
    let verdict = |text: &str| {
        let replies = Bench::greeted().say(format!("{TO_ONE}DATA\r\n{text}\r\n.\r\n"));
        replies.lines().last().unwrap()[..10].trim_end().to_owned()
    };
    assert_eq!(verdict("a\nb"), "550 5.6.11");
    assert_eq!(verdict("a\rb"), "550 5.6.11");
    assert_eq!(verdict("a\0b"), "550 5.6.0");
    assert_eq!(verdict(&"x".repeat(70_000)), "554 5.6.0");
    assert_eq!(verdict(&"Received: x\r\n".repeat(100)), "250 2.0.0");
    assert_eq!(verdict(&"Received: x\r\n".repeat(101)), "554 5.4.6");
    assert_eq!(verdict(&format!("A: b\r\n\r\n{}", "Received: x\r\n".repeat(101))), "250 2.0.0");
}

#[test]
fn chunks_are_taken_byte_for_byte() {
    let mails = check(
        &format!("{TO_ONE}BDAT 6\r\nab\r\n.\rBDAT 0\r\nBDAT 9 LAST\r\n\n\r\nQUIT\r\nNOOP\r\n"),
        &["250", "250", "250", "250", "250", "250"],
    );
    assert_eq!(mails[0].text, b"ab\r\n.\r\n\r\nQUIT\r\n");
    assert!(mails[0].flags.has(EnvelopeFlags::LEADING_DOTS));
}

#[test]
fn a_chunked_message_gets_the_line_end_it_lacks() {
    let mails = check(&format!("{TO_ONE}BDAT 3 LAST\r\nabc"), &["250", "250", "250"]);
    assert_eq!(mails[0].text, b"abc\r\n");
    let mails = check(&format!("{TO_ONE}BDAT 0 LAST\r\n"), &["250", "250", "250"]);
    assert_eq!(mails[0].text, b"");
    let mails =
        check(&format!("{TO_ONE}BDAT 2\r\na\rBDAT 0 LAST\r\n"), &["250", "250", "250", "550"]);
    assert!(mails.is_empty());
}

#[test]
fn a_chunk_nobody_wants_is_eaten_and_never_run() {
    check("BDAT 14\r\nRSET\r\nQUIT\r\n\r\nNOOP\r\n", &["503", "250"]);
    check("MAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<a@b>\r\n", &["250", "554", "250"]);
    let mails = check(
        &format!("{TO_ONE}BDAT 6\r\nQU\nT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"),
        &["250", "250", "550", "503", "250"],
    );
    assert!(mails.is_empty());
}

#[test]
fn chunks_and_other_commands_do_not_mix() {
    let mails = check(
        &format!(
            "{TO_ONE}BDAT 2\r\n\r\nDATA\r\nMAIL FROM:<>\r\nRCPT TO:<e@f>\r\nNOOP\r\nBDAT 0 LAST\r\n"
        ),
        &["250", "250", "250", "503", "503", "503", "250", "250"],
    );
    assert_eq!((mails[0].recipients.len(), &mails[0].text[..]), (1, &b"\r\n"[..]));
    let stream = format!("{TO_ONE}BDAT 2\r\nabRSET\r\nBDAT 2 LAST\r\nabNOOP\r\n");
    assert!(check(&stream, &["250", "250", "250", "250", "503", "250"]).is_empty());
}

/// Where the text of such a chunk ends is unknown, so the connection goes.
#[test]
fn a_chunk_size_that_cannot_be_read_ends_the_conversation() {
    for size in ["-1", "+5", "0x10", "5.0", "", "18446744073709551616", "18446744073709551621"] {
        let stream = format!("{HELLO}{TO_ONE}BDAT {size}\r\nRSET\r\nQUIT\r\n");
        let (replies, mails, closed) = converse_cut(stream.as_bytes());
        assert_eq!((codes(&replies)[2..].to_vec(), closed), (vec!["250", "250", "501"], true));
        assert!(mails.is_empty());
    }
    for size in ["4294967301", "9223372036854775807", "9223372036854775808", "18446744073709551615"]
    {
        let mut bench = Bench::greeted();
        let replies = bench.say(format!("{TO_ONE}BDAT {size}\r\nRSET\r\nQUIT\r\n"));
        assert_eq!(codes(&replies), ["250", "250"], "all of it is text");
        bench.pass(299);
        bench.say("x");
        bench.pass(301);
        assert!(bench.closed && bench.replies.contains("421 4.4.2"));
        bench.end();
    }
}

#[test]
fn nobody_relays_without_leave() {
    let local = [
        "u@d.example",
        "u%d.example@mx.example",
        "u%d.example@[192.0.2.1]",
        "\"u@d.example\"@mx.example",
        "\"u%d.example\"@mx.example",
        "@mx.example:u@d.example",
        "@a.example,@mx.example:u@d.example",
        "u@d.example@mx.example",
        "d.example!u@mx.example",
        "d.example!u",
        "U@D.EXAMPLE",
        "u@d.example.",
        "mx.example:u@d.example",
        "u@[10.0.0.1]",
        "u@[IPv6:::1]",
        "u",
        "postmaster",
        "u@mx.example",
        "\"u\"@d.example",
        "u@localhost",
        "@mx.example:u%d.example@mx.example",
    ];
    for sender in ["<>", "<u@mx.example>", "<u@d.example>", "<postmaster@mx.example>"] {
        for recipient in local {
            let mut bench = Bench::with(settings(), false);
            bench.say(HELLO);
            assert_eq!(codes(&bench.say(format!("MAIL FROM:{sender}\r\n"))), ["250"]);
            let replies = bench.say(format!("RCPT TO:<{recipient}>\r\nDATA\r\n"));
            assert!(
                replies.starts_with("550 5.7.1") || replies.starts_with("501 5.1.3"),
                "{replies}"
            );
            assert_eq!(codes(&replies)[1], "554");
        }
    }
}

#[test]
fn recipients_beyond_the_limit_are_put_off() {
    let mut bench = Bench::with(IntakeSettings { recipients: 2, ..settings() }, true);
    bench.say(HELLO);
    let stream =
        "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@B>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n";
    let replies = bench.say(stream);
    assert_eq!(codes(&replies), ["250", "250", "250", "250", "452"]);
    assert!(replies.contains("452 4.5.3"));
    bench.say("DATA\r\n.\r\n");
    assert_eq!(bench.mails[0].recipients, ["a@b", "c@d"]);
}

#[test]
fn a_message_over_the_size_limit_is_refused_early_or_at_its_end() {
    let mut bench = Bench::with(IntakeSettings { message_bytes: 10, ..settings() }, true);
    bench.say(HELLO);
    assert!(bench.say("MAIL FROM:<> SIZE=11\r\n").starts_with("552 5.3.4"));
    assert_eq!(codes(&bench.say("MAIL FROM:<> SIZE=10\r\nRSET\r\n")), ["250", "250"]);
    let mut last =
        |text: &str| bench.say(format!("{TO_ONE}{text}")).lines().last().unwrap()[..9].to_owned();
    assert_eq!(last("DATA\r\n12345678\r\n.\r\n"), "250 2.0.0");
    assert_eq!(last("DATA\r\n..2345678\r\n.\r\n"), "250 2.0.0");
    assert_eq!(last("DATA\r\n123456789\r\n.\r\n"), "552 5.3.4");
    assert_eq!(last("BDAT 10 LAST\r\n1234567890"), "250 2.0.0");
    assert_eq!(last("BDAT 11 LAST\r\n12345678901"), "552 5.3.4");
    assert_eq!(last("BDAT 9\r\n123456789BDAT 2 LAST\r\n12"), "552 5.3.4");
    assert_eq!(bench.mails.len(), 3);
    bench.end();
}

#[test]
fn too_many_errors_end_the_conversation() {
    let mut bench = Bench::greeted();
    let replies = bench.say("FOO\r\n".repeat(50));
    assert_eq!(replies.matches("500 ").count(), 20);
    assert!(replies.ends_with("421 4.7.0 Too many errors, closing connection\r\n") && bench.closed);
    let mut bench = Bench::greeted();
    for _ in 0..3 {
        bench.say("FOO\r\n".repeat(19));
        bench.say(format!("{TO_ONE}DATA\r\n.\r\n"));
    }
    assert!(!bench.closed, "a stored message starts the count anew");
    assert_eq!(codes(&bench.say("NOOP\r\n".repeat(900))).len(), 121);
    assert!(bench.closed);
}

#[test]
fn a_silent_client_is_sent_away() {
    let mut bench = Bench::greeted();
    bench.pass(299);
    assert!(!bench.closed);
    bench.say("NO");
    bench.pass(1);
    assert!(bench.closed, "half a command is no activity");
    assert!(bench.replies.ends_with("421 4.4.2 Timeout, closing connection\r\n"));
    assert_eq!(bench.session.next_wakeup(), Mono::NEVER);
}

#[test]
fn slow_text_has_an_end() {
    for start in ["DATA\r\n", "BDAT 1000\r\n", "BDAT 1\r\nx"] {
        let mut bench = Bench::greeted();
        bench.say(format!("{TO_ONE}{start}"));
        for _ in 0..5 {
            bench.pass(119);
            assert!(!bench.closed);
            bench.say(if start.ends_with('x') { "NOOP\r\n" } else { "x" });
        }
        bench.pass(5);
        assert!(bench.closed && bench.replies.contains("421 4.4.2"), "{start}");
        bench.end();
    }
}

#[test]
fn nothing_is_parsed_while_a_message_is_stored() {
    let mut bench = Bench::greeted();
    bench.spool = None;
    let replies = bench.say(format!("{TO_ONE}DATA\r\n.\r\nNOOP\r\n{TO_ONE}"));
    assert_eq!(codes(&replies), ["250", "250", "354"]);
    assert_eq!(bench.say("DATA\r\nx\r\n.\r\nQUIT\r\n"), "");
    bench.pass(1000);
    assert!(!bench.closed, "our own slowness is no fault of the client");
    bench.spool = Some(durable);
    bench.session.handle_stored(bench.now, durable(7), &mut bench.admission);
    bench.replies.clear();
    bench.drain();
    assert_eq!(codes(&bench.replies), ["250", "250", "250", "250", "354", "250", "221"]);
    assert!(bench.replies.starts_with("250 2.0.0 Ok: queued as 1-000007\r\n"));
    assert_eq!(bench.mails.len(), 2);
}

#[test]
fn reading_stops_when_enough_is_pending() {
    let mut bench = Bench::greeted();
    bench.spool = None;
    bench.say(format!("{TO_ONE}BDAT 0 LAST\r\n"));
    for _ in 0..PENDING_BYTES_MAX / 6 {
        bench.feed(b"NOOP\r\n");
    }
    assert!(bench.reading);
    bench.feed(b"NOOP\r\n");
    assert!(!bench.reading);
    bench.session.handle_stored(bench.now, durable(1), &mut bench.admission);
    bench.drain();
    assert!(bench.reading);
}

#[test]
fn what_could_not_be_stored_is_put_off() {
    for (answer, text) in [
        ((|_| Stored::Full) as fn(u32) -> Stored, "452 4.3.1 Insufficient system storage\r\n"),
        (|_| Stored::Failed, "452 4.3.1 Write error, the message was not taken\r\n"),
    ] {
        let mut bench = Bench::greeted();
        bench.spool = Some(answer);
        assert!(bench.say(format!("{TO_ONE}DATA\r\n.\r\n")).ends_with(text));
        assert_eq!(bench.admission.used(), 0);
    }
}

#[test]
fn without_room_mail_is_put_off_before_it_begins() {
    let mut bench = Bench::greeted();
    bench.admission.set_spool_open(false);
    assert_eq!(codes(&bench.say(format!("{TO_ONE}DATA\r\n"))), ["452", "503", "503"]);
    bench.admission.set_spool_open(true);
    bench.admission.set_limit(1000);
    assert_eq!(codes(&bench.say(TO_ONE)), ["452", "503"]);
    bench.admission.set_limit(16 * 1024);
    assert_eq!(codes(&bench.say(TO_ONE)), ["250", "250"]);
    bench.end();
}

fn big_text(bytes: usize) -> String {
    (0..)
        .map(|line| format!("..line {line}\r\n"))
        .scan(0, |sum, line| {
            *sum += line.len();
            (*sum < bytes).then_some(line)
        })
        .collect()
}

#[test]
fn large_text_leaves_in_chunks() {
    let text = big_text(900_000);
    let plenty = 100_000_000;
    for (limit, piece) in [(plenty, 4096), (plenty, 65_536), (plenty, 1_000_000), (20_000, 4096)] {
        let mut bench = Bench::greeted();
        bench.admission.set_limit(limit);
        bench.say(format!("{TO_ONE}DATA\r\n"));
        let wire = format!("{text}.\r\n");
        for part in wire.as_bytes().chunks(piece) {
            bench.feed(part);
            // A chunk's worth rounded up, or the whole budget; and one receive.
            let bound = limit.min(CHUNK_BYTES as u64 + 16 * 1024) + piece as u64;
            assert!(bench.admission.used() <= bound, "{} > {bound}", bench.admission.used());
        }
        assert_eq!(bench.mails[0].text, text.replace("\r\n..", "\r\n.").as_bytes()[1..]);
        assert_eq!((bench.admission.used(), bench.abandoned), (0, 0));
    }
}

#[test]
fn chunks_of_a_message_that_fails_are_abandoned() {
    let text = big_text(600_000);
    for end in ["\n\r\n.\r\n", "", "stop"] {
        let mut bench = Bench::greeted();
        bench.say(format!("{TO_ONE}DATA\r\n"));
        text.as_bytes().chunks(10_000).for_each(|part| bench.feed(part));
        assert!(!bench.chunks.is_empty());
        match end {
            "" => bench.pass(301),
            end => bench.feed(format!("\n{end}\r\n.\r\n").as_bytes()),
        }
        assert_eq!((bench.abandoned, bench.mails.len()), (1, 0));
        assert_eq!(bench.admission.used(), 0);
    }
}

#[test]
fn a_stop_lets_text_end_and_nothing_begin() {
    let stop = |bench: &mut Bench| {
        bench.session.handle_stop(bench.now, &mut bench.admission);
        bench.drain();
    };
    for start in ["", "MAIL FROM:<>\r\n", TO_ONE, "NO"] {
        let mut bench = Bench::greeted();
        bench.say(start);
        stop(&mut bench);
        assert!(
            bench.closed
                && bench.replies.ends_with("421 4.3.2 Shutting down, closing connection\r\n")
        );
    }
    for (start, end) in
        [("DATA\r\n", ".\r\n"), ("BDAT 1\r\nx", "BDAT 0 LAST\r\n"), ("BDAT 1 LAST\r\n", "x")]
    {
        let mut bench = Bench::greeted();
        bench.say(format!("{TO_ONE}{start}"));
        stop(&mut bench);
        assert!(!bench.closed);
        let replies = bench.say(format!("{end}{TO_ONE}"));
        assert_eq!(codes(&replies), ["250", "421"], "{start}");
        assert_eq!((bench.mails.len(), bench.closed), (1, true));
    }
}

#[test]
fn a_client_that_leaves_takes_nothing_with_it() {
    for start in ["MAIL FROM:<>\r\n", "MAIL FROM:<>\r\nBDAT 5\r\n", "DATA\r\nx", "BDAT 5\r\n"] {
        let mut bench = Bench::greeted();
        bench.say(format!("{TO_ONE}{start}"));
        bench.end();
    }
    let mut bench = Bench::greeted();
    bench.spool = None;
    bench.say(format!("{TO_ONE}DATA\r\n.\r\n"));
    bench.end();
    bench.session.handle_stored(bench.now, durable(1), &mut bench.admission);
    assert_eq!(bench.admission.used(), 0);
}

#[test]
fn is_receiving_spans_mail_to_end() {
    let mut bench = Bench::greeted();
    bench.spool = None;
    assert!(!bench.session.is_receiving());
    bench.say(TO_ONE);
    assert!(bench.session.is_receiving());
    bench.say("DATA\r\n");
    assert!(bench.session.is_receiving());
    bench.say(".\r\n");
    assert!(!bench.session.is_receiving());
}

fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(
        &[
            "EHLO c.example\r\n",
            "HELO c.example\r\n",
            "MAIL FROM:<a@b>\r\n",
            "MAIL FROM:<> SIZE=9\r\n",
            "RCPT TO:<c@d>\r\n",
            "RCPT TO:<e@f>\r\n",
            "DATA\r\n",
            "BDAT 3\r\n",
            "BDAT 4 LAST\r\n",
            "BDAT 0 LAST\r\n",
            "BDAT x\r\n",
            "RSET\r\n",
            "NOOP\r\n",
            ".\r\n",
            "text\r\n",
            "..\r\n",
            "\r",
            "\n",
            ".",
            "\0",
            "x",
            "\u{fc}",
            "\r\n.\r\n",
            "QUIT\r\n",
        ][..],
    );
    let start = prop::sample::select(
        &["", HELLO, "EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"][..],
    );
    (start, prop::collection::vec(fragment, 0..25))
        .prop_map(|(start, all)| [start, &all.concat()].concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_cut_changes_a_conversation(stream in fragments(), cuts in prop::collection::vec(0usize..300, 0..6)) {
        let whole = converse(&[&stream]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.min(&stream.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        prop_assert_eq!(&converse(&pieces), &whole);
        for mail in &whole.1 {
            prop_assert!(mail.text.is_empty() || mail.text.ends_with(b"\r\n"));
            let text = String::from_utf8_lossy(&mail.text).replace("\r\n", "");
            prop_assert!(!text.contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn no_bytes_make_a_session_panic(stream in prop::collection::vec(any::<u8>(), 0..400)) {
        converse(&stream.chunks(37).collect::<Vec<_>>());
    }
}
