//! The promises of the spool as a whole: order, failure, reclaim, recovery.

use super::files::{CommitId, DiskError};
use super::group::{Batch, Group};
use super::message::{MessageView, PendingRun, append_message};
use super::record::Tag;
use super::recovery::{Finding, scan};
use super::segment::{NotASegment, SegmentHeader, SegmentState};
use super::test_disk::{
    Disk, append, append_chunked, at_ms, deferred, delivered, groups_of, live, options, recover,
};
use super::{Durable, FileId, Gather, MessageParts, Spool, SpoolFull};
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::model::connection::ShardId;
use crate::model::message::{MessageId, SegmentSeq};
use crate::model::outcome::RangeOutcome;

const SEGMENT_BYTES: u32 = 96 << 10;

fn started(files_max: usize) -> (Spool, Disk) {
    let mut disk = Disk::new(SEGMENT_BYTES, files_max);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    (spool, disk)
}

fn tokens(told: &[Durable]) -> Vec<(char, u64)> {
    told.iter()
        .filter_map(|durable| match durable {
            Durable::Message { token, .. } => Some(('m', *token)),
            Durable::Refused { token } => Some(('r', *token)),
            Durable::Settled { token } => Some(('s', *token)),
            Durable::Fenced { .. }
            | Durable::Kept { .. }
            | Durable::NotKept { .. }
            | Durable::SetAside { .. } => None,
        })
        .collect()
}

fn drain(spool: &mut Spool) -> Vec<Durable> {
    std::iter::from_fn(|| spool.poll_durable()).collect()
}

/// One message a commit, three commits in flight.
fn three_in_flight() -> (Spool, Disk, Vec<MessageId>) {
    let (mut spool, mut disk) = started(8);
    append(&mut spool, at_ms(1), 1, b"first", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    let ids = (1..=3).map(|token| {
        let id = append(&mut spool, at_ms(2), 1, b"body", token).unwrap();
        disk.take_requests(&mut spool, at_ms(2), Gather::default());
        id
    });
    let ids = ids.collect();
    assert_eq!(disk.writes.len(), 3);
    (spool, disk, ids)
}

#[test]
fn acknowledged_in_prefix_order_whatever_order_writes_end_in() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut spool, mut disk, _) = three_in_flight();
        let commits: Vec<_> = disk.writes.iter().map(|write| write.commit).collect();
        let mut ended = [false; 3];
        let mut told = Vec::new();
        for which in order {
            let at = disk.writes.iter().position(|write| write.commit == commits[which]).unwrap();
            let commit = disk.finish(at);
            spool.handle_committed(commit, Ok(()));
            ended[which] = true;
            told.extend(tokens(&drain(&mut spool)));
            let prefix = (1u64..).zip(ended).take_while(|(_, ended)| *ended);
            let expected: Vec<_> = prefix.map(|(token, _)| ('m', token)).collect();
            assert_eq!(told, expected, "order {order:?}");
        }
    }
}

#[test]
fn a_failed_commit_refuses_all_that_was_not_acknowledged() {
    let (mut spool, mut disk, ids) = three_in_flight();
    let (first, second, third) =
        (disk.writes[0].commit, disk.writes[1].commit, disk.writes[2].commit);
    spool.handle_committed(third, Ok(()));
    spool.handle_committed(first, Ok(()));
    assert_eq!(tokens(&drain(&mut spool)), [('m', 1)]);
    spool.handle_committed(second, Err(DiskError::Failed(5)));
    let told = drain(&mut spool);
    assert_eq!(tokens(&told), [('r', 2), ('r', 3)]);
    assert!(matches!(told.last(), Some(Durable::Fenced { cause: DiskError::Failed(5), .. })));
    // All three are on the disk; the fence in the next segment keeps the refused two out.
    while !disk.writes.is_empty() {
        disk.finish(0);
    }
    append(&mut spool, at_ms(3), 1, b"next", 4).unwrap();
    assert_eq!(tokens(&disk.run(&mut spool, at_ms(3))), [('m', 4)]);
    let live: Vec<_> = live(&disk.recover(1)).into_iter().map(|(id, _)| id).collect();
    assert!(live.contains(&ids[0]) && !live.contains(&ids[1]) && !live.contains(&ids[2]));
    assert_eq!(live.len(), 6);
}

