//! Cleaning as a whole: disk use stays bounded, nothing is lost or revived, places are found again.

use super::files::FileId;
use super::message::MessageView;
use super::notice::About;
use super::policy::SLACK_SEGMENTS;
use super::recovery::{Finding, scan};
use super::test_disk::{
    Disk, append, append_chunked, at_ms, deferred, delivered, groups_of, live, options, recover,
};
use super::transfer::take_stock;
use super::{DomainRange, Durable, Gather, MessageParts, Spool, SpoolFull};
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::model::message::MessageId;
use crate::model::outcome::{Outcome, RangeOutcome, Reply};

const SEGMENT_BYTES: u32 = 96 << 10;
/// Records in one segment, beside headers, commits' padding and footer.
const DATA_BYTES: u64 = 64 << 10;

fn started(files_max: usize) -> (Spool, Disk) {
    let mut disk = Disk::new(SEGMENT_BYTES, files_max);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    (spool, disk)
}

/// Files that a spool with so many live bytes may use.
fn files_bound(live_bytes: u64) -> usize {
    usize::try_from(live_bytes.div_ceil(DATA_BYTES) * 2).unwrap() + SLACK_SEGMENTS
}

/// Takes eight messages a millisecond; one in `stay` is put off, all others are delivered at once.
struct Traffic {
    now: u64,
    count: u64,
    stay: u64,
    staying: Vec<MessageId>,
}

impl Traffic {
    fn new(stay: u64) -> Self {
        Self { now: 1, count: 0, stay, staying: Vec::new() }
    }

    fn run(&mut self, spool: &mut Spool, disk: &mut Disk, messages: u64) {
        for _ in 0..messages / 8 {
            let ids: Vec<_> =
                (0..8).map(|_| append(spool, at_ms(self.now), 1, &[7; 900], 0).unwrap()).collect();
            disk.run(spool, at_ms(self.now));
            for id in ids {
                self.count += 1;
                if self.count.is_multiple_of(self.stay) {
                    self.staying.push(id);
                    spool.settle(
                        at_ms(self.now),
                        id,
                        &[deferred(0, 2, 3, Wall(5_000_000_000))],
                        None,
                    );
                } else {
                    spool.settle(at_ms(self.now), id, &[delivered(0, 2)], None);
                }
            }
            self.now += 6;
            disk.run(spool, at_ms(self.now));
        }
    }
}

#[test]
fn one_message_in_a_thousand_that_stays_does_not_hold_the_others_space() {
    let (mut spool, mut disk) = started(1000);
    let mut traffic = Traffic::new(1000);
    for round in 0..20 {
        traffic.run(&mut spool, &mut disk, 2000);
        let bound = files_bound(spool.live_bytes);
        assert!(disk.files.len() <= bound, "round {round}: {} of {bound}", disk.files.len());
    }
    let counters = spool.counters();
    assert!(counters.messages_copied >= 20 && counters.segments_recycled > 400, "{counters:?}");
    assert!(counters.messages_copied < 10_000, "a quarter of the traffic at most: {counters:?}");
    let recovered = disk.recover(1);
    assert_eq!(live(&recovered).len(), 2 * traffic.staying.len());
    for found in &recovered.deliveries {
        assert_eq!((found.delivery.attempts, found.due), (3, Some(Wall(5_000_000_000))));
    }
}

#[test]
fn outcomes_of_a_backlog_that_stays_do_not_hold_the_segments_they_lie_in() {
    // Longer than elsewhere: room for outcomes and footers is a third of the short ones.
    let mut disk = Disk::new(4 * SEGMENT_BYTES, 1000);
    let mut spool = Spool::new(options(1), None);
    disk.run(&mut spool, at_ms(0));
    let mut traffic = Traffic::new(1);
    traffic.run(&mut spool, &mut disk, 400);
    let backlog = std::mem::take(&mut traffic.staying);
    traffic.stay = u64::MAX;
    for round in 0..60u16 {
        traffic.run(&mut spool, &mut disk, 400);
        // Each is tried, and put off, again and again.
        for id in backlog.iter().skip(usize::from(round % 7)).step_by(7) {
            let outcome = deferred(0, 2, 4 + round, Wall(1));
            spool.settle(at_ms(traffic.now), *id, &[outcome], None);
        }
        let bound = files_bound(spool.live_bytes / 4);
        assert!(disk.files.len() <= bound, "round {round}: {} of {bound}", disk.files.len());
    }
    let (written, copied) = (spool.counters().messages, spool.counters().messages_copied);
    assert!(copied <= written, "{copied} copies, {written} messages");
    assert_eq!(live(&disk.recover(1)).len(), 2 * backlog.len());
}

