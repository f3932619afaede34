//! The promise of a transfer: whatever ends it, no message is live in two places, and none is lost.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::export::{export_by, look};
use super::import::import_by;
use super::*;
use crate::base::time::{Mono, Now, Wall};
use crate::model::connection::ShardId;
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};
use crate::model::settings::OutcomeDurability;
use crate::runtime::disk::steps::rehearsal::End;
use crate::spool::files::SpareSegment;
use crate::spool::segment::new_file_headers;
use crate::spool::{ChunkRef, DomainRange, Gather, MessageParts, Request, Spool, SpoolOptions};
use crate::wire::envelope::{Envelope, EnvelopeFlags, EnvelopeView, Origin};

const SEGMENT_BYTES: u32 = 128 << 10;

/// The names of [`filled`] that are over before anything is exported.
const OVER: u16 = 3;
const MESSAGES: u16 = 40;
/// Each message has as many recipients.
const RECIPIENTS: u16 = 2;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall((1_700_000_000_000 + ms) * 1_000_000) }
}

/// Does what the spool asks for, in files.
fn run(spool: &mut Spool, home: &Path, now: Now) {
    while let Some(request) = spool.poll_request(now, Gather::default()) {
        match request {
            Request::PrepareSegment => spool.handle_spare(Ok(add_spare(home))),
            Request::Commit { commit, file, offset, block } => {
                let path = segment(home, file.0);
                let mut bytes = fs::read(&path).unwrap();
                let offset = usize::try_from(offset).unwrap();
                bytes[offset..offset + block.len()].copy_from_slice(block.bytes());
                fs::write(path, bytes).unwrap();
                spool.handle_committed(commit, Ok(()));
            }
            Request::Fetch { .. } => panic!("nothing to clean"),
        }
    }
    while spool.poll_durable().is_some() {}
}

fn segment(home: &Path, number: u32) -> PathBuf {
    home.join(format!("segments/{number:08}.seg"))
}

fn add_spare(home: &Path) -> SpareSegment {
    fs::create_dir_all(home.join("segments")).unwrap();
    let number = u32::try_from(fs::read_dir(home.join("segments")).unwrap().count()).unwrap();
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    for (offset, page) in new_file_headers(SEGMENT_BYTES, ShardId(0), Wall(1)) {
        bytes[offset as usize..][..4096].copy_from_slice(page.bytes());
    }
    fs::write(segment(home, number), bytes).unwrap();
    SpareSegment { file: FileId(number), bytes: SEGMENT_BYTES, generation: 1, header_writes: 2 }
}

fn append(spool: &mut Spool, now: Now, number: u16, chunks: &[ChunkRef]) -> MessageId {
    let mut envelope = Envelope::default();
    envelope.set_sender("sender@example.org");
    envelope.add_recipient(&format!("first{number}@a.example"));
    envelope.add_recipient(&format!("second{number}@b.example"));
    let mut bytes = Vec::new();
    let client = SocketAddr::from(([127, 0, 0, 1], 25));
    let origin = Origin { peer: client, listener: 0, accepted: now.wall };
    envelope.set_flags(EnvelopeFlags::default());
    envelope.encode("client.example", origin, &mut bytes);
    let body = format!("Subject: {number}\r\n\r\n{}", "text\r\n".repeat(100 + usize::from(number)));
    let parts = MessageParts {
        envelope: &bytes,
        recipients: RECIPIENTS,
        groups: &[
            DomainRange { domain: "a.example", first: 0, count: 1 },
            DomainRange { domain: "b.example", first: 1, count: 1 },
        ],
        trace: b"Received: from client.example\r\n",
        chunks,
        body: body.as_bytes(),
    };
    let id = spool.begin_message(now, parts.payload_bytes()).unwrap();
    spool.append_message(now, id, parts, 0).unwrap();
    id
}

fn outcome(first: u16, count: u16, attempts: u16, outcome: Outcome) -> RangeOutcome {
    RangeOutcome { first, count, attempts, outcome }
}

