//! The released format: a spool written once must read the same for ever.
//!
//! `tests/fixtures/spool-format-1/` holds its segments, `NNNNNNNN.seg`, and `found.txt`, which says
//! in words all that must be found in them. A change of the format breaks this test: it then needs
//! another format version, another fixture beside this one, and a reader for both.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::message::{ChunkRef, DomainRange, MessageView};
use super::plan::plan;
use super::record::{CommitFields, Fence, Kind, RecordHeader, StateFields};
use super::recovery::{Groups, SegmentScan, scan, scan_thoroughly};
use super::segment::{SegmentState, read_slots};
use super::test_disk::{Disk, at_ms, deferred, delivered, options};
use super::transfer::take_stock;
use super::{DiskError, FileId, Gather, MessageParts, Spool};
use crate::base::time::{Now, Wall};
use crate::model::message::{MessageId, Place};
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};
use crate::wire::envelope::{Envelope, EnvelopeFlags, EnvelopeView, Origin};

const SEGMENT_BYTES: u32 = 64 << 10;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "tests", "fixtures", "spool-format-1"].iter().collect()
}

fn groups_of(envelope: &[u8]) -> Option<Groups> {
    let (view, _) = EnvelopeView::parse(envelope).ok()?;
    Some(view.groups().map(|group| (group.domain.into(), group.first, group.count)).collect())
}

#[test]
fn the_released_format_still_loads() {
    let mut files = Vec::new();
    while let Ok(bytes) = fs::read(folder().join(format!("{:08}.seg", files.len()))) {
        files.push(bytes);
    }
    let expected = fs::read_to_string(folder().join("found.txt")).unwrap();
    assert_eq!(told(&files), expected);
}

#[test]
fn last_replies_of_the_released_format_are_found() {
    let scans = (0..).map_while(|number| {
        let bytes = fs::read(folder().join(format!("{number:08}.seg"))).ok()?;
        Some((bytes.clone(), scan(FileId(number), &bytes, groups_of).unwrap()))
    });
    let (files, scans): (Vec<_>, Vec<_>) = scans.unzip();
    let stock = take_stock(scans);
    let read = |place: Place| {
        let bytes = files.iter().find(|bytes| is_segment(bytes, place.segment.0))?;
        let record = bytes.get(place.offset as usize..)?;
        Some(record[..record.len().min(place.bytes as usize)].to_vec())
    };
    let said = |message| stock.read(message, read).unwrap().deferrals;
    let told: Vec<_> = stock.messages.iter().flat_map(said).collect();
    let reply = Reply::remote(451, None, "later");
    let next = Wall(1_060_050_000_000);
    let outcome = Outcome::Deferred { reply: reply.clone(), next };
    let copied = Outcome::Deferred { reply, next: Wall(1_061_000_000_000) };
    // Behind the copy of 1-000003 stands none, so it is where it was.
    let expected = [
        RangeOutcome { first: 1, count: 1, attempts: 3, outcome },
        RangeOutcome { first: 0, count: 1, attempts: 1, outcome: copied },
    ];
    assert_eq!(told, expected);
}

/// Writes the fixture. Only for a new format version: the files of a released one never change.
#[test]
#[ignore = "writes the fixture of a format that is not released yet"]
fn write_the_fixture() {
    let files = written();
    fs::create_dir_all(folder()).unwrap();
    for (number, bytes) in files.iter().enumerate() {
        fs::write(folder().join(format!("{number:08}.seg")), bytes).unwrap();
    }
    fs::write(folder().join("found.txt"), told(&files)).unwrap();
}

fn append(spool: &mut Spool, now: Now, name: &str, chunks: &[ChunkRef], body: &[u8]) -> MessageId {
    let mut envelope = Envelope::default();
    envelope.set_sender("sender@example.org");
    for domain in ["a.example", "b.example"] {
        envelope.add_recipient(&format!("{name}@{domain}"));
    }
    envelope.set_flags(EnvelopeFlags::default());
    let peer = SocketAddr::from(([192, 0, 2, 1], 25));
    let mut bytes = Vec::new();
    envelope.encode("client.example", Origin { peer, listener: 0, accepted: now.wall }, &mut bytes);
    let parts = MessageParts {
        envelope: &bytes,
        recipients: 2,
        groups: &[
            DomainRange { domain: "a.example", first: 0, count: 1 },
            DomainRange { domain: "b.example", first: 1, count: 1 },
        ],
        trace: b"Received: from client.example\r\n",
        chunks,
        body,
    };
    let id = spool.begin_message(now, parts.payload_bytes()).unwrap();
    spool.append_message(now, id, parts, 0).unwrap();
    id
}

fn failed(first: u16) -> RangeOutcome {
    let reply = Reply::remote(550, Some(Enhanced(5, 1, 1)), "no such user");
    RangeOutcome { first, count: 1, attempts: 2, outcome: Outcome::Failed { reply } }
}

