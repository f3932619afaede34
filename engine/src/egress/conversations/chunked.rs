//! Messages that go as one chunk, and those that do not.

use super::letters::{letter, slice, with_chunks};
use super::talk::{MINUTE, Talk, options};
use crate::egress::letter::{BodyPart, Letter};
use crate::egress::session::EgressOptions;
use crate::model::connection::End;
use crate::model::settings::{OutcomeDurability, SiteSettings};

const CHUNKS: &str = "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE\r\n";

fn with_content(n: u32, content: &[&[u8]]) -> Letter {
    let parts = content.iter().map(|part| BodyPart::Inline(slice(part))).collect();
    let bytes = content.iter().map(|part| part.len() as u64).sum();
    Letter { parts, bytes, dot_lines: true, ..letter(n, 1) }
}

fn opened(options: EgressOptions, settings: SiteSettings, ehlo: &str) -> Talk {
    let (mut talk, _) = Talk::with(options, settings, &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.greet(ehlo);
    talk
}

#[test]
fn a_small_message_is_one_flight_and_nothing_follows_it_unanswered() {
    let mut talk = Talk::open(CHUNKS);
    let flight =
        |n: u32| format!("> MAIL FROM:<s@{n}> SIZE=6 | RCPT TO:<r0@{n}> | BDAT 6 LAST | hi {n}");
    assert_eq!(talk.gets(letter(1, 1)), [flight(1)]);
    for n in 1..8 {
        assert_eq!(talk.gets(letter(n + 1, 1)), [""; 0]);
        talk.drained();
        assert_eq!(talk.hears("250 ok\r\n250 ok\r\n"), [""; 0]);
        let delivered = format!("{n} delivered 250 2.0.0 taken");
        assert_eq!(talk.hears("250 2.0.0 taken\r\n"), [delivered, flight(n + 1)]);
    }
}

#[test]
fn every_cut_of_the_replies_gives_the_same_orders() {
    let replies = "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250-2.0.0 it is\r\n250 2.0.0 taken\r\n";
    for at in 0..=replies.len() {
        let mut talk = Talk::open(CHUNKS);
        talk.gets(letter(1, 2));
        let mut log = talk.hears(&replies[..at]);
        log.extend(talk.hears(&replies[at..]));
        let expected = "1 0 Delivered 250 2.0.0 it is taken; 1 Failed 550 5.1.1 no";
        assert_eq!(log, [expected], "cut at {at}");
    }
}

#[test]
fn content_goes_as_it_lies_and_ends_a_line() {
    let mut talk = Talk::open(CHUNKS);
    let log = talk.gets(with_content(1, &[b".a\r\n", b".", b"b\r"]));
    assert_eq!(log, ["> MAIL FROM:<s@1> SIZE=7 | RCPT TO:<r0@1> | BDAT 8 LAST | .a | .b"]);
    talk.hears("250 ok\r\n250 ok\r\n250 ok\r\n");
    let log = talk.gets(with_content(2, &[b"a"]));
    assert_eq!(log, ["> MAIL FROM:<s@2> SIZE=1 | RCPT TO:<r0@2> | BDAT 3 LAST | a"]);
    talk.hears("250 ok\r\n250 ok\r\n250 ok\r\n");
    let log = talk.gets(with_content(3, &[]));
    assert_eq!(log, ["> MAIL FROM:<s@3> SIZE=0 | RCPT TO:<r0@3> | BDAT 0 LAST"]);
}

/// What a host holds after it refused a chunk is not told.
#[test]
fn every_refusal_is_followed_by_a_reset() {
    for (replies, result) in [
        ("550 5.7.1 no\r\n503 a\r\n503 b\r\n", "1 0 Failed 550 5.7.1 no"),
        ("250 ok\r\n550 5.1.1 no\r\n554 b\r\n", "1 0 Failed 550 5.1.1 no"),
        ("250 ok\r\n550 5.1.1 no\r\n503 b\r\n", "1 0 Failed 550 5.1.1 no"),
        ("250 ok\r\n250 ok\r\n552 5.3.4 b\r\n", "1 0 Failed 552 5.3.4 b"),
        ("250 ok\r\n250 ok\r\n451 4.3.0 b\r\n", "1 0 Deferred 451 4.3.0 b"),
        ("250 ok\r\n250 ok\r\n451 4.7.0 slow down\r\n", "1 throttled 451 4.7.0 slow down"),
    ] {
        let mut talk = Talk::open(CHUNKS);
        talk.gets(letter(1, 1));
        assert_eq!(talk.hears(replies), [result]);
        let flight = "> RSET | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | BDAT 6 LAST | hi 2";
        assert_eq!(talk.gets(letter(2, 1)), [flight], "{replies}");
    }
    // A host that thanks for nothing delivers to nobody.
    let mut talk = Talk::open(CHUNKS);
    talk.gets(letter(1, 1));
    assert_eq!(talk.hears("250 ok\r\n550 no\r\n250 thanks\r\n"), ["1 0 Failed 550 no"]);
    assert!(talk.gets(letter(2, 1))[0].starts_with("> RSET"));
}

#[test]
fn a_host_that_does_not_know_chunks_refuses_no_message_by_that() {
    for reply in ["500 a\r\n", "501 a\r\n", "502 a\r\n", "503 a\r\n", "504 a\r\n", "354 a\r\n"] {
        let mut talk = Talk::open(CHUNKS);
        talk.gets(letter(1, 1));
        let log = talk.hears(&format!("250 ok\r\n250 ok\r\n{reply}"));
        assert!(log[0].starts_with("1 0 Deferred 451 4.5.0"), "{log:?}");
        assert_eq!(log[1], "abort");
    }
}

#[test]
fn what_is_no_chunk_goes_by_data() {
    let by_data = |talk: &mut Talk, letter: Letter| {
        let log = talk.gets(letter);
        assert!(log[0].ends_with("| DATA"), "{log:?}");
    };
    let mut again = letter(1, 1);
    again.delivery.attempts = 1;
    by_data(&mut Talk::open(CHUNKS), again);
    by_data(&mut Talk::open(CHUNKS), with_chunks(1));
    let largest = with_content(1, &[&vec![b'x'; 65_536]]);
    assert!(!Talk::open(CHUNKS).gets(largest)[0].contains("DATA"));
    by_data(&mut Talk::open(CHUNKS), with_content(1, &[&vec![b'x'; 65_536], b"x"]));
    let strict = EgressOptions { outcomes: OutcomeDurability::Strict, ..options() };
    by_data(&mut opened(strict, SiteSettings::default(), CHUNKS), letter(1, 1));
    let switched_off = SiteSettings { chunking: false, ..SiteSettings::default() };
    by_data(&mut opened(options(), switched_off, CHUNKS), letter(1, 1));
    let mut talk = Talk::open("250-mx\r\n250 CHUNKING\r\n");
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n");
    assert_eq!(talk.hears("250 ok\r\n"), ["> DATA"]);
}

#[test]
fn a_connection_lost_behind_a_chunk_costs_that_message_an_attempt() {
    let lost = "1 0 Deferred 451 4.4.2 mx0[1.1.1.1]: connection lost";
    for before in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n"] {
        let mut talk = Talk::open(CHUNKS);
        talk.gets(letter(1, 1));
        talk.gets(letter(2, 1));
        talk.hears(before);
        assert_eq!(talk.ended(End::ByPeer)[..2], [lost, "2 not tried"], "{before}");
    }
    // Hosts close idle connections while we begin to write. But this one may have taken it.
    let mut talk = Talk::open(CHUNKS);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n250 taken\r\n");
    talk.gets(letter(2, 1));
    talk.gets(letter(3, 1));
    assert_eq!(talk.ended(End::ByPeer), ["2 unheard", "3 not tried", "ended"]);
}

#[test]
fn a_chunk_has_the_deadlines_of_a_body_and_of_its_dot() {
    let opened = || {
        let mut talk = Talk::open(CHUNKS);
        talk.gets(letter(1, 1));
        talk
    };
    assert!(opened().waits(5 * MINUTE)[0].contains("no reply to a command in time"));
    let mut unread = opened();
    unread.hears("250 ok\r\n250 ok\r\n");
    assert!(unread.waits(10 * MINUTE)[0].contains("the message was not taken in time"));
    let mut silent = opened();
    silent.hears("250 ok\r\n250 ok\r\n");
    silent.now.mono = silent.now.mono.plus(MINUTE);
    silent.drained();
    assert!(silent.waits(10 * MINUTE)[0].contains("no reply to the message in time"));
}
