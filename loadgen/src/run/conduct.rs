//! One measured run from its first message to its verdict: source, sink if there is one, records.

use std::fs::{self, File};
use std::io::{self, LineWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel;
use hdrhistogram::serialization::V2DeflateSerializer;

use super::account::{self, Asked, Seen, has_given_way};
use super::board::Board;
use super::collector::Collector;
use super::honesty::PauseWatch;
use super::intervals::IntervalLog;
use super::machine::machine;
use super::manifest::{Manifest, Second};
use super::recorder::Inbox;
use super::{INTERVALS_FILE, MANIFEST_FILE, Threshold};
use crate::clock::{self, SECOND_NS};
use crate::latency::Latencies;
use crate::ledger::{Outcome, Verdict, compare};
use crate::sink::{Sink, SinkPlan, SinkReport};
use crate::source::{Schedule, Source, SourcePlan, SourceProgress, SourceReport};

/// How often the conductor looks up.
const LOOK_UP: Duration = Duration::from_millis(20);
/// Seconds kept for the manifest: more than a day. The interval log goes on.
const SECONDS_KEPT_MAX: usize = 100_000;
/// What has arrived is all when nothing more comes for so long: a repetition may stand in the
/// count for one that is missing.
const CALM_NS: u64 = SECOND_NS / 4;

/// What to run, and what to hold it against.
pub struct Assignment {
    pub source: SourcePlan,
    /// The hosts behind the target, if they are in this process.
    pub sink: Option<SinkPlan>,
    /// Where the run is kept.
    pub folder: Option<PathBuf>,
    /// How long to wait for what was acknowledged and has not arrived.
    pub settle: Duration,
    /// A level of a sweep whose messages wait for longer at p99 has given way, and ends it.
    pub knee_p99: Duration,
    pub thresholds: Vec<Threshold>,
    /// The command line, for the manifest.
    pub command: Vec<String>,
}

/// All that a run has shown.
pub struct Findings {
    pub manifest: Manifest,
    pub source: SourceReport,
    pub sink: Option<(SinkReport, Verdict)>,
}

/// A look at a run under way, once a second.
pub struct Moment<'a> {
    pub second: Second,
    /// The intended rate, in an open loop.
    pub wanted_per_s: Option<f64>,
    /// Latencies of the second.
    pub latencies: &'a Latencies,
    pub sent: SourceProgress,
    /// Messages that arrived so far, if a sink takes part.
    pub delivered: Option<u64>,
    /// Nothing more is offered: what is under way is waited for.
    pub is_settling: bool,
}