#[test]
fn memory_follows_what_is_live() {
    let (mut spool, mut disk) = started(1000);
    let mut traffic = Traffic::new(100);
    traffic.run(&mut spool, &mut disk, 20_000);
    let tables = spool.index.tables();
    assert!(tables <= files_bound(spool.live_bytes), "{tables} tables by segment");
}

/// Two recipients, put off once more, each with words of its own.
fn put_off(id: MessageId) -> [RangeOutcome; 2] {
    [0, 1].map(|first| {
        let reply = Reply::remote(452, None, &format!("{id} of {first} is full"));
        let outcome = Outcome::Deferred { reply, next: Wall(9_000_000_000) };
        RangeOutcome { first, count: 1, attempts: 4, outcome }
    })
}

/// What the spool finds, by the places it knows.
fn last_replies(spool: &Spool, disk: &Disk, id: MessageId) -> Vec<(u16, String)> {
    let read = |(run, at)| {
        let (place, file) = spool.reply_record(at).unwrap();
        let bytes = &disk.files[file.0 as usize][place.offset as usize..][..place.bytes as usize];
        spool.replies_in(bytes, place, id, run)
    };
    let said = spool.last_replies(id, 0, 2).into_iter().flat_map(read);
    said.map(|(run, reply)| (run.first, reply.text.into())).collect()
}

#[test]
fn last_replies_go_where_their_messages_go() {
    let (mut spool, mut disk) = started(1000);
    let mut traffic = Traffic::new(40);
    traffic.run(&mut spool, &mut disk, 400);
    let staying = std::mem::take(&mut traffic.staying);
    traffic.stay = u64::MAX;
    for id in &staying {
        spool.settle(at_ms(traffic.now), *id, &put_off(*id), None);
    }
    traffic.run(&mut spool, &mut disk, 4000);
    let moves = spool.counters().messages_copied;
    assert!(moves >= 2 * staying.len() as u64, "copies of copies too: {moves}");
    let scans = (0..).zip(&disk.files);
    let scans = scans.map(|(file, bytes)| scan(FileId(file), bytes, groups_of).unwrap());
    let stock = take_stock(scans.collect());
    assert_eq!(stock.messages.len(), staying.len());
    for message in &stock.messages {
        let expected = [0, 1].map(|first| (first, format!("{} of {first} is full", message.id)));
        assert_eq!(last_replies(&spool, &disk, message.id), expected);
        let whole = stock.read(message, |place| {
            let file = &disk.files[stock.file_of(place.segment)?.0 as usize];
            let record = &file[place.offset as usize..];
            Some(record[..record.len().min(place.bytes as usize)].to_vec())
        });
        assert_eq!(whole.unwrap().deferrals, put_off(message.id), "after a restart too");
    }
}

#[test]
fn a_last_reply_that_is_damaged_costs_its_words_and_not_the_copy() {
    let (mut spool, mut disk) = started(3);
    let (id, _) = mostly_dead(&mut disk, &mut spool);
    // Before anything is copied: the disk is full, and this is the commit that frees most of it.
    spool.settle(at_ms(2), id, &put_off(id), None);
    let mut spoiled = false;
    for ms in 7..60 {
        disk.slow_reads = !spoiled;
        disk.run(&mut spool, at_ms(ms));
        if let Some((_, at)) = spool.last_replies(id, 0, 1).first()
            && !spoiled
        {
            let (place, file) = spool.reply_record(*at).unwrap();
            disk.files[file.0 as usize][place.offset as usize + 70] ^= 1;
            spoiled = true;
            while !disk.reads.is_empty() {
                disk.end_read(&mut spool, at_ms(ms), 0);
            }
        }
    }
    assert!(spoiled && spool.counters().messages_copied == 1, "{:?}", spool.counters());
    assert_eq!(spool.counters().messages_set_aside, 0);
    let recovered = disk.recover(1);
    let attempts: Vec<_> = recovered.deliveries.iter().map(|one| one.delivery.attempts).collect();
    assert_eq!((live(&recovered), attempts), (vec![(id, 0), (id, 1)], vec![4, 4]));
}

