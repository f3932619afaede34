//! What recovery finds on the disk: the same scan and plan as a start of the engine.

use std::collections::BTreeMap;

use postrider_engine::model::message::{MessageId, SegmentSeq};
use postrider_engine::spool::MessageView;
use postrider_engine::spool::files::FileId;
use postrider_engine::spool::plan::{Recovered, RecoveredDelivery, plan};
use postrider_engine::spool::recovery::{Groups, scan};
use postrider_engine::spool::segment::{SegmentState, read_slots};
use postrider_engine::wire::envelope::EnvelopeView;

use super::clock::Clock;
use super::ledger::{Pending, Spooled, reported};

/// Recovers all files, as a start with so many shards would.
///
/// # Errors
/// Why the engine would not start.
pub fn recover(files: &[Vec<u8>], shards: u16) -> Result<Recovered, String> {
    let mut scans = Vec::new();
    for (number, bytes) in (0..).zip(files) {
        let found = scan(FileId(number), bytes, groups_of);
        scans.push(found.map_err(|error| format!("file {number}: {error}"))?);
    }
    Ok(plan(scans, shards))
}

/// The live messages of a recovery, with the addresses that are still to be served.
#[must_use]
pub fn live(files: &[Vec<u8>], deliveries: &[RecoveredDelivery], clock: &Clock) -> Vec<Spooled> {
    let by_segment = in_use(files);
    let mut live: BTreeMap<MessageId, Spooled> = BTreeMap::new();
    for found in deliveries {
        let delivery = &found.delivery;
        let file = by_segment.get(&delivery.place.segment).map(|file| &files[*file]);
        let record = file.and_then(|file| file.get(delivery.place.offset as usize..));
        let Some((view, record)) =
            record.and_then(|record| Some((MessageView::parse(record).ok()?, record)))
        else {
            continue;
        };
        let Some(envelope) =
            view.envelope.of(record).and_then(|bytes| EnvelopeView::parse(bytes).ok())
        else {
            continue;
        };
        let envelope = envelope.0;
        let message = live.entry(delivery.message).or_insert_with(|| Spooled {
            id: delivery.message,
            sender: envelope.sender().to_owned(),
            flow: found.flow.as_deref().cloned().unwrap_or_default(),
            pending: Vec::new(),
            reports: match envelope.sender() {
                "" => reported(view.body.of(record).unwrap_or_default()),
                _ => Vec::new(),
            },
        });
        message.pending.extend(envelope.recipients(delivery.recipients()).map(|address| Pending {
            address: address.to_owned(),
            attempts: delivery.attempts,
            due: found.due.map(|due| clock.of_wall(due)),
        }));
    }
    live.into_values().collect()
}

/// The message of this name, if a power cut now would leave it; its own segment is enough unless
/// its body is in pieces, or it was copied out of it.
#[must_use]
pub fn find(files: &[Vec<u8>], id: MessageId, clock: &Clock) -> Option<Spooled> {
    let is_it = |message: &Spooled| message.id == id;
    let in_own_segment = || {
        let file = *in_use(files).get(&id.segment())?;
        let number = FileId(u32::try_from(file).unwrap_or(u32::MAX));
        let alone = plan(vec![scan(number, &files[file], groups_of).ok()?], 1);
        live(files, &alone.deliveries, clock).into_iter().find(is_it)
    };
    in_own_segment().or_else(|| {
        let all = recover(files, 1).ok()?;
        live(files, &all.deliveries, clock).into_iter().find(is_it)
    })
}

/// The messages that a damaged byte may take away: the one it lies in, or, where it lies in none,
/// those with pieces elsewhere.
#[must_use]
pub fn hit(files: &[Vec<u8>], file: FileId, at: u64, clock: &Clock) -> Vec<Spooled> {
    let Ok(all) = recover(files, 1) else { return Vec::new() };
    let by_segment = in_use(files);
    let mut hit = Vec::new();
    for found in &all.deliveries {
        let place = found.delivery.place;
        let is_here = by_segment.get(&place.segment) == Some(&(file.0 as usize));
        let from = u64::from(place.offset);
        let covers = is_here && (from..from + u64::from(place.bytes)).contains(&at);
        let record = by_segment
            .get(&place.segment)
            .and_then(|file| files[*file].get(place.offset as usize..));
        let view = record.and_then(|record| MessageView::parse(record).ok());
        let in_piece = record.zip(view).is_some_and(|(record, view)| {
            view.chunks(record).any(|chunk| {
                let from = u64::from(chunk.offset);
                by_segment.get(&chunk.segment) == Some(&(file.0 as usize))
                    && (from..from + u64::from(chunk.bytes) + 64).contains(&at)
            })
        });
        if covers || in_piece {
            hit.push(found.delivery.message);
        }
    }
    let is_hit = |message: &Spooled| hit.contains(&message.id);
    live(files, &all.deliveries, clock).into_iter().filter(is_hit).collect()
}

/// The file that is this segment.
#[must_use]
pub fn file_of(files: &[Vec<u8>], segment: SegmentSeq) -> Option<usize> {
    in_use(files).get(&segment).copied()
}

fn in_use(files: &[Vec<u8>]) -> BTreeMap<SegmentSeq, usize> {
    let mut by_segment = BTreeMap::new();
    for (number, bytes) in files.iter().enumerate() {
        if let Ok(slots) = read_slots(bytes)
            && slots.header.state != SegmentState::Free
        {
            by_segment.insert(slots.header.tag.sequence, number);
        }
    }
    by_segment
}

fn groups_of(envelope: &[u8]) -> Option<Groups> {
    let (view, _) = EnvelopeView::parse(envelope).ok()?;
    Some(view.groups().map(|group| (group.domain.into(), group.first, group.count)).collect())
}
