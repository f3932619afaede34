//! Personalities of the sink as clients meet them: limits, refusals, cuts, slow readers, and caps.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use postrider_loadgen::clock::now_ns;
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::message::Composer;
use postrider_loadgen::sink::{Personality, Sink, SinkPlan, SinkReport, World};

struct Client {
    replies: BufReader<TcpStream>,
}

impl Client {
    fn connect(sink: &Sink, host: usize) -> Self {
        let stream = TcpStream::connect(sink.hosts()[host].address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { replies: BufReader::new(stream) }
    }

    fn send(&mut self, text: &str) {
        self.replies.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        line
    }

    fn code(&mut self) -> String {
        let line = self.line();
        if line.get(3..4) == Some("-") { self.code() } else { line[..line.len().min(9)].to_owned() }
    }

    fn codes(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.code()[..3].to_owned()).collect()
    }

    /// One command, and the start of its reply.
    fn ask(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.code()
    }

    fn rest(&mut self) -> Result<Vec<u8>, ErrorKind> {
        let mut rest = Vec::new();
        self.replies.read_to_end(&mut rest).map_err(|error| error.kind())?;
        Ok(rest)
    }
}

/// Hosts of a world as a file describes it.
fn sink(hosts: usize, text: &str) -> Sink {
    let world = World::parse(text, "test.toml").unwrap();
    Sink::start(SinkPlan { world, threads: 2, ..SinkPlan::new(loopback_hosts(hosts).unwrap()) })
        .unwrap()
}

/// One host with these traits.
fn host(traits: &str) -> Sink {
    sink(1, &format!("default = \"it\"\n[personality.it]\n{traits}\n"))
}

/// The stuffed text of a message of run 1, with its final dot.
fn text(sequence: u64) -> String {
    let mut text = Vec::new();
    Composer::new(1, 1, "a@b.test", 4096).unwrap().write(&mut text, sequence, 1, 0);
    String::from_utf8(text).unwrap()
}

fn transaction(recipient: &str, text: &str) -> String {
    format!("MAIL FROM:<a@b.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n{text}")
}

#[test]
fn offers_are_the_hosts_own() {
    let sink = sink(
        2,
        "[personality.bare]\noffers = { pipelining = false, chunking = false, eight_bit_mime = false, size_max = 0 }\n\
         [[host]]\nnames = [\"mx1\"]\npersonality = \"bare\"\n",
    );
    let offers = |host: usize| {
        let mut client = Client::connect(&sink, host);
        client.line();
        client.send("EHLO a\r\nQUIT\r\n");
        String::from_utf8(client.rest().unwrap()).unwrap()
    };
    for word in ["PIPELINING", "CHUNKING", "8BITMIME", "SIZE"] {
        assert!(offers(0).contains(word) && !offers(1).contains(word), "{word}");
    }
}

#[test]
fn connections_beyond_the_cap_may_be_reset_without_a_word() {
    let sink = host("connections = { max = 1, beyond = \"reset\" }");
    let mut first = Client::connect(&sink, 0);
    assert_eq!(first.codes(1), ["220"]);
    assert_eq!(Client::connect(&sink, 0).rest(), Err(ErrorKind::ConnectionReset));
    assert_eq!(first.ask("QUIT"), "221 2.0.0");
    assert_eq!(first.rest().unwrap(), b"");
    assert_eq!(Client::connect(&sink, 0).codes(1), ["220"]);
}

#[test]
fn a_limit_at_connect_counts_connections() {
    let sink = host(
        "limits = [{ at = \"banner\", rate = \"0/s burst 2\", reply = \"too-many-connections\" }]",
    );
    let codes: Vec<_> = (0..3).map(|_| Client::connect(&sink, 0).code()[..3].to_owned()).collect();
    assert_eq!(codes, ["220", "220", "421"]);
}

/// What each of 200 recipients is told at RCPT, tried twice; the order is turned round if asked.
fn fates(seed: u64, is_turned: bool) -> Vec<(u64, String, String)> {
    let sink = sink(
        1,
        &format!(
            "seed = {seed}\ndefault = \"it\"\n[personality.it]\nrefusals = [\
             {{ at = \"rcpt\", odds = 0.1, reply = \"no-such-user\" }},\
             {{ at = \"rcpt\", odds = 0.3, reply = \"451 4.3.2 later\" }}]\n"
        ),
    );
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&sink, 0)).collect();
    for client in &mut clients {
        client.code();
        client.ask("MAIL FROM:<>");
    }
    let mut order: Vec<u64> = (0..200).collect();
    if is_turned {
        order.reverse();
    }
    let mut fates = Vec::new();
    for (turn, sequence) in order.into_iter().enumerate() {
        let client = &mut clients[if is_turned { 0 } else { turn % 3 }];
        let command = format!("RCPT TO:<u{sequence}-0@d.test>");
        fates.push((sequence, client.ask(&command), client.ask(&command)));
    }
    fates.sort_unstable();
    fates
}

