//! Threads for handshakes: a public-key operation is ~0.3 ms, too long for a shard.
//!
//! A handshake moves to a thread with the bytes it waits for, and back with the bytes to send.
//! Each shard has at most [`JOBS_PER_SHARD`] of them away, and the threads' queue holds that many
//! per shard: so a shard's job always fits, and one shard's flood never blocks another.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::tls::{HANDSHAKE_BYTES_MAX, Handshake, Progress, TlsClient, TlsStream};
use crate::base::map::Map;
use crate::model::connection::{TlsError, TlsFacts};

/// Handshakes of one shard that are with the threads; the others of it wait in order.
pub(super) const JOBS_PER_SHARD: usize = 64;

/// Handshakes under way on one shard. At [`HANDSHAKE_BYTES_MAX`] each, and far less in truth, it
/// bounds what hostile servers cost together.
pub(super) const HANDSHAKES_MAX: usize = 4096;

/// Called after each finished job, on the job's thread: an eventfd write that wakes the shard.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// The threads, one set per process.
#[derive(Debug)]
pub(super) struct CryptoThreads {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

/// The handshakes of one shard, by a key of the shard's choice that is never used twice.
pub(super) struct Handshakes {
    jobs: Sender<Job>,
    finished: Receiver<Finished>,
    finished_sender: Sender<Finished>,
    wake: Wake,
    under_way: Map<u64, Place>,
    /// Keys of [`Place::Waiting`], first come first served.
    waiting: VecDeque<u64>,
    away: usize,
}

/// A step of a handshake that came back.
#[derive(Debug)]
pub(super) struct Step {
    /// To be sent to the peer, whatever the outcome.
    pub outgoing: Vec<u8>,
    pub outcome: StepOutcome,
}

#[derive(Debug)]
pub(super) enum StepOutcome {
    /// Feed it what the peer sends next.
    NeedsInput,
    /// Over. `unopened` came behind the handshake: pass it to [`TlsStream::open`] first, even if
    /// it is empty.
    Done { stream: TlsStream, facts: TlsFacts, unopened: Vec<u8> },
    /// Over, without TLS.
    Failed(TlsError),
}

/// Where a handshake is.
#[derive(Debug)]
enum Place {
    /// Here; it needs bytes of the peer.
    Idle(Handshake),
    /// Here, ready for a thread, and all of the shard's places there are taken.
    Waiting(Work, Vec<u8>),
    /// With a thread; bytes that came meanwhile.
    Away(Vec<u8>),
    /// With a thread, and nobody wants it any more.
    Cancelled,
}

#[derive(Debug)]
enum Work {
    Begin(Box<str>),
    Continue(Handshake),
}

struct Job {
    key: u64,
    work: Work,
    wire: Vec<u8>,
    answer: Sender<Finished>,
    wake: Wake,
}

struct Finished {
    key: u64,
    outgoing: Vec<u8>,
    progress: Progress,
}

/// How many threads a machine of so many cores gets.
#[must_use]
pub(super) fn threads_for(cores: usize) -> usize {
    (cores / 2).max(1)
}

impl CryptoThreads {
    /// Starts `threads` threads for `shards` shards; each calls `on_start` with its number first,
    /// which may pin it to a core.
    ///
    /// # Errors
    /// The kernel's, if it gives no thread.
    pub(super) fn start(
        client: Arc<TlsClient>,
        threads: usize,
        shards: u16,
        on_start: impl Fn(usize) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, inbox) = bounded(usize::from(shards.max(1)) * JOBS_PER_SHARD);
        let spawn = |number| {
            let (client, inbox, on_start) = (Arc::clone(&client), inbox.clone(), on_start.clone());
            std::thread::Builder::new().name(format!("crypto-{number}")).spawn(move || {
                on_start(number);
                run(&client, &inbox);
            })
        };
        let threads = (0..threads.max(1)).map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { jobs, threads })
    }

    /// The handle of one shard; call it once per shard.
    #[must_use]
    pub(super) fn handshakes(&self, wake: Wake) -> Handshakes {
        let (finished_sender, finished) = bounded(JOBS_PER_SHARD);
        Handshakes {
            jobs: self.jobs.clone(),
            finished,
            finished_sender,
            wake,
            under_way: Map::default(),
            waiting: VecDeque::new(),
            away: 0,
        }
    }

    /// Waits until every [`Handshakes`] is dropped and the jobs are done.
    pub(super) fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a crypto thread had died");
            }
        }
    }
}

