//! The loop of one core: completions and notes in, one turn of the shard, effects out, rest.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use glommio::io::BufferedFile;
use tokio::sync::oneshot;

use super::clock;
use super::disk::{NewSegment, SegmentRequests};
use super::mesh::{Control, Mesh, Rest};
use super::recovery::Share;
use super::resolver::{Asked, Questions};
use super::ring::{Core, Driver, FileMode};
use crate::base::map::Map;
use crate::base::time::{Mono, Now};
use crate::model::admin::Answer;
use crate::model::connection::{Conn, ShardId};
use crate::model::note::Note;
use crate::model::route::Question;
use crate::report::counters::Counters;
use crate::shard::{AHEAD_MAX, AskedId, Effect, Effects, Event, Fact, QuestionId, Shard};

/// Notes and control words taken in one turn, so that a flood cannot starve the ring.
const NOTES_PER_TURN_MAX: usize = 1024;
/// With more than so many notes that other shards have not taken yet, no more of a backlog is taken up:
/// all of it at once would fill the heaps with parcels among what stays.
const NOTES_WAITING_MAX: usize = 4 * NOTES_PER_TURN_MAX;

/// Turns one after the other without a system call, while each brings something: the core goes on with
/// long work a little at a time. Then what is queued is submitted, and others get their turn.
const TURNS_UNSUBMITTED_MAX: u32 = 16;
/// So long after it last had something to do a shard dozes in its ring, which takes one system call;
/// then it goes to sleep in the executor, which takes several and costs nothing while it lasts.
const DOZE_MAX: Duration = Duration::from_millis(5);

/// The ways from a shard to the threads beside it.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) mesh: Arc<Mesh>,
    pub(super) questions: Questions,
    pub(super) segments: SegmentRequests,
    /// How segment files were opened.
    pub(super) file_mode: FileMode,
}

/// One core at work.
pub(super) struct CoreLoop {
    id: ShardId,
    shard: Shard,
    driver: Driver,
    services: Services,
    effects: Effects,
    /// Taken from the mailbox, to be handled together.
    notes: Vec<(ShardId, Note)>,
    /// Notes whose mailbox was full, by shard. Bounded by what notes speak of: each live delivery and
    /// each lease has a few of them under way at most, and `intake` bounds the deliveries.
    outboxes: Vec<VecDeque<Note>>,
    /// Questions whose queue was full; a domain has one at a time, and deliveries that wait for it.
    questions: VecDeque<Asked>,
    segment_orders: usize,
    /// Operators' questions under way: as many as the control thread lets in at once.
    asked: Map<AskedId, oneshot::Sender<Answer>>,
    next_asked: u32,
    /// What is to be told of the start, as soon as it is true.
    taken_over: Option<Box<Fact>>,
    /// When a turn last brought something.
    busy_at: Mono,
    end: RunEnd,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunEnd {
    NotYet,
    /// A stop was asked for: say when quiet.
    Asked,
    Now,
}

/// Lets the driver hand completions to the shard.
struct Turn<'a> {
    shard: &'a mut Shard,
    effects: &'a mut Effects,
    now: Now,
}

impl Core for Turn<'_> {
    fn take_slot(&mut self) -> Option<Conn> {
        self.shard.take_client_slot()
    }

    fn handle(&mut self, event: Event<'_>) {
        self.shard.handle(self.now, event, self.effects);
    }

    fn prefetch(&self, slots: impl Iterator<Item = u32> + Clone) {
        self.shard.prefetch_replies(slots);
    }
}

impl CoreLoop {
    pub(super) fn new(id: ShardId, shard: Shard, driver: Driver, services: Services) -> Self {
        let shards = services.mesh.shards();
        Self {
            id,
            shard,
            driver,
            services,
            effects: Effects::default(),
            notes: Vec::with_capacity(AHEAD_MAX),
            outboxes: (0..shards).map(|_| VecDeque::new()).collect(),
            questions: VecDeque::new(),
            segment_orders: 0,
            asked: Map::default(),
            next_asked: 0,
            taken_over: None,
            busy_at: Mono::default(),
            end: RunEnd::NotYet,
        }
    }