fn delivered(first: u16, count: u16) -> RangeOutcome {
    let reply = Reply::remote(250, Some(Enhanced(2, 0, 0)), "ok");
    outcome(first, count, 1, Outcome::Delivered { reply })
}

/// A spool with mail in several segments: new, deferred, partly and wholly delivered, in pieces.
fn filled() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(
        SpoolOptions {
            shard: ShardId(0),
            shards: 1,
            next_sequence: 1,
            outcomes: OutcomeDurability::Grouped,
            commits_in_flight_max: 1,
        },
        None,
    );
    spool.stop_cleaning();
    run(&mut spool, home.path(), at(0));
    for number in 0..MESSAGES {
        let now = at(u64::from(number) * 10 + 10);
        let pieces = if number % 20 == 7 { 3 } else { 0 };
        let chunks: Vec<ChunkRef> = (0..pieces)
            .map(|piece| {
                run(&mut spool, home.path(), now);
                spool.append_chunk(now, &[b'0' + piece; 30_000]).unwrap()
            })
            .collect();
        run(&mut spool, home.path(), now);
        let id = append(&mut spool, now, number, &chunks);
        run(&mut spool, home.path(), now);
        let reply = Reply::remote(451, Some(Enhanced(4, 2, 1)), &format!("later {number}"));
        let later =
            Outcome::Deferred { reply, next: now.wall.plus(std::time::Duration::from_secs(60)) };
        let outcomes = match number % 4 {
            _ if number < OVER => vec![delivered(0, 2)],
            1 => vec![outcome(0, 2, 3, later)],
            2 => vec![delivered(1, 1), outcome(0, 1, 2, later)],
            3 => vec![delivered(0, 1)],
            _ => Vec::new(),
        };
        spool.settle(now, id, &outcomes, None);
        let later = at(u64::from(number) * 10 + 19);
        run(&mut spool, home.path(), later);
    }
    spool.seal();
    run(&mut spool, home.path(), at(10_000));
    assert!(spool.is_settled());
    home
}

/// A spool of its own with the same segments.
fn copy_of(original: &Path) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("segments")).unwrap();
    for entry in fs::read_dir(original.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, home.path().join("segments").join(path.file_name().unwrap())).unwrap();
    }
    home
}

/// A spool without mail; its segments are as short as the others.
fn empty() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    add_spare(home.path());
    home
}

/// Who is to get what: for each recipient, everything that a transfer must keep.
type Live = BTreeMap<String, (u16, Option<Wall>, Wall, [Vec<u8>; 3], Option<String>)>;

/// What a start would send.
fn live(home: &Path) -> Live {
    let mut depot = Depot::open(look(home).unwrap()).unwrap();
    let messages = std::mem::take(&mut depot.stock.messages);
    let mut live = Live::new();
    for message in messages {
        let whole = depot.read(&message).unwrap();
        let content = whole.content();
        let envelope = EnvelopeView::parse(&content[0]).unwrap().0;
        for run in &whole.runs {
            let said = whole.deferrals.iter().find(|said| said.first == run.first);
            let said = said.map(|said| format!("{:?}", said.outcome));
            for address in envelope.recipients(run.first..run.first + run.count) {
                let kept = (run.attempts, run.due, whole.accepted, content.clone(), said.clone());
                let twice = live.insert(address.to_owned(), kept);
                assert!(twice.is_none(), "{address} is there twice");
            }
        }
    }
    live
}

/// Without waiting for a disk.
fn export(order: &ExportOrder) -> Result<ExportReport, TransferError> {
    export_by(&Steps::ending_in(usize::MAX, End::Kill), order)
}

fn import(order: &ImportOrder) -> Result<ImportReport, TransferError> {
    import_by(&Steps::ending_in(usize::MAX, End::Kill), order)
}

fn move_out(spool: &Path, to: &Path) -> ExportOrder {
    ExportOrder { spool: spool.into(), to: to.into(), which: Which::All, after: After::GiveUp }
}

