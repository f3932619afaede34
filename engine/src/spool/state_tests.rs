//! What is kept beside the mail: the newest of each key, over cleaning, failures and restarts.

use super::files::DiskError;
use super::record::{Kind, RecordHeader};
use super::recovery::{Finding, scan_thoroughly};
use super::segment::read_slots;
use super::test_disk::{Disk, append, at_ms, delivered, groups_of, options};
use super::{Durable, Gather, Spool, SpoolOptions};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::state::{StateItem, Topic, VALUE_BYTES_MAX};
use crate::spool::files::FileId;

const SEGMENT_BYTES: u32 = 96 << 10;

fn hold(key: &str, value: &str) -> StateItem {
    StateItem::new(Topic::Hold, key.as_bytes(), value.as_bytes())
}

fn found(disk: &Disk) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let states = disk.recover(1).states;
    let mut all: Vec<_> = states.iter().map(|item| (text(&item.key), text(&item.value))).collect();
    all.sort();
    all
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Fills segments with mail that is delivered at once.
fn churn(disk: &mut Disk, spool: &mut Spool, ms: &mut u64, messages: usize) {
    for _ in 0..messages {
        *ms += 10;
        append(spool, at_ms(*ms), 1, &[7; 6000], 0).unwrap();
        for told in disk.run(spool, at_ms(*ms)) {
            if let Durable::Message { id, .. } = told {
                spool.settle(at_ms(*ms), id, &[delivered(0, 2)], None);
            }
        }
        disk.run(spool, at_ms(*ms + 6));
    }
}

fn restart(disk: &Disk) -> Spool {
    let recovered = disk.recover(1);
    Spool::new(options(recovered.next_sequence), recovered.shards.into_iter().next())
}

#[test]
fn the_newest_of_a_key_holds_and_one_that_is_forgotten_is_none() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    let said = [hold("a", "1"), hold("b", "1"), hold("a", "2"), hold("b", ""), hold("c", "1")];
    for (ms, item) in (10..).step_by(10).zip(said) {
        spool.remember(at_ms(ms), item);
        disk.run(&mut spool, at_ms(ms + 5));
    }
    assert_eq!(found(&disk), [pair("a", "2"), pair("c", "1")]);
    assert_eq!(spool.states_kept(), 2);
}

#[test]
fn it_is_told_kept_when_its_commit_is_durable_and_not_before() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(10), hold("a", "1"));
    spool.tell_when_kept(Topic::Hold, b"a", false, 5);
    disk.take_requests(&mut spool, at_ms(14), Gather::default());
    assert!(disk.writes.is_empty(), "it waits for company");
    assert_eq!(spool.next_wakeup(), Some(at_ms(15).mono));
    disk.take_requests(&mut spool, at_ms(15), Gather::default());
    assert!(spool.poll_durable().is_none());
    let told = disk.run(&mut spool, at_ms(15));
    assert!(told.iter().any(|told| matches!(told, Durable::Kept { token: 5 })), "{told:?}");
}

#[test]
fn values_survive_the_recycling_of_their_segment() {
    let mut disk = Disk::new(SEGMENT_BYTES, 12);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(1), hold("a", "stays"));
    spool.remember(at_ms(1), hold("b", "goes"));
    disk.run(&mut spool, at_ms(6));
    spool.remember(at_ms(7), hold("b", ""));
    let mut ms = 10;
    churn(&mut disk, &mut spool, &mut ms, 200);
    assert!(spool.counters().segments_recycled > 8, "{:?}", spool.counters());
    assert_eq!(found(&disk), [pair("a", "stays")]);
    // And again by one that took it over.
    let mut spool = restart(&disk);
    disk.run(&mut spool, at_ms(ms));
    churn(&mut disk, &mut spool, &mut ms, 200);
    assert!(spool.counters().segments_recycled > 8);
    assert_eq!(found(&disk), [pair("a", "stays")]);
}

#[test]
fn the_word_that_a_key_is_forgotten_outlives_its_values() {
    let mut disk = Disk::new(SEGMENT_BYTES, 12);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(1), hold("a", "old"));
    disk.run(&mut spool, at_ms(6));
    // A message keeps the first segment for long.
    append(&mut spool, at_ms(7), 1, &[7; 6000], 0).unwrap();
    let mut ms = 10;
    churn(&mut disk, &mut spool, &mut ms, 20);
    spool.remember(at_ms(ms), hold("a", ""));
    disk.run(&mut spool, at_ms(ms + 5));
    for _ in 0..20 {
        churn(&mut disk, &mut spool, &mut ms, 10);
        assert_eq!(found(&disk), []);
    }
}

#[test]
fn a_value_in_a_refused_commit_is_written_again() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(10), hold("a", "1"));
    spool.tell_when_kept(Topic::Hold, b"a", false, 5);
    disk.take_requests(&mut spool, at_ms(15), Gather::default());
    let commit = disk.writes.remove(0).commit;
    spool.handle_committed(commit, Err(DiskError::Failed(5)));
    assert!(found(&disk).is_empty());
    let told = disk.run(&mut spool, at_ms(16));
    assert!(told.iter().any(|told| matches!(told, Durable::Kept { token: 5 })), "{told:?}");
    assert_eq!(found(&disk), [pair("a", "1")]);
}

