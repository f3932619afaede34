//! `run.hlog`: the latencies of a run, one interval a second and phase.
//!
//! The format is that of the HdrHistogram tools (interval log 1.3, V2 compressed histograms), so
//! that those of Java and JavaScript read it.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use crate::latency::Latencies;

/// Nanoseconds in the unit of the column Interval_Max.
const MAX_DIVISOR: f64 = 1e6;

pub(super) struct IntervalLog<'a, W: Write> {
    writer: IntervalLogWriter<'a, 'a, W, V2DeflateSerializer>,
}

impl<'a, W: Write> IntervalLog<'a, W> {
    /// Writes the head: what the columns mean, and when the run began.
    pub(super) fn begin(
        to: &'a mut W,
        serializer: &'a mut V2DeflateSerializer,
        started: Duration,
    ) -> io::Result<Self> {
        let start = UNIX_EPOCH + started;
        let writer = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("[Latencies of a run of loadgen; the tag is the phase]")
            .add_comment("[Histograms hold nanoseconds, Interval_Max is in milliseconds]")
            .add_comment("[StartTimestamp is in seconds since the start of the run]")
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(MAX_DIVISOR)
            .begin_log_with(to, serializer)?;
        Ok(Self { writer })
    }

    /// Writes a line for each phase that has values.
    pub(super) fn write(
        &mut self,
        from_ns: u64,
        to_ns: u64,
        latencies: &Latencies,
    ) -> io::Result<()> {
        let from = Duration::from_nanos(from_ns);
        let length = Duration::from_nanos(to_ns.saturating_sub(from_ns));
        for (phase, values) in latencies.iter() {
            let tag = Tag::new(phase.name());
            self.writer.write_histogram(values, from, length, tag).map_err(
                |error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                },
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::clock::SECOND_NS;
    use crate::latency::Phase;

    #[test]
    fn a_log_reads_back_with_the_same_counts() {
        let (mut file, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut log =
            IntervalLog::begin(&mut file, &mut serializer, Duration::from_secs(1_000)).unwrap();
        let mut written = Vec::new();
        for second in 0..3 {
            let mut latencies = Latencies::default();
            for value in 0..1000 * (second + 1) {
                latencies.record(Phase::Dot, 1_000 + value * 7_919);
                latencies.record(Phase::EndToEnd, 5_000_000 + value * 104_729);
            }
            log.write(second * SECOND_NS, (second + 1) * SECOND_NS, &latencies).unwrap();
            written.push(latencies);
        }
        drop(log);
        let entries = read(&file);
        assert_eq!(entries.len(), 6);
        for (index, (tag, start, values)) in entries.iter().enumerate() {
            let phase = Phase::from_name(tag).unwrap();
            let expected = written[index / 2].get(phase).unwrap();
            assert_eq!(*start, Duration::from_secs(index as u64 / 2));
            assert_eq!(values, expected, "{tag}");
        }
    }

    fn read(file: &[u8]) -> Vec<(String, Duration, Histogram<u64>)> {
        let entry = |entry: LogEntry<'_>| match entry {
            LogEntry::Interval(interval) => {
                let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
                let values = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                let tag = interval.tag().unwrap().as_str().to_owned();
                Some((tag, interval.start_timestamp(), values))
            }
            LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                assert_eq!(at, Duration::from_secs(1_000));
                None
            }
        };
        IntervalLogIterator::new(file).filter_map(|line| entry(line.unwrap())).collect()
    }
}
