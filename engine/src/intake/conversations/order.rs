//! What may be said when, and that no cut of the stream changes what is answered.

use proptest::prelude::*;

use super::*;

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
