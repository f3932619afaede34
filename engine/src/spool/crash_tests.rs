//! Random histories with power cuts: nothing is lost, invented or revived.

use super::files::DiskError;
use super::message::MessageView;
use super::recovery::Finding;
use super::test_disk::{
    Disk, append_chunked, at_ms, deferred, delivered, live as live_in, options,
};
use super::{Durable, Gather, Spool};
use crate::base::prng::Prng;
use crate::base::time::{Now, Wall};
use crate::model::message::MessageId;

const SEGMENT_BYTES: u32 = 96 << 10;
/// Histories of four crashes each, in the time a unit test may take.
const SEEDS: u64 = 60;

/// What a test knows of one message.
struct Known {
    id: MessageId,
    recipients: u16,
    body: Vec<u8>,
    told: Told,
    /// By recipient.
    standing: Vec<Standing>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Nothing,
    Safe,
    Refused,
    /// It was not there after a restart, and must not come back.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Pending,
    /// Settled, but not yet told to be on disk.
    Settling,
    Final,
}

struct World {
    prng: Prng,
    disk: Disk,
    spool: Spool,
    ms: u64,
    known: Vec<Known>,
    /// By settlement token: message index and recipient range.
    settling: Vec<(usize, u16, u16)>,
    pieces: Vec<super::ChunkRef>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut disk = Disk::new(SEGMENT_BYTES, 7);
        let mut spool = Spool::new(options(1), None);
        disk.run(&mut spool, at_ms(0));
        disk.slow_reads = true;
        let prng = Prng::new(seed);
        let (known, settling) = (Vec::new(), Vec::new());
        Self { prng, disk, spool, ms: 1, known, settling, pieces: Vec::new() }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.prng.below(bound as u64)).unwrap()
    }

    fn now(&self) -> Now {
        at_ms(self.ms)
    }

    fn step(&mut self) {
        match self.below(12) {
            0..=3 => self.append(),
            4 => self.append_piece(),
            5..=7 => self.settle(),
            8 => self.ms += self.prng.below(8),
            9 if !self.disk.reads.is_empty() => {
                let (at, now) = (self.below(self.disk.reads.len()), self.now());
                self.disk.end_read(&mut self.spool, now, at);
            }
            _ => self.end_write(),
        }
        let transactions = self.below(3);
        let now = self.now();
        self.disk.take_requests(&mut self.spool, now, Gather { transactions });
        self.hear();
    }

    fn append(&mut self) {
        let count = u16::try_from(self.below(3) + 1).unwrap();
        let bytes = self.below(6000);
        let body: Vec<u8> = (0..bytes).map(|_| self.prng.next_u64().to_le_bytes()[0]).collect();
        let token = self.known.len() as u64;
        let pieces = std::mem::take(&mut self.pieces);
        let now = self.now();
        match append_chunked(&mut self.spool, now, count, &pieces, &body, token) {
            Ok(id) => {
                let standing = vec![Standing::Pending; usize::from(count) + 1];
                let recipients = count + 1;
                self.known.push(Known { id, recipients, body, told: Told::Nothing, standing });
            }
            Err(_) => self.spool.drop_chunks(&pieces),
        }
    }

    fn append_piece(&mut self) {
        let bytes = vec![0x5a; self.below(3000) + 1];
        self.pieces.extend(self.spool.append_chunk(at_ms(self.ms), &bytes));
    }

    fn settle(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let which = self.below(self.known.len());
        if self.known[which].told != Told::Safe {
            return;
        }
        let recipients = usize::from(self.known[which].recipients);
        let first = self.below(recipients);
        let count = self.below(recipients - first) + 1;
        let (first, count) = (u16::try_from(first).unwrap(), u16::try_from(count).unwrap());
        let id = self.known[which].id;
        if self.below(4) == 0 {
            self.spool.settle(at_ms(self.ms), id, &[deferred(first, count, 1, Wall(5))], None);
            return;
        }
        let token = self.settling.len() as u64;
        self.spool.settle(at_ms(self.ms), id, &[delivered(first, count)], Some(token));
        self.settling.push((which, first, count));
        for standing in &mut self.known[which].standing[usize::from(first)..][..usize::from(count)]
        {
            if *standing == Standing::Pending {
                *standing = Standing::Settling;
            }
        }
    }

    fn end_write(&mut self) {
        if self.disk.writes.is_empty() {
            return;
        }
        let at = self.below(self.disk.writes.len());
        let (commit, result) = if self.below(150) == 0 {
            (self.disk.fail(at, &mut self.prng), Err(DiskError::Failed(5)))
        } else {
            (self.disk.finish(at), Ok(()))
        };
        self.spool.handle_committed(commit, result);
    }

    fn hear(&mut self) {
        while let Some(durable) = self.spool.poll_durable() {
            match durable {
                Durable::Message { token, id, .. } => {
                    let known = &mut self.known[usize::try_from(token).unwrap()];
                    assert_eq!((known.id, known.told), (id, Told::Nothing));
                    known.told = Told::Safe;
                }
                Durable::Refused { token } => {
                    let known = &mut self.known[usize::try_from(token).unwrap()];
                    assert_eq!(known.told, Told::Nothing);
                    known.told = Told::Refused;
                }
                Durable::Settled { token } => {
                    let (which, first, count) = self.settling[usize::try_from(token).unwrap()];
                    let range = usize::from(first)..usize::from(first + count);
                    self.known[which].standing[range].fill(Standing::Final);
                }
                Durable::Fenced { .. } | Durable::Kept { .. } | Durable::NotKept { .. } => {}
                Durable::SetAside { id, .. } => panic!("{id} was whole"),
            }
        }
    }

    fn crash(&mut self, seed: u64) {
        self.disk.power_cut(&mut self.prng);
        let recovered = self.disk.recover(1);
        let live = live_in(&recovered);
        for shards in 2..5 {
            let other = self.disk.recover(shards);
            assert_eq!(live_in(&other), live, "seed {seed}, {shards} shards");
        }
        for finding in &recovered.findings {
            assert!(matches!(finding, Finding::Torn { .. }), "seed {seed}: {finding:?}");
        }
        for (id, _) in &live {
            assert!(self.known.iter().any(|known| known.id == *id), "seed {seed}: invented {id}");
        }
        for known in &mut self.known {
            known.check(&live, seed);
        }
        let next = recovered.next_sequence;
        // A segment that never reached the disk leaves its name, and those in it, to another.
        self.known.retain(|known| known.told == Told::Safe || known.id.segment().0 < next);
        for delivery in &recovered.deliveries {
            let file = delivery.delivery.place;
            let known = self.known.iter().find(|known| known.id == delivery.delivery.message);
            let found = self.disk.files.iter().any(|bytes| {
                let record = bytes[file.offset as usize..][..file.bytes as usize].to_vec();
                let view = MessageView::parse(&record);
                view.is_ok_and(|view| view.body.of(&record) == known.map(|known| &known.body[..]))
            });
            assert!(found, "seed {seed}: the body is not what was accepted");
        }
        self.spool = Spool::new(options(next), recovered.shards.into_iter().next());
        self.ms += 10;
        self.pieces.clear();
        self.settling.clear();
    }
}

