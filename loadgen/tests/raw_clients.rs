//! Clients written out by hand against the sink: what it must notice, and count to the one.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use postrider_loadgen::ledger::{AckLedger, Outcome, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::message::Composer;
use postrider_loadgen::sink::{Behaviour, Sink, SinkPlan};

const ENVELOPE: &str = "MAIL FROM:<a@b.test>\r\nRCPT TO:<u5-0@d.test>\r\n";

struct Client {
    replies: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and waits for the banner.
    fn connect(sink: &Sink) -> (Self, String) {
        let stream = TcpStream::connect(sink.hosts()[0].address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self { replies: BufReader::new(stream) };
        let banner = client.reply();
        (client, banner)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.replies.get_mut().write_all(bytes).unwrap();
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        if line.get(3..4) == Some("-") { self.reply() } else { line }
    }

    fn codes(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.reply()[..3].to_owned()).collect()
    }

    /// Waits until the sink has closed its side.
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.replies.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

fn sink() -> Sink {
    Sink::start(SinkPlan::new(loopback_hosts(1).unwrap())).unwrap()
}

/// The stuffed text of message 5 of run 1, with its final dot.
fn text() -> Vec<u8> {
    let mut text = Vec::new();
    Composer::new(1, 1, "a@b.test", 4096).unwrap().write(&mut text, 5, 1, 0);
    text
}

fn send_text(client: &mut Client, text: &[u8]) {
    client.send(format!("{ENVELOPE}DATA\r\n").as_bytes());
    assert_eq!(client.codes(3), ["250", "250", "354"]);
    client.send(text);
    assert_eq!(client.codes(1), ["250"]);
}

#[test]
fn a_flipped_byte_is_noticed_wherever_it_is() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    let intact = text();
    let body_at = intact.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    // In the run of the token, in a header of the source, in the body.
    let places = [20, body_at - 20, body_at + 1000];
    for (index, at) in places.into_iter().enumerate() {
        let mut changed = intact.clone();
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        send_text(&mut client, &changed);
        assert_eq!(sink.progress().messages, index as u64 + 1);
    }
    send_text(&mut client, &intact);
    let report = sink.stop();
    assert_eq!(report.arrivals.corrupted, 3, "{:?}", report.arrivals.explanations);
    assert_eq!(report.arrivals.explanations.len(), 3);
    assert_eq!(report.arrivals.count(5, 0), 4);
}

#[test]
fn headers_added_above_the_mark_are_no_corruption() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    let mut relayed = b"Received: from a\r\n\tby b; now\r\nDKIM-Signature: v=1\r\n".to_vec();
    relayed.extend_from_slice(&text());
    send_text(&mut client, &relayed);
    send_text(&mut client, b"Subject: a bounce\r\n\r\nX-Loadgen: not a header\r\n.\r\n");
    let arrivals = sink.stop().arrivals;
    assert_eq!((arrivals.corrupted, arrivals.unmarked, arrivals.count(5, 0)), (0, 1, 1));
}

#[test]
fn a_report_names_the_recipients_that_bounced() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    send_text(
        &mut client,
        b"From: <>\r\n\r\nFinal-Recipient: rfc822; u5-0@d.test\r\nAction: failed\r\n.\r\n",
    );
    let mut acknowledged = AckLedger::default();
    acknowledged.record(5, 0, Outcome::Acknowledged);
    let verdict = compare(&acknowledged, &sink.stop().arrivals);
    assert_eq!((verdict.bounced, verdict.lost, verdict.unmarked), (1, 0, 1), "{verdict}");
}

#[test]
fn a_message_under_a_wrong_envelope_is_corrupted() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<u6-0@d.test>\r\nDATA\r\n");
    client.codes(3);
    client.send(&text());
    assert_eq!(client.codes(1), ["250"]);
    assert_eq!(sink.stop().arrivals.corrupted, 1);
}

#[test]
fn bare_line_ends_are_counted_and_end_nothing() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    send_text(&mut client, b"A: b\r\n\r\nx\n.\nMAIL FROM:<evil@b.test>\r\n\0\r\n.\r\n");
    let report = sink.stop();
    assert_eq!((report.arrivals.smuggled, report.totals.messages), (3, 1));
}

#[test]
fn twice_the_same_message_is_a_duplicate() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    send_text(&mut client, &text());
    send_text(&mut client, &text());
    let mut acknowledged = AckLedger::default();
    acknowledged.record(5, 0, Outcome::Acknowledged);
    let verdict = compare(&acknowledged, &sink.stop().arrivals);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.delivered, verdict.duplicated), (1, 1));
}