/// A spool with every kind of record: one segment sealed, one fenced, one open.
fn written() -> Vec<Vec<u8>> {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    spool.stop_cleaning();
    disk.run(&mut spool, at_ms(0));
    let later = |now: Now| now.wall.plus(Duration::from_secs(60));
    append(&mut spool, at_ms(10), "untried", &[], b"Subject: one\r\n\r\n.one\r\n");
    disk.run(&mut spool, at_ms(11));
    let waits = append(&mut spool, at_ms(20), "waits", &[], b"Subject: two\r\n\r\ntwo\r\n");
    let over = append(&mut spool, at_ms(20), "over", &[], b"");
    disk.run(&mut spool, at_ms(21));
    let moves = append(&mut spool, at_ms(30), "moves", &[], b"Subject: four\r\n\r\nfour\r\n");
    let pieces = [spool.append_chunk(at_ms(31), &[b'x'; 5000]).unwrap()];
    disk.run(&mut spool, at_ms(32));
    append(&mut spool, at_ms(40), "in-pieces", &pieces, b"the end\r\n");
    disk.run(&mut spool, at_ms(41));
    let next = later(at_ms(50));
    spool.settle(at_ms(50), waits, &[delivered(0, 1), deferred(1, 1, 3, next)], None);
    spool.settle(at_ms(50), over, &[delivered(0, 1), failed(1)], None);
    spool.settle(at_ms(50), moves, &[delivered(1, 1), deferred(0, 1, 1, next)], None);
    disk.run(&mut spool, at_ms(60));
    let record = record_of(&disk.files, moves);
    spool.seal();
    disk.run(&mut spool, at_ms(61));
    // What is refused here is void, though it is on the disk: the next segment says so.
    append(&mut spool, at_ms(70), "kept", &[], b"Subject: six\r\n\r\nsix\r\n");
    disk.run(&mut spool, at_ms(71));
    append(&mut spool, at_ms(72), "refused", &[], b"Subject: seven\r\n\r\nseven\r\n");
    disk.take_requests(&mut spool, at_ms(75), Gather::default());
    let commit = disk.finish(0);
    spool.handle_committed(commit, Err(DiskError::Failed(5)));
    append(&mut spool, at_ms(76), "last", &[], b"Subject: eight\r\n\r\neight\r\n");
    disk.run(&mut spool, at_ms(77));
    spool.copy_for_tests(at_ms(80), moves, &record);
    let open = spool.open.as_mut().unwrap();
    let state = StateFields { topic: 7, key_bytes: 9 };
    open.append(
        Kind::State,
        &[(20, &state.topic.to_le_bytes()), (22, &state.key_bytes.to_le_bytes())],
        b"a.exampleslow",
    );
    disk.run(&mut spool, at_ms(90));
    // One spare is as good as three.
    disk.files.truncate(4);
    disk.files
}

fn record_of(files: &[Vec<u8>], id: MessageId) -> Vec<u8> {
    for bytes in files {
        let found = scan(FileId(0), bytes, groups_of).unwrap();
        if let Some(message) = found.messages.iter().find(|message| message.id == id) {
            let (at, end) = (message.place.offset, message.place.offset + message.place.bytes);
            return bytes[at as usize..end as usize].to_vec();
        }
    }
    panic!("{id} is in no file");
}

/// Everything that is found, in words.
fn told(files: &[Vec<u8>]) -> String {
    let mut told = String::new();
    for (number, bytes) in (0..).zip(files) {
        writeln!(told, "file {number}, {} bytes", bytes.len()).unwrap();
        let header = read_slots(bytes).unwrap();
        writeln!(told, "  header {:?}", header.header).unwrap();
        writeln!(told, "  other  {:?}", header.other).unwrap();
        let by_index = scan(FileId(number), bytes, groups_of).unwrap();
        let all = scan_thoroughly(FileId(number), bytes, groups_of).unwrap();
        if matches!(header.header.state, SegmentState::Sealed { .. }) {
            assert_eq!(by_index.messages.len(), all.messages.len(), "the index tells the same");
            tell_scan(&mut told, "by the index", &by_index);
        }
        tell_scan(&mut told, "record by record", &all);
        tell_records(&mut told, bytes);
    }
    let scans = (0..).zip(files).map(|(file, bytes)| scan(FileId(file), bytes, groups_of).unwrap());
    let recovered = plan(scans.collect(), 1);
    assert!(recovered.deliveries.iter().all(|found| found.flow.is_none()), "nobody said any");
    writeln!(told, "recovered, next sequence {}", recovered.next_sequence).unwrap();
    for found in &recovered.deliveries {
        let (at, delivery) = (found.delivery.place, &found.delivery);
        let (message, recipients) = (delivery.message, delivery.recipients());
        let segment = files.iter().find(|bytes| is_segment(bytes, at.segment.0)).unwrap();
        let record = &segment[at.offset as usize..];
        let view = MessageView::parse(record).unwrap();
        let envelope = EnvelopeView::parse(view.envelope.of(record).unwrap()).unwrap().0;
        let to: Vec<_> = envelope.recipients(recipients).collect();
        let (attempts, due, accepted) = (delivery.attempts, found.due, delivery.accepted);
        writeln!(told, "  {message} at {at:?} to {to:?}, attempts {attempts}, due {due:?}, accepted {accepted:?}").unwrap();
    }
    writeln!(told, "  findings {:?}", recovered.findings).unwrap();
    told
}