#[test]
fn where_there_is_no_room_it_is_said_so_and_written_later() {
    let mut disk = Disk::new(SEGMENT_BYTES, 0);
    let mut spool = Spool::new(options(1), None);
    disk.take_requests(&mut spool, at_ms(0), Gather::default());
    spool.remember(at_ms(10), hold("a", "1"));
    spool.tell_when_kept(Topic::Hold, b"a", false, 5);
    let told = disk.run(&mut spool, at_ms(11));
    assert!(matches!(told[..], [Durable::NotKept { token: 5 }]), "{told:?}");
    assert!(spool.next_wakeup().is_none_or(|at| at > at_ms(15).mono), "it waits for a segment");
    assert!(spool.is_settled(), "it holds up no end");
    disk.files_max(4);
    disk.run(&mut spool, at_ms(3_000));
    disk.run(&mut spool, at_ms(3_010));
    assert_eq!(found(&disk), [pair("a", "1")]);
}

#[test]
fn what_was_said_before_the_old_was_read_is_newer() {
    let mut disk = Disk::new(SEGMENT_BYTES, 12);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    for key in ["a", "b", "c"] {
        spool.remember(at_ms(1), hold(key, "old"));
    }
    disk.run(&mut spool, at_ms(6));
    let recovered = disk.recover(1);
    let mut rest = recovered.shards.into_iter().next().unwrap();
    let spares = rest.take_spares();
    let mut spool = Spool::new(options(recovered.next_sequence), Some(spares));
    spool.remember(at_ms(10), hold("a", "new"));
    spool.remember(at_ms(10), hold("b", ""));
    disk.run(&mut spool, at_ms(15));
    spool.adopt(rest);
    assert_eq!(spool.states_kept(), 2);
    assert_eq!(found(&disk), [pair("a", "new"), pair("c", "old")]);
    let mut ms = 20;
    churn(&mut disk, &mut spool, &mut ms, 200);
    assert_eq!(found(&disk), [pair("a", "new"), pair("c", "old")]);
}

#[test]
fn one_shard_takes_over_all_values_whoever_wrote_them() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let of_third = SpoolOptions { shard: ShardId(2), shards: 3, ..options(1) };
    let mut spool = Spool::new(of_third, None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(1), hold("a", "1"));
    append(&mut spool, at_ms(2), 1, b"with it", 0).unwrap();
    disk.run(&mut spool, at_ms(6));
    for shards in 1..5 {
        let recovered = disk.recover(shards);
        assert_eq!(recovered.states, [hold("a", "1")]);
        assert_eq!(recovered.deliveries[0].delivery.home, ShardId(0));
    }
}

#[test]
fn what_a_later_version_keeps_is_carried_along() {
    let mut disk = Disk::new(SEGMENT_BYTES, 12);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    let item = StateItem::new(Topic::Other(700), *b"k", *b"v");
    spool.remember(at_ms(1), item.clone());
    disk.run(&mut spool, at_ms(6));
    let mut spool = restart(&disk);
    let mut ms = 10;
    disk.run(&mut spool, at_ms(ms));
    churn(&mut disk, &mut spool, &mut ms, 200);
    assert_eq!(disk.recover(1).states, [item]);
}

fn damaged(now: Now, seals: bool) -> Vec<Finding> {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(now, hold("a", "the old value"));
    disk.run(&mut spool, at_ms(6));
    spool.remember(at_ms(7), hold("a", "the new value"));
    disk.run(&mut spool, at_ms(12));
    if seals {
        spool.seal();
    } else {
        spool.remember(at_ms(20), hold("b", ""));
    }
    disk.run(&mut spool, at_ms(25));
    let at = memchr::memmem::find(&disk.files[0], b"the new").unwrap();
    disk.files[0][at] ^= 1;
    assert_eq!(found(&disk), [pair("a", "the old value")]);
    disk.recover(1).findings
}

#[test]
fn a_damaged_value_is_told_and_the_one_before_it_holds() {
    for seals in [true, false] {
        let findings = damaged(at_ms(1), seals);
        assert!(matches!(findings[..], [Finding::StateDamaged { .. }]), "{findings:?}");
    }
}

#[test]
fn what_is_too_long_is_not_kept() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    spool.remember(at_ms(1), StateItem::new(Topic::Hold, *b"a", vec![1; VALUE_BYTES_MAX + 1]));
    spool.tell_when_kept(Topic::Hold, b"a", false, 5);
    let told = disk.run(&mut spool, at_ms(6));
    assert!(matches!(told[..], [Durable::NotKept { token: 5 }]), "{told:?}");
    spool.remember(at_ms(7), StateItem::new(Topic::Hold, *b"a", vec![1; VALUE_BYTES_MAX]));
    disk.run(&mut spool, at_ms(12));
    assert_eq!(disk.recover(1).states.len(), 1);
}

#[test]
fn a_value_that_changes_quickly_is_written_once_a_commit() {
    let mut disk = Disk::new(SEGMENT_BYTES, 8);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    for round in 0..1000 {
        spool.remember(at_ms(1), hold("a", &round.to_string()));
    }
    disk.run(&mut spool, at_ms(6));
    let tag = read_slots(&disk.files[0]).unwrap().header.tag;
    let is_state = |at: &usize| {
        let header = RecordHeader::read(&disk.files[0][*at..], &tag, u32::try_from(*at).unwrap());
        header.is_some_and(|header| header.kind() == Some(Kind::State))
    };
    assert_eq!((4096..SEGMENT_BYTES as usize - 4096).step_by(64).filter(is_state).count(), 1);
    let scan = scan_thoroughly(FileId(0), &disk.files[0], groups_of).unwrap();
    assert_eq!(scan.summary().states, 1);
    assert_eq!(found(&disk), [pair("a", "999")]);
}
