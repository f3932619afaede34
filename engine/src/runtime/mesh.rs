//! How shards and the other threads reach a shard: bounded mailboxes, and the bell that ends its rest.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

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

/// How a shard rests, and so what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Rest {
    Awake,
    /// In its own ring, which watches [`Bell::call`].
    Dozing,
    /// In the executor, which reads [`Bell::wake`].
    Asleep,
}

impl Rest {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Awake,
            1 => Self::Dozing,
            _ => Self::Asleep,
        }
    }
}

/// The eventfds that end the rest of a shard.
///
/// Two, as the kernel passes nothing on from one eventfd to another: a ring that watches an eventfd does
/// not reliably signal its own when that one is written.
pub(super) struct Bell {
    /// Also signalled by the shard's ring.
    pub(super) wake: OwnedFd,
    pub(super) call: OwnedFd,
}

impl Bell {
    pub(super) fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { wake: self.wake.try_clone()?, call: self.call.try_clone()? })
    }

    /// For who does not know how the shard rests.
    pub(super) fn ring(&self) {
        signal(&self.call);
        signal(&self.wake);
    }

    fn end(&self, rest: Rest) {
        match rest {
            Rest::Awake => {}
            Rest::Dozing => signal(&self.call),
            Rest::Asleep => signal(&self.wake),
        }
    }
}

/// All mailboxes of a run.
pub(super) struct Mesh {
    boxes: Box<[Mailbox]>,
}

struct Mailbox {
    notes: ArrayQueue<(ShardId, Note)>,
    control: (Sender<Control>, Receiver<Control>),
    /// How the shard rests, or is about to.
    rest: CachePadded<AtomicU8>,
    bell: Bell,
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
    /// One mailbox for each of these bells.
    pub(super) fn new(bells: Vec<Bell>) -> Self {
        let mailbox = |bell| Mailbox {
            notes: ArrayQueue::new(MAILBOX_NOTES_MAX),
            control: bounded(CONTROL_MAX),
            rest: CachePadded::new(AtomicU8::new(Rest::Awake as u8)),
            bell,
            ready: AtomicBool::new(false),
            taken_over: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            ending: CachePadded::default(),
        };
        Self { boxes: bells.into_iter().map(mailbox).collect() }
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
        mailbox.rouse();
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
                mailbox.rouse();
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

    /// Announces a rest. False: something came in meanwhile, do not rest.
    pub(super) fn lie_down(&self, shard: ShardId, rest: Rest) -> bool {
        let mailbox = self.of(shard);
        // The writer pushes and then reads `rest`; we write it and then look: one of us sees.
        mailbox.rest.store(rest as u8, Ordering::SeqCst);
        let nothing = mailbox.notes.is_empty() && mailbox.control.1.is_empty();
        if !nothing {
            self.get_up(shard);
        }
        nothing
    }

    pub(super) fn get_up(&self, shard: ShardId) {
        self.of(shard).rest.store(Rest::Awake as u8, Ordering::SeqCst);
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
    /// Ends the rest of the shard, after something was put in.
    fn rouse(&self) {
        let rest = self.rest.swap(Rest::Awake as u8, Ordering::SeqCst);
        self.bell.end(Rest::from_number(rest));
    }
}

/// Adds one to an eventfd: whoever reads it wakes.
fn signal(eventfd: &OwnedFd) {
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
        unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
    }

    fn bell() -> Bell {
        Bell { wake: eventfd(), call: eventfd() }
    }

    /// How often it was signalled since the last look.
    fn count(eventfd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        // SAFETY: eight writable bytes; the descriptor does not block.
        let read = unsafe { libc::read(eventfd.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        if read == 8 { u64::from_ne_bytes(count) } else { 0 }
    }

    fn signalled(mesh: &Mesh) -> (u64, u64) {
        let bell = &mesh.boxes[0].bell;
        (count(&bell.wake), count(&bell.call))
    }

    fn note() -> Note {
        Note::Close { lease: LeaseId { owner: ShardId(0), slot: 0, generation: 0 } }
    }

    #[test]
    fn a_shard_does_not_rest_over_a_note() {
        let mesh = Mesh::new(vec![bell(), bell()]);
        for rest in [Rest::Dozing, Rest::Asleep] {
            assert!(mesh.lie_down(ShardId(1), rest));
            mesh.get_up(ShardId(1));
            mesh.post(ShardId(1), ShardId(0), note()).unwrap();
            assert!(!mesh.lie_down(ShardId(1), rest));
            assert!(mesh.take_note(ShardId(1)).is_some());
        }
    }

    #[test]
    fn who_rests_is_roused_once_by_what_it_rests_on() {
        let mesh = Mesh::new(vec![bell()]);
        for (rest, expected) in
            [(Rest::Awake, (0, 0)), (Rest::Dozing, (0, 1)), (Rest::Asleep, (1, 0))]
        {
            assert!(mesh.lie_down(ShardId(0), rest));
            for _ in 0..3 {
                mesh.post(ShardId(0), ShardId(0), note()).unwrap();
            }
            assert_eq!(signalled(&mesh), expected, "{rest:?}");
            while mesh.take_note(ShardId(0)).is_some() {}
        }
        mesh.boxes[0].bell.ring();
        assert_eq!(signalled(&mesh), (1, 1), "whatever it does");
    }

    #[test]
    fn the_end_waits_for_notes_under_way() {
        let mesh = Mesh::new(vec![bell(), bell()]);
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
        let mesh = Mesh::new(vec![bell()]);
        for _ in 0..MAILBOX_NOTES_MAX {
            mesh.post(ShardId(0), ShardId(0), note()).unwrap();
        }
        assert!(mesh.post(ShardId(0), ShardId(0), note()).is_err());
    }
}