#[test]
fn outcomes_of_a_failed_commit_are_written_again() {
    let (mut spool, mut disk) = started(8);
    let id = append(&mut spool, at_ms(1), 1, b"body", 1).unwrap();
    disk.run(&mut spool, at_ms(1));
    assert_eq!(spool.settle(at_ms(2), id, &[delivered(0, 2)], Some(9)).pending, 0);
    disk.take_requests(&mut spool, at_ms(7), Gather::default());
    let commit = disk.writes.pop().unwrap().commit;
    spool.handle_committed(commit, Err(DiskError::Full));
    assert_eq!(tokens(&drain(&mut spool)), []);
    assert_eq!(tokens(&disk.run(&mut spool, at_ms(8))), [('s', 9)]);
    assert_eq!(live(&disk.recover(1)), []);
}

#[test]
fn a_message_waits_for_its_pieces_in_another_segment() {
    let (mut spool, mut disk) = started(8);
    let chunk = spool.append_chunk(at_ms(1), &[7; 20_000]).unwrap();
    disk.take_requests(&mut spool, at_ms(1), Gather::default());
    disk.run(&mut spool, at_ms(1));
    let late = spool.append_chunk(at_ms(1), &[8; 20_000]).unwrap();
    disk.take_requests(&mut spool, at_ms(1), Gather::default());
    let chunk_commit = disk.writes[0].commit;
    // Too long for what is left: the message goes into the next segment.
    append_chunked(&mut spool, at_ms(2), 1, &[chunk, late], &[9; 40_000], 5).unwrap();
    loop {
        disk.take_requests(&mut spool, at_ms(2), Gather::default());
        let Some(at) = disk.writes.iter().position(|write| write.commit != chunk_commit) else {
            break;
        };
        let commit = disk.finish(at);
        spool.handle_committed(commit, Ok(()));
    }
    assert_eq!(tokens(&drain(&mut spool)), []);
    assert_eq!(live(&disk.recover(1)), [], "a message without its pieces is none");
    let commit = disk.finish(0);
    spool.handle_committed(commit, Ok(()));
    assert_eq!(tokens(&disk.run(&mut spool, at_ms(2))), [('m', 5)]);
    assert_eq!(disk.recover(1).deliveries.len(), 2);
}