fn is_segment(bytes: &[u8], sequence: u64) -> bool {
    let header = read_slots(bytes).unwrap().header;
    header.state != SegmentState::Free && header.tag.sequence.0 == sequence
}

fn tell_scan(told: &mut String, how: &str, scan: &SegmentScan) {
    writeln!(told, "  {how}: {:?}, durable through {}", scan.use_, scan.durable_through).unwrap();
    for message in &scan.messages {
        let (id, at, accepted) = (message.id, message.place, message.accepted.0);
        let (groups, chunks) = (&message.groups, &message.chunks);
        let states = message.states.as_ref().map(|states| as_written(states));
        writeln!(
            told,
            "    message {id} at {} of {} bytes, accepted {accepted}",
            at.offset, at.bytes
        )
        .unwrap();
        writeln!(told, "      {groups:?} {chunks:?} {states:?}").unwrap();
    }
    for outcome in &scan.outcomes {
        let (id, at, result) = (outcome.message, outcome.spot.offset(), outcome.result);
        let (first, count, attempts) = (outcome.first, outcome.count, outcome.attempts);
        writeln!(told, "    outcome at {at} of {id}: {first} {count} {attempts} {result:?}")
            .unwrap();
    }
    writeln!(told, "    {:?}, chunks {:?}", scan.fences, scan.chunks).unwrap();
    writeln!(told, "    findings {:?}", scan.findings).unwrap();
}

/// A state as it lies on disk, which knows of no reply.
#[derive(Debug)]
#[expect(dead_code, reason = "it is only to be told")]
struct PendingRun {
    first: u16,
    count: u16,
    attempts: u16,
    due: Option<Wall>,
}

fn as_written(states: &[super::message::PendingRun]) -> Vec<PendingRun> {
    let written = |run: &super::message::PendingRun| {
        assert_eq!(run.reply, None);
        PendingRun { first: run.first, count: run.count, attempts: run.attempts, due: run.due }
    };
    states.iter().map(written).collect()
}

/// Each record, its fields and its payload's checksum, whatever a scan makes of it.
fn tell_records(told: &mut String, bytes: &[u8]) {
    let tag = read_slots(bytes).unwrap().header.tag;
    for at in (4096..bytes.len() - 4096).step_by(64) {
        let position = u32::try_from(at).unwrap();
        let Some(header) = RecordHeader::read(&bytes[at..], &tag, position) else { continue };
        let payload = header.payload(&bytes[at..]).unwrap();
        write!(told, "  {at:6} {:?} {} bytes", header.kind().unwrap(), payload.len()).unwrap();
        match header.kind().unwrap() {
            Kind::Commit => {
                let commit = CommitFields::from_fields(&header.fields).unwrap();
                writeln!(told, " {commit:?}").unwrap();
            }
            Kind::Fence => writeln!(told, " {:?}", Fence::from_fields(&header.fields)).unwrap(),
            Kind::State => {
                let state = StateFields::from_fields(&header.fields).unwrap();
                let (key, value) = payload.split_at(state.key_bytes.into());
                let (key, value) = (key.escape_ascii(), value.escape_ascii());
                writeln!(told, " topic {}, {key} = {value}", state.topic).unwrap();
            }
            Kind::Message | Kind::Copy => {
                let record = &bytes[at..];
                let view = MessageView::verify(record, &tag, position).unwrap();
                let (id, accepted, whole) = (view.id, view.accepted, view.body_bytes);
                writeln!(told, " {id} accepted {accepted:?}, body of {whole}").unwrap();
                let text = |bytes: Option<&[u8]>| bytes.unwrap().escape_ascii().to_string();
                writeln!(told, "         trace {}", text(view.trace.of(record))).unwrap();
                writeln!(told, "         body {}", text(view.body.of(record))).unwrap();
                let chunks: Vec<_> = view.chunks(record).collect();
                let states: Vec<_> = view.states(record).collect();
                writeln!(told, "         {chunks:?} {:?}", as_written(&states)).unwrap();
            }
            Kind::Outcomes => {
                writeln!(told).unwrap();
                for entry in super::outcomes::entries(payload) {
                    writeln!(told, "         {} {:?}", entry.message, entry.to_range_outcome())
                        .unwrap();
                }
            }
            Kind::Chunk | Kind::Footer => {
                let sum = crate::base::checksum::crc32c(payload);
                writeln!(told, " checksum {sum:08x}").unwrap();
            }
        }
    }
}