/// A sealed segment of which only `id`, with a piece in it, is live; on a disk that is full.
fn mostly_dead(disk: &mut Disk, spool: &mut Spool) -> (MessageId, super::ChunkRef) {
    let piece = spool.append_chunk(at_ms(1), &[5; 3000]).unwrap();
    let id = append_chunked(spool, at_ms(1), 1, &[piece], b"tail", 0).unwrap();
    disk.run(spool, at_ms(1));
    let mut others = Vec::new();
    while let Ok(other) = append(spool, at_ms(1), 1, &[1; 9000], 1) {
        disk.run(spool, at_ms(1));
        others.push(other);
    }
    for other in others {
        spool.settle(at_ms(2), other, &[delivered(0, 2)], None);
    }
    (id, piece)
}

#[test]
fn a_place_known_before_leads_to_the_copy() {
    let (mut spool, mut disk) = started(3);
    let (id, piece) = mostly_dead(&mut disk, &mut spool);
    let before = spool.index.place(id).unwrap();
    disk.run(&mut spool, at_ms(20));
    let place = spool.present(id, before).unwrap();
    assert!(place.segment > before.segment && spool.locate(before).is_none());
    let read = |place: super::Place| {
        let file = spool.locate(place).unwrap().0 as usize;
        disk.files[file][place.offset as usize..][..place.bytes as usize].to_vec()
    };
    let record = read(place);
    assert!(spool.holds(place, &record));
    let view = MessageView::parse(&record).unwrap();
    assert_eq!((view.id, view.body.of(&record)), (id, Some(&b"tail"[..])));
    let moved = spool.present(id, piece.place()).unwrap();
    assert_eq!(view.chunks(&record).map(|chunk| chunk.place()).collect::<Vec<_>>(), [moved]);
    assert!(read(moved)[64..] == [5; 3000] && spool.holds(moved, &read(moved)));
    assert_eq!(live(&disk.recover(1)), [(id, 0), (id, 1)]);
}

#[test]
fn a_full_disk_takes_mail_again_once_most_of_it_is_dead() {
    let (mut spool, mut disk) = started(3);
    mostly_dead(&mut disk, &mut spool);
    assert_eq!(spool.room().messages, Err(SpoolFull::NoSegment));
    disk.run(&mut spool, at_ms(20));
    assert_eq!(spool.room().messages, Ok(()));
    assert_eq!(spool.counters().messages_copied, 1);
}

/// A path that comes back within the time gives up nothing; a sector that is gone holds no segment.
#[test]
fn a_record_the_disk_refuses_to_read_is_given_up_late_and_only_if_it_stays_so() {
    for comes_back in [true, false] {
        let (mut spool, mut disk) = started(3);
        let (id, _) = mostly_dead(&mut disk, &mut spool);
        disk.slow_reads = true;
        let mut told = Vec::new();
        for ms in (20..130_000).step_by(100) {
            if comes_back && ms > 100_000 {
                disk.slow_reads = false;
            }
            told.extend(disk.run(&mut spool, at_ms(ms)));
            while !disk.reads.is_empty() {
                disk.refuse_read(&mut spool, at_ms(ms), 0);
            }
            assert!(ms > 100_000 || spool.pending(id) == 2, "given up after {ms} ms");
        }
        let asides = told.iter().filter(|told| matches!(told, Durable::SetAside { .. })).count();
        let expected = if comes_back { (2, 0) } else { (0, 1) };
        assert_eq!((spool.pending(id), asides), expected);
        assert_eq!(spool.room().messages, Ok(()));
    }
}

