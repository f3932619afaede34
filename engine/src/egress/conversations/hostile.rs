//! Hosts that say what no host should: nothing is believed, and nothing is left hanging.

use std::time::Duration;

use super::letters::{letter, with_chunks};
use super::talk::{FULL, MINUTE, TLS, Talk};
use crate::model::connection::End;

/// Hostile words where no mail is at stake: they end the conversation and nothing else.
#[test]
fn hostile_replies_to_reset_and_quit_cost_no_attempt() {
    for reply in ["junk\r\n", "550 no\r\n", "354 go\r\n"] {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.hears("250 ok\r\n550 no\r\n554 no\r\n");
        talk.gets(letter(2, 1));
        assert_eq!(talk.hears(reply), ["2 not tried", "abort"]);
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
    for (reply, end) in [("junk\r\n", "abort"), ("550 no\r\n", "close"), ("421 x\r\n", "close")] {
        let mut talk = Talk::open(FULL);
        talk.told_to_close();
        assert_eq!(talk.hears(reply), [end]);
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
}

#[test]
fn nothing_injected_behind_starttls_is_believed() {
    for injected in ["250 x\r\n", "2", "\x16\x03"] {
        let mut talk = Talk::new();
        talk.gets(letter(1, 1));
        talk.connected();
        talk.hears("220 mx\r\n");
        talk.hears(TLS);
        assert_eq!(talk.hears(&format!("220 go\r\n{injected}")), ["abort"], "{injected:?}");
        let log = talk.ended(End::ByPeer);
        let why = "unreachable 451 4.5.0 mx0[1.1.1.1]: input behind the reply to STARTTLS";
        assert_eq!(log, ["1 not tried", why]);
    }
    let mut talk = Talk::new();
    talk.connected();
    talk.hears("220 mx\r\n");
    talk.hears(TLS);
    talk.hears("220 go\r\n");
    assert_eq!(talk.hears("250 late\r\n"), ["abort"]);
}

/// What each hostile answer at each stage leads to; nothing is left hanging or half believed.
#[test]
fn hostile_replies_end_the_conversation() {
    let endless = "250-more\r\n".repeat(1000);
    let long = "2".repeat(100_000);
    let bad = [
        "25\r\n",
        "2500 x\r\n",
        "abc\r\n",
        "999 x\r\n",
        "000 x\r\n",
        "199 x\r\n",
        "\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
        "\x15\x03\x01\x00\x02",
        "250-a\r\n251 b\r\n",
        &endless,
        &long,
        "334 x\r\n",
    ];
    let stages = [
        vec![],
        vec!["220 mx\r\n"],
        vec!["220 mx\r\n", FULL],
        vec!["220 mx\r\n", FULL, "250 ok\r\n"],
        vec!["220 mx\r\n", FULL, "250 ok\r\n", "250 ok\r\n"],
        vec!["220 mx\r\n", FULL, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
    ];
    for (stage, before) in stages.iter().enumerate() {
        for reply in bad {
            let mut talk = Talk::new();
            talk.gets(letter(1, 1));
            talk.gets(letter(2, 1));
            talk.connected();
            before.iter().for_each(|text| drop(talk.hears(text)));
            let mut log = talk.hears(reply);
            if log.is_empty() {
                // A line that has not ended: the deadline ends it.
                log = talk.waits(patience(stage));
            }
            log.extend(talk.ended(End::ByPeer));
            let shown = &reply[..reply.len().min(40)];
            assert_eq!(log.iter().filter(|line| *line == "abort").count(), 1, "{stage} {shown:?}");
            assert!(log.iter().any(|line| line == "2 not tried"), "{stage} {shown:?} {log:?}");
            let first = if stage < 2 { "1 not tried" } else { "1 0 Deferred 451 4." };
            assert!(log.iter().any(|line| line.starts_with(first)), "{stage} {shown:?} {log:?}");
            assert!(log.last().unwrap().starts_with("unreachable 451 4."), "{log:?}");
        }
    }
}

/// How long the reply after so many others may take (RFC 5321, section 4.5.3.2).
fn patience(stage: usize) -> Duration {
    match stage {
        0..4 => 5 * MINUTE,
        4 => 2 * MINUTE,
        _ => 10 * MINUTE,
    }
}

#[test]
fn replies_sent_blindly_are_not_believed() {
    // With the greeting.
    let mut talk = Talk::new();
    talk.connected();
    assert_eq!(talk.hears("220 mx\r\n250 mx\r\n"), ["> EHLO us", "abort"]);
    // Half of one.
    let mut talk = Talk::new();
    talk.connected();
    assert_eq!(talk.hears("220 mx\r\n25"), ["> EHLO us", "abort"]);
    // While idle, whole and in part.
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("250 ok\r\n"), ["abort"]);
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("25"), [""; 0]);
    assert_eq!(talk.gets(letter(1, 1)), ["1 not tried", "abort"]);
    // A 250 for the content together with the 354, before the content was sent.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    let log = talk.hears("250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n");
    assert_eq!(log[0], "> hi 1 | .");
    assert!(log[1].starts_with("1 0 Deferred 451 4.5.0"), "{log:?}");
    // One reply too many puts the next transaction out of step, and is found there.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let log = talk.hears("250 taken\r\n250 extra\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(log[0], "1 delivered 250 taken");
    assert!(log[1].starts_with("2 0 Deferred 451 4.5.0"), "{log:?}");
}

#[test]
fn a_reply_in_the_middle_of_the_content_delivers_nothing() {
    for (reply, result) in
        [("250 ok\r\n", "1 0 Deferred 451 4.5.0"), ("421 x\r\n", "1 throttled 421 x")]
    {
        let mut talk = Talk::open(FULL);
        talk.gets(with_chunks(1));
        assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), ["> head", "fetch 64"]);
        assert!(talk.hears(reply)[0].starts_with(result), "{reply}");
    }
}
