//! Mail that is handed over, and mail that a host refuses.

use super::letters::{addressed, letter, slice, with_chunks};
use super::talk::{FULL, MINUTE, PLAIN, SECOND, Talk, options};
use crate::egress::letter::Letter;
use crate::egress::session::EgressOptions;
use crate::model::connection::End;
use crate::model::message::{Place, SegmentSeq};
use crate::model::settings::{OutcomeDurability, SiteSettings};

#[test]
fn one_flight_per_message_in_steady_state() {
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.gets(letter(1, 1)), ["> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r0@1> | DATA"]);
    assert_eq!(talk.gets(letter(2, 1)), [""; 0]);
    let flight = "> hi 1 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), [flight]);
    for n in 2..50 {
        let replies = "250 2.0.0 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n";
        // The next letter comes when one is done: it shares the flight of the body before it.
        let mut log = talk.hears("250 2.0.0 taken\r\n");
        assert_eq!(log, [format!("{} delivered 250 2.0.0 taken", n - 1)]);
        assert_eq!(talk.gets(letter(n + 1, 1)), [""; 0]);
        log = talk.hears(replies.split_once('\n').unwrap().1);
        let next = n + 1;
        let flight =
            format!("> hi {n} | . | MAIL FROM:<s@{next}> SIZE=6 | RCPT TO:<r0@{next}> | DATA");
        assert_eq!(log, [flight]);
    }
}

/// Plays a well-behaved conversation with the host's bytes cut at every place: the orders are
/// the same, in the same order.
#[test]
fn every_cut_of_the_replies_gives_the_same_orders() {
    let steps: [&str; 5] = [
        "220-hello\r\n220 mx\r\n",
        FULL,
        "250 ok\r\n250 2.1.5 ok\r\n550-5.1.1 no\r\n550 5.1.1 user\r\n354 go\r\n",
        "250 2.0.0 taken\r\n451 4.7.1 greylisted\r\n503 what\r\n503 what\r\n",
        "221 bye\r\n",
    ];
    let play = |step_cut: usize, at: usize| {
        let mut talk = Talk::new();
        let mut log = talk.gets(letter(1, 2));
        log.extend(talk.gets(letter(2, 1)));
        log.extend(talk.told_to_close());
        log.extend(talk.connected());
        for (step, text) in steps.iter().enumerate() {
            let cut = if step == step_cut { at } else { 0 };
            log.extend(talk.hears(&text[..cut]));
            log.extend(talk.hears(&text[cut..]));
        }
        log.extend(talk.ended(End::ByPeer));
        log
    };
    let whole = play(0, 0);
    assert_eq!(
        whole,
        [
            "> EHLO us",
            "> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r0@1> | RCPT TO:<r1@1> | DATA",
            "> hi 1 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA",
            "1 0 Delivered 250 2.0.0 taken; 1 Failed 550 5.1.1 no user",
            "2 0 Deferred 451 4.7.1 greylisted",
            "> QUIT",
            "close",
            "ended",
        ]
    );
    for (step, text) in steps.iter().enumerate() {
        for at in 0..=text.len() {
            assert_eq!(play(step, at), whole, "step {step} cut at {at}");
        }
    }
}

#[test]
fn without_pipelining_every_command_waits_for_its_reply() {
    let mut talk = Talk::open(PLAIN);
    assert_eq!(talk.gets(letter(1, 2)), ["> MAIL FROM:<s@1>"]);
    assert_eq!(talk.gets(letter(2, 1)), [""; 0]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r0@1>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r1@1>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> DATA"]);
    assert_eq!(talk.hears("354 go\r\n"), ["> hi 1 | ."]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok", "> MAIL FROM:<s@2>"]);
    assert_eq!(talk.hears("550 no\r\n"), ["2 0 Failed 550 no"]);
    assert_eq!(talk.gets(letter(3, 1)), ["> MAIL FROM:<s@3>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r0@3>"]);
    assert_eq!(talk.gets(letter(4, 1)), [""; 0]);
    assert_eq!(talk.hears("550 no\r\n"), ["3 0 Failed 550 no", "> RSET"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> MAIL FROM:<s@4>"]);
}

#[test]
fn a_go_ahead_for_nobody_gets_a_lone_dot() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    assert_eq!(talk.hears("250 ok\r\n550 no\r\n354 go\r\n"), ["> ."]);
    // Even a 250 delivers to nobody.
    assert_eq!(talk.hears("250 thanks\r\n"), ["1 0 Failed 550 no"]);
    let next = "> RSET | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.gets(letter(2, 1)), [next]);
    assert_eq!(talk.hears("250 ok\r\n552 later\r\n"), [""; 0]);
    let log = talk.hears("452 later\r\n554 no valid recipients\r\n");
    assert_eq!(log, ["2 0 Failed 552 later"]);
}

#[test]
fn a_refused_sender_or_content_is_consumed_to_its_last_reply() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 2));
    let refused = "550 5.7.1 no\r\n503 a\r\n503 b\r\n503 c\r\n";
    assert_eq!(talk.hears(refused), ["1 0 Failed 550 5.7.1 no; 1 Failed 550 5.7.1 no"]);
    assert_eq!(
        talk.gets(letter(2, 2)),
        ["> RSET | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | RCPT TO:<r1@2> | DATA"]
    );
    let data_refused = "250 ok\r\n250 ok\r\n250 ok\r\n552 5.1.1 no\r\n451 4.3.0 not now\r\n";
    assert_eq!(
        talk.hears(data_refused),
        ["2 0 Deferred 451 4.3.0 not now; 1 Deferred 552 5.1.1 no"]
    );
    talk.gets(letter(3, 1));
    assert_eq!(talk.hears("250 ok\r\n452 4.7.0 slow down\r\n"), [""; 0]);
    assert_eq!(talk.hears("503 a\r\n503 b\r\n"), ["3 throttled 452 4.7.0 slow down"]);
    assert!(talk.is_idle());
}