#[test]
fn a_damaged_record_is_told_and_does_not_hold_its_segment() {
    for what in ["record", "piece"] {
        let (mut spool, mut disk) = started(3);
        let (id, piece) = mostly_dead(&mut disk, &mut spool);
        let place = if what == "piece" { piece.place() } else { spool.index.place(id).unwrap() };
        disk.files[0][place.offset as usize + 70] ^= 1;
        let told = disk.run(&mut spool, at_ms(20));
        let aside =
            |durable: &Durable| matches!(durable, Durable::SetAside { id: one, .. } if *one == id);
        assert_eq!(told.iter().filter(|durable| aside(durable)).count(), 1, "{what}");
        assert_eq!((spool.pending(id), spool.present(id, place)), (0, None), "{what}");
        disk.run(&mut spool, at_ms(2000));
        assert_eq!(spool.room().messages, Ok(()), "{what}");
        assert_eq!(live(&disk.recover(1)), [], "{what}");
    }
}

#[test]
fn outcomes_while_a_copy_is_in_flight_hold_for_both_records() {
    for partly in [true, false] {
        let (mut spool, mut disk) = started(3);
        let (id, _) = mostly_dead(&mut disk, &mut spool);
        // Until the copy is written and not yet landed.
        while spool.cleaning.copy_of(id).is_none() {
            disk.take_requests(&mut spool, at_ms(20), Gather::default());
            if spool.cleaning.copy_of(id).is_none() {
                let commit = disk.finish(0);
                spool.handle_committed(commit, Ok(()));
            }
        }
        let count = if partly { 1 } else { 2 };
        spool.settle(at_ms(20), id, &[delivered(0, count)], None);
        disk.run(&mut spool, at_ms(30));
        let left: Vec<_> = if partly { vec![(id, 1)] } else { vec![] };
        assert_eq!(live(&disk.recover(1)), left);
        assert!(spool.counters().segments_recycled > 0);
    }
}

