//! Reports of failure to the senders, stored as messages of our own.

use std::net::{Ipv6Addr, SocketAddr};

use super::storage::{Notice, is_failed, opened};
use super::{Effect, Effects, Fact, Shard};
use crate::base::time::Now;
use crate::model::delivery::RecordInMemory;
use crate::model::note::Settlement;
use crate::model::outcome::{Outcome, Reply};
use crate::report::bounce::{self, BounceReport, BouncedRecipient};
use crate::spool::{About, MessageParts, MessageView, SpoolFull};
use crate::wire::envelope::{Envelope, EnvelopeFlags, EnvelopeView, Labels, Origin};

use super::reception::domain_ranges;

impl Shard {
    /// The report that a settlement asks for, if anybody is to be told. A failed report is told to the
    /// operator and to nobody else.
    pub(super) fn notice_due(
        &mut self,
        now: Now,
        settlement: &Settlement,
        record: &RecordInMemory,
        out: &mut Effects,
    ) -> Option<Notice> {
        let bytes = &record.block.bytes()[record.at as usize..];
        let (view, envelope) = opened(bytes)?;
        if self.spool.pending(settlement.message) == 0 {
            return None;
        }
        if !bounce::is_due(envelope.sender()) {
            self.drop_report(settlement, out);
            return None;
        }
        let text = self.report_text(now, settlement, &view, &envelope, bytes);
        let tenant = self.flows.of_labels(envelope.labels()).tenant.clone();
        Some(Notice { to: envelope.sender().into(), tenant, text })
    }

    /// RFC 5321 §4.5.5: nothing is sent about a message with the null sender.
    fn drop_report(&mut self, settlement: &Settlement, out: &mut Effects) {
        self.counters.reports_dropped += 1;
        let cause = failures(settlement).next().map(|(_, reply)| reply.to_string());
        out.push(Effect::Report(Box::new(Fact::DoubleBounce {
            message: settlement.message.to_string().into(),
            cause: cause.unwrap_or_default().into(),
        })));
    }

    fn report_text(
        &self,
        now: Now,
        settlement: &Settlement,
        view: &MessageView,
        envelope: &EnvelopeView<'_>,
        record: &[u8],
    ) -> Vec<u8> {
        let bounced = |(index, reply)| BouncedRecipient {
            address: envelope.recipient(index),
            reply,
            remote: None,
        };
        let recipients: Vec<_> = failures(settlement).map(bounced).collect();
        let first = failures(settlement).next().map_or(0, |(index, _)| index);
        // Derived from the original's name, so that the same failure gives the same report.
        let message_id = format!("{}.{first}.dsn@{}", settlement.message, self.settings.hostname);
        bounce::build(&BounceReport {
            hostname: &self.settings.hostname,
            message_id: &message_id,
            boundary: &format!("dsn{:x}x{first}", settlement.message.0),
            date: now.wall,
            original: settlement.message,
            arrived: view.accepted,
            sender: envelope.sender(),
            recipients: &recipients,
            content: &head(view, record),
        })
    }

    /// Writes a report, and what it tells of, into one commit; it is kept until it is on disk.
    ///
    /// # Errors
    /// The spool is full: nothing was written.
    pub(super) fn store_notice(
        &mut self,
        now: Now,
        token: u64,
        notice: Notice,
        about: About<'_>,
    ) -> Result<(), SpoolFull> {
        let mut envelope = Envelope::default();
        envelope.add_recipient(&notice.to);
        // Bulk, without a campaign: nobody waits for it, and a failing campaign holds up no other.
        envelope.set_labels(Labels { tenant: &notice.tenant, ..Labels::default() });
        // It quotes a stranger's header, whose lines may begin with a dot.
        envelope.set_flags(EnvelopeFlags::default().with(EnvelopeFlags::LEADING_DOTS, true));
        let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let origin = Origin { peer: nowhere, listener: 0, accepted: now.wall };
        let mut encoded = Vec::new();
        envelope.encode(&self.settings.hostname, origin, &mut encoded);
        let groups = domain_ranges(&encoded);
        let parts = MessageParts {
            envelope: &encoded,
            recipients: 1,
            groups: &groups,
            trace: &[],
            chunks: &[],
            body: &notice.text,
        };
        self.spool.store_notice(now, parts, token, about)?;
        if let About::Failures { .. } = about {
            self.counters.reports_made += 1;
        }
        self.pending.notices.insert(token, notice);
        Ok(())
    }
}

/// The recipients that failed for good, with the reply that says why.
fn failures(settlement: &Settlement) -> impl Iterator<Item = (u16, &Reply)> {
    let failed = settlement.outcomes.iter().filter(|range| is_failed(range));
    failed.flat_map(|range| {
        let Outcome::Failed { reply } = &range.outcome else {
            unreachable!("only failures pass the filter");
        };
        (range.first..range.first + range.count).map(move |index| (index, reply))
    })
}

/// The beginning of the message, as far as it lies in its record: a body in chunks is not read
/// again for its headers.
fn head(view: &MessageView, record: &[u8]) -> Vec<u8> {
    let mut head = view.trace.of(record).unwrap_or_default().to_vec();
    if view.chunks(record).next().is_none() {
        let body = view.body.of(record).unwrap_or_default();
        let quoted = body.len().min(bounce::QUOTED_BYTES_MAX);
        head.extend_from_slice(&body[..quoted]);
    }
    head
}
