//! Limits, time-outs, memory, and the spool saying no.

use super::*;

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
fn a_client_too_many_is_told_so_and_nothing_is_read() {
    let peer = "[::1]:1".parse().unwrap();
    let client = Client { peer, listener: 0, relay_allowed: true, labels_trusted: false };
    let mut bench = Bench::new();
    bench.replies.clear();
    bench.session = Session::turned_away(Arc::new(settings()), client, bench.now);
    bench.drain();
    assert_eq!((codes(&bench.replies), bench.closed), (vec!["421"], true));
    assert_eq!(bench.say(HELLO), "");
}