fn into(spool: &Path, from: &Path) -> ImportOrder {
    ImportOrder { spool: spool.into(), from: from.into(), doubt: Doubt::Refuse }
}

#[test]
fn moved_mail_is_the_same_elsewhere_and_gone_here() {
    let (source, target) = (filled(), empty());
    let all = live(source.path());
    let pending = |number: u16| if number % 4 < 2 { 2 } else { 1 };
    assert_eq!(all.len(), (OVER..MESSAGES).map(pending).sum::<usize>());
    let said = |number: u16| number % 4 == 1 || number % 4 == 2;
    let told = all.values().filter(|kept| kept.4.is_some()).count();
    assert_eq!(told, (OVER..MESSAGES).filter(|number| said(*number)).map(pending).sum::<usize>());
    let archive = source.path().join("mail.archive");
    let report = export(&move_out(source.path(), &archive)).unwrap();
    assert_eq!(report.recipients, all.len() as u64);
    assert_eq!(report.bytes, fs::metadata(&archive).unwrap().len());
    assert!(report.bytes > u64::from(SEGMENT_BYTES) + 12288, "more than one segment");
    assert!(live(source.path()).is_empty());
    let taken = import(&into(target.path(), &archive)).unwrap();
    assert_eq!((taken.names.len() as u64, taken.recipients), (report.messages, report.recipients));
    assert_eq!(live(target.path()), all);
    // And on from there, back to where it came from.
    let further = target.path().join("mail.archive");
    export(&move_out(target.path(), &further)).unwrap();
    import(&into(source.path(), &further)).unwrap();
    assert_eq!((live(source.path()), live(target.path()).len()), (all, 0));
}

#[test]
fn a_chosen_message_goes_and_the_others_stay() {
    let (source, target) = (filled(), empty());
    let all = live(source.path());
    let mut depot = Depot::open(look(source.path()).unwrap()).unwrap();
    let chosen = depot.stock.messages.remove(7).id;
    drop(depot);
    let archive = source.path().join("one.archive");
    let mut order = move_out(source.path(), &archive);
    order.which = Which::These(vec![chosen, MessageId(1)]);
    assert!(export(&order).unwrap_err().to_string().contains("0-000001 is not queued"));
    assert!(!archive.exists());
    order.which = Which::These(vec![chosen]);
    assert_eq!(export(&order).unwrap().messages, 1);
    assert_eq!(import(&into(target.path(), &archive)).unwrap().names[0].0, chosen);
    let (mut here, there) = (live(source.path()), live(target.path()));
    assert!(!there.is_empty() && here.keys().all(|address| !there.contains_key(address)));
    here.extend(there);
    assert_eq!(here, all);
}

#[test]
fn a_backup_changes_nothing_and_is_imported_only_in_full_knowledge() {
    let (source, target) = (filled(), empty());
    let all = live(source.path());
    let archive = target.path().join("backup.archive");
    let order = ExportOrder { after: After::Keep, ..move_out(source.path(), &archive) };
    export(&order).unwrap();
    assert_eq!(live(source.path()), all);
    assert_eq!(fs::read_dir(source.path()).unwrap().count(), 1, "nothing was made in the spool");
    assert!(export(&order).unwrap_err().to_string().contains("name another"));
    let refused = import(&into(target.path(), &archive)).unwrap_err().to_string();
    assert!(refused.contains("--move") && refused.contains("--accept-duplicates"), "{refused}");
    assert!(live(target.path()).is_empty());
    import(&ImportOrder { doubt: Doubt::Accept, ..into(target.path(), &archive) }).unwrap();
    assert_eq!(live(target.path()), all);
}

