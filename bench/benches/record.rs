//! A group of messages on its way to the disk: named, copied, checksummed, padded, told durable, settled.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use postrider_engine::base::time::{Mono, Now, Wall};
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::message::MessageId;
use postrider_engine::model::settings::OutcomeDurability;
use postrider_engine::spool::files::{FileId, SpareSegment};
use postrider_engine::spool::message::{DomainRange, MessageParts};
use postrider_engine::spool::{Durable, Gather, Request, Spool, SpoolOptions};

/// Messages that share a commit on a busy shard.
const GROUP: u64 = 64;
/// Of a body.
const SIZES: [usize; 2] = [4096, 65_536];
const SEGMENT_BYTES: u32 = 64 << 20;
const NOW: Now = Now { mono: Mono(1), wall: Wall(1_700_000_000_000_000_000) };

fn main() {
    divan::main();
}

/// Records, their CRC, and the commit around them.
#[divan::bench(args = SIZES)]
fn group(bencher: Bencher<'_, '_>, size: usize) {
    let body = vec![b'x'; size];
    bencher
        .counter(ItemsCount::new(GROUP))
        .counter(BytesCount::of_many::<u8>(size * usize::try_from(GROUP).expect("small")))
        .with_inputs(spool)
        .bench_local_refs(|spool| {
            append(spool, black_box(&body));
            commit(spool)
        });
}

fn append(spool: &mut Spool, body: &[u8]) {
    let domains = [DomainRange { domain: "example.test", first: 0, count: 1 }];
    let parts = MessageParts {
        envelope: &[7; 60],
        recipients: 1,
        groups: &domains,
        trace: &[b'r'; 180],
        chunks: &[],
        body,
    };
    for token in 0..GROUP {
        let id = spool.begin_message(NOW, parts.payload_bytes()).expect("an empty segment");
        spool.append_message(NOW, id, parts, token).expect("announced");
    }
}

/// Issues all writes, and tells them done.
fn commit(spool: &mut Spool) -> Option<MessageId> {
    while let Some(request) = spool.poll_request(NOW, Gather::default()) {
        if let Request::Commit { commit, block, .. } = request {
            black_box(block.bytes().len());
            spool.handle_committed(commit, Ok(()));
        }
    }
    let mut last = None;
    while let Some(durable) = spool.poll_durable() {
        if let Durable::Message { id, .. } = durable {
            last = Some(id);
        }
    }
    last
}

/// With an active segment whose header is on disk.
fn spool() -> Spool {
    let mut spool = Spool::new(
        SpoolOptions {
            shard: ShardId(0),
            shards: 1,
            next_sequence: 1,
            outcomes: OutcomeDurability::Grouped,
            commits_in_flight_max: 4,
        },
        None,
    );
    for file in 0..8 {
        let file = FileId(file);
        let spare = SpareSegment { file, bytes: SEGMENT_BYTES, generation: 1, header_writes: 2 };
        spool.handle_spare(Ok(spare));
    }
    append(&mut spool, &[b'x'; 64]);
    assert!(commit(&mut spool).is_some(), "the first group becomes durable");
    spool
}