#[test]
fn a_message_the_host_cannot_take_is_not_tried_on_it() {
    let mut talk = Talk::open(FULL);
    let large = Letter { bytes: 1001, ..letter(1, 1) };
    let refused = "1 0 Failed 552 5.3.4 message of 1001 bytes, the host takes 1000";
    assert_eq!(talk.gets(large), [refused]);
    let eight_bit = Letter { eight_bit: true, ..letter(2, 1) };
    let mail = "> MAIL FROM:<s@2> SIZE=6 BODY=8BITMIME | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.gets(eight_bit), [mail]);
    let mut talk = Talk::open(PLAIN);
    let eight_bit = Letter { eight_bit: true, ..letter(1, 1) };
    let refused = "1 0 Failed 554 5.6.3 8-bit content, and the host does not offer 8BITMIME";
    assert_eq!(talk.gets(eight_bit), [refused]);
    let damaged = Letter { envelope: slice(b"junk"), ..letter(2, 1) };
    assert_eq!(talk.gets(damaged), ["2 unreadable"]);
    let mut short = letter(3, 1);
    short.delivery.count = 2;
    assert_eq!(talk.gets(short), ["3 unreadable"]);
}

#[test]
fn a_reset_for_a_letter_that_came_to_nothing_is_no_riddle() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n550 no\r\n554 no\r\n");
    let damaged = Letter { envelope: slice(b"junk"), ..letter(2, 1) };
    assert_eq!(talk.gets(damaged), ["> RSET", "2 unreadable"]);
    assert_eq!(talk.hears("250 ok\r\n"), [""; 0]);
    assert_eq!(talk.gets(letter(3, 1)).len(), 1);
}

#[test]
fn an_address_with_a_control_byte_fails_alone() {
    let mut talk = Talk::open(FULL);
    let evil = Letter { envelope: addressed("s@1", &["r\rRSET@1", "r1@1"]), ..letter(1, 2) };
    assert_eq!(talk.gets(evil), ["> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r1@1> | DATA"]);
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let expected = "1 0 Failed 553 5.1.3 it holds a control byte; 1 Delivered 250 ok";
    assert_eq!(talk.hears("250 ok\r\n"), [expected]);
}

#[test]
fn many_recipients_are_written_within_the_window() {
    let mut talk = Talk::open(FULL);
    let flight = talk.gets(letter(1, 300)).remove(0);
    assert_eq!(flight.matches("RCPT").count(), 127);
    assert!(!flight.contains("DATA"));
    let more = talk.hears(&"250 ok\r\n".repeat(128)).join("");
    assert_eq!(more.matches("RCPT").count(), 128);
    let rest = talk.hears(&"250 ok\r\n".repeat(128)).join("");
    assert_eq!(rest.matches("RCPT").count(), 45);
    assert!(rest.ends_with("DATA"), "{rest}");
}

#[test]
fn chunks_flow_one_at_a_time() {
    let mut talk = Talk::open(FULL);
    talk.gets(with_chunks(1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let place = |offset| Place { segment: SegmentSeq(1), offset, bytes: 70 };
    let chunk = slice(b"0123\r\n");
    talk.session.handle_chunk(talk.now, place(64), Some(&chunk));
    assert_eq!(talk.log(), ["> 0123"]);
    assert_eq!(talk.drained(), ["fetch 128"]);
    talk.session.handle_chunk(talk.now, place(128), Some(&chunk));
    assert_eq!(talk.log(), ["> 0123 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok"]);
}

#[test]
fn an_unreadable_chunk_sets_the_message_aside_and_delivers_no_half() {
    let mut talk = Talk::open(FULL);
    talk.gets(with_chunks(1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let place = Place { segment: SegmentSeq(1), offset: 64, bytes: 70 };
    talk.session.handle_chunk(talk.now, place, None);
    assert_eq!(talk.log(), ["1 unreadable", "2 not tried", "abort"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
}

#[test]
fn a_connection_carries_no_more_messages_than_it_may() {
    let settings = SiteSettings { messages_per_connection: 1, ..SiteSettings::default() };
    let (mut talk, _) = Talk::with(options(), settings, &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.greet(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), ["> hi 1 | ."]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok", "2 not tried", "> QUIT"]);
}

#[test]
fn strict_outcomes_hold_the_next_dot_and_nothing_else() {
    let strict = EgressOptions { outcomes: OutcomeDurability::Strict, ..options() };
    let (mut talk, _) = Talk::with(strict, SiteSettings::default(), &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.greet(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let log = talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(log, ["1 delivered 250 taken", "> hi 2"]);
    talk.session.handle_settled(talk.now);
    assert_eq!(talk.log(), ["> ."]);
    // A settlement that never comes is not the host's fault.
    talk.gets(letter(3, 1));
    talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(talk.waits(10 * MINUTE), ["3 not tried", "abort"]);
}

#[test]
fn work_beyond_the_window_comes_back() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.gets(letter(3, 1));
    assert_eq!(talk.gets(letter(4, 1)), ["4 not tried"]);
    talk.session.handle_unreadable(talk.now, &letter(5, 1).delivery);
    assert_eq!(talk.log(), ["5 unreadable"]);
}