#[test]
fn no_archive_is_taken_twice() {
    let (source, target, other) = (filled(), empty(), empty());
    let archive = source.path().join("mail.archive");
    export(&move_out(source.path(), &archive)).unwrap();
    let by_hand = source.path().join("copied.archive");
    fs::copy(&archive, &by_hand).unwrap();
    import(&into(target.path(), &archive)).unwrap();
    let all = live(target.path());
    let again = import(&into(target.path(), &archive)).unwrap_err().to_string();
    assert!(again.contains("imported it already"), "{again}");
    let again = ImportOrder { doubt: Doubt::Accept, ..into(target.path(), &by_hand) };
    assert!(import(&again).unwrap_err().to_string().contains("imported it already"));
    let elsewhere = import(&into(other.path(), &archive)).unwrap_err().to_string();
    assert!(elsewhere.contains("import it there"), "{elsewhere}");
    assert!(live(other.path()).is_empty());
    assert_eq!(live(target.path()), all);
    // The memory outlives the mail.
    let away = target.path().join("away.archive");
    export(&move_out(target.path(), &away)).unwrap();
    assert!(import(&into(target.path(), &archive)).is_err());
    assert!(live(target.path()).is_empty());
}

#[test]
fn an_export_ended_at_any_step_leaves_each_message_in_one_place() {
    let original = filled();
    let all = live(original.path());
    for end in [End::Kill, End::PowerCut] {
        let ended = (1..).take_while(|step| {
            let (source, target) = (copy_of(original.path()), empty());
            let archive = source.path().join("mail.archive");
            let steps = Steps::ending_in(*step, end);
            let done = export_by(&steps, &move_out(source.path(), &archive));
            let was_ended = steps.end();
            assert_eq!(done.is_err(), was_ended, "{end:?} {step}");
            one_place(&all, source.path(), target.path(), &archive, &format!("{end:?} {step}"));
            was_ended
        });
        assert!(ended.count() > 20, "each step was one to end in");
    }
}

/// Nothing is live twice now, nor after the operator did what the refusals say; and all is there.
fn one_place(all: &Live, source: &Path, target: &Path, archive: &Path, when: &str) {
    let here = live(source);
    assert!(here.is_empty() || here == *all, "{when}: all or nothing is given up");
    drop(SpoolFolder::open(source).unwrap());
    assert_eq!(live(source), here, "{when}: a start changes nothing");
    if import(&into(target, archive)).is_err() {
        assert!(live(target).is_empty(), "{when}");
        drop(fs::remove_file(source.join("mail.archive.new")));
        let again = export(&move_out(source, archive));
        if !here.is_empty() && again.is_err() {
            fs::remove_file(archive).unwrap();
            export(&move_out(source, archive)).unwrap();
        } else {
            assert_eq!(again.unwrap().was_ended, here.is_empty(), "{when}");
        }
        import(&into(target, archive)).unwrap();
    }
    assert!(live(source).is_empty(), "{when}");
    assert_eq!(live(target), *all, "{when}");
}

#[test]
fn an_import_ended_at_any_step_leaves_each_message_in_one_place() {
    let source = filled();
    let all = live(source.path());
    let original = source.path().join("mail.archive");
    export(&move_out(source.path(), &original)).unwrap();
    for end in [End::Kill, End::PowerCut] {
        let ended = (1..).take_while(|step| {
            let (target, other) = (empty(), empty());
            let archive = target.path().join("mail.archive");
            fs::copy(&original, &archive).unwrap();
            let steps = Steps::ending_in(*step, end);
            let done = import_by(&steps, &into(target.path(), &archive));
            let was_ended = steps.end();
            assert_eq!(done.is_err(), was_ended, "{end:?} {step}");
            let when = format!("{end:?} {step}");
            let here = live(target.path());
            assert!(here.is_empty() || here == all, "{when}: all or nothing");
            drop(SpoolFolder::open(target.path()).unwrap());
            assert_eq!(live(target.path()), here, "{when}: a start changes nothing");
            // On every second step somebody else tries first.
            let elsewhere = step % 2 == 0 && import(&into(other.path(), &archive)).is_ok();
            assert!(!elsewhere || here.is_empty(), "{when}");
            let again = import(&into(target.path(), &archive));
            assert_eq!(again.is_ok(), here.is_empty() && !elsewhere, "{when}: {again:?}");
            let (here, there) = (live(target.path()), live(other.path()));
            assert_eq!((here == all, there == all), (!elsewhere, elsewhere), "{when}");
            assert!(here.is_empty() || there.is_empty(), "{when}");
            was_ended
        });
        assert!(ended.count() > 15, "each step was one to end in");
    }
}

