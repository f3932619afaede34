//! What one shard counts and times: plain fields, added up over the shards by whoever shows them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What counts are shown as: name, help, and how to read it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// In the form of Prometheus: lower case, `_total` for what only grows.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    pub read: fn(&Counters) -> u64,
}

/// Makes the fields, their sum and their exposition out of one list; a doc comment is the help.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $field:ident,)+) => {
        /// The counts of one shard since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl Counters {
            /// Every counter, in the order of a message's life.
            pub const METRICS: &[Metric] = &[
                $(Metric {
                    name: concat!("postrider_", stringify!($field), "_total"),
                    help: concat!($($help),+).trim_ascii(),
                    read: |counters| counters.$field,
                },)+
            ];

            /// Adds the counts of another shard.
            pub const fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }
        }
    };
}

counters! {
    /// Connections accepted from clients.
    connections_in,
    /// Connections of clients that have ended.
    connections_in_ended,
    /// Clients turned away at the greeting because there was no room.
    connections_in_refused,
    /// Commands read from clients.
    commands_in,
    /// Messages accepted: durable and acknowledged with 250.
    messages_accepted,
    /// Recipients of the messages accepted.
    recipients_accepted,
    /// Bytes of the messages accepted, as stored.
    bytes_accepted,
    /// Refusals because the client may not send to that domain (550 5.7.1).
    refused_relay,
    /// Refusals because the message was too large (552 5.3.4).
    refused_size,
    /// Refusals because a message had too many recipients (452 4.5.3).
    refused_recipients,
    /// Refusals because memory or connections were short (452 4.3.1, 421 4.3.2).
    refused_busy,
    /// Refusals because the spool was full or failing (452 4.3.1).
    refused_spool,
    /// Refusals because a command or address was malformed or out of sequence (500 to 503).
    refused_syntax,
    /// Refusals because the message itself broke the rules: bare CR or LF, NUL, a loop (554).
    refused_content,
    /// Clients closed because they were silent or slow (421 4.4.2).
    refused_timeout,

    /// Commits known to be on disk.
    commits,
    /// Bytes of those commits, padding included.
    commit_bytes,
    /// Commits that failed; each ends its segment.
    commits_failed,
    /// Outcome records written.
    outcomes_written,
    /// Records read back from disk because memory had let go of them.
    records_read,
    /// Records let go of to stay inside the body memory.
    records_dropped,
    /// Records that could not be read and were set aside.
    records_set_aside,
    /// Segments taken into use.
    segments_opened,
    /// Segments given back for reuse.
    segments_recycled,
    /// Messages copied out of old segments.
    messages_copied,

    /// Deliveries queued at their site.
    deliveries_queued,
    /// Attempts at a delivery that ended with an answer for each recipient.
    attempts,
    /// Recipients delivered.
    recipients_delivered,
    /// Recipients put off to a later attempt.
    recipients_deferred,
    /// Recipients given up, whether refused or expired.
    recipients_failed,
    /// Recipients that an operator took back.
    recipients_cancelled,
    /// Recipients given up because their time was over; counted among the failed too.
    recipients_expired,
    /// Deliveries cut off before an answer; they cost the message no attempt.
    deliveries_not_tried,
    /// Times a site asked to slow down.
    throttled,
    /// Times a site was put on hold.
    sites_closed,
    /// Reports of failure made for senders (DSNs).
    reports_made,
    /// Reports that could not be delivered and are not reported again.
    reports_dropped,

    /// Connections opened to remote servers.
    connections_out,
    /// Connections to remote servers that have ended.
    connections_out_ended,
    /// Connections that were refused or unreachable.
    connects_refused,
    /// Connections that were not answered in time.
    connects_timed_out,
    /// Connections that this machine could not open.
    connects_failed_here,
    /// Deliveries sent on a connection that had delivered before.
    connections_reused,
    /// Bytes of messages sent.
    bytes_sent,
    /// TLS handshakes completed with remote servers.
    tls_handshakes,
    /// TLS handshakes with remote servers that failed.
    tls_failures,
    /// Remote servers cut off because they answered out of turn.
    desyncs,

    /// Questions put to the resolver.
    dns_questions,
    /// Questions that it could not answer for now.
    dns_failures,

    /// Turns of the shard's loop.
    turns,
    /// Notes sent to other shards.
    notes_sent,
    /// Notes that had to wait because the other shard's mailbox was full.
    notes_delayed,
    /// Entries put on the ring.
    ring_entries,
    /// Completions taken from the ring.
    ring_completions,
    /// System calls made for the ring.
    ring_enters,
    /// Completions that the kernel had to keep back because the queue was full.
    ring_overflows,
    /// Receives that found no free buffer and waited for one.
    ring_buffers_exhausted,
    /// Sends that the kernel took only in part.
    ring_short_sends,
}

