//! A disk for tests: it finishes writes when told to, in any order, and loses what a power cut loses.

use std::sync::Arc;

use super::files::{CommitId, DiskError, FileId, SpareSegment};
use super::plan::{Recovered, plan};
use super::recovery::{Groups, scan};
use super::segment::new_file_headers;
use super::{
    DomainRange, Durable, FetchId, Gather, MessageParts, Request, Spool, SpoolFull, SpoolOptions,
};
use crate::base::block::{Block, BlockBuilder};
use crate::base::prng::Prng;
use crate::base::time::{Mono, Now, Wall};
use crate::model::connection::ShardId;
use crate::model::message::MessageId;
use crate::model::outcome::{Enhanced, Outcome, RangeOutcome, Reply};
use crate::model::settings::OutcomeDurability;

pub(super) struct Write {
    pub(super) commit: CommitId,
    file: usize,
    offset: usize,
    pub(super) block: Arc<Block>,
}

pub(super) struct Read {
    fetch: FetchId,
    file: usize,
    offset: usize,
    bytes: usize,
}

pub(super) struct Disk {
    pub(super) files: Vec<Vec<u8>>,
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
    /// Whether reads wait until told to end.
    pub(super) slow_reads: bool,
    segment_bytes: u32,
    files_max: usize,
}

impl Disk {
    pub(super) fn new(segment_bytes: u32, files_max: usize) -> Self {
        let (files, writes, reads) = (Vec::new(), Vec::new(), Vec::new());
        Self { files, writes, reads, slow_reads: false, segment_bytes, files_max }
    }

    /// So many files there may be from now on.
    pub(super) fn files_max(&mut self, files_max: usize) {
        self.files_max = files_max;
    }

    fn prepare(&mut self) -> Result<SpareSegment, DiskError> {
        if self.files.len() >= self.files_max {
            return Err(DiskError::Full);
        }
        let mut file = vec![0; self.segment_bytes as usize];
        for (offset, page) in new_file_headers(self.segment_bytes, ShardId(0), Wall(1)) {
            file[offset as usize..][..4096].copy_from_slice(page.bytes());
        }
        self.files.push(file);
        let file = FileId(u32::try_from(self.files.len() - 1).unwrap());
        Ok(SpareSegment { file, bytes: self.segment_bytes, generation: 1, header_writes: 2 })
    }

    /// Takes over what the spool wants written.
    pub(super) fn take_requests(&mut self, spool: &mut Spool, now: Now, gather: Gather) {
        while let Some(request) = spool.poll_request(now, gather) {
            match request {
                Request::PrepareSegment => spool.handle_spare(self.prepare()),
                Request::Commit { commit, file, offset, block } => {
                    let offset = usize::try_from(offset).unwrap();
                    assert!(offset.is_multiple_of(4096) && block.len().is_multiple_of(4096));
                    assert!(offset + block.len() <= self.segment_bytes as usize);
                    let file = file.0 as usize;
                    self.writes.push(Write { commit, file, offset, block });
                }
                Request::Fetch { fetch, file, offset, bytes } => {
                    let (file, bytes) = (file.0 as usize, bytes as usize);
                    let offset = usize::try_from(offset).unwrap();
                    self.reads.push(Read { fetch, file, offset, bytes });
                    if !self.slow_reads {
                        self.end_read(spool, now, 0);
                    }
                }
            }
        }
    }

    /// Ends a read with what lies there now.
    pub(super) fn end_read(&mut self, spool: &mut Spool, now: Now, at: usize) {
        let read = self.reads.remove(at);
        let mut block = BlockBuilder::with_capacity(read.bytes);
        block.append(&self.files[read.file][read.offset..][..read.bytes]);
        spool.handle_fetched(now, read.fetch, Ok(block.freeze()));
    }

    /// Refuses a read.
    pub(super) fn refuse_read(&mut self, spool: &mut Spool, now: Now, at: usize) {
        let read = self.reads.remove(at);
        spool.handle_fetched(now, read.fetch, Err(DiskError::Failed(5)));
    }

    pub(super) fn finish(&mut self, at: usize) -> CommitId {
        let write = self.writes.remove(at);
        self.apply(&write, |_| true);
        write.commit
    }

    /// Ends a write with an error; any part of it may be there.
    pub(super) fn fail(&mut self, at: usize, prng: &mut Prng) -> CommitId {
        let write = self.writes.remove(at);
        self.tear(&write, prng);
        write.commit
    }

