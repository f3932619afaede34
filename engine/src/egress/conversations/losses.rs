//! Conversations that end before their time: whom it costs, and when the permit is free.

use super::letters::letter;
use super::talk::{FULL, MINUTE, SECOND, Talk};
use crate::model::connection::End;

#[test]
fn a_lost_connection_costs_only_the_message_under_way() {
    let lost = |n: u32| format!("{n} 0 Deferred 451 4.4.2 mx0[1.1.1.1]: connection lost");
    let unreachable = "unreachable 451 4.4.2 mx0[1.1.1.1]: connection lost";
    let replies = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"];
    for before in replies {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.gets(letter(2, 1));
        talk.hears(before);
        assert_eq!(talk.ended(End::ByPeer), [&lost(1), "2 not tried", unreachable], "{before}");
    }
    // Behind one that was taken, the next one had said nothing yet: it was not its turn.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.hears("250 taken\r\n");
    assert_eq!(talk.ended(End::ByPeer), ["2 not tried", "ended"]);
    // Once answered, it was.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(talk.ended(End::ByPeer), [&lost(2), "ended"]);
}

#[test]
fn a_refusal_given_before_the_loss_stands() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 2));
    talk.hears("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    let log = talk.ended(End::ByPeer);
    let lost = "451 4.4.2 mx0[1.1.1.1]: connection lost";
    assert_eq!(log[0], format!("1 0 Failed 550 no; 1 Deferred {lost}"));
}

#[test]
fn a_421_at_any_point_throttles_the_message_under_way() {
    let replies = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"];
    for before in replies {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.gets(letter(2, 1));
        talk.hears(before);
        let log = talk.hears("421 4.7.0 slow\r\n");
        assert_eq!(log, ["1 throttled 421 4.7.0 slow", "2 not tried", "close"], "{before}");
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("421 idle\r\n"), ["close"]);
    assert_eq!(talk.ended(End::ByPeer), ["turned away 421 idle"]);
}

#[test]
fn the_permit_is_free_only_when_the_peer_has_ended_or_cannot_count_us() {
    let finish = |how| {
        let mut talk = Talk::open(FULL);
        assert_eq!(talk.told_to_close(), ["> QUIT"]);
        assert_eq!(talk.hears("221 bye\r\n"), ["close"]);
        (talk.ended(how), talk)
    };
    assert_eq!(finish(End::ByPeer).0, ["ended"]);
    let (log, mut talk) = finish(End::Unknown);
    assert_eq!(log, [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
    assert_eq!(talk.gets(letter(9, 1)), ["9 not tried"]);
    // No answer to QUIT.
    let mut talk = Talk::open(FULL);
    talk.told_to_close();
    assert_eq!(talk.waits(5 * SECOND), ["abort"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
    // An answer to QUIT, and then no end.
    let mut talk = Talk::open(FULL);
    talk.told_to_close();
    assert_eq!(talk.hears("221 bye\r\n"), ["close"]);
    assert_eq!(talk.waits(5 * SECOND), ["abort"]);
}

#[test]
fn every_stage_has_a_total_deadline_that_bytes_do_not_move() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.now.mono = talk.now.mono.plus(MINUTE);
    assert_eq!(talk.hears("22"), [""; 0]);
    assert_eq!(talk.waits(4 * MINUTE), ["abort"]);

    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.hears("2");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.hears("5");
    assert!(talk.waits(3 * MINUTE)[0].contains("no reply to a command in time"));

    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n");
    assert!(talk.waits(2 * MINUTE)[0].contains("no reply to DATA in time"));

    // A peer that does not read: the content's own deadline.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    let mut other = talk;
    assert!(other.waits(9 * MINUTE)[0].contains("the message was not taken in time"));

    // From the dot on, that of its reply.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.drained();
    let log = talk.waits(10 * MINUTE);
    assert!(log[0].contains("1 0 Deferred 451 4.4.2"), "{log:?}");
    assert!(log[0].contains("no reply to the message in time"));
}
