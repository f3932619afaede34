//! Letters made for the conversations.

use crate::base::block::BlockBuilder;
use crate::base::time::Wall;
use crate::egress::letter::{BodyPart, Letter};
use crate::model::connection::ShardId;
use crate::model::delivery::Delivery;
use crate::model::message::{MessageId, Place, SegmentSeq, Slice};
use crate::wire::envelope::{Envelope, Origin};

pub(in crate::egress) fn slice(bytes: &[u8]) -> Slice {
    let mut block = BlockBuilder::with_capacity(bytes.len());
    block.append(bytes);
    Slice { block: block.freeze(), at: 0, bytes: u32::try_from(bytes.len()).unwrap() }
}

/// Letter `n`, from `s@n` to `r0@n`, `r1@n`...; its content is `hi n`.
pub(in crate::egress) fn letter(n: u32, recipients: u16) -> Letter {
    let content = format!("hi {n}\r\n");
    let segment = SegmentSeq(1);
    Letter {
        delivery: Delivery {
            message: MessageId::new(segment, n),
            home: ShardId(0),
            place: Place { segment, offset: 0, bytes: 64 },
            in_pieces: 0,
            first: 0,
            count: recipients,
            attempts: 0,
            accepted: Wall(0),
            record: None,
        },
        envelope: envelope(n, recipients),
        parts: vec![BodyPart::Inline(slice(content.as_bytes()))],
        bytes: 6,
        eight_bit: false,
        dot_lines: false,
    }
}

fn envelope(n: u32, recipients: u16) -> Slice {
    let names: Vec<String> = (0..recipients).map(|index| format!("r{index}@{n}")).collect();
    addressed(&format!("s@{n}"), &names.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) fn addressed(sender: &str, recipients: &[&str]) -> Slice {
    let mut envelope = Envelope::default();
    envelope.set_sender(sender);
    for recipient in recipients {
        envelope.add_recipient(recipient);
    }
    let peer = "127.0.0.1:1".parse().unwrap();
    let mut bytes = Vec::new();
    envelope.encode("c", Origin { peer, listener: 0, accepted: Wall(0) }, &mut bytes);
    slice(&bytes)
}

pub(super) fn with_chunks(n: u32) -> Letter {
    let segment = SegmentSeq(1);
    let chunk = |offset| BodyPart::Chunk { place: Place { segment, offset, bytes: 70 }, bytes: 6 };
    let parts = vec![BodyPart::Inline(slice(b"head\r\n")), chunk(64), chunk(128)];
    Letter { parts, bytes: 18, ..letter(n, 1) }
}