/// Runs it. `prepare` sees the sink before the first message, `watch` every second, and
/// `is_interrupted` ends the run early, with all that was seen until then.
pub fn conduct(
    assignment: Assignment,
    prepare: impl FnOnce(&Sink) -> io::Result<()>,
    mut watch: impl FnMut(&Moment<'_>),
    is_interrupted: impl Fn() -> bool,
) -> io::Result<Findings> {
    let mut file = assignment.folder.as_deref().map(create_log).transpose()?;
    let mut serializer = V2DeflateSerializer::new();
    let load_before = machine().load_before;
    let (stage, collector) = Stage::set(&assignment, prepare)?;
    let pauses = PauseWatch::start()?;
    let log = match &mut file {
        Some(file) => Some(IntervalLog::begin(file, &mut serializer, stage.started)?),
        None => None,
    };
    let Stage { source, sink, board, start_ns, started } = stage;
    let mut performance = Performance {
        collector,
        board: &board,
        sink: sink.as_ref(),
        schedule: assignment.source.open_loop(),
        knee_p99_ms: milliseconds(assignment.knee_p99),
        start_ns,
        next_ns: start_ns + SECOND_NS,
        last: Counts::default(),
        seconds: Vec::new(),
        log,
        watch: &mut watch,
    };
    performance.play(&source, &is_interrupted)?;
    let mut source = source.join();
    performance.settle(&source, assignment.settle, &is_interrupted)?;
    let Performance { mut collector, seconds, log, .. } = performance;
    let pauses = pauses.stop();
    let sink = sink.map(|sink| {
        let report = sink.stop();
        let verdict = compare(&source.acknowledged, &report.arrivals);
        (report, verdict)
    });
    collect_rest(&mut collector, log, start_ns)?;
    source.set_latencies(&collector.total);
    let sink_seen = sink.as_ref().map(|(report, verdict)| (report, verdict));
    let whole_ns = clock::now_ns() - start_ns;
    let seen = Seen {
        source: &source,
        sink: sink_seen,
        delivered: board.delivered(),
        collector: &collector,
        seconds,
        pauses,
        elapsed_s: elapsed_s(&source, sink_seen.map(|(report, _)| report), whole_ns),
    };
    let manifest = finish_manifest(&assignment, seen, started, load_before);
    if let (Some(folder), Some(file)) = (&assignment.folder, &mut file) {
        file.flush()?;
        write_manifest(folder, &manifest)?;
    }
    Ok(Findings { manifest, source, sink })
}

/// Who takes part in a run.
struct Stage {
    source: Source,
    sink: Option<Sink>,
    board: Arc<Board>,
    start_ns: u64,
    /// Since 1970 at the same instant.
    started: Duration,
}

impl Stage {
    /// Starts the sink, then the source: the run begins.
    fn set(
        assignment: &Assignment,
        prepare: impl FnOnce(&Sink) -> io::Result<()>,
    ) -> io::Result<(Self, Collector)> {
        let mut inbox = Inbox::new();
        let plan = assignment.source.clone();
        let board = Arc::new(Board::new(plan.run, clock::now_ns()));
        let start_sink = |plan| Sink::start_recorded(plan, &board, &mut inbox);
        let sink = assignment.sink.clone().map(start_sink).transpose()?;
        if let Some(sink) = &sink {
            prepare(sink)?;
        }
        let steps = plan.open_loop().map_or(1, |schedule| schedule.steps().count);
        let source = Source::start_recorded(plan, &board, &mut inbox)?;
        let start_ns = source.start_ns();
        let since_start_ns = clock::now_ns().saturating_sub(start_ns);
        let started = Duration::from_nanos(clock::unix_ns().saturating_sub(since_start_ns));
        let stage = Self { source, sink, board, start_ns, started };
        Ok((stage, Collector::new(inbox, start_ns, steps)))
    }
}

/// A run under way.
struct Performance<'a, 'log, W: Write> {
    collector: Collector,
    board: &'a Board,
    sink: Option<&'a Sink>,
    schedule: Option<Schedule>,
    knee_p99_ms: f64,
    start_ns: u64,
    /// End of the current second.
    next_ns: u64,
    last: Counts,
    seconds: Vec<Second>,
    log: Option<IntervalLog<'log, W>>,
    watch: &'a mut dyn FnMut(&Moment<'_>),
}

/// Sums at the end of a second, to tell what came in the next.
#[derive(Default, Clone, Copy)]
struct Counts {
    offered: u64,
    acknowledged: u64,
    delivered: u64,
    errors: u64,
}

impl<W: Write> Performance<'_, '_, W> {
    /// Goes on until the source has ended.
    fn play(&mut self, source: &Source, is_interrupted: &dyn Fn() -> bool) -> io::Result<()> {
        let ticks = channel::tick(LOOK_UP);
        let mut was_stopped = false;
        while !source.is_finished() {
            ticks.recv().map_err(io::Error::other)?;
            if is_interrupted() && !was_stopped {
                was_stopped = true;
                source.stop();
            }
            let now = clock::now_ns();
            if now >= self.next_ns {
                source.hand_over();
                self.end_second(now, source.progress(), false)?;
                if !was_stopped && self.has_passed_knee(now) {
                    was_stopped = true;
                    source.stop();
                }
            }
        }
        Ok(())
    }

    /// Waits for what was acknowledged and has not arrived.
    fn settle(
        &mut self,
        source: &SourceReport,
        patience: Duration,
        is_interrupted: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let expected = source.acknowledged.count(Outcome::Acknowledged);
        let (ticks, until_ns) =
            (channel::tick(LOOK_UP), clock::now_ns().saturating_add(clock::nanos(patience)));
        let (mut seen, mut since_ns) = (self.board.concluded(), clock::now_ns());
        while self.sink.is_some() {
            let now = clock::now_ns();
            let is_calm = seen >= expected && now - since_ns >= CALM_NS;
            if is_calm || now >= until_ns || is_interrupted() {
                break;
            }
            ticks.recv().map_err(io::Error::other)?;
            if self.board.concluded() != seen {
                (seen, since_ns) = (self.board.concluded(), now);
            }
            if now >= self.next_ns {
                self.end_second(now, source.sent, true)?;
            }
        }
        self.end_second(clock::now_ns(), source.sent, true)
    }