    /// Runs until told to exit; gives its last counts.
    pub(super) async fn run(mut self, wake: BufferedFile) -> std::io::Result<Counters> {
        let (mut is_open, mut turns) = (false, 0);
        while self.end != RunEnd::Now {
            let now = clock::now();
            let worked = self.take_in(now)?;
            let next = self.shard.settle(now, &mut self.effects);
            let performed = self.perform(now);
            self.post_outboxes();
            if !is_open && self.shard.is_ready() {
                is_open = true;
                self.driver.start_accepting();
                self.services.mesh.say_ready(self.id);
            }
            if !worked && !performed {
                turns = 0;
                self.rest(&wake, next).await?;
                continue;
            }
            (turns, self.busy_at) = (turns + 1, now.mono);
            if turns >= TURNS_UNSUBMITTED_MAX {
                turns = 0;
                self.driver.enter(now.mono)?;
                glommio::yield_if_needed().await;
            }
        }
        Ok(self.counters())
    }

    /// What the shard and its driver have counted.
    fn counters(&self) -> Counters {
        let mut counters = self.shard.counters();
        let ring = self.driver.counters();
        counters.turns = ring.turns;
        counters.ring_entries = ring.submissions;
        counters.ring_completions = ring.completions;
        counters.ring_enters = ring.enters;
        counters.ring_overflows = ring.overflows;
        counters.ring_buffers_exhausted = ring.starved;
        counters.ring_short_sends = ring.short_sends;
        counters
    }

    /// Hands everything that has come to the shard, within bounds.
    fn take_in(&mut self, now: Now) -> std::io::Result<bool> {
        let mut worked = self.take_control(now) > 0;
        worked |= self.take_notes(now) > 0;
        let waiting: usize = self.outboxes.iter().map(VecDeque::len).sum();
        self.shard.hold_back(waiting > NOTES_WAITING_MAX);
        let mut turn = Turn { shard: &mut self.shard, effects: &mut self.effects, now };
        Ok(self.driver.turn(&mut turn, now.mono)? > 0 || worked)
    }

    fn take_notes(&mut self, now: Now) -> usize {
        let mut taken = 0;
        while taken < NOTES_PER_TURN_MAX {
            let mesh = &self.services.mesh;
            let next = std::iter::from_fn(|| mesh.take_note(self.id));
            self.notes.extend(next.take(AHEAD_MAX));
            if self.notes.is_empty() {
                break;
            }
            taken += self.notes.len();
            self.shard.prefetch_notes(self.notes.iter().map(|(_, note)| note));
            for (from, note) in self.notes.drain(..) {
                self.shard.handle(now, Event::Noted { from, note }, &mut self.effects);
            }
        }
        taken
    }

    fn take_control(&mut self, now: Now) -> usize {
        for taken in 0..NOTES_PER_TURN_MAX {
            let Some(word) = self.services.mesh.take_control(self.id) else { return taken };
            self.controlled(now, word);
        }
        NOTES_PER_TURN_MAX
    }

    fn controlled(&mut self, now: Now, word: Control) {
        let event = match word {
            Control::Resolved { question, answer } => Event::Resolved { question, answer },
            Control::Segment(Ok(NewSegment { spare, descriptor })) => {
                self.driver.register_file(spare.file, descriptor, self.services.file_mode);
                Event::SegmentReady(Ok(spare))
            }
            Control::Segment(Err(error)) => Event::SegmentReady(Err(error)),
            Control::Recovered(share) => {
                let Share { spool, backlog, files, states } = *share;
                for (file, descriptor) in files {
                    self.driver.register_file(file, descriptor, self.services.file_mode);
                }
                Event::Recovered { spool: Box::new(spool), backlog, states }
            }
            Control::Settings(settings) => Event::Settings(settings),
            Control::Ask { query, answer } => {
                self.next_asked = self.next_asked.wrapping_add(1);
                let asked = AskedId(self.next_asked);
                self.asked.insert(asked, answer);
                Event::Asked { asked, query }
            }
            Control::Stop { by } => {
                self.end = RunEnd::Asked;
                self.driver.stop_accepting();
                Event::Stop { by }
            }
            Control::Exit => {
                self.end = RunEnd::Now;
                return;
            }
        };
        self.shard.handle(now, event, &mut self.effects);
    }