impl Handshakes {
    /// Begins the handshake `key` with the host `name`.
    ///
    /// # Errors
    /// Too many are under way: the connection is closed and tried again later.
    pub(super) fn start(&mut self, key: u64, name: &str) -> Result<(), TlsError> {
        if self.under_way.len() >= HANDSHAKES_MAX {
            return Err(TlsError("too many handshakes at once".into()));
        }
        debug_assert!(!self.under_way.contains_key(&key), "a key is used once");
        self.enqueue(key, Work::Begin(name.into()), Vec::new());
        Ok(())
    }

    /// Gives the handshake what the peer sent.
    ///
    /// # Errors
    /// No such handshake is under way, or the peer floods it: it is forgotten then, and the
    /// connection to be aborted.
    pub(super) fn feed(&mut self, key: u64, wire: &[u8]) -> Result<(), TlsError> {
        let Some(place) = self.under_way.get_mut(&key) else {
            return Err(TlsError("no handshake is under way".into()));
        };
        if let Place::Away(backlog) | Place::Waiting(_, backlog) = place {
            if backlog.len() + wire.len() > HANDSHAKE_BYTES_MAX {
                self.cancel(key);
                return Err(TlsError("the peer sends too much during the handshake".into()));
            }
            backlog.extend_from_slice(wire);
        } else if let Some(Place::Idle(handshake)) = self.under_way.remove(&key) {
            self.enqueue(key, Work::Continue(handshake), wire.to_vec());
        }
        Ok(())
    }

    /// Forgets a handshake: its connection has ended.
    pub(super) fn cancel(&mut self, key: u64) {
        match self.under_way.get_mut(&key) {
            Some(place @ (Place::Away(_) | Place::Cancelled)) => *place = Place::Cancelled,
            Some(Place::Waiting(..)) => {
                self.under_way.remove(&key);
                self.waiting.retain(|waiting| *waiting != key);
            }
            Some(Place::Idle(_)) => drop(self.under_way.remove(&key)),
            None => {}
        }
    }

    /// The next step that came back; call it after each wake until there is none.
    pub(super) fn poll_finished(&mut self) -> Option<(u64, Step)> {
        while let Ok(finished) = self.finished.try_recv() {
            self.away -= 1;
            let key = finished.key;
            let step = self.settle(finished);
            self.send_waiting();
            if let Some(step) = step {
                return Some((key, step));
            }
        }
        None
    }

    fn settle(&mut self, finished: Finished) -> Option<Step> {
        let Some(Place::Away(backlog)) = self.under_way.remove(&finished.key) else {
            return None;
        };
        let outcome = match finished.progress {
            Progress::NeedsInput(handshake) if backlog.is_empty() => {
                self.under_way.insert(finished.key, Place::Idle(handshake));
                StepOutcome::NeedsInput
            }
            Progress::NeedsInput(handshake) => {
                self.enqueue(finished.key, Work::Continue(handshake), backlog);
                StepOutcome::NeedsInput
            }
            Progress::Done { stream, facts, mut unopened } => {
                unopened.extend(backlog);
                StepOutcome::Done { stream, facts, unopened }
            }
            Progress::Failed(error) => StepOutcome::Failed(error),
        };
        Some(Step { outgoing: finished.outgoing, outcome })
    }

