//! One question and the zone make one answer: no sockets, no state.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::{Mail, Zone, canonical};

/// What a client takes by UDP when it does not say (RFC 1035 4.2.1).
const UDP_BYTES_DEFAULT: u16 = 512;

/// What to say, or why to say nothing.
pub(super) enum Answer {
    Message(Box<Message>),
    /// On purpose.
    Silence,
    /// The bytes were no question.
    NotAQuestion,
}

/// A question as it was understood.
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: RecordType,
    request: Message,
}

impl Question {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let request = Message::from_vec(bytes).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let query = request.queries.first()?;
        let (name, kind) = (canonical(&query.name.to_ascii()), query.query_type);
        Some(Self { name, kind, request })
    }

    /// The largest answer that fits in a datagram for this client.
    pub(super) fn udp_bytes_max(&self) -> usize {
        let said = self.request.edns.as_ref().map(hickory_proto::op::Edns::max_payload);
        usize::from(said.unwrap_or(UDP_BYTES_DEFAULT).max(UDP_BYTES_DEFAULT))
    }

    pub(super) fn answer(&self, zone: &Zone) -> Answer {
        let Some(query) = self.request.queries.first() else { return Answer::NotAQuestion };
        let mut message = self.blank();
        match zone.mail(&self.name) {
            Some(Mail::NoAnswer) => return Answer::Silence,
            Some(Mail::ServFail) => message.metadata.response_code = ResponseCode::ServFail,
            Some(Mail::NxDomain) => deny(&mut message, query, zone, ResponseCode::NXDomain),
            known => {
                let records = self.records(query, known, zone);
                if !records.is_empty() {
                    message.add_answers(records);
                } else if known.is_some() || zone.addresses(&self.name).is_some() {
                    deny(&mut message, query, zone, ResponseCode::NoError);
                } else {
                    deny(&mut message, query, zone, ResponseCode::NXDomain);
                }
            }
        }
        Answer::Message(Box::new(message))
    }

    fn blank(&self) -> Message {
        let asked = &self.request.metadata;
        let mut message = Message::response(asked.id, OpCode::Query);
        message.metadata.recursion_desired = asked.recursion_desired;
        // Stub resolvers expect it of the server they are pointed at.
        message.metadata.recursion_available = true;
        message.metadata.authoritative = true;
        message.add_queries(self.request.queries.iter().take(1).cloned());
        if let Some(edns) = &self.request.edns {
            let mut ours = hickory_proto::op::Edns::new();
            ours.set_max_payload(edns.max_payload());
            message.set_edns(ours);
        }
        message
    }

    fn records(&self, query: &Query, known: Option<&Mail>, zone: &Zone) -> Vec<Record> {
        let record = |data| Record::from_rdata(query.name.clone(), zone.ttl, data);
        match (self.kind, known) {
            (RecordType::MX, Some(Mail::Mx(list))) => list
                .iter()
                .filter_map(|(preference, host)| Some((*preference, absolute(host)?)))
                .map(|(preference, host)| record(RData::MX(MX::new(preference, host))))
                .collect(),
            (RecordType::MX, Some(Mail::Null)) => {
                vec![record(RData::MX(MX::new(0, Name::root())))]
            }
            (RecordType::A | RecordType::AAAA, _) => {
                let addresses = zone.addresses(&self.name).unwrap_or_default();
                addresses.iter().filter_map(|ip| of_kind(self.kind, *ip)).map(record).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn of_kind(kind: RecordType, address: IpAddr) -> Option<RData> {
    match (kind, address) {
        (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(address))),
        (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    }
}

/// A negative answer, with the record that says how long it may be kept (RFC 2308).
fn deny(message: &mut Message, query: &Query, zone: &Zone, code: ResponseCode) {
    message.metadata.response_code = code;
    let root = Name::root();
    let times = SOA::new(root.clone(), root, 1, 3600, 600, 86400, zone.negative_ttl);
    let owner = query.name.base_name();
    message.add_authority(Record::from_rdata(owner, zone.negative_ttl, RData::SOA(times)));
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
