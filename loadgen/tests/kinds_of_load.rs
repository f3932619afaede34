//! Every kind of load that a source makes arrives intact: chunks, TLS, AUTH, spreads, corpora.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use postrider_loadgen::ledger::{Outcome, compare};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::sink::{Behaviour, Sink, SinkPlan, SinkReport};
use postrider_loadgen::source::{Domains, Phase, Sizes, Source, SourcePlan, SourceReport};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Runs one source of 100 messages into one host that behaves like this.
fn run(behaviour: Behaviour, change: impl Fn(&mut SourcePlan)) -> (SourceReport, SinkReport) {
    let plan = SinkPlan { run: Some(1), ..SinkPlan::new(loopback_hosts(1).unwrap()) };
    let sink = Sink::start(plan).unwrap();
    sink.set_behaviour(0, behaviour).unwrap();
    let domains = Domains::numbered(20, "test").unwrap();
    let mut plan = SourcePlan::new(sink.hosts()[0].address, domains);
    (plan.sessions, plan.messages) = (4, Some(100));
    change(&mut plan);
    let source = Source::start(plan).unwrap().join();
    (source, sink.stop())
}

fn expect_all(source: &SourceReport, sink: &SinkReport, recipients: u64) {
    let verdict = compare(&source.acknowledged, &sink.arrivals);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.delivered, verdict.duplicated), (recipients, 0), "{:?}", source.errors);
}

#[test]
fn chunks_arrive_intact_with_and_without_pipelining() {
    for pipelining in [false, true] {
        let (source, sink) = run(Behaviour::Accept, |plan| {
            (plan.chunking, plan.pipelining, plan.recipients_per_message) = (true, pipelining, 3);
        });
        expect_all(&source, &sink, 300);
        assert_eq!((source.phase(Phase::Dot).len(), source.phase(Phase::Data).len()), (100, 0));
    }
}

#[test]
fn refusals_of_chunks_are_kept_as_what_they_are() {
    let refused = |behaviour, outcome| {
        for pipelining in [false, true] {
            let (source, sink) =
                run(behaviour, |plan| (plan.chunking, plan.pipelining) = (true, pipelining));
            assert_eq!(source.acknowledged.count(outcome), 100, "{behaviour:?}");
            assert_eq!(sink.arrivals.recipients(), 0, "{behaviour:?}");
            assert_eq!(source.sent.connection_losses, 0, "{behaviour:?}");
        }
    };
    refused(Behaviour::TempfailRcpt, Outcome::Tempfailed);
    refused(Behaviour::RejectRcpt, Outcome::Refused);
    refused(Behaviour::TempfailData, Outcome::Tempfailed);
    refused(Behaviour::RejectData, Outcome::Refused);
}

#[test]
fn a_chunk_without_a_reply_is_in_doubt() {
    for pipelining in [false, true] {
        let (source, sink) = run(Behaviour::CloseAfterDot, |plan| {
            (plan.chunking, plan.pipelining) = (true, pipelining);
        });
        let verdict = compare(&source.acknowledged, &sink.arrivals);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.unacknowledged_but_arrived, source.sent.unacknowledged), (4, 4));
    }
}

#[test]
fn spreads_of_sizes_and_recipients_arrive_intact() {
    let (source, sink) = run(Behaviour::Accept, |plan| {
        plan.sizes = Some("lognormal(8192, 1.2)".parse().unwrap());
        plan.recipients = Some("1=1,5=1".parse().unwrap());
        plan.domains = Domains::parse("zipf(50, 1.1)", "test").unwrap();
    });
    let recipients = source.acknowledged.count(Outcome::Acknowledged);
    assert!((200..400).contains(&recipients), "{recipients}");
    expect_all(&source, &sink, recipients);
}

#[test]
fn a_corpus_arrives_as_it_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.eml", "Subject: one\nTo: x@y.test\n\n.leading dot\n..two\n\nend without a line end");
    write("b.eml", "Subject: two\r\n folded\r\n\r\nbody\r\n");
    for chunking in [false, true] {
        let (source, sink) = run(Behaviour::Accept, |plan| {
            (plan.chunking, plan.pipelining) = (chunking, true);
            plan.sizes = Some(Sizes::Corpus(folder.path().to_owned()));
        });
        expect_all(&source, &sink, 100);
    }
    write("c.eml", "Subject: bare\n\nCR\rinside\n");
    let mut plan = SourcePlan::new("127.0.0.1:9".parse().unwrap(), Domains::one("d.test"));
    plan.sizes = Some(Sizes::Corpus(folder.path().to_owned()));
    let error = Source::start(plan).err().unwrap().to_string();
    assert!(error.contains("c.eml") && error.contains("bare CR"), "{error}");
}