    /// Carries out what the shard asked for; whether there was anything but "quiet".
    fn perform(&mut self, now: Now) -> bool {
        let mut list = std::mem::take(&mut self.effects.list);
        let bytes = std::mem::take(&mut self.effects.bytes);
        let (mut quiet, mut performed) = (false, false);
        let mut left = list.drain(..);
        while !left.as_slice().is_empty() {
            self.driver.prefetch(left.as_slice().iter().take(AHEAD_MAX));
            for effect in left.by_ref().take(AHEAD_MAX) {
                match self.driver.perform(effect, &bytes, now.mono) {
                    None => performed = true,
                    Some(Effect::Stopped) => quiet = true,
                    Some(other) => {
                        performed = true;
                        self.serve(other);
                    }
                }
            }
        }
        drop(left);
        self.effects = Effects { list, bytes };
        self.effects.clear();
        self.say_quiet(quiet);
        performed
    }

    fn say_quiet(&self, quiet: bool) {
        if self.end == RunEnd::Asked {
            let nothing_waits = self.outboxes.iter().all(VecDeque::is_empty);
            self.services.mesh.say_quiet(self.id, quiet && nothing_waits);
        }
    }

    /// Effects that are not the ring's.
    fn serve(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { to, note } => self.outboxes[usize::from(to.0)].push_back(note),
            Effect::Resolve { question, what } => self.ask(question, *what),
            Effect::PrepareSegment => self.segment_orders += 1,
            Effect::Report(fact) if matches!(*fact, Fact::ScheduledAgain { .. }) => {
                self.taken_over = Some(fact);
            }
            Effect::Report(fact) => report(self.id, &fact),
            Effect::Answer { asked, answer } => {
                if let Some(waiter) = self.asked.remove(&asked) {
                    // Whoever asked may have given up.
                    drop(waiter.send(*answer));
                }
            }
            _ => unreachable!("the driver performs every effect on connections and files"),
        }
    }

    fn ask(&mut self, question: QuestionId, what: Question) {
        self.questions.push_back(Asked { from: self.id, question, what });
    }

    /// Posts what waits, as far as the receivers have room.
    fn post_outboxes(&mut self) {
        let mesh = &self.services.mesh;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            let to = ShardId(u16::try_from(to).unwrap_or(0));
            while let Some(note) = outbox.pop_front() {
                if let Err(note) = mesh.post(to, self.id, note) {
                    outbox.push_front(note);
                    break;
                }
            }
        }
        self.tell_taken_over();
        self.ask_services();
    }

    /// Once every delivery taken over has left for the owner of its site.
    fn tell_taken_over(&mut self) {
        if self.outboxes.iter().all(VecDeque::is_empty)
            && let Some(fact) = self.taken_over.take()
        {
            // They were as long as what was found in the spool, and will not be again.
            self.outboxes.iter_mut().for_each(VecDeque::shrink_to_fit);
            report(self.id, &fact);
            self.services.mesh.say_taken_over(self.id);
        }
    }

    fn ask_services(&mut self) {
        while let Some(question) = self.questions.pop_front() {
            if let Err(question) = self.services.questions.ask(question) {
                self.questions.push_front(question);
                break;
            }
        }
        while self.segment_orders > 0 {
            if self.services.segments.request(self.id).is_err() {
                break;
            }
            self.segment_orders -= 1;
        }
    }

    /// Whether something waits for room elsewhere, so that sleep must be short.
    fn has_waiting_posts(&self) -> bool {
        self.segment_orders > 0
            || !self.questions.is_empty()
            || self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    /// Rests until something happens or is due: lightly while there is work, else deeply.
    async fn rest(&mut self, wake: &BufferedFile, next: Mono) -> std::io::Result<()> {
        let now = clock::now().mono;
        let next = if self.has_waiting_posts() { next.min(now.plus(POST_AGAIN)) } else { next };
        let awake_until = self.busy_at.plus(DOZE_MAX);
        if next <= now {
            self.driver.enter(now)
        } else if awake_until > now {
            self.doze(now, next.min(awake_until))
        } else {
            self.sleep(wake, next).await
        }
    }

    fn doze(&mut self, now: Mono, until: Mono) -> std::io::Result<()> {
        if self.services.mesh.lie_down(self.id, Rest::Dozing) {
            self.driver.doze(now, until)?;
            self.services.mesh.get_up(self.id);
        }
        Ok(())
    }

    async fn sleep(&mut self, wake: &BufferedFile, next: Mono) -> std::io::Result<()> {
        if !self.services.mesh.lie_down(self.id, Rest::Asleep) {
            return Ok(());
        }
        self.driver.wake_at((next != Mono::NEVER).then_some(next));
        if self.driver.rest(clock::now().mono)? {
            wake.read_at(0, EVENTFD_BYTES).await?;
        }
        self.services.mesh.get_up(self.id);
        Ok(())
    }
}

