//! Where a message ends: DATA against every fake end known, and BDAT.

use super::*;

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