#[test]
fn the_same_seed_decides_the_same_whatever_the_order() {
    let all = fates(7, false);
    assert_eq!(all, fates(7, true));
    assert_ne!(all, fates(8, false));
    let told = |code: &str, tries: fn(&(u64, String, String)) -> [&String; 2]| {
        all.iter().filter(|fate| tries(fate).iter().all(|text| text.starts_with(code))).count()
    };
    let (permanent, twice) =
        (told("550", |fate| [&fate.1, &fate.2]), told("451", |fate| [&fate.1, &fate.2]));
    assert!((8..35).contains(&permanent), "{permanent}");
    assert_eq!(permanent, told("550", |fate| [&fate.1, &fate.1]), "a 5xx stays");
    assert!((5..35).contains(&twice), "{twice} of about 16 are put off twice");
    let once = told("451", |fate| [&fate.1, &fate.1]);
    assert!(once > twice + 10, "{once}: most get in with the second try");
}

#[test]
fn a_recipient_domain_decides_from_rcpt_on() {
    let sink = sink(
        2,
        "[personality.full]\nrefusals = [{ at = \"dot\", reply = \"full\" }]\n\
         [personality.grey]\ngreylist = { by = \"recipient\" }\ncap = { messages = \"0/s burst 1\" }\n\
         [[domain]]\nnames = [\"full.test\"]\npersonality = \"full\"\n\
         [[domain]]\nnames = [\"*.grey.test\"]\npersonality = \"grey\"\n",
    );
    let mut clients = [Client::connect(&sink, 0), Client::connect(&sink, 1)];
    for client in &mut clients {
        client.codes(1);
        client.send(&transaction("u1-0@FULL.test", &text(1)));
        assert_eq!(client.codes(4), ["250", "250", "354", "552"]);
        client.send(&transaction("u2-0@other.test", &text(2)));
        assert_eq!(client.codes(4), ["250", "250", "354", "250"]);
    }
    // Met at one host, known at the other.
    for (client, code) in clients.iter_mut().zip(["451", "250"]) {
        client.send("MAIL FROM:<>\r\nRCPT TO:<u3-0@a.grey.test>\r\nRSET\r\n");
        assert_eq!(client.codes(3)[1], code);
    }
    let broken = sink.stop().caps_broken;
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].starts_with("*.grey.test: 2 messages within"), "{broken:?}");
}

#[test]
fn a_cut_ends_the_connection_at_its_byte() {
    let flight = transaction("u1-0@d.test", &text(1));
    let check = |cut: &str, codes: &[&str], rest: Result<&[u8], ErrorKind>, taken: u64| {
        let sink = host(&format!("cuts = [{cut}]"));
        let mut client = Client::connect(&sink, 0);
        client.send(&flight);
        assert_eq!(client.codes(codes.len()), codes, "{cut}");
        client.replies.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(client.rest(), rest.map(<[u8]>::to_vec), "{cut}");
        assert_eq!(sink.progress().messages, taken, "{cut}");
    };
    let ok = ["220", "250", "250", "354", "250"];
    check("{ at = \"dot\", after = 3 }", &ok[..4], Ok(b"250"), 1);
    check("{ at = \"dot\" }", &ok[..4], Ok(b""), 1);
    check("{ at = \"text\", after = 4000 }", &ok[..4], Ok(b""), 0);
    check("{ at = \"text\", after = 50000 }", &ok, Err(ErrorKind::WouldBlock), 1);
    check("{ at = \"dot\", by = \"rst\", odds = 0.0 }", &ok, Err(ErrorKind::WouldBlock), 1);
}

#[test]
fn every_stage_can_be_cut() {
    let stages = [
        ("banner", "", "22"),
        ("ehlo", "EHLO a\r\n", "25"),
        ("mail", "MAIL FROM:<>\r\n", "25"),
        ("rcpt", "RCPT TO:<u1-0@d.test>\r\n", "25"),
        ("data", "DATA\r\n", "35"),
        ("dot", ".\r\n", "25"),
    ];
    for (index, (stage, _, rest)) in stages.iter().enumerate() {
        let sink = host(&format!("cuts = [{{ at = \"{stage}\", after = 2 }}]"));
        let mut client = Client::connect(&sink, 0);
        for (before, (_, command, _)) in stages[..=index].iter().enumerate() {
            client.send(command);
            if before < index {
                client.code();
            }
        }
        assert_eq!(client.rest().unwrap(), rest.as_bytes(), "{stage}");
        assert_eq!(sink.stop().failures, [""; 0]);
    }
}

