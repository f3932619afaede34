//! Starts an engine from its settings, and ends it in order.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::admin::Admin;
use super::clock;
use super::control::ControlThread;
use super::core_loop::{CoreLoop, Services, wake_file};
use super::crypto::{CryptoThreads, Handshakes, threads_for};
use super::disk::{SegmentMaker, SpoolFolder};
use super::fixed::Fixed;
use super::listen::{Listener, listen};
use super::mesh::{Bell, Control, Mesh};
use super::policy;
use super::probe::{DESCRIPTORS_SPARE, Missing, Needs, probe};
use super::recovery::{Recovery, Work, read_headers};
use super::resolver::SOCKETS_MAX;
use super::ring::{Driver, DriverOptions, Eventfds, FileMode};
use super::secure::ShardHandshakes;
use super::tls::TlsClient;
use crate::base::cell::{Budget, CellTable};
use crate::base::map::seed_maps;
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::settings::{AdminSettings, Settings, ShardChoice};
use crate::report::counters::Counters;
use crate::shard::{Shard, ShardOptions, slots_max};
use crate::spool::files::FileId;
use crate::spool::opening::Opening;
use crate::spool::plan::RecoveredShard;

/// What glommio registers for its own rings; the least it starts with. The hot path uses its own.
const GLOMMIO_MEMORY_BYTES: usize = 512 << 10;

/// Replies in flight may take this long after a stop was asked for.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Looks at whether all shards take clients, two minutes in all; a disk that is slower than that
/// still gets there, only later than we say so.
const READY_LOOKS_MAX: u32 = 60_000;

/// Between two looks at whether all shards are quiet.
const QUIET_POLL: Duration = Duration::from_millis(2);

/// Why an engine did not start. Each says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this machine lacks what postrider needs:{}", .0.iter().fold(String::new(), |all, line| all + "\n  " + line))]
    Missing(Vec<String>),
    #[error("no [[listen]] section: nothing could come in")]
    NoListener,
    #[error("{0}")]
    Spool(String),
    #[error("{0}")]
    Listen(String),
    #[error("cannot open the socket {} for administration: {cause}", socket.display())]
    Admin { socket: PathBuf, cause: std::io::Error },
    #[error("cannot start {what}: {cause}")]
    Thread { what: &'static str, cause: String },
}

/// A running engine. Dropping it without [`Engine::stop`] and [`Engine::wait`] leaves its threads
/// running until the process ends.
pub struct Engine {
    mesh: Arc<Mesh>,
    shards: Vec<ExecutorJoinHandle<std::io::Result<Counters>>>,
    addresses: Vec<SocketAddr>,
    remote: Remote,
    recovery: Recovery,
    control: ControlThread,
    segments: SegmentMaker,
    crypto: CryptoThreads,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// The counts of each shard.
    pub shards: Vec<Counters>,
}

impl Summary {
    /// The counts of all shards together.
    #[must_use]
    pub fn total(&self) -> Counters {
        let mut total = Counters::default();
        self.shards.iter().for_each(|shard| total.add(shard));
        total
    }
}

/// Tells a running engine what to do, from any thread.
#[derive(Clone)]
pub struct Remote {
    mesh: Arc<Mesh>,
    stopping: Arc<AtomicBool>,
    fixed: Arc<Fixed>,
}

/// What one shard needs to come to life.
struct Birth {
    id: ShardId,
    core: Option<usize>,
    settings: Arc<Settings>,
    spares: RecoveredShard,
    listeners: Vec<OwnedFd>,
    files: Vec<(FileId, OwnedFd)>,
    record_memory: Arc<Budget>,
    cells: Arc<CellTable>,
    next_sequence: u64,
    /// The start of all shards: their steady clocks count from one origin.
    start: Now,
    services: Services,
    handshakes: Handshakes,
    /// For the ring and the sleep of the shard.
    bell: Bell,
}

