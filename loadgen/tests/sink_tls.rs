//! The TLS kinds of the sink, as a real rustls client meets them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::message::Composer;
use postrider_loadgen::sink::{Personality, Sink, SinkPlan, Tls, TlsKind, World};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};

type Secured = StreamOwned<ClientConnection, TcpStream>;

fn sink(kind: TlsKind) -> Sink {
    let tls = Tls { kind, ..Tls::default() };
    let world = World::of(Personality { tls, ..Personality::default() });
    Sink::start(SinkPlan { world, ..SinkPlan::new(loopback_hosts(1).unwrap()) }).unwrap()
}

/// A client that trusts the authority of the sink, and speaks 1.3 only if asked.
fn config(sink: &Sink, only_13: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sink.authority_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let versions: &[_] = if only_13 { &[&TLS13] } else { rustls::ALL_VERSIONS };
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reads until `end`, byte by byte: what follows belongs to TLS.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).ends_with(end) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

/// Says EHLO and STARTTLS in clear; returns what came behind it.
fn begin(sink: &Sink) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(sink.hosts()[0].address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"EHLO a\r\n").unwrap();
    let said = read_until(&mut stream, "ENHANCEDSTATUSCODES\r\n");
    assert!(said.contains("250-STARTTLS\r\n"), "{said}");
    stream.write_all(b"STARTTLS\r\n").unwrap();
    let reply = read_until(&mut stream, "\r\n");
    (stream, reply)
}

/// A connection whose handshake is over, or how it failed.
fn shake_hands(sink: &Sink, stream: TcpStream, name: &str, only_13: bool) -> io::Result<Secured> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config(sink, only_13), name).unwrap();
    let mut secured = StreamOwned::new(session, stream);
    while secured.conn.is_handshaking() {
        secured.conn.complete_io(&mut secured.sock)?;
    }
    Ok(secured)
}

fn secure(kind: TlsKind, name: &str, only_13: bool) -> (Sink, io::Result<Secured>) {
    let sink = sink(kind);
    let (stream, reply) = begin(&sink);
    assert!(reply.starts_with("220 "), "{reply}");
    let secured = shake_hands(&sink, stream, name, only_13);
    (sink, secured)
}

#[test]
fn mail_comes_whole_through_tls() {
    for (kind, version) in
        [(TlsKind::Valid, ProtocolVersion::TLSv1_3), (TlsKind::Tls12, ProtocolVersion::TLSv1_2)]
    {
        let (sink, secured) = secure(kind, "mx0.hosts.test", false);
        let mut secured = secured.unwrap();
        assert_eq!(secured.conn.protocol_version(), Some(version));
        let mut text = Vec::new();
        // More than one record, more than one read.
        Composer::new(1, 1, "a@b.test", 300_000).unwrap().write(&mut text, 5, 1, 0);
        secured.write_all(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<u5-0@d.test>\r\nDATA\r\n").unwrap();
        let said = read_until(&mut secured, "354 go on\r\n");
        assert!(!said.contains("STARTTLS"), "{said}");
        secured.write_all(&text).unwrap();
        assert_eq!(read_until(&mut secured, "\r\n"), "250 2.0.0 taken\r\n");
        secured.write_all(b"STARTTLS\r\nQUIT\r\n").unwrap();
        let said = read_until(&mut secured, "bye\r\n");
        assert!(said.starts_with("503 "), "{said}");
        let arrivals = sink.stop().arrivals;
        assert_eq!((arrivals.count(5, 0), arrivals.corrupted), (1, 0));
    }
}

#[test]
fn bad_certificates_fail_for_their_reason() {
    let check = |kind: TlsKind, name: &str, reason: &str| {
        let (_sink, secured) = secure(kind, name, false);
        let error = secured.err().unwrap().to_string();
        assert!(error.contains(reason), "{kind:?}: {error}");
    };
    check(TlsKind::Expired, "mx0", "expired");
    check(TlsKind::WrongName, "mx0.hosts.test", "not valid for name");
    check(TlsKind::SelfSigned, "mx0", "UnknownIssuer");
    check(TlsKind::Valid, "mx1", "not valid for name");
    let by_address = sink(TlsKind::Valid);
    let address = by_address.hosts()[0].address.ip().to_string();
    let (stream, _) = begin(&by_address);
    assert!(shake_hands(&by_address, stream, &address, false).is_ok());
}

#[test]
fn an_old_version_is_all_that_some_speak() {
    assert!(secure(TlsKind::Tls12, "mx0", true).1.is_err());
    assert!(secure(TlsKind::Valid, "mx0", true).1.is_ok());
}

#[test]
fn a_handshake_may_be_cut_and_tls_be_unavailable() {
    let (cut, secured) = secure(TlsKind::Cut, "mx0", false);
    assert_eq!(secured.err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
    while cut.progress().concurrent > 0 {
        std::thread::yield_now();
    }
    let unavailable = sink(TlsKind::Unavailable);
    let (mut stream, reply) = begin(&unavailable);
    assert!(reply.starts_with("454 4.7.0"), "{reply}");
    stream.write_all(b"MAIL FROM:<>\r\n").unwrap();
    assert!(read_until(&mut stream, "\r\n").starts_with("250"));
}

#[test]
fn a_reply_is_injected_in_clear_before_the_handshake() {
    let sink = sink(TlsKind::Injected);
    let (mut stream, reply) = begin(&sink);
    assert!(reply.starts_with("220 "), "{reply}");
    assert_eq!(read_until(&mut stream, "\r\n"), "250 2.0.0 injected\r\n");
    let mut secured = shake_hands(&sink, stream, "mx0", false).unwrap();
    secured.write_all(b"NOOP\r\n").unwrap();
    assert_eq!(read_until(&mut secured, "\r\n"), "250 2.0.0 ok\r\n");
}

#[test]
fn what_stands_behind_starttls_in_clear_is_never_obeyed() {
    let sink = sink(TlsKind::Valid);
    let mut stream = TcpStream::connect(sink.hosts()[0].address).unwrap();
    stream.write_all(b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<evil@b.test>\r\n").unwrap();
    read_until(&mut stream, "220 2.0.0 ready to start TLS\r\n");
    let mut secured = shake_hands(&sink, stream, "mx0", false).unwrap();
    secured.write_all(b"RCPT TO:<u1-0@d.test>\r\n").unwrap();
    assert!(read_until(&mut secured, "\r\n").starts_with("503"));
}