#[test]
fn a_commit_is_held_back_for_company_but_never_for_long() {
    let (mut spool, mut disk) = started(8);
    append(&mut spool, at_ms(1), 1, b"warm up", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    let issued = |spool: &mut Spool, disk: &mut Disk, now, transactions| {
        disk.take_requests(spool, now, Gather { transactions });
        !disk.writes.is_empty()
    };
    append(&mut spool, at_ms(10), 1, b"body", 1).unwrap();
    assert!(!issued(&mut spool, &mut disk, at_ms(10), 1), "one other is under way");
    assert_eq!(spool.next_wakeup(), Some(at_ms(11).mono), "one alone waits for a millisecond");
    assert!(issued(&mut spool, &mut disk, at_ms(11), 1), "it took too long");
    disk.run(&mut spool, at_ms(11));
    append(&mut spool, at_ms(12), 1, b"body", 2).unwrap();
    assert!(issued(&mut spool, &mut disk, at_ms(12), 0), "nobody else is under way");
    disk.run(&mut spool, at_ms(12));
    append(&mut spool, at_ms(14), 1, b"body", 3).unwrap();
    append(&mut spool, at_ms(14), 1, b"body", 4).unwrap();
    assert!(!issued(&mut spool, &mut disk, at_ms(14), 1), "half as many may come");
    append(&mut spool, at_ms(14), 1, b"body", 5).unwrap();
    assert!(issued(&mut spool, &mut disk, at_ms(14), 1), "few may come");
    append(&mut spool, at_ms(14), 1, b"body", 6).unwrap();
    append(&mut spool, at_ms(14), 1, b"body", 7).unwrap();
    append(&mut spool, at_ms(14), 1, b"body", 8).unwrap();
    issued(&mut spool, &mut disk, at_ms(14), 1);
    assert_eq!(disk.writes.len(), 1, "the one before is being written");
    issued(&mut spool, &mut disk, at_ms(16), 1);
    assert_eq!(disk.writes.len(), 2, "that took too long");
}

#[test]
fn the_more_share_a_commit_the_longer_it_waits_up_to_five_milliseconds() {
    let (mut spool, mut disk) = started(8);
    append(&mut spool, at_ms(1), 1, b"warm up", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    let mut ends = Vec::new();
    for token in 1..=40 {
        append(&mut spool, at_ms(10), 1, b"body", token).unwrap();
        disk.take_requests(&mut spool, at_ms(10), Gather { transactions: 100 });
        ends.push(spool.next_wakeup().unwrap().since(at_ms(10).mono).as_micros());
    }
    assert_eq!((ends[0], ends[10], ends[30], ends[39]), (1000, 2500, 5000, 5000));
}

#[test]
fn outcomes_alone_wait_five_milliseconds() {
    let (mut spool, mut disk) = started(8);
    let id = append(&mut spool, at_ms(1), 1, b"body", 1).unwrap();
    disk.run(&mut spool, at_ms(1));
    spool.settle(at_ms(2), id, &[delivered(0, 1)], None);
    assert_eq!(spool.next_wakeup(), Some(at_ms(7).mono));
    disk.take_requests(&mut spool, at_ms(6), Gather::default());
    assert!(disk.writes.is_empty());
    disk.take_requests(&mut spool, at_ms(7), Gather::default());
    assert_eq!(disk.writes.len(), 1);
}

#[test]
fn a_final_recipient_never_changes_again() {
    let (mut spool, mut disk) = started(8);
    let id = append(&mut spool, at_ms(1), 2, b"body", 1).unwrap();
    disk.run(&mut spool, at_ms(1));
    let first = spool.settle(at_ms(2), id, &[delivered(0, 1)], None);
    assert_eq!((first.pending, first.changed), (2, true));
    let again = spool.settle(at_ms(2), id, &[deferred(0, 1, 4, Wall(1))], Some(3));
    assert_eq!((again.pending, again.changed), (2, false));
    let rest = spool.settle(at_ms(2), id, &[delivered(0, 3)], None);
    assert_eq!((rest.pending, rest.changed), (0, true));
    assert_eq!(tokens(&disk.run(&mut spool, at_ms(9))), [('s', 3)]);
    let over = spool.settle(at_ms(10), id, &[delivered(0, 3)], Some(4));
    assert_eq!((over.pending, over.changed), (0, false));
    assert_eq!(tokens(&drain(&mut spool)), [('s', 4)]);
}

/// Fills segments until `count` are sealed; returns the messages of each.
fn fill(spool: &mut Spool, disk: &mut Disk, count: usize) -> Vec<Vec<MessageId>> {
    let mut segments: Vec<Vec<MessageId>> = Vec::new();
    while segments.len() <= count {
        let id = append(spool, at_ms(1), 1, &[b'x'; 9000], 0).unwrap();
        disk.run(spool, at_ms(1));
        match segments.last_mut() {
            Some(last) if last[0].segment() == id.segment() => last.push(id),
            _ => segments.push(vec![id]),
        }
    }
    segments
}

#[test]
fn a_segment_with_outcomes_outlives_the_segments_they_speak_of() {
    let (mut spool, mut disk) = started(9);
    let segments = fill(&mut spool, &mut disk, 2);
    let all = |spool: &mut Spool, ids: &[MessageId]| {
        for id in ids {
            spool.settle(at_ms(2), *id, &[delivered(0, 2)], None);
        }
    };
    // The outcome of one message of the first segment lies in the third.
    all(&mut spool, &segments[0][..1]);
    all(&mut spool, &segments[1]);
    all(&mut spool, &segments[2]);
    disk.run(&mut spool, at_ms(10));
    assert_eq!(spool.counters().segments_recycled, 1, "only the second is free");
    spool.seal();
    disk.run(&mut spool, at_ms(11));
    assert_eq!(spool.counters().segments_recycled, 1, "the third holds outcomes of the first");
    all(&mut spool, &segments[0]);
    disk.run(&mut spool, at_ms(20));
    assert_eq!(spool.counters().segments_recycled, 3, "the newest outcomes still are needed");
    assert_eq!(live(&disk.recover(1)), []);
}

#[test]
fn a_full_spool_refuses_mail_takes_outcomes_and_recovers() {
    let (mut spool, mut disk) = started(3);
    let mut ids = Vec::new();
    let mut now = 1;
    let refused = loop {
        match append(&mut spool, at_ms(now), 1, &[b'x'; 9000], 0) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
        disk.run(&mut spool, at_ms(now));
    };
    assert_eq!(refused, SpoolFull::NoSegment);
    assert_eq!(spool.room().messages, Err(SpoolFull::NoSegment));
    disk.run(&mut spool, at_ms(now));
    for id in ids {
        assert_eq!(spool.settle(at_ms(now), id, &[delivered(0, 2)], None).pending, 0);
        now += 10;
        disk.run(&mut spool, at_ms(now));
    }
    assert_eq!(spool.room().messages, Ok(()));
    append(&mut spool, at_ms(now), 1, b"again", 0).unwrap();
    assert_eq!(tokens(&disk.run(&mut spool, at_ms(now))), [('m', 0)]);
}

#[test]
fn a_record_longer_than_a_segment_is_refused_for_good() {
    let (mut spool, _) = started(4);
    assert_eq!(spool.begin_message(at_ms(1), 90_000), Err(SpoolFull::TooLarge));
    assert_eq!(spool.begin_message(at_ms(1), usize::MAX / 2), Err(SpoolFull::TooLarge));
}

/// A segment of three messages, each in its own commit, and its file.
fn three_messages() -> (Vec<MessageId>, Vec<u8>) {
    let (mut spool, mut disk) = started(3);
    let ids: Vec<_> = (0..3)
        .map(|token| {
            let id = append(&mut spool, at_ms(1), 1, &[b'a' + token; 200], token.into()).unwrap();
            disk.run(&mut spool, at_ms(1));
            id
        })
        .collect();
    (ids, disk.files.swap_remove(0))
}

#[test]
fn a_flipped_byte_anywhere_sets_aside_at_most_one_message() {
    let (ids, mut file) = three_messages();
    for at in 0..file.len() {
        // What was never written is read past; a few of those places will do.
        if at > 5 * 4096 && at < file.len() - 4096 && !at.is_multiple_of(509) {
            continue;
        }
        file[at] ^= 0x55;
        let recovered = recover(std::slice::from_ref(&file), 1);
        let live = live(&recovered);
        let gone: Vec<_> = ids.iter().filter(|id| !live.contains(&(**id, 0))).collect();
        assert!(gone.len() <= 1, "byte {at}: {gone:?}");
        assert_eq!(live.len(), 2 * (3 - gone.len()), "byte {at}");
        if let [gone] = gone[..] {
            let told = recovered.findings.iter().any(|finding| match finding {
                Finding::Damaged { message, .. } => message.is_none_or(|message| message == *gone),
                Finding::Torn { .. } => *gone == ids[2],
                _ => false,
            });
            assert!(told, "byte {at}: {:?}", recovered.findings);
        }
        file[at] ^= 0x55;
    }
}

#[test]
fn every_cut_keeps_whole_commits_before_it() {
    let (ids, file) = three_messages();
    for cut in (4096..=5 * 4096).step_by(512) {
        let mut torn = file.clone();
        let end = torn.len() - 4096;
        torn[cut..end].fill(0);
        let recovered = recover(&[torn], 1);
        let live = live(&recovered);
        for (index, id) in ids.iter().enumerate() {
            let commit_end = 4096 * (index + 2);
            // A commit's records end within its first sector here, and padding is not missed.
            let whole = cut >= commit_end || cut >= commit_end - 4096 + 512;
            assert_eq!(live.contains(&(*id, 0)), whole, "cut {cut}, message {index}");
        }
    }
}

#[test]
fn no_bytes_make_recovery_panic() {
    let (_, file) = three_messages();
    let mut prng = Prng::new(4);
    for _ in 0..2000 {
        let mut bad = file.clone();
        for _ in 0..prng.below(20) {
            let at = usize::try_from(prng.below(6 * 4096)).unwrap();
            bad[at] = prng.next_u64().to_le_bytes()[0];
        }
        let cut = if prng.below(8) == 0 { usize::try_from(prng.below(9000)).unwrap() } else { 0 };
        let _ = recover(&[bad[cut..].to_vec()], 2);
    }
    assert_eq!(scan(FileId(0), b"short", groups_of).unwrap_err(), NotASegment::NoHeader);
}

#[test]
fn records_of_an_earlier_use_are_not_seen() {
    let (mut spool, mut disk) = started(3);
    let first = append(&mut spool, at_ms(1), 1, &[1; 9000], 0).unwrap();
    for token in 1..4 {
        append(&mut spool, at_ms(1), 1, &[2; 9000], token).unwrap();
        disk.run(&mut spool, at_ms(1));
    }
    for ordinal in 0..4 {
        let id = MessageId::new(first.segment(), ordinal);
        spool.settle(at_ms(2), id, &[delivered(0, 2)], None);
    }
    disk.run(&mut spool, at_ms(9));
    spool.seal();
    disk.run(&mut spool, at_ms(10));
    assert_eq!(spool.counters().segments_recycled, 1);
    // The same file again, after the other spares.
    let mut seen = Vec::new();
    for round in 0..3 {
        let now = at_ms(20 + 20 * round);
        seen = vec![append(&mut spool, now, 1, b"short", 0).unwrap()];
        disk.run(&mut spool, now);
        if round < 2 {
            spool.settle(now, seen[0], &[delivered(0, 2)], None);
            disk.run(&mut spool, at_ms(30 + 20 * round));
            spool.seal();
            disk.run(&mut spool, at_ms(31 + 20 * round));
        }
    }
    let recovered = disk.recover(1);
    assert_eq!(live(&recovered), [(seen[0], 0), (seen[0], 1)]);
    assert_eq!(recovered.findings, []);
}

#[test]
fn attempts_and_next_tries_survive_a_restart() {
    let (mut spool, mut disk) = started(4);
    let id = append(&mut spool, at_ms(1), 3, b"body", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    let due = Wall(77_000);
    spool.settle(at_ms(2), id, &[delivered(0, 1), deferred(1, 2, 3, due)], None);
    disk.run(&mut spool, at_ms(9));
    for sealed in [false, true] {
        if sealed {
            spool.seal();
            disk.run(&mut spool, at_ms(10));
        }
        let recovered = disk.recover(1);
        let found: Vec<_> = recovered
            .deliveries
            .iter()
            .map(|one| (&*one.domain, one.delivery.recipients(), one.delivery.attempts, one.due))
            .collect();
        assert_eq!(found, [("a", 1..3, 3, Some(due)), ("b", 3..4, 0, None)]);
    }
}

#[test]
fn a_record_read_back_is_verified() {
    let (ids, file) = three_messages();
    let recovered = recover(std::slice::from_ref(&file), 1);
    let mut recovered_shards = recovered.shards.into_iter();
    let spool = Spool::new(options(recovered.next_sequence), recovered_shards.next());
    let place = recovered.deliveries[0].delivery.place;
    assert_eq!(spool.locate(place), Some(FileId(0)));
    let mut record = file[place.offset as usize..][..place.bytes as usize].to_vec();
    let tag = spool.tag(place.segment).unwrap();
    let view = MessageView::verify(&record, &tag, place.offset).unwrap();
    assert_eq!((view.id, view.body.of(&record).unwrap()), (ids[0], &[b'a'; 200][..]));
    record[100] ^= 1;
    assert!(MessageView::verify(&record, &tag, place.offset).is_err());
}

/// A file in use with these groups of records.
fn segment_file(sequence: u64, fill: impl FnOnce(&mut Group)) -> Vec<u8> {
    let sequence = SegmentSeq(sequence);
    let tag = Tag { sequence, generation: 1, created: Wall(sequence.0) };
    let mut file = vec![0; SEGMENT_BYTES as usize];
    for counter in [1, 2] {
        let (state, shard) = (SegmentState::Active, ShardId(0));
        let header = SegmentHeader { tag, counter, state, shard, file_bytes: SEGMENT_BYTES };
        file[header.slot_offset() as usize..][..4096].copy_from_slice(header.to_page().bytes());
    }
    let mut group = Group::new(tag, 4096, 0, 0);
    fill(&mut group);
    group.close();
    let block = group.issue(CommitId(0), 4096, Wall(0)).block;
    file[4096..4096 + block.len()].copy_from_slice(block.bytes());
    file
}

fn put_message(group: &mut Group, id: MessageId, states: &[PendingRun]) {
    let parts = MessageParts {
        envelope: b"a:3;",
        recipients: 3,
        groups: &[],
        trace: b"",
        chunks: &[],
        body: b"body",
    };
    let (tag, offset) = (group.tag, group.offset);
    append_message(&mut group.block, id, Wall(1), &parts, states, &tag, offset);
}

fn put_outcome(group: &mut Group, id: MessageId, outcome: &RangeOutcome) {
    let mut batch = Batch::new(at_ms(0).mono);
    batch.add(id, outcome.first, outcome.count, outcome);
    group.append_batch(batch);
}

#[test]
fn a_copy_holds_over_what_was_written_before_it() {
    let id = MessageId::new(SegmentSeq(1), 0);
    let due = Some(Wall(50));
    let state = PendingRun { first: 1, count: 2, attempts: 2, due, reply: None };
    let original = segment_file(1, |group| put_message(group, id, &[]));
    // An outcome that the copy already knows about must not count again.
    let copy = segment_file(2, |group| {
        put_outcome(group, id, &deferred(1, 2, 9, Wall(99)));
        put_message(group, id, &[state]);
    });
    let later = segment_file(3, |group| put_outcome(group, id, &delivered(2, 1)));
    let files = [later, original, copy];
    let recovered = recover(&files, 1);
    let found: Vec<_> = recovered
        .deliveries
        .iter()
        .map(|one| (one.delivery.place.segment, one.delivery.recipients(), one.delivery.attempts))
        .collect();
    assert_eq!(found, [(SegmentSeq(2), 1..2, 2)]);
    assert_eq!(recovered.deliveries[0].due, Some(Wall(50)));
    // Last recipient: the original goes first, then the copy that superseded it, then the outcome.
    let mut disk = Disk::new(SEGMENT_BYTES, 6);
    disk.files.extend(files);
    let next = recovered.next_sequence;
    let mut spool = Spool::new(options(next), recovered.shards.into_iter().next());
    disk.run(&mut spool, at_ms(1));
    assert_eq!(spool.counters().segments_recycled, 1, "the original is not needed");
    assert_eq!(spool.settle(at_ms(2), id, &[delivered(0, 3)], None).pending, 0);
    disk.run(&mut spool, at_ms(10));
    assert_eq!(spool.counters().segments_recycled, 3);
    assert_eq!(live(&disk.recover(1)), []);
}

#[test]
fn bound_segments_go_to_one_shard_and_free_ones_are_freed_again() {
    let id = MessageId::new(SegmentSeq(1), 0);
    let message = segment_file(1, |group| put_message(group, id, &[]));
    let outcome = segment_file(2, |group| put_outcome(group, id, &delivered(0, 1)));
    // The slot with the lower counter still speaks of the last use.
    let mut half_freed = segment_file(3, |group| put_message(group, MessageId(3 << 24), &[]));
    let tag = Tag { sequence: SegmentSeq(3), generation: 2, created: Wall(9) };
    let (state, shard) = (SegmentState::Free, ShardId(0));
    let header = SegmentHeader { tag, counter: 3, state, shard, file_bytes: SEGMENT_BYTES };
    half_freed[header.slot_offset() as usize..][..4096].copy_from_slice(header.to_page().bytes());
    let files = [message, outcome, half_freed];
    let recovered = recover(&files, 3);
    assert_eq!(live(&recovered), [(id, 1), (id, 2)]);
    assert_eq!(recovered.next_sequence, 4);
    let owned: Vec<_> = recovered.shards.iter().map(|shard| shard.files().count()).collect();
    assert_eq!(owned, [3, 0, 0]);
    let mut disk = Disk::new(SEGMENT_BYTES, 3);
    disk.files.extend(files);
    let mut spool = Spool::new(options(4), recovered.shards.into_iter().next());
    spool.stop_cleaning();
    disk.run(&mut spool, at_ms(1));
    assert_eq!((spool.counters().segments_recycled, spool.room().spares), (1, 1));
    // Whichever slot is damaged now, the old message stays away.
    for slot in [0, SEGMENT_BYTES as usize - 4096] {
        let mut damaged = disk.files[2].clone();
        damaged[slot + 20] ^= 1;
        assert_eq!(live(&recover(&[damaged], 1)), []);
    }
}

#[test]
fn a_damaged_index_costs_time_and_nothing_else() {
    let (mut spool, mut disk) = started(4);
    let id = append(&mut spool, at_ms(1), 1, b"body", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    spool.settle(at_ms(2), id, &[delivered(0, 1)], None);
    disk.run(&mut spool, at_ms(9));
    spool.seal();
    disk.run(&mut spool, at_ms(10));
    assert_eq!(disk.recover(1).findings, []);
    let footer = 3 * 4096;
    assert_eq!(&disk.files[0][footer..footer + 4], b"PrRc");
    for at in footer + 64..footer + 300 {
        disk.files[0][at] ^= 1;
        assert_eq!(live(&disk.recover(1)), [(id, 1)], "byte {at}");
        disk.files[0][at] ^= 1;
    }
}