#[test]
fn a_cut_may_be_a_reset_or_a_silence() {
    let sink = host("cuts = [{ at = \"text\", after = 100, by = \"rst\" }]");
    let mut client = Client::connect(&sink, 0);
    client.send(&transaction("u1-0@d.test", ""));
    assert_eq!(client.codes(4), ["220", "250", "250", "354"]);
    client.send(&text(1)[..99]);
    assert_eq!(sink.progress().concurrent, 1);
    client.send(&text(1)[99..100]);
    assert_eq!(client.rest(), Err(ErrorKind::ConnectionReset));
    assert_eq!(sink.progress().messages, 0);
    let sink = host("cuts = [{ at = \"text\", after = 100, by = \"silence\" }]");
    let mut client = Client::connect(&sink, 0);
    client.send(&transaction("u1-0@d.test", &text(1)));
    assert_eq!(client.codes(4), ["220", "250", "250", "354"]);
    client.replies.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.rest(), Err(ErrorKind::WouldBlock));
    assert_eq!((sink.progress().messages, sink.progress().concurrent), (0, 1));
}

#[test]
fn a_black_hole_takes_everything_and_never_speaks() {
    let sink = host("cuts = [{ at = \"banner\", by = \"silence\" }]");
    let mut client = Client::connect(&sink, 0);
    client.send("EHLO a\r\n");
    client.replies.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(client.rest(), Err(ErrorKind::WouldBlock));
    assert_eq!(sink.progress().concurrent, 1);
}

#[test]
fn a_slow_reader_takes_its_bytes_a_second() {
    let sink = host("reading = { bytes_per_second = 20000, window = 2048 }");
    let mut client = Client::connect(&sink, 0);
    let begun = now_ns();
    client.send(&transaction("u1-0@d.test", &text(1)));
    assert_eq!(client.codes(5), ["220", "250", "250", "354", "250"]);
    let took = Duration::from_nanos(now_ns() - begun);
    assert!((Duration::from_millis(150)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert_eq!(sink.stop().arrivals.corrupted, 0);
}

#[test]
fn latencies_and_tar_hold_replies_back() {
    let sink = host(
        "latency = { mail = \"uniform(30ms, 40ms)\", dot = \"20ms\" }\n\
         tarpit = { per_connection = \"100ms\", free_connections = 1 }",
    );
    let mut client = Client::connect(&sink, 0);
    let timed = |client: &mut Client, command: &str| {
        let begun = now_ns();
        client.ask(command);
        Duration::from_nanos(now_ns() - begun)
    };
    client.code();
    assert!(timed(&mut client, "NOOP") < Duration::from_millis(29));
    assert!(timed(&mut client, "MAIL FROM:<>") >= Duration::from_millis(30));
    let _second = Client::connect(&sink, 0);
    while sink.progress().concurrent < 2 {
        std::thread::yield_now();
    }
    assert!(timed(&mut client, "NOOP") >= Duration::from_millis(100));
}

/// Runs three connections at once with two messages each against a host with these caps.
fn six_messages(sink: Sink) -> SinkReport {
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&sink, 0)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.code();
        for sequence in [index as u64 * 2, index as u64 * 2 + 1] {
            client.send(&transaction(&format!("u{sequence}-0@d.test"), &text(sequence)));
            assert_eq!(client.codes(4), ["250", "250", "354", "250"]);
        }
    }
    sink.stop()
}

#[test]
fn caps_are_kept_on_one_side_of_the_bound_and_broken_on_the_other() {
    let check = |cap: &str, told: &str| {
        let report = six_messages(host(&format!("cap = {{ {cap} }}")));
        assert_eq!(report.totals.messages, 6, "a cap is never enforced");
        assert_eq!(report.is_clean(), told.is_empty(), "{cap}: {:?}", report.caps_broken);
        assert!(
            report.caps_broken.iter().all(|text| text.contains(told)),
            "{:?}",
            report.caps_broken
        );
        assert_eq!(report.to_json()["caps_broken"].as_array().unwrap().is_empty(), told.is_empty());
    };
    check("connections = 3, messages_per_connection = 2", "");
    check("connections = 2", "mx0: 3 connections at once");
    check("messages_per_connection = 1", "mx0: 2 messages in one connection");
    check("messages = \"0/s burst 6\", connects = \"0/s burst 3\", tolerance = 0.0", "");
    check("messages = \"0/s burst 5\", tolerance = 0.0", "mx0: 6 messages within");
    check("connects = \"0/s burst 2\", tolerance = 0.0", "mx0: 3 connects within");
}

#[test]
fn hosts_together_keep_one_cap_and_tell_of_it_once() {
    let sink = sink(
        2,
        "[personality.it]\ncap = { connections = 1 }\n\
         [[host]]\nnames = [\"mx*\"]\npersonality = \"it\"\ntogether = true\n",
    );
    let mut clients = [Client::connect(&sink, 0), Client::connect(&sink, 1)];
    clients.iter_mut().for_each(|client| assert_eq!(client.codes(1), ["220"]));
    // A host that leaves the group takes its connections along.
    sink.set_personality(1, Personality::default()).unwrap();
    let mut third = Client::connect(&sink, 1);
    assert_eq!(third.codes(1), ["220"]);
    let broken = sink.stop().caps_broken;
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].starts_with("mx*: 2 connections at once at 0."), "{broken:?}");
}
