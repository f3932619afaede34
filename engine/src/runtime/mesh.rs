//! How shards and the other threads reach a shard: bounded mailboxes, and one eventfd that wakes it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use tokio::sync::oneshot;

use super::disk::NewSegment;
use super::recovery::Share;
use crate::base::time::Mono;
use crate::model::admin::{Answer, Query};
use crate::model::connection::ShardId;
use crate::model::note::Note;
use crate::model::route::Answer as Resolved;
use crate::model::settings::Settings;
use crate::shard::{DiskError, QuestionId};

/// Notes a mailbox holds; what does not fit waits in the sender's outbox.
const MAILBOX_NOTES_MAX: usize = 8192;

/// Words of the control side a shard may still have before it. A sender that finds it full waits
/// and tries again; shards never send here.
const CONTROL_MAX: usize = 4096;

/// What the threads beside the shards tell a shard.
pub(super) enum Control {
    Resolved {
        question: QuestionId,
        answer: Arc<Resolved>,
    },
    Segment(Result<NewSegment, DiskError>),
    Recovered(Box<Share>),
    Settings(Arc<Settings>),
    /// An operator waits for the answer.
    Ask {
        query: Box<Query>,
        answer: oneshot::Sender<Answer>,
    },
    Stop {
        by: Mono,
    },
    /// All shards are quiet: end the loop.
    Exit,
}

/// All mailboxes of a run.
pub(super) struct Mesh {
    boxes: Box<[Mailbox]>,
}

struct Mailbox {
    notes: ArrayQueue<(ShardId, Note)>,
    control: (Sender<Control>, Receiver<Control>),
    /// Whether the shard is about to sleep, or sleeps, and wants the eventfd written.
    asleep: CachePadded<AtomicBool>,
    wake: OwnedFd,
    /// Whether the shard takes clients.
    ready: AtomicBool,
    /// Whether all it took over from an earlier run is scheduled again.
    taken_over: AtomicBool,
    /// Whether its loop has ended, as it should or not.
    gone: AtomicBool,
    /// What the shard says of itself while the run ends.
    ending: CachePadded<Ending>,
}

