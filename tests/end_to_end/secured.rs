//! TLS where a host offers it, clear text where TLS fails, and no mail where somebody meddles.

use std::net::{Ipv4Addr, SocketAddr};

use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::SinkHost;
use postrider_tests::binary::{Home, Running};
use postrider_tests::client::Client;
use postrider_tests::tls_host::{Face, TlsHost};
use postrider_tests::wait;

use crate::world::{PATIENCE, QUICK_RETRIES};

const BODY: &[u8] = b"Subject: hello\r\n\r\n..a dot\r\n\xe4\xff eight bits\r\n\r\nend\r\n.\r\n";
/// As it must arrive, behind our own Received line.
const ARRIVED: &[u8] = b"Subject: hello\r\n\r\n.a dot\r\n\xe4\xff eight bits\r\n\r\nend\r\n";

/// An engine that finds `host` as the MX of d0.test.
struct Towards {
    home: Home,
    _nameserver: Nameserver,
}

impl Towards {
    fn new(host: &TlsHost, tls: &str) -> Self {
        let (address, port) = (host.address(), host.address().port());
        let zone =
            Zone::for_hosts(["d0.test"], &[SinkHost { name: "mx0".into(), address }], "hosts.test");
        let nameserver =
            Nameserver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone).unwrap();
        let home = Home::new(env!("CARGO_BIN_EXE_postrider"));
        let servers = nameserver.address();
        home.configure(&format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\n[dns]\nservers = [\"{servers}\"]\n\
             [egress]\nport = {port}\nallow_private = true\n{tls}\n{QUICK_RETRIES}"
        ));
        Self { home, _nameserver: nameserver }
    }
}

fn submit(running: &Running) {
    let mut client = Client::greeted(running.address);
    assert_eq!(client.submit("a@client.test", &["b@d0.test".to_owned()], BODY), 250);
}

/// The messages once there are `count`: connection, secured or not.
fn arrived(host: &mut TlsHost, count: usize) -> Vec<(usize, bool)> {
    let all = wait::until(PATIENCE, || host.mails().len() >= count);
    assert!(all, "{count} messages expected, heard {:?}", host.heard());
    let mails = host.mails();
    for (connection, _, text) in &mails {
        let text = String::from_utf8_lossy(text);
        let whole = text.ends_with(&*String::from_utf8_lossy(ARRIVED));
        assert!(whole && text.starts_with("Received: "), "connection {connection}: {text}");
    }
    mails.into_iter().map(|(connection, is_secured, _)| (connection, is_secured)).collect()
}

fn verbs(host: &mut TlsHost, connection: usize, is_secured: bool) -> Vec<String> {
    let commands = host.commands(connection).into_iter();
    let these = commands.filter(|(secured, _)| *secured == is_secured);
    these.map(|(_, line)| line.split([' ', ':']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn mail_goes_by_tls_where_it_is_offered_also_when_the_session_is_resumed() {
    let mut host = TlsHost::start(&[Face::Secures]);
    let towards = Towards::new(&host, "");
    let running = towards.home.start();
    submit(&running);
    assert_eq!(arrived(&mut host, 1), [(0, true)]);
    // The idle connection is gone after a second; the next one is another.
    let quits = |host: &mut TlsHost| verbs(host, 0, true).iter().any(|verb| verb == "QUIT");
    assert!(wait::until(PATIENCE, || quits(&mut host)), "{:?}", host.commands(0));
    submit(&running);
    assert_eq!(arrived(&mut host, 2), [(0, true), (1, true)]);
    for connection in 0..2 {
        assert_eq!(verbs(&mut host, connection, false), ["EHLO", "STARTTLS"]);
        assert_eq!(verbs(&mut host, connection, true)[..4], ["EHLO", "MAIL", "RCPT", "DATA"]);
    }
    assert!(running.stop().0.success());
}

#[test]
fn a_host_whose_handshake_fails_gets_the_mail_in_clear_on_another_connection() {
    let mut host = TlsHost::start(&[Face::BreaksHandshake]);
    let towards = Towards::new(&host, "");
    let running = towards.home.start();
    submit(&running);
    assert_eq!(arrived(&mut host, 1), [(1, false)]);
    assert_eq!(verbs(&mut host, 0, false)[..2], ["EHLO", "STARTTLS"]);
    assert!(!verbs(&mut host, 0, false).contains(&"MAIL".to_owned()));
    assert_eq!(verbs(&mut host, 1, false)[..4], ["EHLO", "MAIL", "RCPT", "DATA"]);
    assert!(running.stop().0.success());
}

#[test]
fn an_operator_who_wants_no_tls_gets_none() {
    let mut host = TlsHost::start(&[Face::Secures]);
    let towards = Towards::new(&host, "tls = \"off\"");
    let running = towards.home.start();
    submit(&running);
    assert_eq!(arrived(&mut host, 1), [(0, false)]);
    assert_eq!(verbs(&mut host, 0, false)[..4], ["EHLO", "MAIL", "RCPT", "DATA"]);
    assert!(running.stop().0.success());
}

#[test]
fn a_reply_injected_before_the_handshake_gets_no_mail() {
    let mut host = TlsHost::start(&[Face::InjectsInClear, Face::InjectsInClear, Face::Secures]);
    let towards = Towards::new(&host, "");
    let running = towards.home.start();
    submit(&running);
    assert_eq!(arrived(&mut host, 1), [(2, true)]);
    for connection in 0..2 {
        let said = host.commands(connection);
        assert_eq!(verbs(&mut host, connection, false), ["EHLO", "STARTTLS"], "{said:?}");
        assert_eq!(verbs(&mut host, connection, true), [""; 0], "{said:?}");
    }
    assert!(running.stop().0.success());
}