#[test]
fn damaged_messages_stay_behind_and_are_named() {
    let (source, target) = (filled(), empty());
    let all = live(source.path());
    let depot = Depot::open(look(source.path()).unwrap()).unwrap();
    let hurt = depot.stock.messages[9].id;
    drop(depot);
    let is_it = |mark: &[u8]| mark[16] == 3 && mark[24..32] == hurt.0.to_le_bytes();
    let files = fs::read_dir(source.path().join("segments")).unwrap();
    let hits = files.filter(|file| damage(&file.as_ref().unwrap().path(), is_it));
    assert_eq!(hits.count(), 1);
    let archive = source.path().join("mail.archive");
    let report = export(&move_out(source.path(), &archive)).unwrap();
    assert_eq!(report.left_behind.len(), 1);
    assert_eq!(report.left_behind[0].message, Some(hurt));
    // Damage to the archive costs what it hits, no more.
    assert!(damage(&archive, |mark| mark[16] == 5));
    let taken = import(&into(target.path(), &archive)).unwrap();
    assert_eq!((taken.left_behind.len(), taken.names.len() as u64), (1, report.messages - 1));
    assert!(taken.left_behind[0].message.is_some());
    let there = live(target.path());
    assert!(there.len() + 4 >= all.len() && there.iter().all(|(to, kept)| all[to] == *kept));
}

/// Flips a bit in the payload of the first record that is meant; whether there was one.
fn damage(path: &Path, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    let mut bytes = fs::read(path).unwrap();
    let record = bytes.chunks(64).position(|mark| mark.starts_with(b"PrRc") && is_meant(mark));
    let Some(record) = record else { return false };
    bytes[record * 64 + 200] ^= 1;
    fs::write(path, bytes).unwrap();
    true
}

#[test]
fn a_copied_spool_is_not_started_until_it_is_adopted() {
    let source = filled();
    drop(SpoolFolder::open(source.path()).unwrap());
    let copy = copy_of(source.path());
    fs::copy(source.path().join("identity"), copy.path().join("identity")).unwrap();
    let refused = SpoolFolder::open(copy.path()).unwrap_err().to_string();
    assert!(
        refused.contains("is a copy of a spool") && refused.contains("spool adopt"),
        "{refused}"
    );
    let report = crate::runtime::inspect::inspect(copy.path()).unwrap();
    assert!(!report.not_started.is_empty() && !report.is_sound());
    let archive = copy.path().join("mail.archive");
    assert!(export(&move_out(copy.path(), &archive)).is_err());
    adopt(copy.path()).unwrap();
    SpoolFolder::open(copy.path()).unwrap();
    SpoolFolder::open(source.path()).unwrap();
}

#[test]
fn an_engine_at_work_keeps_its_mail() {
    let (source, target) = (filled(), empty());
    let archive = source.path().join("mail.archive");
    let held = SpoolFolder::open(source.path()).unwrap();
    for after in [After::Keep, After::GiveUp] {
        let order = ExportOrder { after, ..move_out(source.path(), &archive) };
        assert!(export(&order).unwrap_err().to_string().contains("in use by process"));
    }
    drop(held);
    export(&move_out(source.path(), &archive)).unwrap();
    let held = SpoolFolder::open(target.path()).unwrap();
    let refused = import(&into(target.path(), &archive)).unwrap_err().to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    drop(held);
    assert!(export(&move_out(&target.path().join("nowhere"), &archive)).is_err());
    let nothing = export(&move_out(target.path(), &target.path().join("x"))).unwrap();
    assert!(nothing.archive.is_none() && !target.path().join("x").exists());
}