    fn end_second(&mut self, now: u64, sent: SourceProgress, is_settling: bool) -> io::Result<()> {
        if let Some(sink) = self.sink {
            sink.hand_over();
        }
        let from = self.collector.gather(now);
        if let Some(log) = &mut self.log {
            let start = self.start_ns;
            log.write(from - start, now - start, &self.collector.second)?;
        }
        self.next_ns = (self.next_ns + SECOND_NS).max(now);
        let counts = Counts {
            offered: sent.offered,
            acknowledged: sent.acknowledged,
            delivered: self.board.delivered(),
            errors: sent.tempfailed
                + sent.refused
                + sent.unacknowledged
                + sent.connection_losses
                + sent.connect_failures,
        };
        let last = std::mem::replace(&mut self.last, counts);
        let at_s = clock::seconds(now - self.start_ns);
        let second = Second {
            at_s,
            offered: counts.offered - last.offered,
            acknowledged: counts.acknowledged - last.acknowledged,
            delivered: counts.delivered - last.delivered,
            errors: counts.errors - last.errors,
        };
        if self.seconds.len() < SECONDS_KEPT_MAX {
            self.seconds.push(second);
        }
        (self.watch)(&Moment {
            second,
            wanted_per_s: self.schedule.filter(|_| !is_settling).map(|s| s.rate_at(at_s)),
            latencies: &self.collector.second,
            sent,
            delivered: self.sink.map(|_| counts.delivered),
            is_settling,
        });
        Ok(())
    }

    /// Says whether a level of a sweep that has ended gave way.
    fn has_passed_knee(&self, now: u64) -> bool {
        let Some(schedule) = self.schedule.filter(Schedule::is_sweep) else { return false };
        let elapsed_ns = now - self.start_ns;
        let ended = usize::try_from(elapsed_ns / schedule.steps().width_ns).unwrap_or(usize::MAX);
        let mut steps = self.collector.steps.iter().take(ended).enumerate();
        steps.any(|(index, values)| {
            account::step(&schedule, index, values, clock::seconds(elapsed_ns))
                .is_some_and(|step| has_given_way(&step, self.knee_p99_ms))
        })
    }
}

/// What the threads handed over at their end.
fn collect_rest<W: Write>(
    collector: &mut Collector,
    log: Option<IntervalLog<'_, W>>,
    start_ns: u64,
) -> io::Result<()> {
    let now = clock::now_ns();
    let from = collector.gather(now);
    match log {
        Some(mut log) => log.write(from - start_ns, now - start_ns, &collector.second),
        None => Ok(()),
    }
}

fn finish_manifest(
    assignment: &Assignment,
    seen: Seen<'_>,
    started: Duration,
    load_before: f64,
) -> Manifest {
    let asked = Asked {
        plan: &assignment.source,
        command: assignment.command.clone(),
        knee_p99_ms: milliseconds(assignment.knee_p99),
        started: started.as_secs_f64(),
        load_before,
    };
    let latencies = &seen.collector.total;
    let mut manifest = account::manifest(&asked, seen);
    let judge = |threshold: &Threshold| threshold.judge(&manifest, latencies);
    manifest.requirements = assignment.thresholds.iter().map(judge).collect();
    manifest
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Start to the last reply or, if that was later, to the last delivery.
fn elapsed_s(source: &SourceReport, sink: Option<&SinkReport>, whole_ns: u64) -> f64 {
    let idle = sink.and_then(|report| report.totals.idle_for);
    let delivered = idle.map(|idle| clock::seconds(whole_ns) - idle.as_secs_f64());
    source.elapsed.as_secs_f64().max(delivered.unwrap_or(0.0))
}

fn create_log(folder: &Path) -> io::Result<LineWriter<File>> {
    let name = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| name(folder, error))?;
    let path = folder.join(INTERVALS_FILE);
    Ok(LineWriter::new(File::create(&path).map_err(|error| name(&path, error))?))
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    fs::write(folder.join(MANIFEST_FILE), text)
}