/// How soon a full mailbox or queue is tried again when nothing else happens.
const POST_AGAIN: Duration = Duration::from_millis(1);

/// What one read of an eventfd takes.
const EVENTFD_BYTES: usize = 8;

/// Wraps the eventfd for glommio's reader.
pub(super) fn wake_file(fd: OwnedFd) -> BufferedFile {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the descriptor is owned and handed over whole.
    unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) }
}

/// Facts for the operator; rare by nature.
fn report(shard: ShardId, fact: &Fact) {
    let shard = shard.0;
    match fact {
        Fact::SiteClosed { site, cause, seconds } => {
            tracing::info!(shard, site = &**site, seconds, cause = &**cause, "site waits");
        }
        Fact::SiteOpened { site } => tracing::info!(shard, site = &**site, "site is served again"),
        Fact::SitePaced { site, source, change } => {
            tracing::info!(
                shard,
                site = &**site,
                source = &**source,
                change = &**change,
                "site is paced"
            );
        }
        Fact::WarmUp { source, receiver, change } => {
            let (source, receiver, change) = (&**source, &**receiver, &**change);
            tracing::info!(shard, source, receiver, change, "source warms up");
        }
        Fact::SiteLent { site, executed } => {
            tracing::info!(shard, site = &**site, ?executed, "site was served by several shards");
        }
        Fact::ScheduledAgain { deliveries } => {
            tracing::info!(shard, deliveries, "scheduled again");
        }
        Fact::Steered { verb, reach, deliveries, reason } => {
            let (reach, reason) = (&**reach, &**reason);
            tracing::info!(shard, verb, reach, deliveries, reason, "mail is steered");
        }
        Fact::SpoolFree => tracing::info!(shard, "the spool has room again"),
        Fact::SpoolFull => tracing::error!(shard, "the spool is full: mail is refused with 452"),
        Fact::SegmentFenced { file, cause } => {
            tracing::error!(
                shard,
                file = file.0,
                cause = &**cause,
                "a sync failed: segment fenced"
            );
        }
        Fact::MessageSetAside { message, cause } => {
            tracing::error!(shard, message = &**message, cause = &**cause, "message set aside");
        }
        Fact::DoubleBounce { message, cause } => {
            tracing::warn!(shard, message = &**message, cause = &**cause, "double bounce dropped");
        }
    }
}