#[test]
fn connections_come_from_as_many_addresses_as_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = SourcePlan::new(listener.local_addr().unwrap(), Domains::one("d.test"));
    (plan.sessions, plan.threads, plan.source_addresses) = (9, 3, 4);
    let source = Source::start(plan).unwrap();
    let peers = (0..9).map(|_| listener.accept().unwrap().1.ip()).collect::<Vec<_>>();
    assert!(peers.iter().all(|peer| peer.is_loopback()), "{peers:?}");
    assert_eq!(peers.iter().collect::<BTreeSet<_>>().len(), 4, "{peers:?}");
    source.stop();
    drop(listener);
    source.join();
}

#[test]
fn a_session_goes_through_starttls_and_auth_before_its_chunks() {
    let (address, server) = secure_server(2);
    let mut plan = SourcePlan::new(address, Domains::one("d.test"));
    (plan.sessions, plan.messages) = (2, Some(40));
    (plan.tls, plan.pipelining, plan.chunking) = (true, true, true);
    plan.auth = Some("user:secret".parse().unwrap());
    let report = Source::start(plan).unwrap().join();
    assert_eq!(report.sent.acknowledged, 40, "{:?}", report.errors);
    for phase in [Phase::Tls, Phase::Auth] {
        assert_eq!(report.phase(phase).len(), 2, "{phase:?}");
    }
    assert_eq!(report.phase(Phase::Ehlo).len(), 4);
    assert_eq!(report.banner.as_deref(), Some("220 secure.test"));
    let (auth, texts) = server.join().unwrap();
    assert_eq!(auth, ["AUTH PLAIN AHVzZXIAc2VjcmV0"; 2]);
    assert_eq!(texts, 40);
}

#[test]
fn what_is_not_offered_is_not_used() {
    let refused = |change: fn(&mut SourcePlan), reason: &str| {
        let (source, _) = run(Behaviour::Accept, change);
        assert_eq!(source.sent.offered, 0);
        assert_eq!(source.errors, [(reason.to_owned(), 4)]);
    };
    refused(|plan| plan.tls = true, "(STARTTLS is not offered)");
    refused(|plan| plan.auth = Some("a:b".parse().unwrap()), "(AUTH PLAIN is not offered)");
}

/// A server that wants STARTTLS and AUTH; tells its AUTH lines, and how many texts it took.
fn secure_server(sessions: usize) -> (std::net::SocketAddr, JoinHandle<(Vec<String>, usize)>) {
    let certified = rcgen::generate_simple_self_signed(vec!["secure.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut threads = Vec::new();
        for _ in 0..sessions {
            let (mut stream, _) = listener.accept().unwrap();
            let config = Arc::clone(&config);
            threads.push(std::thread::spawn(move || {
                stream.write_all(b"220 secure.test\r\n").unwrap();
                let mut plain = BufReader::new(stream);
                assert!(line(&mut plain).starts_with("EHLO "));
                plain.get_mut().write_all(b"250-secure.test\r\n250 STARTTLS\r\n").unwrap();
                assert_eq!(line(&mut plain), "STARTTLS");
                plain.get_mut().write_all(b"220 go on\r\n").unwrap();
                let tls = ServerConnection::new(config).unwrap();
                serve_secured(BufReader::new(StreamOwned::new(tls, plain.into_inner())))
            }));
        }
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.fold((Vec::new(), 0), |(mut auth, texts), (line, more)| {
            auth.push(line);
            (auth, texts + more)
        })
    };
    (address, std::thread::spawn(serve))
}

fn serve_secured<S: Read + Write>(mut stream: BufReader<S>) -> (String, usize) {
    let (mut auth, mut texts) = (String::new(), 0);
    loop {
        let command = line(&mut stream);
        let reply = match command.split(' ').next().unwrap() {
            "EHLO" => {
                "250-secure.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 AUTH LOGIN PLAIN\r\n"
            }
            "AUTH" => {
                auth = command;
                "235 welcome\r\n"
            }
            "BDAT" => {
                let bytes: usize = command.split(' ').nth(1).unwrap().parse().unwrap();
                assert!(command.ends_with(" LAST"), "{command}");
                let mut text = vec![0; bytes];
                stream.read_exact(&mut text).unwrap();
                assert!(text.starts_with(b"X-Loadgen: ") && text.ends_with(b"\r\n"));
                texts += 1;
                "250 taken\r\n"
            }
            "QUIT" => {
                stream.get_mut().write_all(b"221 bye\r\n").unwrap();
                return (auth, texts);
            }
            _ => "250 ok\r\n",
        };
        stream.get_mut().write_all(reply.as_bytes()).unwrap();
    }
}

fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
