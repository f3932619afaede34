//! A small DNS server for tests: what it is told, over UDP, and a list of what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::lookup::{absolute, bare};
use crate::model::settings::DnsSettings;

/// What the test's server knows. Other names below `.test` do not exist.
#[derive(Default)]
pub(super) struct Zone {
    records: BTreeMap<String, Vec<Record>>,
    failing: Vec<(String, RecordType)>,
}

impl Zone {
    fn add(mut self, owner: &str, ttl: u32, data: RData) -> Self {
        let record = Record::from_rdata(absolute(owner).unwrap(), ttl, data);
        self.records.entry(owner.to_owned()).or_default().push(record);
        self
    }

    pub(super) fn mx(self, owner: &str, preference: u16, host: &str) -> Self {
        let exchange = absolute(host).unwrap_or_else(Name::root);
        self.add(owner, 300, RData::MX(MX::new(preference, exchange)))
    }

    pub(super) fn a(self, owner: &str, address: [u8; 4]) -> Self {
        self.add(owner, 200, RData::A(A(address.into())))
    }

    pub(super) fn aaaa(self, owner: &str, address: &str) -> Self {
        self.add(owner, 100, RData::AAAA(AAAA(address.parse().unwrap())))
    }

    pub(super) fn alias(self, owner: &str, to: &str) -> Self {
        self.add(owner, 50, RData::CNAME(CNAME(absolute(to).unwrap())))
    }

    /// The server answers SERVFAIL to this.
    pub(super) fn failing(mut self, owner: &str, kind: RecordType) -> Self {
        self.failing.push((owner.to_owned(), kind));
        self
    }

    pub(super) fn respond(&self, query: &Message) -> Message {
        let mut response = query.clone();
        response.metadata.message_type = MessageType::Response;
        response.metadata.recursion_available = true;
        response.additionals.clear();
        let asked = &query.queries[0];
        let name = bare(&asked.name().to_ascii()).into_string();
        let kind = asked.query_type();
        let code = match self.records.get(&name) {
            _ if self.failing.contains(&(name.clone(), kind)) => ResponseCode::ServFail,
            None => ResponseCode::NXDomain,
            Some(records) => {
                let fits =
                    |record: &&Record| [kind, RecordType::CNAME].contains(&record.record_type());
                response.add_answers(records.iter().filter(fits).cloned());
                ResponseCode::NoError
            }
        };
        response.metadata.response_code = code;
        response
    }
}

pub(super) struct Server {
    address: SocketAddr,
    questions: mpsc::Receiver<(String, RecordType)>,
}

impl Server {
    /// How often this was asked since the last call; forgets all other questions.
    pub(super) fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.questions.try_iter().filter(|asked| asked.0 == name && asked.1 == kind).count()
    }
}

pub(super) async fn start_server(zone: Zone) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (asked, questions) = mpsc::channel();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((bytes, peer)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..bytes]).unwrap();
            let first = &query.queries[0];
            let name = bare(&first.name().to_ascii()).into_string();
            drop(asked.send((name, first.query_type())));
            let response = zone.respond(&query).to_vec().unwrap();
            socket.send_to(&response, peer).await.unwrap();
        }
    });
    Server { address, questions }
}

pub(super) fn settings(server: &Server) -> DnsSettings {
    DnsSettings { servers: vec![server.address], timeout: Duration::from_secs(6) }
}