impl Engine {
    /// Probes the kernel, opens the spool, listens, and starts all threads. One of them reads the
    /// spool, so that its mail is scheduled again; new mail does not wait for that.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        seed_maps(RandomState::new().hash_one("maps"));
        let cores = cores(&settings.engine.shards);
        let shards = u16::try_from(cores.len()).unwrap_or(u16::MAX);
        let folder = SpoolFolder::open(&settings.spool.path).map_err(spool_error)?;
        let mut settings = fit_to_machine(settings, shards, folder.found().len())?;
        let opening = read_headers(&folder, shards).map_err(spool_error)?;
        let listeners = open_listeners(&settings, shards)?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|listener| listener.address).collect();
        let fixed = Fixed::new(&mut settings, &addresses);
        let bells = bells(shards)?;
        let mesh = Arc::new(Mesh::new(copies(&bells)?));
        let folder = Arc::new(folder);
        let segments = start_segments(&folder, &settings, &mesh)?;
        let control = start_control(&settings, &mesh)?;
        let crypto = start_crypto(shards)?;
        let services = Services {
            mesh: Arc::clone(&mesh),
            questions: control.questions(),
            segments: segments.requests(),
            file_mode: if folder.is_direct() { FileMode::Direct } else { FileMode::Buffered },
        };
        let in_use = opening.in_use.clone();
        let beginning = Beginning { cores, opening, listeners, bells };
        let births = prepare(&settings, beginning, &folder, &services, &crypto)?;
        let shards = births.into_iter().map(start_shard).collect::<Result<Vec<_>, _>>()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let recovery = start_recovery(&folder, in_use, &mesh, &stopping)?;
        // Segments are being made: without one, the first clients would get a 452.
        for _ in 0..READY_LOOKS_MAX {
            if mesh.is_ready() || mesh.has_lost_one() {
                break;
            }
            pause(QUIET_POLL);
        }
        let remote = Remote { mesh: Arc::clone(&mesh), stopping, fixed: Arc::new(fixed) };
        Ok(Self { mesh, shards, addresses, remote, recovery, control, segments, crypto })
    }

    /// Where it listens, in the order of the settings, with real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Asks for an orderly stop; [`Engine::wait`] returns when it is done.
    pub fn stop(&self) {
        self.remote.stop();
    }

    /// Waits until the engine was stopped and everything is on disk, or until a shard has failed, or
    /// the spool could not be taken over: all is stopped then, for half an engine serves nobody.
    ///
    /// # Errors
    /// The first shard that failed, or why the spool was refused.
    pub fn wait(self) -> std::io::Result<Summary> {
        self.wait_until_quiet();
        for shard in 0..self.mesh.shards() {
            insist(&self.mesh, shard_id(shard), || Control::Exit);
        }
        let mut summary = Summary::default();
        for handle in self.shards {
            let joined = handle.join().map_err(|error| std::io::Error::other(error.to_string()))?;
            summary.shards.push(joined?);
        }
        self.recovery.join()?;
        self.control.stop();
        self.segments.stop();
        self.crypto.stop();
        Ok(summary)
    }

    /// Quiet twice in a row with no note in between: nothing moves any more.
    fn wait_until_quiet(&self) {
        let mut before = None;
        loop {
            pause(QUIET_POLL);
            if self.mesh.has_lost_one() || self.recovery.has_failed() {
                return;
            }
            if !self.remote.stopping.load(Ordering::SeqCst) {
                continue;
            }
            let settled = self.mesh.settled();
            if settled.is_some() && settled == before {
                return;
            }
            before = settled;
        }
    }
}

impl Remote {
    /// Stops in order: clients first, then replies in flight, then the last commit.
    pub fn stop(&self) {
        self.stop_by(STOP_GRACE);
    }

    /// Skips the waits: what is on the wire is cut off, what is in the spool stays there.
    pub fn stop_now(&self) {
        self.stop_by(Duration::ZERO);
    }

    /// Hands new settings to all shards. Listeners, shards, spool, resolvers and the socket for
    /// administration stay as they are until the next start; connection limits left open stay as they
    /// were derived.
    pub fn reload(&self, mut settings: Settings) {
        for setting in self.fixed.keep(&mut settings) {
            tracing::warn!("{setting}: changed in the file, and stays as it was until a restart");
        }
        let settings = Arc::new(settings);
        for shard in 0..self.mesh.shards() {
            insist(&self.mesh, shard_id(shard), || Control::Settings(Arc::clone(&settings)));
        }
    }

    fn stop_by(&self, grace: Duration) {
        let by = clock::now().mono.plus(grace);
        for shard in 0..self.mesh.shards() {
            insist(&self.mesh, shard_id(shard), || Control::Stop { by });
        }
        self.stopping.store(true, Ordering::SeqCst);
    }
}

/// The cores that get a shard; `None`: a shard that the kernel may place.
fn cores(choice: &ShardChoice) -> Vec<Option<usize>> {
    let usable: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    match choice {
        ShardChoice::Auto if usable.is_empty() => vec![None],
        ShardChoice::Auto => usable.into_iter().map(Some).collect(),
        // More shards than cores: the rest is left to the kernel.
        ShardChoice::Count(count) => {
            (0..usize::from(*count)).map(|shard| usable.get(shard).copied()).collect()
        }
        ShardChoice::Cores(cores) => cores.iter().copied().map(Some).collect(),
    }
}

