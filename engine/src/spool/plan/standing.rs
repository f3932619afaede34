//! What became of each recipient of a message, and so who still is pending.

use super::super::ReplyPlace;
use super::super::message::{PendingRun, Runs};
use super::super::outcomes::EntryResult;
use super::super::recovery::{ScannedMessage, ScannedOutcome};
use crate::base::time::Wall;
use crate::model::message::SegmentSeq;

/// What became of one recipient so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Pending { attempts: u16, due: Option<Wall>, reply: Option<ReplyPlace> },
    Final,
}

/// What is pending of a message after all that was written about it since its record.
pub(super) fn pending_runs(
    message: &ScannedMessage,
    entries: &[(SegmentSeq, ScannedOutcome)],
    standings: &mut Vec<Standing>,
) -> Runs {
    let fresh = Standing::Pending { attempts: 0, due: None, reply: None };
    let count = message.recipients;
    let whole = PendingRun { first: 0, count, attempts: 0, due: None, reply: None };
    if entries.is_empty() && message.states.is_none() {
        return Runs::from_elem(whole, 1);
    }
    standings.clear();
    standings.resize(message.recipients.into(), fresh);
    if let Some(states) = &message.states {
        standings.fill(Standing::Final);
        for PendingRun { first, count, attempts, due, .. } in states {
            let pending = Standing::Pending { attempts: *attempts, due: *due, reply: None };
            each(standings, *first, *count, |standing| *standing = pending);
        }
    }
    let position = (message.place.segment, message.place.offset);
    for (segment, entry) in entries {
        // A copy carries what was known when it was written, but for the words: those are behind it,
        // or else still where they were.
        let counts = message.states.is_none() || (*segment, entry.spot.offset()) > position;
        let apply = |standing: &mut Standing| match counts {
            true => apply(standing, *segment, entry),
            false => recall(standing, *segment, entry),
        };
        each(standings, entry.first, entry.count, apply);
    }
    runs(standings)
}

fn each(standings: &mut [Standing], first: u16, count: u16, change: impl Fn(&mut Standing)) {
    standings.iter_mut().skip(first.into()).take(count.into()).for_each(change);
}

/// Final stays final; an earlier deferral that had to be written again undoes no later one.
fn apply(standing: &mut Standing, segment: SegmentSeq, entry: &ScannedOutcome) {
    let Standing::Pending { attempts, .. } = *standing else { return };
    match entry.result {
        EntryResult::Delivered | EntryResult::Failed => *standing = Standing::Final,
        EntryResult::Deferred { next } if entry.attempts >= attempts => {
            let reply = Some(ReplyPlace { segment, spot: entry.spot });
            *standing = Standing::Pending { attempts: entry.attempts, due: Some(next), reply };
        }
        EntryResult::Deferred { .. } => {}
    }
}

/// The attempt that a copy knows of was told so.
fn recall(standing: &mut Standing, segment: SegmentSeq, entry: &ScannedOutcome) {
    if let Standing::Pending { attempts, reply, .. } = standing
        && matches!(entry.result, EntryResult::Deferred { .. })
        && *attempts == entry.attempts
    {
        *reply = Some(ReplyPlace { segment, spot: entry.spot });
    }
}

fn runs(standings: &[Standing]) -> Runs {
    let mut runs = Runs::new();
    for (recipient, standing) in (0u16..).zip(standings) {
        let Standing::Pending { attempts, due, reply } = *standing else { continue };
        let run = PendingRun { first: recipient, count: 1, attempts, due, reply };
        match runs.last_mut() {
            Some(last) if last.is_followed_by(&run) => last.count += 1,
            _ => runs.push(run),
        }
    }
    runs
}

/// One delivery is made of recipients that are due together, whatever each was told.
pub(super) fn tried_together(parts: impl Iterator<Item = PendingRun>) -> Runs {
    let mut together = Runs::new();
    for part in parts.map(|part| PendingRun { reply: None, ..part }) {
        match together.last_mut() {
            Some(last) if last.is_followed_by(&part) => last.count += part.count,
            _ => together.push(part),
        }
    }
    together
}

pub(super) fn common(run: &PendingRun, first: u16, count: u16) -> Option<PendingRun> {
    let start = run.first.max(first);
    let end = (run.first + run.count).min(first + count);
    (start < end).then(|| PendingRun { first: start, count: end - start, ..*run })
}