#[test]
fn a_copy_behind_a_tear_yields_to_the_original_and_stands_in_for_a_recycled_one() {
    let (mut spool, mut disk) = started(8);
    let kept = append(&mut spool, at_ms(1), 1, b"stays", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    let original = disk.files[0].clone();
    spool.seal();
    disk.run(&mut spool, at_ms(2));
    append(&mut spool, at_ms(3), 1, b"first", 1).unwrap();
    disk.run(&mut spool, at_ms(3));
    append(&mut spool, at_ms(3), 1, b"torn", 1).unwrap();
    disk.take_requests(&mut spool, at_ms(3), Gather::default());
    let place = spool.index.place(kept).unwrap();
    let block = original[place.offset as usize..][..place.bytes as usize].to_vec();
    spool.copy_for_tests(at_ms(4), kept, &block);
    disk.run(&mut spool, at_ms(14));
    let copy = spool.index.place(kept).unwrap();
    assert!(copy.segment > place.segment);
    let second = disk
        .files
        .iter()
        .position(|file| file[4096..].starts_with(b"PrRc") && *file != disk.files[0])
        .unwrap();
    // The commit before the copy was in flight with it: its loss is a tear.
    let mut torn = disk.files.clone();
    torn[second][8192..12288].fill(0);
    torn[0].copy_from_slice(&original);
    let both = recover(&torn, 1);
    let place_in = |recovered: &super::plan::Recovered| {
        let mut all = recovered.deliveries.iter().map(|found| &found.delivery);
        all.find(|delivery| delivery.message == kept).unwrap().place
    };
    assert_eq!(place_in(&both), place, "the original is there");
    let alone = recover(&torn[second..=second], 1);
    assert_eq!(place_in(&alone), copy, "the copy is all there is");
    assert!(both.findings.iter().all(|finding| matches!(finding, Finding::Torn { .. })));
}

#[test]
fn a_failure_whose_report_was_torn_away_is_found_again() {
    let (mut spool, mut disk) = started(8);
    let id = append(&mut spool, at_ms(1), 1, b"fails", 0).unwrap();
    disk.run(&mut spool, at_ms(1));
    append(&mut spool, at_ms(2), 1, b"the report", 1).unwrap();
    disk.take_requests(&mut spool, at_ms(2), Gather::default());
    let reply = Reply::remote(550, None, "no");
    let outcome = Outcome::Failed { reply };
    spool.settle(at_ms(2), id, &[RangeOutcome { first: 0, count: 1, attempts: 1, outcome }], None);
    disk.take_requests(&mut spool, at_ms(9), Gather::default());
    assert_eq!(disk.writes.len(), 2);
    // The later write is on the disk, the one before it is not.
    disk.finish(1);
    assert_eq!(live(&disk.recover(1)), [(id, 0), (id, 1)]);
    disk.finish(0);
    assert!(!live(&disk.recover(1)).contains(&(id, 0)));
}

/// Two reports with their failures in one commit, of which nothing says that it is durable. Damage
/// to the first costs its failure alone: it is tried again. The second is not told of twice.
#[test]
fn damage_to_a_report_brings_back_what_it_told_of_and_nothing_else() {
    let (mut spool, mut disk) = started(8);
    let ids: Vec<_> =
        [1, 2].map(|token| append(&mut spool, at_ms(1), 1, b"fails", token).unwrap()).into();
    disk.run(&mut spool, at_ms(1));
    let reply = || Reply::remote(550, None, "no");
    for (token, message) in (10..).zip(&ids) {
        let outcome = Outcome::Failed { reply: reply() };
        let failed = [RangeOutcome { first: 0, count: 2, attempts: 1, outcome }];
        let groups = [DomainRange { domain: "s", first: 0, count: 1 }];
        let parts = MessageParts {
            envelope: b"s:1;",
            recipients: 1,
            groups: &groups,
            trace: b"",
            chunks: &[],
            body: b"a report",
        };
        let about = About::Failures { message: *message, failed: &failed, settled: None };
        spool.store_notice(at_ms(2), parts, token, about).unwrap();
    }
    disk.run(&mut spool, at_ms(9));
    let reports: Vec<_> = live(&disk.recover(1));
    assert_eq!(reports.len(), 2, "both reports, and neither message");
    let at = spool.index.place(reports[0].0).unwrap().offset as usize + 70;
    disk.files[0][at] ^= 1;
    let found = live(&disk.recover(1));
    assert_eq!(found, [(ids[0], 0), (ids[0], 1), reports[1]]);
}

#[test]
fn what_waits_for_a_segment_is_bounded() {
    let (mut spool, mut disk) = started(3);
    let mut ids = Vec::new();
    while let Ok(id) = append(&mut spool, at_ms(1), 30, &[1; 100], 0) {
        disk.run(&mut spool, at_ms(1));
        ids.push(id);
    }
    let mut prng = Prng::new(7);
    // Nothing is written any more: the device does not answer.
    for round in 0..5000u32 {
        let id = ids[usize::try_from(prng.below(ids.len() as u64)).unwrap()];
        let attempts = u16::try_from(round / 4).unwrap();
        spool.settle(at_ms(2), id, &[deferred(0, 31, attempts, Wall(1))], None);
    }
    let deferred_bytes = spool.room().outcome_bytes;
    let bound = SEGMENT_BYTES as usize / super::OUTCOMES_WAITING_PART;
    assert!(deferred_bytes <= bound + (32 << 10), "{deferred_bytes}");
    assert!(spool.counters().deferrals_unwritten > 0);
    for id in &ids {
        assert_eq!(spool.settle(at_ms(2), *id, &[delivered(0, 31)], None).pending, 0);
    }
    let bytes = spool.room().outcome_bytes - deferred_bytes;
    assert!(bytes <= ids.len() * 34, "final results cost {bytes}");
    disk.run(&mut spool, at_ms(10));
    disk.run(&mut spool, at_ms(20));
    assert_eq!(live(&disk.recover(1)).len(), 0, "no final result is dropped");
}