/// Probes the kernel, and gives connection limits that were left open what the descriptors allow.
fn fit_to_machine(
    mut settings: Settings,
    shards: u16,
    segments: usize,
) -> Result<Settings, StartError> {
    if settings.listeners.is_empty() {
        return Err(StartError::NoListener);
    }
    let shards = u64::from(shards);
    let own = settings.listeners.len() as u64 + FILES_PER_SHARD;
    let files = own * shards + SOCKETS_MAX as u64 + SEGMENTS_GROWTH * segments as u64;
    let lines = |missing: Vec<Missing>| missing.iter().map(ToString::to_string).collect();
    let missing = |missing| StartError::Missing(lines(missing));
    let facts = probe(&Needs { connections_in: 0, connections_out: 0, files }).map_err(missing)?;
    let free = facts.descriptors.saturating_sub(files + DESCRIPTORS_SPARE);
    let share =
        u32::try_from(free / shards / 2).unwrap_or(u32::MAX).clamp(1, CONNECTIONS_DERIVED_MAX);
    let limits = &mut settings.limits;
    for limit in [&mut limits.connections_in, &mut limits.connections_out] {
        *limit = if *limit == 0 { share } else { *limit };
    }
    let connections_in = u64::from(limits.connections_in) * shards;
    let connections_out = u64::from(limits.connections_out) * shards;
    probe(&Needs { connections_in, connections_out, files }).map_err(missing)?;
    Ok(settings)
}

/// Connections each way that a shard allows itself when the settings leave it open and descriptors
/// abound: a slot costs memory even when it is free.
const CONNECTIONS_DERIVED_MAX: u32 = 50_000;

/// Segments, rings and eventfds a shard holds open besides those found, as a rule.
const FILES_PER_SHARD: u64 = 64;

/// Descriptors kept for each segment found: its own, and one for a spool that grows again as much.
const SEGMENTS_GROWTH: u64 = 2;

fn open_listeners(settings: &Settings, shards: u16) -> Result<Vec<Listener>, StartError> {
    let addresses: Vec<SocketAddr> =
        settings.listeners.iter().map(|listener| listener.address).collect();
    listen(&addresses, shards).map_err(|error| StartError::Listen(error.to_string()))
}

/// What ends the rest of each shard.
fn bells(shards: u16) -> Result<Vec<Bell>, StartError> {
    let bell = |_| Ok(Bell { wake: eventfd()?, call: eventfd()? });
    (0..shards).map(bell).collect::<std::io::Result<_>>().map_err(thread_error("a shard"))
}

fn copies(bells: &[Bell]) -> Result<Vec<Bell>, StartError> {
    bells
        .iter()
        .map(Bell::try_clone)
        .collect::<std::io::Result<_>>()
        .map_err(thread_error("a shard"))
}

/// Blocking on purpose: a ring read of a non-blocking eventfd returns at once with EAGAIN.
fn eventfd() -> std::io::Result<OwnedFd> {
    // SAFETY: plain system call; a descriptor it returns is owned by nobody else yet.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn start_segments(
    folder: &Arc<SpoolFolder>,
    settings: &Settings,
    mesh: &Arc<Mesh>,
) -> Result<SegmentMaker, StartError> {
    let mesh = Arc::clone(mesh);
    let answer = move |shard, made| {
        insist_once(&mesh, shard, Control::Segment(made));
    };
    SegmentMaker::start(Arc::clone(folder), settings.spool.segment_bytes, answer)
        .map_err(thread_error("the segment maker"))
}

fn start_recovery(
    folder: &Arc<SpoolFolder>,
    in_use: Vec<FileId>,
    mesh: &Arc<Mesh>,
    stopping: &Arc<AtomicBool>,
) -> Result<Recovery, StartError> {
    let (folder, mesh, stopping) = (Arc::clone(folder), Arc::clone(mesh), Arc::clone(stopping));
    let work = Work { folder, in_use, mesh, stopping };
    Recovery::start(work).map_err(thread_error("the recovery"))
}

fn start_control(settings: &Settings, mesh: &Arc<Mesh>) -> Result<ControlThread, StartError> {
    let open = |admin: &AdminSettings| {
        let error = |cause| StartError::Admin { socket: admin.socket.clone(), cause };
        Admin::open(&admin.socket, Arc::clone(mesh)).map_err(error)
    };
    let admin = settings.admin.as_ref().map(open).transpose()?;
    let mesh = Arc::clone(mesh);
    let answer = move |shard, question, answer| {
        insist_once(&mesh, shard, Control::Resolved { question, answer });
    };
    ControlThread::start(&settings.dns, admin, answer).map_err(thread_error("the control thread"))
}

fn start_crypto(shards: u16) -> Result<CryptoThreads, StartError> {
    let failed = thread_error("the crypto threads");
    let client = TlsClient::opportunistic().map_err(|error| failed(error.0))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Unpinned: they take what the shards leave.
    CryptoThreads::start(Arc::new(client), threads_for(cores), shards, |_| {})
        .map_err(thread_error("the crypto threads"))
}