/// Counted so that the end of a run can be told from a pause in it.
#[derive(Default)]
struct Ending {
    quiet: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Mesh {
    /// One mailbox for each of these eventfds.
    pub(super) fn new(wakes: Vec<OwnedFd>) -> Self {
        let mailbox = |wake| Mailbox {
            notes: ArrayQueue::new(MAILBOX_NOTES_MAX),
            control: bounded(CONTROL_MAX),
            asleep: CachePadded::new(AtomicBool::new(false)),
            wake,
            ready: AtomicBool::new(false),
            taken_over: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            ending: CachePadded::default(),
        };
        Self { boxes: wakes.into_iter().map(mailbox).collect() }
    }

    pub(super) fn shards(&self) -> usize {
        self.boxes.len()
    }

    fn of(&self, shard: ShardId) -> &Mailbox {
        &self.boxes[usize::from(shard.0)]
    }

    /// Puts a note into a mailbox.
    ///
    /// # Errors
    /// Hands the note back if the mailbox is full; try again next turn.
    pub(super) fn post(&self, to: ShardId, from: ShardId, note: Note) -> Result<(), Note> {
        let mailbox = self.of(to);
        mailbox.notes.push((from, note)).map_err(|(_, note)| note)?;
        self.of(from).ending.sent.fetch_add(1, Ordering::SeqCst);
        mailbox.wake_if_asleep();
        Ok(())
    }

    /// Tells a shard something from another thread; hands it back if there is no room.
    pub(super) fn control(&self, to: ShardId, word: Control) -> Result<(), Control> {
        let mailbox = self.of(to);
        if mailbox.gone.load(Ordering::SeqCst) {
            // Nobody will hear it, and nobody may wait for that.
            return Ok(());
        }
        match mailbox.control.0.try_send(word) {
            Ok(()) => {
                mailbox.wake();
                Ok(())
            }
            Err(TrySendError::Full(word) | TrySendError::Disconnected(word)) => Err(word),
        }
    }

    pub(super) fn take_note(&self, shard: ShardId) -> Option<(ShardId, Note)> {
        let mailbox = self.of(shard);
        let taken = mailbox.notes.pop()?;
        // Before it is counted: whoever sees it counted must not see a quiet shard as well.
        mailbox.ending.quiet.store(false, Ordering::SeqCst);
        mailbox.ending.received.fetch_add(1, Ordering::SeqCst);
        Some(taken)
    }

    pub(super) fn take_control(&self, shard: ShardId) -> Option<Control> {
        self.of(shard).control.1.try_recv().ok()
    }

    /// Announces sleep. False: something came in meanwhile, do not sleep.
    pub(super) fn fall_asleep(&self, shard: ShardId) -> bool {
        let mailbox = self.of(shard);
        // The writer pushes and then reads `asleep`; we write it and then look: one of us sees.
        mailbox.asleep.store(true, Ordering::SeqCst);
        let nothing = mailbox.notes.is_empty() && mailbox.control.1.is_empty();
        if !nothing {
            mailbox.asleep.store(false, Ordering::SeqCst);
        }
        nothing
    }

    pub(super) fn awake(&self, shard: ShardId) {
        self.of(shard).asleep.store(false, Ordering::SeqCst);
    }

    pub(super) fn say_taken_over(&self, shard: ShardId) {
        self.of(shard).taken_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_taken_over(&self, shard: ShardId) -> bool {
        self.of(shard).taken_over.load(Ordering::SeqCst)
    }

    pub(super) fn say_ready(&self, shard: ShardId) {
        self.of(shard).ready.store(true, Ordering::SeqCst);
    }

    /// Whether every shard takes clients.
    pub(super) fn is_ready(&self) -> bool {
        self.boxes.iter().all(|mailbox| mailbox.ready.load(Ordering::SeqCst))
    }

    pub(super) fn say_gone(&self, shard: ShardId) {
        self.of(shard).gone.store(true, Ordering::SeqCst);
    }

    /// Whether the loop of some shard has ended.
    pub(super) fn has_lost_one(&self) -> bool {
        self.boxes.iter().any(|mailbox| mailbox.gone.load(Ordering::SeqCst))
    }

    pub(super) fn say_quiet(&self, shard: ShardId, quiet: bool) {
        self.of(shard).ending.quiet.store(quiet, Ordering::SeqCst);
    }

    /// If all shards are quiet and no note is under way: how many notes there were in all. Two
    /// equal answers in a row mean that nothing moves any more.
    pub(super) fn settled(&self) -> Option<u64> {
        let quiet = self.boxes.iter().all(|mailbox| mailbox.ending.quiet.load(Ordering::SeqCst));
        let sum = |pick: fn(&Ending) -> &AtomicU64| -> u64 {
            self.boxes.iter().map(|mailbox| pick(&mailbox.ending).load(Ordering::SeqCst)).sum()
        };
        let received = sum(|ending| &ending.received);
        let sent = sum(|ending| &ending.sent);
        (quiet && sent == received).then_some(sent)
    }
}

impl Mailbox {
    fn wake_if_asleep(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        signal(&self.wake);
    }
}

/// Adds one to an eventfd: whoever reads it wakes.
pub(super) fn signal(eventfd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the descriptor is open as long as the borrow, and the buffer is 8 readable bytes. It
    // blocks only at a count of 2^64 - 2, and every read sets it to zero.
    unsafe { libc::write(eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;
    use crate::model::delivery::LeaseId;

    fn eventfd() -> OwnedFd {
        // SAFETY: a fresh descriptor that nobody else owns.
        unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) }
    }

    fn note() -> Note {
        Note::Close { lease: LeaseId { owner: ShardId(0), slot: 0, generation: 0 } }
    }

    #[test]
    fn a_shard_does_not_fall_asleep_over_a_note() {
        let mesh = Mesh::new(vec![eventfd(), eventfd()]);
        assert!(mesh.fall_asleep(ShardId(1)));
        mesh.awake(ShardId(1));
        mesh.post(ShardId(1), ShardId(0), note()).unwrap();
        assert!(!mesh.fall_asleep(ShardId(1)));
        assert!(mesh.take_note(ShardId(1)).is_some());
        assert!(mesh.fall_asleep(ShardId(1)));
    }

    #[test]
    fn the_end_waits_for_notes_under_way() {
        let mesh = Mesh::new(vec![eventfd(), eventfd()]);
        mesh.say_quiet(ShardId(0), true);
        mesh.say_quiet(ShardId(1), true);
        assert_eq!(mesh.settled(), Some(0));
        mesh.post(ShardId(1), ShardId(0), note()).unwrap();
        assert_eq!(mesh.settled(), None);
        mesh.take_note(ShardId(1)).unwrap();
        assert_eq!(mesh.settled(), None, "who took a note is not quiet before it says so again");
        mesh.say_quiet(ShardId(1), true);
        assert_eq!(mesh.settled(), Some(1));
    }

    #[test]
    fn a_full_mailbox_hands_the_note_back() {
        let mesh = Mesh::new(vec![eventfd()]);
        for _ in 0..MAILBOX_NOTES_MAX {
            mesh.post(ShardId(0), ShardId(0), note()).unwrap();
        }
        assert!(mesh.post(ShardId(0), ShardId(0), note()).is_err());
    }
}
