//! Questions by UDP and TCP to the nameserver: every kind of answer, right and wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use postrider_loadgen::nameserver::{Mail, Nameserver, Zone};

fn start(zone: &str) -> Nameserver {
    Nameserver::start("127.0.0.1:0".parse().unwrap(), Zone::parse(zone).unwrap()).unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    question
}

/// Asks by UDP; `None` when no answer comes.
fn ask(server: &Nameserver, name: &str, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let question = question(name, kind);
    socket.send_to(&question.to_vec().unwrap(), server.address()).unwrap();
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).ok()?;
    let answer = Message::from_vec(&bytes[..count]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    Some(answer)
}

fn exchanges(answer: &Message) -> Vec<(u16, String)> {
    let exchange = |data: &RData| match data {
        RData::MX(mx) => (mx.preference, mx.exchange.to_ascii()),
        other => panic!("{other} in an answer about MX"),
    };
    answer.answers.iter().map(|record| exchange(&record.data)).collect()
}

const ZONE: &str = "two.test mx 10 a.hosts.test\ntwo.test mx 20 b.hosts.test\n\
    null.test null-mx\nplain.test address-only\nplain.test a 127.0.0.9\ngone.test nxdomain\n\
    broken.test servfail\nmute.test no-answer\n\
    a.hosts.test a 127.0.0.1\na.hosts.test aaaa ::1\na.hosts.test a 127.0.0.2\n";

#[test]
fn each_kind_of_name_gets_its_kind_of_answer() {
    let server = start(ZONE);
    let mx = |name| ask(&server, name, RecordType::MX).unwrap();
    let list = [(10, "a.hosts.test.".to_owned()), (20, "b.hosts.test.".to_owned())];
    assert_eq!(exchanges(&mx("Two.TEST.")), list);
    assert_eq!(exchanges(&mx("null.test.")), [(0, ".".to_owned())]);
    let nothing = mx("plain.test.");
    assert_eq!(nothing.metadata.response_code, ResponseCode::NoError);
    assert!(nothing.answers.is_empty() && nothing.authorities.len() == 1);
    assert_eq!(mx("gone.test.").metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(mx("never.heard.test.").metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(mx("broken.test.").metadata.response_code, ResponseCode::ServFail);
    assert!(ask(&server, "mute.test.", RecordType::MX).is_none());
    assert_eq!(ask(&server, "plain.test.", RecordType::A).unwrap().answers.len(), 1);
    assert_eq!(ask(&server, "a.hosts.test.", RecordType::A).unwrap().answers.len(), 2);
    assert_eq!(ask(&server, "a.hosts.test.", RecordType::AAAA).unwrap().answers.len(), 1);
    let counts = server.stop().unwrap();
    assert_eq!((counts.mx, counts.a, counts.aaaa, counts.unanswered), (7, 2, 1, 1));
}

#[test]
fn a_zone_changes_under_way() {
    let server = start(ZONE);
    server
        .update(|zone| {
            zone.set_domain("two.test", Mail::Mx(vec![(5, "c.hosts.test".to_owned())]));
            zone.set_host("c.hosts.test", vec![IpAddr::from([127, 0, 0, 3])]);
        })
        .unwrap();
    let answer = ask(&server, "two.test.", RecordType::MX).unwrap();
    assert_eq!(exchanges(&answer), [(5, "c.hosts.test.".to_owned())]);
    assert_eq!(server.asked("two.test").unwrap(), 1);
    assert_eq!(server.asked("null.test").unwrap(), 0);
}

#[test]
fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    let line = |index| format!("long.test mx {index} a-mail-host-with-a-long-name-{index}.test\n");
    let server = start(&(0..40).map(line).collect::<String>());
    let cut = ask(&server, "long.test.", RecordType::MX).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());

    let bytes = question("long.test.", RecordType::MX).to_vec().unwrap();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 40);
}