impl Known {
    fn check(&mut self, live: &[(MessageId, u16)], seed: u64) {
        let Self { id, told, standing, .. } = self;
        let mut any = false;
        for (recipient, standing) in (0..).zip(standing) {
            let is_live = live.binary_search(&(*id, recipient)).is_ok();
            any |= is_live;
            match (*told, *standing) {
                (Told::Safe, Standing::Pending) => {
                    assert!(is_live, "seed {seed}: {id} {recipient} was lost");
                }
                (Told::Safe, Standing::Final) => {
                    assert!(!is_live, "seed {seed}: {id} {recipient} would be sent again");
                }
                (Told::Gone, _) => assert!(!is_live, "seed {seed}: {id} came back"),
                _ => {}
            }
            *standing = if is_live { Standing::Pending } else { Standing::Final };
        }
        *told = if any || *told == Told::Safe { Told::Safe } else { Told::Gone };
    }
}

#[test]
fn no_crash_loses_invents_or_revives_anything() {
    let mut copied = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..world.below(400) {
                world.step();
            }
            copied += world.spool.counters().messages_copied;
            world.crash(seed);
        }
    }
    assert!(copied > SEEDS, "cleaning is among what crashed: {copied}");
}

/// What the workload below has taken in: the message, and who of its four recipients is done.
struct Taken {
    id: MessageId,
    /// Told to be on disk.
    done: bool,
    settling: bool,
}