    fn enqueue(&mut self, key: u64, work: Work, wire: Vec<u8>) {
        self.under_way.insert(key, Place::Waiting(work, wire));
        self.waiting.push_back(key);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while self.away < JOBS_PER_SHARD
            && let Some(key) = self.waiting.pop_front()
        {
            let place = self.under_way.insert(key, Place::Away(Vec::new()));
            let Some(Place::Waiting(work, wire)) = place else {
                unreachable!("a key in the queue waits, see `cancel`");
            };
            let answer = self.finished_sender.clone();
            let job = Job { key, work, wire, answer, wake: Arc::clone(&self.wake) };
            // There is room for all jobs of all shards, and the threads end after the shards.
            let sent = self.jobs.try_send(job);
            assert!(sent.is_ok(), "the job queue has a place for each shard's jobs");
            self.away += 1;
        }
    }
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes")
            .field("under_way", &self.under_way.len())
            .field("away", &self.away)
            .finish_non_exhaustive()
    }
}

fn run(client: &TlsClient, jobs: &Receiver<Job>) {
    for job in jobs {
        let mut outgoing = Vec::new();
        let progress = match job.work {
            Work::Continue(handshake) => handshake.advance(&job.wire, &mut outgoing),
            Work::Begin(name) => match client.begin(&name) {
                Ok(handshake) => handshake.advance(&job.wire, &mut outgoing),
                Err(error) => Progress::Failed(error),
            },
        };
        // A shard that is gone needs no answer.
        if job.answer.send(Finished { key: job.key, outgoing, progress }).is_ok() {
            (job.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::tls::Opened;
    use super::super::tls::tests::{Server, server_config};
    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn threads(count: usize) -> (CryptoThreads, Handshakes, mpsc::Receiver<()>) {
        let client = Arc::new(TlsClient::opportunistic().unwrap());
        let threads = CryptoThreads::start(client, count, 1, |_| ()).unwrap();
        let (wakes, woken) = mpsc::channel();
        let handshakes = threads.handshakes(Arc::new(move || wakes.send(()).unwrap()));
        (threads, handshakes, woken)
    }

    fn next(handshakes: &mut Handshakes, woken: &mpsc::Receiver<()>) -> (u64, Step) {
        loop {
            if let Some(step) = handshakes.poll_finished() {
                return step;
            }
            woken.recv_timeout(WAIT).unwrap();
        }
    }

    #[test]
    fn a_session_with_a_real_server_works_from_hello_to_close() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let config = server_config(&rustls::version::TLS13);
            let mut connection = rustls::ServerConnection::new(config).unwrap();
            let mut socket = listener.accept().unwrap().0;
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let mut line = [0; 6];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(b"250 hello").unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            line
        });
        let (_threads, mut handshakes, woken) = threads(2);
        let mut socket = TcpStream::connect(address).unwrap();
        handshakes.start(9, "mx.example.com").unwrap();
        let (mut stream, mut unopened) = loop {
            let (key, step) = next(&mut handshakes, &woken);
            assert_eq!(key, 9);
            socket.write_all(&step.outgoing).unwrap();
            match step.outcome {
                StepOutcome::Done { stream, unopened, .. } => break (stream, unopened),
                StepOutcome::Failed(error) => panic!("{error:?}"),
                StepOutcome::NeedsInput => {}
            }
            let mut wire = [0; 700];
            let read = socket.read(&mut wire).unwrap();
            handshakes.feed(9, &wire[..read]).unwrap();
        };
        let mut wire = Vec::new();
        stream.seal(b"EHLO\r\n", &mut wire).unwrap();
        socket.write_all(&wire).unwrap();
        let mut plain = Vec::new();
        while stream.open(&unopened, &mut plain).unwrap() == Opened::Open {
            unopened.resize(100, 0);
            let read = socket.read(&mut unopened).unwrap();
            assert_ne!(read, 0, "the end comes by close_notify");
            unopened.truncate(read);
        }
        assert_eq!(plain, b"250 hello");
        assert_eq!(&server.join().unwrap(), b"EHLO\r\n");
    }

    /// Feeds each byte on its own without waiting for the threads, so that most arrive while the
    /// handshake is away.
    #[test]
    fn bytes_that_come_while_it_is_away_are_kept_in_order() {
        let config = server_config(&rustls::version::TLS13);
        let (_threads, mut handshakes, woken) = threads(1);
        let mut server = Server::new(&config);
        handshakes.start(1, "mx.example.com").unwrap();
        let (mut stream, unopened) = loop {
            let (_, step) = next(&mut handshakes, &woken);
            let mut incoming = server.carry(&step.outgoing);
            if let StepOutcome::Done { stream, mut unopened, .. } = step.outcome {
                unopened.append(&mut incoming);
                break (stream, unopened);
            }
            if !incoming.is_empty() {
                incoming.extend(server.say(b"220 at once"));
            }
            for byte in incoming {
                handshakes.feed(1, &[byte]).unwrap();
            }
        };
        let mut plain = Vec::new();
        stream.open(&unopened, &mut plain).unwrap();
        assert_eq!(plain, b"220 at once");
        assert!(handshakes.under_way.is_empty());
    }

    #[test]
    fn garbage_instead_of_a_server_hello_fails_and_is_forgotten() {
        let (_threads, mut handshakes, woken) = threads(1);
        handshakes.start(3, "mx.example.com").unwrap();
        let (_, step) = next(&mut handshakes, &woken);
        assert!(matches!(step.outcome, StepOutcome::NeedsInput) && !step.outgoing.is_empty());
        handshakes.feed(3, b"454 not now\r\n").unwrap();
        let (key, step) = next(&mut handshakes, &woken);
        assert!(key == 3 && matches!(step.outcome, StepOutcome::Failed(_)), "{step:?}");
        assert!(handshakes.feed(3, b"more").is_err());
    }

    #[test]
    fn more_handshakes_than_places_wait_and_all_come_back() {
        let (_threads, mut handshakes, woken) = threads(2);
        let count = JOBS_PER_SHARD as u64 * 3;
        for key in 0..count {
            handshakes.start(key, "mx.example.com").unwrap();
            assert!(handshakes.away <= JOBS_PER_SHARD);
        }
        let mut keys: Vec<u64> = (0..count).map(|_| next(&mut handshakes, &woken).0).collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..count).collect::<Vec<_>>());
        assert_eq!(handshakes.away, 0);
    }

    #[test]
    fn handshakes_and_their_backlogs_are_bounded() {
        let (_threads, mut handshakes, _woken) = threads(1);
        for key in 0..HANDSHAKES_MAX as u64 {
            handshakes.start(key, "mx.example.com").unwrap();
        }
        assert!(handshakes.start(u64::MAX, "mx.example.com").is_err());
        let last = HANDSHAKES_MAX as u64 - 1;
        handshakes.feed(last, &[0; HANDSHAKE_BYTES_MAX]).unwrap();
        assert!(handshakes.feed(last, b"x").is_err());
        handshakes.start(u64::MAX, "mx.example.com").unwrap();
    }

    #[test]
    fn a_cancelled_handshake_never_comes_back() {
        let (threads, mut handshakes, woken) = threads(1);
        for key in 0..JOBS_PER_SHARD as u64 * 2 {
            handshakes.start(key, "mx.example.com").unwrap();
        }
        for key in 1..JOBS_PER_SHARD as u64 * 2 {
            handshakes.cancel(key);
        }
        assert_eq!(next(&mut handshakes, &woken).0, 0);
        while handshakes.away > 0 {
            assert!(handshakes.poll_finished().is_none());
            std::thread::yield_now();
        }
        handshakes.cancel(0);
        assert!(handshakes.under_way.is_empty());
        drop(handshakes);
        threads.stop();
    }
}