#[test]
fn chunks_are_taken_whatever_their_cut() {
    let sink = sink();
    let (mut client, _) = Client::connect(&sink);
    let plain = unstuffed(&text());
    let (first, second) = plain.split_at(1234);
    let mut flight = ENVELOPE.as_bytes().to_vec();
    for (chunk, last) in [(first, ""), (second, ""), (&[][..], " LAST")] {
        flight.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
        flight.extend_from_slice(chunk);
    }
    flight.extend_from_slice(b"RSET\r\nNOOP\r\nQUIT\r\n");
    // Byte by byte at first, then the rest at once: every reply comes all the same.
    for byte in &flight[..200] {
        client.send(&[*byte]);
    }
    client.send(&flight[200..]);
    assert_eq!(client.codes(8), ["250", "250", "250", "250", "250", "250", "250", "221"]);
    client.expect_end();
    let arrivals = sink.stop().arrivals;
    assert_eq!((arrivals.count(5, 0), arrivals.corrupted), (1, 0), "{:?}", arrivals.explanations);
}

#[test]
fn a_chunk_without_recipients_is_refused_whole() {
    let sink = sink();
    sink.set_behaviour(0, Behaviour::RejectRcpt).unwrap();
    let (mut client, _) = Client::connect(&sink);
    client.send(format!("{ENVELOPE}BDAT 6 LAST\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n").as_bytes());
    assert_eq!(client.codes(5), ["250", "550", "503", "503", "250"]);
}

#[test]
fn concurrent_max_is_exact_through_any_order_of_ends() {
    let sink = sink();
    let open = |count: usize| -> Vec<_> { (0..count).map(|_| Client::connect(&sink).0).collect() };
    let mut clients = open(5);
    for round in 0..200 {
        // An end that the client has seen is an end that is counted: six are never seen.
        let mut client = clients.remove(0);
        if round % 2 == 0 {
            client.send(b"QUIT\r\n");
            assert_eq!(client.codes(1), ["221"]);
        } else {
            client.replies.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        }
        client.expect_end();
        clients.extend(open(1));
    }
    let host = sink.progress().hosts.remove(0);
    assert_eq!((host.connections, host.concurrent, host.concurrent_max), (205, 5, 5));
    assert_eq!(sink.mark_run().unwrap(), [5]);
    for client in &mut clients[..3] {
        client.send(b"QUIT\r\n");
        client.codes(1);
        client.expect_end();
    }
    assert_eq!(sink.mark_run().unwrap(), [5], "five were open when this count began");
    assert_eq!(sink.mark_run().unwrap(), [2]);
    clients.extend(open(1));
    assert_eq!(sink.mark_run().unwrap(), [3]);
}

#[test]
fn connections_beyond_the_cap_get_421() {
    let sink = sink();
    sink.set_behaviour(0, Behaviour::ConnectionCap(1)).unwrap();
    let (mut first, banner) = Client::connect(&sink);
    assert!(banner.starts_with("220"), "{banner}");
    let (mut second, banner) = Client::connect(&sink);
    assert!(banner.starts_with("421 4.7.0"), "{banner}");
    second.expect_end();
    first.send(b"QUIT\r\n");
    assert_eq!(first.codes(1), ["221"]);
    first.expect_end();
    assert!(Client::connect(&sink).1.starts_with("220"));
    assert_eq!(sink.progress().hosts[0].concurrent_max, 2);
}

#[test]
fn greylisting_lets_the_second_try_in() {
    let sink = sink();
    sink.set_behaviour(0, Behaviour::Greylist).unwrap();
    let (mut client, _) = Client::connect(&sink);
    client.send(format!("{ENVELOPE}RCPT TO:<u5-0@d.test>\r\n").as_bytes());
    assert_eq!(client.codes(3), ["250", "451", "250"]);
}

#[test]
fn refusing_closes_the_door_and_keeps_who_is_inside() {
    let sink = sink();
    let (mut inside, _) = Client::connect(&sink);
    sink.set_behaviour(0, Behaviour::Refuse).unwrap();
    let refused = TcpStream::connect(sink.hosts()[0].address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    inside.send(b"NOOP\r\n");
    assert_eq!(inside.codes(1), ["250"]);
    sink.set_behaviour(0, Behaviour::Accept).unwrap();
    assert!(Client::connect(&sink).1.starts_with("220"));
}

fn unstuffed(text: &[u8]) -> Vec<u8> {
    let lines = text.strip_suffix(b".\r\n").unwrap().split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
}
