//! From the first host to the last word of the greeting.

use super::letters::letter;
use super::talk::{MINUTE, SECOND, TLS, Talk, options};
use crate::egress::session::EgressOptions;
use crate::model::connection::{ConnectError, End};
use crate::model::settings::{SiteSettings, TlsMode};

#[test]
fn hosts_and_addresses_are_tried_one_after_the_other() {
    let hosts: [&[&str]; 3] = [&["1.1.1.1:25", "1.1.1.2:25"], &["2.2.2.2:25"], &["3.3.3.3:25"]];
    let (mut talk, log) = Talk::with(options(), SiteSettings::default(), &hosts);
    assert_eq!(log, ["connect 1.1.1.1:25"]);
    assert_eq!(talk.gets(letter(1, 1)), [""; 0]);
    assert_eq!(talk.not_connected(ConnectError::Refused), ["connect 1.1.1.2:25"]);
    assert_eq!(talk.not_connected(ConnectError::TimedOut), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["connect 2.2.2.2:25"]);
    talk.connected();
    assert_eq!(talk.hears("554 5.7.1 go away\r\n"), ["close"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["connect 3.3.3.3:25"]);
    talk.connected();
    assert_eq!(
        talk.ended(End::ByPeer),
        ["1 not tried", "turned away 554 5.7.1 go away"],
        "a word of a host says more than the silence of another"
    );
}

#[test]
fn this_machine_running_short_ends_the_lease_at_once() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    let log = talk.not_connected(ConnectError::Local);
    assert_eq!(log[0], "1 not tried");
    assert!(log[1].starts_with("local 451 4.3.0"), "{log:?}");
}

#[test]
fn helo_is_for_hosts_that_do_not_know_ehlo() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("502 what\r\n"), ["> HELO us"]);
    assert_eq!(talk.hears("250 mx\r\n"), ["> MAIL FROM:<s@1>"]);
    let mut talk = Talk::new();
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("550 not you\r\n"), ["close"]);
    assert_eq!(talk.ended(End::ByPeer), ["turned away 550 not you"]);
}

#[test]
fn security_is_taken_where_offered_and_the_greeting_begins_anew() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears(TLS), ["> STARTTLS"]);
    assert_eq!(talk.hears("220 go\r\n"), ["secure mx0"]);
    assert_eq!(talk.secured(true), ["> EHLO us"]);
    // What was offered in clear is forgotten; a second offer of STARTTLS is not taken.
    assert_eq!(talk.hears("250-mx\r\n250 STARTTLS\r\n"), ["> MAIL FROM:<s@1>"]);
}

#[test]
fn a_failed_handshake_is_followed_by_one_connection_in_clear() {
    for trouble in 0..3 {
        let mut talk = Talk::new();
        talk.gets(letter(1, 1));
        talk.connected();
        talk.hears("220 mx\r\n");
        talk.hears(TLS);
        talk.hears("220 go\r\n");
        match trouble {
            0 => assert_eq!(talk.secured(false), ["abort"]),
            1 => assert_eq!(talk.waits(MINUTE), ["abort"]),
            _ => {}
        }
        assert_eq!(talk.ended(End::ByPeer), ["connect 1.1.1.1:25"]);
        talk.connected();
        talk.hears("220 mx\r\n");
        assert_eq!(talk.hears(TLS), ["> MAIL FROM:<s@1> | RCPT TO:<r0@1> | DATA"]);
    }
}

#[test]
fn security_refused_or_switched_off_means_in_clear() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    talk.hears(TLS);
    assert_eq!(talk.hears("454 not now\r\n"), ["> MAIL FROM:<s@1> | RCPT TO:<r0@1> | DATA"]);
    let off = EgressOptions { tls: TlsMode::Off, ..options() };
    let (mut talk, _) = Talk::with(off, SiteSettings::default(), &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears(TLS), ["ready"]);
}
