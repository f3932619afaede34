//! Reads a run from its folder, whoever wrote it: the manifest, and the intervals one by one.

mod encoded;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, LogEntry,
};
use serde::Deserialize;
use thiserror::Error;

use self::encoded::Decoder;
use super::manifest::{FORMAT, Manifest};
use super::{INTERVALS_FILE, MANIFEST_FILE};

/// The stretches of time that a run measures, in the order in which a message meets them.
pub const PHASES: [&str; 15] = [
    "connect", "banner", "tls", "ehlo", "auth", "wait", "slip", "mail", "rcpt", "data", "dot",
    "message", "queue", "delivery", "e2e",
];

/// A manifest of a day's run, one entry a second, has 10 MB.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// A histogram with every counter in use has 200 KB in base64.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// A day's run with every phase in every second.
const INTERVALS_MAX: u64 = 86_400 * 15;
/// Later than any run ends; a time beyond it is damage.
const RUN_SECONDS_MAX: f64 = 30.0 * 86_400.0;
/// The version of the log's text format that is read: `1.` and anything.
const LOG_VERSION: &str = "1.";

/// What one phase took in one stretch of the run.
#[derive(Debug)]
pub struct Interval {
    /// One of [`PHASES`].
    pub phase: &'static str,
    /// Seconds since the start of the run.
    pub start_s: f64,
    pub length_s: f64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Why a run cannot be read; the text names the file and what is wrong with it.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{} is not the manifest of a run: {what}", file.display())]
    Manifest { file: PathBuf, what: String },
    #[error("{}, line {line}: {what}", file.display())]
    Log { file: PathBuf, line: u64, what: LogError },
}

/// What is wrong with a line of the interval log.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum LogError {
    #[error("the file is empty")]
    Empty,
    #[error("the last line is cut off: the log was not written to its end")]
    Cut,
    #[error("longer than any interval ({LINE_BYTES_MAX} bytes)")]
    LongLine,
    #[error("more intervals than a run has ({INTERVALS_MAX})")]
    ManyIntervals,
    #[error("not a line of an HdrHistogram interval log")]
    Syntax,
    #[error("log format {0} is not read by this program, which reads {LOG_VERSION}x")]
    Version(String),
    #[error("an interval without a tag: it does not say which phase it is of")]
    Untagged,
    #[error("{0:?} is not a phase this program knows")]
    UnknownPhase(String),
    #[error("a time outside of any run")]
    Time,
    #[error("the histogram is damaged: {0}")]
    Histogram(&'static str),
}

/// Reads the manifest in the folder of a run.
pub fn manifest(folder: &Path) -> Result<Manifest, ReadError> {
    let file = folder.join(MANIFEST_FILE);
    let unreadable = |error| ReadError::Unreadable { file: file.clone(), error };
    let mut text = String::new();
    let opened = File::open(&file).map_err(unreadable)?;
    let length = opened.take(MANIFEST_BYTES_MAX + 1).read_to_string(&mut text);
    if length.map_err(unreadable)? as u64 > MANIFEST_BYTES_MAX {
        let what = format!("it is longer than {MANIFEST_BYTES_MAX} bytes");
        return Err(ReadError::Manifest { file, what });
    }
    parse(&text).map_err(|what| ReadError::Manifest { file, what })
}

/// A later format may look different altogether: its number is read by itself first.
fn parse(text: &str) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Numbered {
        format: u32,
    }
    match serde_json::from_str::<Numbered>(text) {
        Ok(Numbered { format }) if format > FORMAT => {
            Err(format!("format {format} is newer than this program, which reads up to {FORMAT}"))
        }
        _ => Manifest::parse(text),
    }
}

/// Hands out the intervals in the folder of a run, in the order of the log; tells how many there were.
pub fn intervals(folder: &Path, each: impl FnMut(Interval)) -> Result<u64, ReadError> {
    let file = folder.join(INTERVALS_FILE);
    match File::open(&file) {
        Ok(opened) => read_log(BufReader::new(opened), each).map_err(|failure| failure.of(file)),
        Err(error) => Err(ReadError::Unreadable { file, error }),
    }
}

/// Why reading stopped, before the name of the file is known.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Line(u64, LogError),
}

impl Failure {
    fn of(self, file: PathBuf) -> ReadError {
        match self {
            Self::Io(error) => ReadError::Unreadable { file, error },
            Self::Line(line, what) => ReadError::Log { file, line, what },
        }
    }
}

fn read_log(mut log: impl BufRead, mut each: impl FnMut(Interval)) -> Result<u64, Failure> {
    let mut decoder = Decoder::default();
    let mut line = Vec::new();
    let (mut number, mut intervals) = (1, 0);
    while next_line(&mut log, &mut line, number)? {
        let read = read_line(&line, &mut decoder).map_err(|what| Failure::Line(number, what))?;
        if let Some(interval) = read {
            intervals += 1;
            each(interval);
        }
        if intervals > INTERVALS_MAX {
            return Err(Failure::Line(number, LogError::ManyIntervals));
        }
        number += 1;
    }
    if number == 1 { Err(Failure::Line(1, LogError::Empty)) } else { Ok(intervals) }
}

