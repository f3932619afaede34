//! A start that takes mail before it has read the spool, and reads the spool by indexes alone.

use super::files::FileId;
use super::opening::{Stretch, index_of, open, to_read};
use super::plan::plan;
use super::record::RECORD_HEADER_BYTES;
use super::recovery::{scan, scan_by_index};
use super::segment::{DATA_START, Slots, read_slots};
use super::test_disk::{Disk, append, at_ms, deferred, groups_of, live, options};
use super::{Durable, Spool};
use crate::base::time::Wall;
use crate::model::message::MessageId;

const SEGMENT_BYTES: u32 = 1 << 20;
const DUE: Wall = Wall(5_000_000_000_000);

/// A spool that ended in order, with these messages deferred once.
fn ended(messages: u64) -> (Disk, Vec<MessageId>) {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    let add = |token| append(&mut spool, at_ms(1), 1, b"body", token).unwrap();
    let ids: Vec<_> = (0..messages).map(add).collect();
    disk.run(&mut spool, at_ms(1));
    for id in &ids {
        spool.settle(at_ms(2), *id, &[deferred(0, 2, 1, DUE)], None);
    }
    disk.run(&mut spool, at_ms(20));
    spool.seal();
    disk.run(&mut spool, at_ms(20));
    (disk, ids)
}

fn headers(disk: &Disk) -> Vec<(FileId, Slots)> {
    let slots = |bytes: &Vec<u8>| read_slots(bytes).unwrap();
    (0..).map(FileId).zip(disk.files.iter().map(slots)).collect()
}

#[test]
fn mail_taken_before_the_spool_was_read_and_mail_found_in_it_both_live() {
    let (mut disk, old) = ended(3);
    let opening = open(&headers(&disk), 1);
    assert_eq!(opening.in_use.len(), 1);
    let spares = opening.shards.into_iter().next();
    let mut spool = Spool::new(options(opening.next_sequence), spares);
    let new = append(&mut spool, at_ms(30), 1, b"new", 9).unwrap();
    let told = disk.run(&mut spool, at_ms(30));
    assert!(matches!(told[..], [Durable::Message { token: 9, .. }]), "{told:?}");
    let read = opening
        .in_use
        .iter()
        .map(|file| scan(*file, &disk.files[file.0 as usize], groups_of).unwrap());
    let recovered = plan(read.collect(), 1).shards.remove(0);
    spool.adopt(recovered);
    // Of what is not taken over yet, nothing seems to be live: it stays all the same.
    disk.run(&mut spool, at_ms(35));
    while !spool.adopt_messages(1) {
        disk.run(&mut spool, at_ms(35));
    }
    disk.run(&mut spool, at_ms(35));
    assert_eq!(spool.counters().segments_recycled, 0);
    for id in old.iter().chain([&new]) {
        assert!(new.segment() >= id.segment() && spool.pending(*id) == 2, "{id}");
    }
    spool.settle(at_ms(40), old[0], &[deferred(0, 2, 2, DUE)], None);
    disk.run(&mut spool, at_ms(60));
    let mut found: Vec<_> = live(&disk.recover(1)).into_iter().map(|(id, _)| id).collect();
    found.dedup();
    assert_eq!(found, [old, vec![new]].concat());
}

#[test]
fn an_index_alone_tells_what_all_records_tell() {
    let (disk, _) = ended(40);
    let (file, slots) =
        headers(&disk).into_iter().find(|(_, slots)| index_of(slots).is_some()).unwrap();
    let bytes = &disk.files[file.0 as usize];
    let index = index_of(&slots).unwrap();
    assert_eq!(to_read(&slots, index, bytes), Some(vec![]), "outcomes are listed");
    // Nothing but the headers and the index is there to be read.
    let mut bare = bytes.clone();
    let (start, end) = (index.offset as usize, (index.offset + index.bytes) as usize);
    bare[DATA_START as usize..start - RECORD_HEADER_BYTES].fill(0);
    bare[end..(SEGMENT_BYTES - 4096) as usize].fill(0);
    let by_index = plan(vec![scan_by_index(file, &bare, groups_of).unwrap()], 1);
    let by_records = plan(vec![scan(file, bytes, groups_of).unwrap()], 1);
    assert_eq!(format!("{by_index:?}"), format!("{by_records:?}"));
    assert_eq!(by_index.deliveries.len(), 80);
    assert!(by_index.deliveries.iter().all(|found| found.due.is_some()));
}

#[test]
fn an_index_that_does_not_hold_is_not_relied_on() {
    let (disk, _) = ended(2);
    let (file, slots) =
        headers(&disk).into_iter().find(|(_, slots)| index_of(slots).is_some()).unwrap();
    let index = index_of(&slots).unwrap();
    for at in index.offset..index.offset + index.bytes {
        let mut bytes = disk.files[file.0 as usize].clone();
        bytes[at as usize] ^= 1;
        assert_eq!(to_read(&slots, index, &bytes), None, "byte {at}");
        assert!(scan_by_index(file, &bytes, groups_of).is_none());
    }
    let beyond = Stretch { offset: u32::MAX, bytes: 64 };
    assert_eq!(to_read(&slots, beyond, &disk.files[file.0 as usize]), None);
}