    /// The power goes: of what is in flight, any sectors may be there.
    pub(super) fn power_cut(&mut self, prng: &mut Prng) {
        self.reads.clear();
        for write in std::mem::take(&mut self.writes) {
            self.tear(&write, prng);
        }
    }

    fn tear(&mut self, write: &Write, prng: &mut Prng) {
        match prng.below(3) {
            0 => {}
            1 => self.apply(write, |_| true),
            _ => {
                let kept: Vec<bool> =
                    (0..write.block.len() / 512).map(|_| prng.below(2) == 0).collect();
                self.apply(write, |sector| kept[sector]);
            }
        }
    }

    fn apply(&mut self, write: &Write, kept: impl Fn(usize) -> bool) {
        let file = &mut self.files[write.file];
        for (sector, bytes) in write.block.bytes().chunks(512).enumerate() {
            if kept(sector) {
                file[write.offset + sector * 512..][..512].copy_from_slice(bytes);
            }
        }
    }

    pub(super) fn recover(&self, shards: u16) -> Recovered {
        recover(&self.files, shards)
    }

    /// Lets the spool write until nothing is left to do; returns what it told.
    pub(super) fn run(&mut self, spool: &mut Spool, now: Now) -> Vec<Durable> {
        let mut told = Vec::new();
        loop {
            self.take_requests(spool, now, Gather::default());
            while let Some(durable) = spool.poll_durable() {
                told.push(durable);
            }
            if self.writes.is_empty() {
                return told;
            }
            let commit = self.finish(0);
            spool.handle_committed(commit, Ok(()));
        }
    }
}

pub(super) fn recover(files: &[Vec<u8>], shards: u16) -> Recovered {
    let scans =
        (0..).zip(files).filter_map(|(file, bytes)| scan(FileId(file), bytes, groups_of).ok());
    plan(scans.collect(), shards)
}

pub(super) fn options(next_sequence: u64) -> SpoolOptions {
    SpoolOptions {
        shard: ShardId(0),
        shards: 1,
        next_sequence,
        outcomes: OutcomeDurability::Grouped,
        commits_in_flight_max: 4,
    }
}

pub(super) fn at_ms(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(1_000_000_000_000 + ms * 1_000_000) }
}

/// The envelopes of these tests: `domain:count;` for each domain.
pub(super) fn groups_of(envelope: &[u8]) -> Option<Groups> {
    let mut first = 0;
    let mut groups = Groups::new();
    for group in std::str::from_utf8(envelope).ok()?.split_terminator(';') {
        let (domain, count) = group.split_once(':')?;
        let count: u16 = count.parse().ok()?;
        groups.push((domain.into(), first, count));
        first += count;
    }
    Some(groups)
}

/// Appends a message to `a:count;b:1;` with this body.
pub(super) fn append(
    spool: &mut Spool,
    now: Now,
    count: u16,
    body: &[u8],
    token: u64,
) -> Result<MessageId, SpoolFull> {
    append_chunked(spool, now, count, &[], body, token)
}

pub(super) fn append_chunked(
    spool: &mut Spool,
    now: Now,
    count: u16,
    chunks: &[super::ChunkRef],
    body: &[u8],
    token: u64,
) -> Result<MessageId, SpoolFull> {
    let envelope = format!("a:{count};b:1;");
    let parts = MessageParts {
        envelope: envelope.as_bytes(),
        recipients: count + 1,
        groups: &[
            DomainRange { domain: "a", first: 0, count },
            DomainRange { domain: "b", first: count, count: 1 },
        ],
        trace: b"Received: by test\r\n",
        chunks,
        body,
    };
    let id = spool.begin_message(now, parts.payload_bytes())?;
    assert!(spool.append_message(now, id, parts, token).is_some());
    Ok(id)
}

pub(super) fn delivered(first: u16, count: u16) -> RangeOutcome {
    let reply = Reply::remote(250, Some(Enhanced(2, 0, 0)), "ok");
    RangeOutcome { first, count, attempts: 1, outcome: Outcome::Delivered { reply } }
}

pub(super) fn deferred(first: u16, count: u16, attempts: u16, next: Wall) -> RangeOutcome {
    let reply = Reply::remote(451, None, "later");
    RangeOutcome { first, count, attempts, outcome: Outcome::Deferred { reply, next } }
}

/// Who is to be delivered to, as (message, recipient), in order.
pub(super) fn live(recovered: &Recovered) -> Vec<(MessageId, u16)> {
    let all = recovered.deliveries.iter().map(|one| &one.delivery);
    let mut live: Vec<_> =
        all.flat_map(|one| one.recipients().map(|recipient| (one.message, recipient))).collect();
    live.sort_unstable();
    live
}