/// Takes a whole line, with its end; says whether there was one.
fn next_line(log: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, Failure> {
    line.clear();
    let length = log.take(LINE_BYTES_MAX + 1).read_until(b'\n', line).map_err(Failure::Io)?;
    if length as u64 > LINE_BYTES_MAX {
        return Err(Failure::Line(number, LogError::LongLine));
    }
    if length > 0 && !line.ends_with(b"\n") {
        return Err(Failure::Line(number, LogError::Cut));
    }
    Ok(length > 0)
}

/// One line for itself: the iterator's search for a separator would else run on to the end of the file,
/// for every line anew.
fn read_line(line: &[u8], decoder: &mut Decoder) -> Result<Option<Interval>, LogError> {
    check_version(line)?;
    match IntervalLogIterator::new(line).next() {
        Some(Ok(LogEntry::Interval(interval))) => read_interval(&interval, decoder).map(Some),
        Some(Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_))) | None => Ok(None),
        Some(Err(_)) => Err(LogError::Syntax),
    }
}

fn check_version(line: &[u8]) -> Result<(), LogError> {
    let Some(rest) = line.strip_prefix(b"#[Histogram log format version ") else { return Ok(()) };
    if rest.starts_with(LOG_VERSION.as_bytes()) {
        return Ok(());
    }
    let version = rest.split(|byte| *byte == b']').next().unwrap_or_default();
    Err(LogError::Version(String::from_utf8_lossy(version).trim().chars().take(16).collect()))
}

fn read_interval(
    interval: &IntervalLogHistogram<'_>,
    decoder: &mut Decoder,
) -> Result<Interval, LogError> {
    let tag = interval.tag().ok_or(LogError::Untagged)?;
    let known = PHASES.into_iter().find(|phase| *phase == tag.as_str());
    let phase =
        known.ok_or_else(|| LogError::UnknownPhase(tag.as_str().chars().take(32).collect()))?;
    let start_s = interval.start_timestamp().as_secs_f64();
    let length_s = interval.duration().as_secs_f64();
    if start_s > RUN_SECONDS_MAX || length_s > RUN_SECONDS_MAX {
        return Err(LogError::Time);
    }
    let latencies = decoder.decode(interval.encoded_histogram()).map_err(LogError::Histogram)?;
    Ok(Interval { phase, start_s, length_s, latencies })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::serialization::V2DeflateSerializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
    use proptest::prelude::*;

    use super::*;
    use crate::latency;

    /// A log of three seconds and two phases.
    fn log() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("[Histogram log format version 1.3]").with_max_value_divisor(1e6);
        let mut writer = builder.begin_log_with(&mut bytes, &mut serializer).unwrap();
        for second in 0..3 {
            for (phase, scale) in [("dot", 1), ("message", 3)] {
                let mut latencies = latency::histogram();
                for value in 1..200 {
                    latencies.saturating_record(value * value * 1_000 * scale);
                }
                let (start, length) = (Duration::from_secs(second), Duration::from_secs(1));
                writer.write_histogram(&latencies, start, length, Tag::new(phase)).unwrap();
            }
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Interval>, Failure> {
        let mut found = Vec::new();
        read_log(bytes, |interval| found.push(interval)).map(|_| found)
    }

    fn expect(text: &[u8], line: u64, what: &LogError) {
        match read(text) {
            Err(Failure::Line(number, error)) => assert_eq!((number, &error), (line, what)),
            other => panic!("{other:?} instead of {what}"),
        }
    }

    #[test]
    fn what_the_writer_wrote_is_read_back() {
        let intervals = read(&log()).unwrap();
        assert_eq!(intervals.len(), 6);
        let last = &intervals[5];
        assert_eq!((last.phase, last.start_s, last.length_s), ("message", 2.0, 1.0));
        assert_eq!(last.latencies.len(), 199);
        assert!(last.latencies.max().abs_diff(199 * 199 * 3_000) < 199 * 199 * 3);
    }

    #[test]
    fn a_log_cut_anywhere_says_so_or_has_whole_lines_only() {
        let whole = log();
        for cut in 0..whole.len() {
            let is_whole_line = cut > 0 && whole[cut - 1] == b'\n';
            match read(&whole[..cut]) {
                Ok(_) => assert!(is_whole_line, "cut at {cut}"),
                Err(Failure::Line(_, LogError::Empty)) => assert_eq!(cut, 0),
                Err(Failure::Line(_, LogError::Cut)) => assert!(!is_whole_line, "cut at {cut}"),
                Err(other) => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn each_kind_of_damage_has_a_text_of_its_own() {
        expect(b"", 1, &LogError::Empty);
        expect(b"hello\n", 1, &LogError::Syntax);
        expect(b"#[Histogram log format version 2.0]\n", 1, &LogError::Version("2.0".to_owned()));
        expect(b"#x\n0.0,1.0,2.0,AAAA\n", 2, &LogError::Untagged);
        expect(b"Tag=spam,0.0,1.0,2.0,AAAA\n", 1, &LogError::UnknownPhase("spam".to_owned()));
        expect(b"Tag=dot,99999999.0,1.0,2.0,AAAA\n", 1, &LogError::Time);
        expect(b"Tag=dot,0.0,1.0,2.0,!\n", 1, &LogError::Histogram("not base64"));
        let long = usize::try_from(LINE_BYTES_MAX).unwrap() + 2;
        expect(&vec![b'#'; long], 1, &LogError::LongLine);
    }

    #[test]
    fn a_later_format_is_refused_by_its_number_alone() {
        let error = parse(r#"{"format": 2, "everything": "else"}"#).unwrap_err();
        assert!(error.contains("format 2 is newer"), "{error}");
        assert!(parse("{}").is_err() && parse("").is_err() && parse("[1]").is_err());
    }

    proptest! {
        #[test]
        fn a_flipped_byte_is_an_error_or_a_log(at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = log();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // Either is fine: the text format has no checksum, deflate has one.
            drop(read(&bytes));
        }

        #[test]
        fn any_bytes_are_an_error_or_a_log(bytes: Vec<u8>) {
            drop(read(&bytes));
        }
    }
}
