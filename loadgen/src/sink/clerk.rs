//! What the conversations of one thread share: personalities, counters, ledger.

use std::sync::Arc;

use super::SinkPlan;
use super::faces::Faces;
use super::host::HostCounters;
use super::inspection::{Finding, Inspection};
use super::report::ThreadReport;
use crate::message::Token;

pub(super) struct Clerk {
    pub(super) hosts: Arc<Vec<HostCounters>>,
    pub(super) records: ThreadReport,
    pub(super) faces: Faces,
    run: Option<u64>,
}

/// The mark in a recipient's address: sequence and index, if it is one of a source.
pub(super) type Addressee = Option<(u64, usize)>;

impl Clerk {
    pub(super) fn new(plan: &SinkPlan, hosts: &Arc<Vec<HostCounters>>, faces: Faces) -> Self {
        Self { hosts: Arc::clone(hosts), records: ThreadReport::new(), faces, run: plan.run }
    }

    /// Must come before our side is closed: the peer may open the next one at once.
    pub(super) fn closing(&self, host: usize) {
        self.faces.close(host);
        self.hosts[host].closing();
    }

    /// What was recorded, with every memory that may tell of a cap that was passed.
    pub(super) fn finish(mut self, cpu_ns: u64) -> ThreadReport {
        self.records.cpu_ns = cpu_ns;
        self.records.standings.extend(self.faces.standings().cloned());
        self.records
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
        match message.finish() {
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
