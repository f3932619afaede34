//! The report a sender gets when mail could not be delivered (RFC 3464 in RFC 6522).
//!
//! It is 7-bit with CRLF line ends whatever the original and the remote said, so that any host
//! takes it; and it is a function of its input, so that writing it again after a crash gives the
//! same bytes.

use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use crate::base::time::Wall;
use crate::model::message::MessageId;
use crate::model::outcome::Reply;
use crate::wire::date::MailDate;
use crate::wire::header::header_end;

/// How much of the original's header is quoted: its trace and subject fit, a bomb does not.
pub const QUOTED_BYTES_MAX: usize = 16 * 1024;
/// The longest line that RFC 5322 §2.1.1 allows, without its end.
const LINE_BYTES_MAX: usize = 998;
/// Where fields of the report are folded, if a space allows.
const FOLD_BYTES: usize = 76;

/// What a report is made of. How many recipients it can have, the original's envelope bounds.
#[derive(Clone, Debug)]
pub struct BounceReport<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// The Message-ID of the report, without angle brackets.
    pub message_id: &'a str,
    /// The MIME boundary; letters and digits. Nothing quoted can be mistaken for it.
    pub boundary: &'a str,
    /// When the report is made.
    pub date: Wall,
    /// The original, and when we took it.
    pub original: MessageId,
    pub arrived: Wall,
    /// The original's sender, to whom the report goes; never the null sender.
    pub sender: &'a str,
    pub recipients: &'a [BouncedRecipient<'a>],
    /// The original from its first byte, at least as far as it is to be quoted.
    pub content: &'a [u8],
}

/// A recipient that failed for good.
#[derive(Clone, Debug)]
pub struct BouncedRecipient<'a> {
    pub address: &'a str,
    pub reply: &'a Reply,
    /// The host that said so, where it was a host and is known.
    pub remote: Option<&'a str>,
}

/// Whether a failure is reported to `sender`. The null sender marks reports: answering one would
/// be the beginning of a loop (RFC 5321 §4.5.5).
#[must_use]
pub fn is_due(sender: &str) -> bool {
    !sender.is_empty()
}

/// The report as a message, ready for the spool; its sender is the null sender, its recipient
/// `report.sender`.
#[must_use]
pub fn build(report: &BounceReport<'_>) -> Vec<u8> {
    assert!(is_due(report.sender), "a report is never reported on");
    let kind = ContentType::new("multipart/report")
        .attribute("report-type", "delivery-status")
        .attribute("boundary", report.boundary);
    let parts = vec![
        part("text/plain; charset=us-ascii", explanation(report)),
        part("message/delivery-status", status(report)),
        part("text/rfc822-headers", quoted(report.content)),
    ];
    let message = MessageBuilder::new()
        .header("Date", Raw::new(MailDate(report.date).to_string()))
        .header(
            "From",
            Raw::new(printable(&format!(
                "Mail Delivery System <MAILER-DAEMON@{}>",
                report.hostname
            ))),
        )
        .header("To", Raw::new(printable(&format!("<{}>", report.sender))))
        .header("Subject", Raw::new("Undelivered mail returned to sender"))
        .header("Message-ID", Raw::new(printable(&format!("<{}>", report.message_id))))
        .header("Auto-Submitted", Raw::new("auto-replied"))
        .body(MimePart::new(kind, parts));
    message.write_to_vec().expect("writing to memory does not fail")
}

/// A part whose text goes out as it is: it is 7-bit already.
fn part(kind: &'static str, text: String) -> MimePart<'static> {
    MimePart::raw(BodyPart::Text(text.into()))
        .header("Content-Type", Raw::new(kind))
        .transfer_encoding("7bit")
}

fn explanation(report: &BounceReport<'_>) -> String {
    let mut text = String::new();
    write_line(&mut text, &format!("This is the mail system at {}.", report.hostname));
    write_line(&mut text, "");
    write_line(&mut text, "Your message could not be delivered to the recipients below.");
    write_line(&mut text, "It will not be tried again. The header of your message is attached.");
    for recipient in report.recipients {
        write_line(&mut text, "");
        write_line(&mut text, &format!("<{}>:", recipient.address));
        let said = recipient.remote.map_or(String::new(), |host| format!("{host} said: "));
        write_folded(&mut text, &format!("    {said}{}", recipient.reply));
    }
    text
}

/// RFC 3464 §2: fields of the message, then a block for each recipient.
fn status(report: &BounceReport<'_>) -> String {
    let mut text = String::new();
    write_folded(&mut text, &format!("Reporting-MTA: dns; {}", report.hostname));
    write_folded(&mut text, &format!("X-Postrider-Message: {}", report.original));
    write_folded(&mut text, &format!("Arrival-Date: {}", MailDate(report.arrived)));
    for recipient in report.recipients {
        write_line(&mut text, "");
        write_line(&mut text, &format!("Final-Recipient: rfc822; {}", recipient.address));
        write_line(&mut text, "Action: failed");
        write_line(&mut text, &format!("Status: {}", recipient.reply.status()));
        if let Some(remote) = recipient.remote {
            write_folded(&mut text, &format!("Remote-MTA: dns; {remote}"));
        }
        write_folded(&mut text, &format!("Diagnostic-Code: smtp; {}", recipient.reply));
    }
    text
}

/// The original's header in whole lines. A line that begins with two hyphens is left out: the
/// sender wrote it, and could have guessed the boundary.
fn quoted(content: &[u8]) -> String {
    let header = &content[..header_end(content)];
    let mut text = String::new();
    for line in header.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"--") {
            continue;
        }
        if text.len() + line.len() > QUOTED_BYTES_MAX {
            break;
        }
        write_line(&mut text, &String::from_utf8_lossy(line));
    }
    text
}