/// What was found and opened before there are shards.
struct Beginning {
    cores: Vec<Option<usize>>,
    opening: Opening,
    listeners: Vec<Listener>,
    bells: Vec<Bell>,
}

fn prepare(
    settings: &Settings,
    beginning: Beginning,
    folder: &SpoolFolder,
    services: &Services,
    crypto: &CryptoThreads,
) -> Result<Vec<Birth>, StartError> {
    let Beginning { cores, opening, listeners, bells } = beginning;
    let for_crypto = copies(&bells)?;
    let settings = Arc::new(settings.clone());
    let record_memory = Arc::new(Budget::new(settings.limits.body_memory_bytes));
    let cells = Arc::new(CellTable::new(u16::try_from(cores.len()).unwrap_or(u16::MAX)));
    let (next_sequence, start) = (opening.next_sequence, clock::now());
    let mut sockets: Vec<_> = listeners.into_iter().map(|one| one.sockets.into_iter()).collect();
    let mut births = Vec::new();
    let bells = bells.into_iter().zip(for_crypto);
    for ((index, spares), (bell, for_crypto)) in opening.shards.into_iter().enumerate().zip(bells) {
        let open = |file| folder.open_segment(file).map(|fd| (file, fd)).map_err(spool_error);
        births.push(Birth {
            id: shard_id(index),
            core: cores[index],
            settings: Arc::clone(&settings),
            files: spares.files().map(open).collect::<Result<_, _>>()?,
            spares,
            next_sequence,
            start,
            listeners: sockets.iter_mut().filter_map(Iterator::next).collect(),
            record_memory: Arc::clone(&record_memory),
            cells: Arc::clone(&cells),
            services: services.clone(),
            handshakes: crypto.handshakes(Arc::new(move || for_crypto.ring())),
            bell,
        });
    }
    Ok(births)
}

fn start_shard(birth: Birth) -> Result<ExecutorJoinHandle<std::io::Result<Counters>>, StartError> {
    let placement = birth.core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{}", birth.id.0))
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .spawn(move || live(birth))
        .map_err(thread_error("a shard"))
}

/// The life of a shard, on its own thread; its end is known to the others, whatever it was.
async fn live(birth: Birth) -> std::io::Result<Counters> {
    let (id, mesh) = (birth.id, Arc::clone(&birth.services.mesh));
    if let Err(error) = policy::let_others_finish() {
        tracing::debug!(shard = id.0, %error, "the shard stays under the kernel's default policy");
    }
    let result = run_shard(birth).await;
    if let Err(error) = &result {
        tracing::error!(shard = id.0, %error, "a shard has failed: the engine stops");
    }
    mesh.say_gone(id);
    result
}

async fn run_shard(birth: Birth) -> std::io::Result<Counters> {
    let now = birth.start;
    let limits = &birth.settings.limits;
    let options = DriverOptions { connections_max: slots_max(limits), ..DriverOptions::default() };
    let handshakes = Box::new(ShardHandshakes::new(birth.handshakes));
    let Bell { wake, call } = birth.bell;
    let sleep = wake_file(wake.try_clone()?);
    let eventfds = Eventfds { wake, call };
    let mut driver = Driver::new(options, eventfds, birth.listeners, handshakes)?;
    for (id, file) in birth.files {
        driver.register_file(id, file, birth.services.file_mode);
    }
    let shard = Shard::new(ShardOptions {
        id: birth.id,
        shards: u16::try_from(birth.services.mesh.shards()).unwrap_or(u16::MAX),
        seed: now.wall.0 ^ u64::from(birth.id.0),
        settings: birth.settings,
        spares: birth.spares,
        next_sequence: birth.next_sequence,
        commits_in_flight_max: commits_in_flight(birth.services.file_mode),
        record_memory: birth.record_memory,
        cells: birth.cells,
        now,
    });
    CoreLoop::new(birth.id, shard, driver, birth.services).run(sleep).await
}

/// Direct writes overlap, four of them at 2.2 times the rate of one; buffered ones of one file do
/// not, and were seen to hide each other's errors.
fn commits_in_flight(mode: FileMode) -> usize {
    match mode {
        FileMode::Direct => 4,
        FileMode::Buffered => 1,
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Tells a shard until it has room to hear it. Only for the control side, which may wait.
fn insist(mesh: &Mesh, to: ShardId, word: impl Fn() -> Control) {
    while mesh.control(to, word()).is_err() {
        pause(QUIET_POLL);
    }
}

pub(super) fn insist_once(mesh: &Mesh, to: ShardId, mut word: Control) {
    while let Err(back) = mesh.control(to, word) {
        word = back;
        pause(QUIET_POLL);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the control side waits for shards, never they for it"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn spool_error(error: super::disk::SpoolError) -> StartError {
    StartError::Spool(error.to_string())
}

fn thread_error<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |cause| StartError::Thread { what, cause: cause.to_string() }
}
