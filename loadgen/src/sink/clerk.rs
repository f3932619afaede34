//! What the conversations of one thread share: behaviours, counters, ledger.

use std::sync::Arc;

use hashbrown::HashSet;
use memchr::memmem::Finder;

use super::behaviour::Behaviour;
use super::host::HostCounters;
use super::inspection::{Finding, Inspection, marks};
use super::report::ThreadReport;
use super::{Capabilities, SinkPlan};
use crate::message::Token;
use crate::seed::mix;

/// Recipients that greylisting remembers; beyond them it lets everyone in.
const GREYLIST_MAX: usize = 1 << 20;

pub(super) struct Clerk {
    pub(super) hosts: Arc<Vec<HostCounters>>,
    pub(super) records: ThreadReport,
    pub(super) capabilities: Capabilities,
    /// Per host: behaviour, banner, reply to EHLO.
    faces: Vec<Face>,
    run: Option<u64>,
    met: HashSet<u64>,
    marks: Finder<'static>,
}

struct Face {
    behaviour: Behaviour,
    banner: Vec<u8>,
    ehlo: Vec<u8>,
}

/// The mark in a recipient's address: sequence and index, if it is one of a source.
pub(super) type Addressee = Option<(u64, usize)>;

impl Clerk {
    pub(super) fn new(plan: &SinkPlan, hosts: &Arc<Vec<HostCounters>>) -> Self {
        let face = |name: &str| Face {
            behaviour: Behaviour::Accept,
            banner: format!("220 {name} ESMTP loadgen\r\n").into_bytes(),
            ehlo: ehlo_reply(name, plan.capabilities),
        };
        Self {
            hosts: Arc::clone(hosts),
            records: ThreadReport::new(),
            capabilities: plan.capabilities,
            faces: plan.hosts.iter().map(|host| face(&host.name)).collect(),
            run: plan.run,
            met: HashSet::new(),
            marks: marks(),
        }
    }

    pub(super) fn behaviour(&self, host: usize) -> Behaviour {
        self.faces[host].behaviour
    }

    pub(super) fn behave(&mut self, host: usize, behaviour: Behaviour) {
        self.faces[host].behaviour = behaviour;
    }

    pub(super) fn banner(&self, host: usize) -> &[u8] {
        &self.faces[host].banner
    }

    pub(super) fn ehlo(&self, host: usize) -> &[u8] {
        &self.faces[host].ehlo
    }

    /// Says whether greylisting has met this recipient before, and remembers it.
    pub(super) fn has_met(&mut self, addressee: Addressee) -> bool {
        let Some((sequence, index)) = addressee else { return true };
        let key = mix(sequence) ^ index as u64;
        self.met.len() >= GREYLIST_MAX || !self.met.insert(key)
    }

    /// Writes a message that was taken into the ledger.
    pub(super) fn enter(
        &mut self,
        host: usize,
        message: &Inspection,
        to: &[Addressee],
        mail_ns: u64,
        now: u64,
    ) {
        self.hosts[host].count_message(to.len() as u64, now);
        match message.finish(&self.marks) {
            Finding::Unmarked => {
                self.records.ledger.unmarked += 1;
                let mut concluded = 0;
                for (sequence, index) in message.reported() {
                    concluded += u64::from(self.records.ledger.record_bounce(sequence, index));
                }
                self.conclude(concluded);
            }
            Finding::Corrupted(reason) => {
                let bytes = message.bytes();
                self.records.ledger.record_corrupted(|| {
                    format!("corrupted: {reason} ({bytes} bytes, to {})", addressees(to))
                });
                self.enter_recipients(to);
            }
            Finding::Intact(token) if token.run != *self.run.get_or_insert(token.run) => {
                self.records.ledger.foreign += 1;
            }
            Finding::Intact(token) => {
                self.records.end_to_end.saturating_record(now.saturating_sub(token.sent_ns));
                if let Some(arrivals) = &mut self.records.arrivals {
                    arrivals.record(&token, mail_ns, now);
                }
                self.enter_recipients(to);
                self.check_envelope(&token, to);
            }
        }
    }

    fn enter_recipients(&mut self, to: &[Addressee]) {
        let mut concluded = 0;
        for (sequence, index) in to.iter().flatten() {
            concluded += u64::from(self.records.ledger.record(*sequence, *index));
            self.records.repeats.record(*sequence, *index);
        }
        self.conclude(concluded);
    }

    fn conclude(&self, recipients: u64) {
        if let Some(arrivals) = &self.records.arrivals {
            arrivals.conclude(recipients);
        }
    }

    fn check_envelope(&mut self, token: &Token, to: &[Addressee]) {
        let belongs = |addressee: &Addressee| {
            addressee.is_some_and(|(sequence, index)| {
                sequence == token.sequence && index < token.recipients
            })
        };
        if !to.iter().all(belongs) {
            self.records.ledger.record_corrupted(|| {
                format!(
                    "corrupted: message {} came with the envelope of {}",
                    token.sequence,
                    addressees(to)
                )
            });
        }
    }
}

fn addressees(to: &[Addressee]) -> String {
    let name = |addressee: &Addressee| match addressee {
        Some((sequence, index)) => format!("u{sequence}-{index}"),
        None => "a stranger".to_owned(),
    };
    to.iter().take(3).map(name).collect::<Vec<_>>().join(", ")
}

fn ehlo_reply(name: &str, offers: Capabilities) -> Vec<u8> {
    let mut lines = vec![name.to_owned()];
    if offers.pipelining {
        lines.push("PIPELINING".to_owned());
    }
    if offers.eight_bit_mime {
        lines.push("8BITMIME".to_owned());
    }
    if offers.chunking {
        lines.push("CHUNKING".to_owned());
    }
    if offers.size_max > 0 {
        lines.push(format!("SIZE {}", offers.size_max));
    }
    lines.push("ENHANCEDSTATUSCODES".to_owned());
    let last = lines.len() - 1;
    let mut reply = String::new();
    for (at, line) in lines.iter().enumerate() {
        reply.push_str(if at == last { "250 " } else { "250-" });
        reply.push_str(line);
        reply.push_str("\r\n");
    }
    reply.into_bytes()
}