/// One line of printable ASCII, cut where no line may be longer.
fn write_line(out: &mut String, line: &str) {
    let from = out.len();
    out.push_str(&printable(line));
    out.truncate(from + LINE_BYTES_MAX.min(out.len() - from));
    out.push_str("\r\n");
}

/// One field or paragraph, folded at spaces; the lines after the first are indented.
fn write_folded(out: &mut String, text: &str) {
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if !line.trim_start().is_empty() && line.len() + word.len() > FOLD_BYTES {
            write_line(out, line.trim_end());
            line = "    ".to_owned();
        }
        line.push_str(word);
    }
    write_line(out, line.trim_end());
}

/// Nothing but printable ASCII and tabs: no byte of a stranger acts as anything but text.
fn printable(text: &str) -> String {
    let clean = |c: char| if matches!(c, ' '..='~' | '\t') { c } else { '?' };
    text.chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::SegmentSeq;
    use crate::model::outcome::Enhanced;

    fn built(recipients: &[BouncedRecipient<'_>], content: &[u8]) -> String {
        let report = BounceReport {
            hostname: "out.example.org",
            message_id: "1A-00000A.dsn@out.example.org",
            boundary: "b1A00000A",
            date: Wall(1_795_330_137_000_000_000),
            original: MessageId::new(SegmentSeq(26), 10),
            arrived: Wall(1_795_330_000_000_000_000),
            sender: "me@home.example",
            recipients,
            content,
        };
        let bytes = build(&report);
        assert_eq!(bytes, build(&report), "the same report is the same bytes");
        let text = String::from_utf8(bytes).unwrap();
        assert_is_plain(&text);
        text
    }

    /// Printable ASCII in CRLF lines of allowed length, and nothing else.
    fn assert_is_plain(text: &str) {
        let body = text.strip_suffix("\r\n").unwrap();
        for line in body.split("\r\n") {
            assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
            assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')), "{line:?}");
        }
    }

    /// The parts between the boundary lines, each with its own header.
    fn parts(text: &str) -> Vec<&str> {
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let (body, end) = body.rsplit_once("\r\n--b1A00000A--\r\n").unwrap();
        assert_eq!(end, "");
        body.split("\r\n--b1A00000A\r\n").skip(1).collect()
    }

    #[test]
    fn a_report_has_its_three_parts() {
        let unknown = Reply::remote(550, Some(Enhanced(5, 1, 1)), "no such user");
        let expired = Reply::local(554, Enhanced(5, 4, 7), "expired");
        let recipients = [
            BouncedRecipient {
                address: "a@b.example",
                reply: &unknown,
                remote: Some("mx.b.example"),
            },
            BouncedRecipient { address: "c@d.example", reply: &expired, remote: None },
        ];
        let content = b"Subject: hi\r\nFrom: me\r\n\r\nsecret body\r\n";
        let text = built(&recipients, content);
        for field in [
            "From: Mail Delivery System <MAILER-DAEMON@out.example.org>\r\n",
            "To: <me@home.example>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Message-ID: <1A-00000A.dsn@out.example.org>\r\n",
            "MIME-Version: 1.0\r\n",
            "report-type=\"delivery-status\"",
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
        let parts = parts(&text);
        assert_eq!(parts.len(), 3);
        assert!(parts[0].starts_with("Content-Type: text/plain"));
        assert!(
            parts[0].contains("<a@b.example>:\r\n    mx.b.example said: 550 5.1.1 no such user")
        );
        let status = parts[1].split_once("\r\n\r\n").unwrap();
        assert!(status.0.contains("Content-Type: message/delivery-status"));
        let blocks: Vec<&str> = status.1.split("\r\n\r\n").collect();
        assert_eq!(blocks.len(), 3);
        assert!(blocks[0].starts_with("Reporting-MTA: dns; out.example.org\r\n"));
        assert!(blocks[0].contains("\r\nArrival-Date: "));
        let first = "Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
                     Remote-MTA: dns; mx.b.example\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user";
        assert_eq!(blocks[1], first);
        assert!(blocks[2].contains("Status: 5.4.7"));
        assert!(parts[2].ends_with("\r\n\r\nSubject: hi\r\nFrom: me\r\n"));
        assert!(!text.contains("secret"));
    }

    #[test]
    fn what_strangers_wrote_stays_text() {
        let long = Reply::remote(550, None, &"word ".repeat(200));
        let recipients =
            [BouncedRecipient { address: "a@b", reply: &long, remote: Some("m\r\nX: y") }];
        let content =
            b"Subject: \xff\x1b[2J\nX: \0\r\r\n--b1A00000A\r\nContent-Type: evil\r\n\r\nbody";
        let text = built(&recipients, content);
        assert_eq!(parts(&text).len(), 3, "the boundary cannot be forged");
        assert!(!text.contains("\r\nX: y"));
        let status = parts(&text)[1].to_owned();
        assert!(status.lines().all(|line| line.len() <= FOLD_BYTES), "{status}");
    }

    #[test]
    fn a_header_without_end_is_quoted_in_part() {
        let reply = Reply::local(550, Enhanced(5, 0, 0), "no");
        let recipients = [BouncedRecipient { address: "a@b", reply: &reply, remote: None }];
        let text =
            built(&recipients, &b"X-Bomb: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(10_000));
        assert!(text.len() < QUOTED_BYTES_MAX + 4096);
        let line = [b"X: ".as_slice(), &[b'a'; 5000], b"\r\n"].concat();
        assert!(built(&recipients, &line).contains("X: aaa"));
        built(&recipients, b"");
    }

    #[test]
    fn reports_are_never_reported_on() {
        assert!(!is_due(""));
        assert!(is_due("me@home.example"));
    }
}