/// The finest and the longest time told apart; what lies outside counts as the nearest.
const TIME_MICROS_MIN: u64 = 1;
const TIME_MICROS_MAX: u64 = 3_600_000_000;

/// Three digits: within 0.1 % of the truth, in at most 200 KiB per histogram.
const DIGITS: u8 = 3;

/// The times of one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    /// From the final dot of a message to its 250: the wait for the disk.
    pub commit_wait: Latency,
    /// From the moment a delivery may go to its start on a connection.
    pub queue_wait: Latency,
    /// From the start of a delivery on a connection to the last answer of the remote server.
    pub delivery: Latency,
}

impl Latencies {
    /// Adds the times of another shard.
    pub fn add(&mut self, other: &Self) {
        self.commit_wait.add(&other.commit_wait);
        self.queue_wait.add(&other.queue_wait);
        self.delivery.add(&other.delivery);
    }

    /// Each with its name in the form of Prometheus, and its help.
    #[must_use]
    pub const fn list(&self) -> [(&'static str, &'static str, &Latency); 3] {
        [
            (
                "postrider_commit_wait_seconds",
                "From the final dot of a message to its 250.",
                &self.commit_wait,
            ),
            (
                "postrider_queue_wait_seconds",
                "From the moment a delivery may go to its start on a connection.",
                &self.queue_wait,
            ),
            (
                "postrider_delivery_seconds",
                "From the start of a delivery on a connection to its last answer.",
                &self.delivery,
            ),
        ]
    }
}

/// Durations in microseconds, from 1 us to 1 h.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(TIME_MICROS_MIN, TIME_MICROS_MAX, DIGITS);
        Self(bounds.expect("the bounds are constants that fit"))
    }
}

impl Latency {
    /// Counts one duration; never allocates.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(TIME_MICROS_MAX);
        self.0.saturating_record(micros.clamp(TIME_MICROS_MIN, TIME_MICROS_MAX));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The histogram, in microseconds.
    #[must_use]
    pub const fn micros(&self) -> &Histogram<u64> {
        &self.0
    }

    /// The time that this share of all durations stayed within; zero if there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        match self.0.len() {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.0.value_at_quantile(share)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_two_shards_is_the_sum_of_each_count() {
        let mut sum = Counters { messages_accepted: 2, commits: u64::MAX, ..Counters::default() };
        sum.add(&Counters { messages_accepted: 3, commits: 5, turns: 7, ..Counters::default() });
        let expected =
            Counters { messages_accepted: 5, commits: u64::MAX, turns: 7, ..Counters::default() };
        assert_eq!(sum, expected);
    }

    #[test]
    fn every_counter_is_listed_once_and_explained() {
        let fields = size_of::<Counters>() / size_of::<u64>();
        assert_eq!(Counters::METRICS.len(), fields);
        let mut names: Vec<&str> = Counters::METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), fields);
        for metric in Counters::METRICS {
            assert!(metric.help.ends_with('.') && !metric.help.starts_with(' '), "{}", metric.name);
        }
    }

    #[test]
    fn a_metric_reads_its_own_field() {
        let counters = Counters { bytes_sent: 9, ..Counters::default() };
        let read: Vec<_> =
            Counters::METRICS.iter().filter(|metric| (metric.read)(&counters) == 9).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].name, "postrider_bytes_sent_total");
        assert_eq!(read[0].help, "Bytes of messages sent.");
    }

    #[test]
    fn times_beyond_the_bounds_count_as_the_nearest() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        assert_eq!(latency.quantile(1.0), Duration::from_micros(1));
        latency.record(Duration::MAX);
        let longest = latency.quantile(1.0).as_secs_f64();
        assert!((3600.0..3605.0).contains(&longest), "{longest}");
        assert_eq!(Latency::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn the_times_of_shards_add_up() {
        let mut sum = Latencies::default();
        let mut other = Latencies::default();
        sum.delivery.record(Duration::from_millis(1));
        other.delivery.record(Duration::from_millis(3));
        other.queue_wait.record(Duration::from_millis(9));
        sum.add(&other);
        assert_eq!(sum.delivery.micros().len(), 2);
        assert!(sum.delivery.quantile(1.0) >= Duration::from_micros(2999));
        assert_eq!(sum.list()[1].2.micros().len(), 1);
    }
}