/// Fills segments with messages of which every ninth stays, so that cleaning runs all the time, and
/// stops after `writes` writes; every third message is told delivered to its first recipient.
fn clean_until(writes: usize, seed: u64) -> (Disk, Vec<Taken>, Spool) {
    let mut disk = Disk::new(SEGMENT_BYTES, 12);
    let mut spool = Spool::new(options(1), None);
    let mut prng = Prng::new(seed);
    let mut taken: Vec<Taken> = Vec::new();
    let (mut left, mut ms) = (writes, 1);
    loop {
        ms += 1;
        let now = at_ms(ms);
        if let Ok(id) = super::test_disk::append(&mut spool, now, 3, &[1; 1500], 0) {
            taken.push(Taken { id, done: false, settling: false });
        }
        disk.take_requests(&mut spool, now, Gather::default());
        while !disk.writes.is_empty() && (disk.writes.len() > 2 || prng.below(3) > 0) {
            if left == 0 {
                return (disk, taken, spool);
            }
            left -= 1;
            let at = usize::try_from(prng.below(disk.writes.len() as u64)).unwrap();
            let commit = disk.finish(at);
            spool.handle_committed(commit, Ok(()));
            disk.take_requests(&mut spool, now, Gather::default());
        }
        while let Some(durable) = spool.poll_durable() {
            match durable {
                Durable::Message { id, .. } => {
                    let which = taken.iter().position(|one| one.id == id).unwrap();
                    let stays = which.is_multiple_of(9);
                    let first = if stays { 1 } else { 0 };
                    let outcomes = [deferred(first, 4 - first, 2, Wall(9_000_000_000))];
                    spool.settle(now, id, &outcomes, None);
                    let count = if stays { 1 } else { 4 };
                    let token = Some(which as u64);
                    spool.settle(now, id, &[delivered(0, count)], token);
                    taken[which].settling = true;
                }
                Durable::Settled { token } => taken[usize::try_from(token).unwrap()].done = true,
                Durable::Kept { .. } => {}
                Durable::Refused { .. }
                | Durable::NotKept { .. }
                | Durable::Fenced { .. }
                | Durable::SetAside { .. } => {
                    panic!("nothing fails here")
                }
            }
        }
    }
}

/// Writes of the workload: enough that segments were cleaned, and cleaned again.
const CLEANING_WRITES: usize = 500;

#[test]
fn a_crash_at_any_write_of_cleaning_loses_and_revives_nothing() {
    let (_, _, whole) = clean_until(CLEANING_WRITES, 3);
    let counters = whole.counters();
    assert!(counters.messages_copied > 20 && counters.segments_recycled > 8, "{counters:?}");
    for writes in 1..CLEANING_WRITES {
        let (mut disk, taken, spool) = clean_until(writes, 3);
        disk.power_cut(&mut Prng::new(writes as u64));
        let recovered = disk.recover(1);
        let live = live_in(&recovered);
        drop(spool);
        for (which, one) in taken.iter().enumerate() {
            let stays = which.is_multiple_of(9);
            let is_live = |recipient| live.binary_search(&(one.id, recipient)).is_ok();
            let done = if stays { 0..1 } else { 0..4 };
            for recipient in 0..4u16 {
                let told = one.done && done.contains(&recipient);
                assert!(!(told && is_live(recipient)), "{writes}: {} came back", one.id);
                let must = one.settling && !done.contains(&recipient);
                assert!(!must || is_live(recipient), "{writes}: {} {recipient} was lost", one.id);
            }
        }
        for found in &recovered.deliveries {
            // A copy knows its attempts; an outcome that was in flight may be lost.
            let delivery = &found.delivery;
            let place = delivery.place;
            let is_copy = place.segment != delivery.message.segment();
            let state = (delivery.attempts, found.due);
            assert!(!is_copy || delivery.first == 0 || state == (2, Some(Wall(9_000_000_000))));
        }
        // What was recovered can be cleaned, and crash, again.
        let next = recovered.next_sequence;
        let mut spool = Spool::new(options(next), recovered.shards.into_iter().next());
        disk.run(&mut spool, at_ms(100_000));
        disk.run(&mut spool, at_ms(100_010));
        assert_eq!(live_in(&disk.recover(1)), live, "{writes}: cleaning changed what is live");
    }
}
