//! A 64 MiB file system, filled to its last byte by another file and freed again, under load.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::clock;
use postrider_loadgen::sink::Behaviour;
use postrider_loadgen::source::Source;
use postrider_tests::binary::Running;
use postrider_tests::wait;

use crate::ground::{CONNECTIONS, Ground, HOSTS, REPORTS, end_of, let_pass};
use crate::spread::Spread;
use crate::volume::{self, Volume};
use crate::{Common, End};

const DISK_BYTES: u64 = 64 << 20;
/// Small segments, so that a small disk has several.
const SPOOL: &str = "segment_size = \"1MiB\"\n";
/// What the other file leaves free, a round each: nothing, odd bytes, less and more than a segment.
const LEFT_FREE: [u64; 8] =
    [0, 1, 511, 4_097, 65_537, (1 << 20) - 1, (1 << 20) + 8_191, (3 << 20) + 1];
/// Messages offered in a second.
const RATE: f64 = 600.0;
/// From one stage of a round to the next, at the latest.
const PATIENCE: Duration = Duration::from_secs(60);
/// Mail that piles up at the hosts that put it off.
const PILE_UP: Duration = Duration::from_millis(2_500);
/// Enough to call it a flow.
const FLOW: u64 = 100;
/// A message on each connection that all hosts allow together.
const WIRE_MAX: u64 = CONNECTIONS * (HOSTS as u64 + 1);
/// These hosts put their mail off until the disk is full; then one takes it, the other refuses it.
const TAKES_LATER: usize = 1;
const REFUSES_LATER: usize = 2;

#[derive(Args)]
pub(crate) struct Flags {
    /// Rounds; each leaves another number of bytes free
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Kills in a row while the disk is full, in two rounds of three
    #[arg(long, default_value_t = 1)]
    kills: u32,
    #[arg(long, default_value = "ext4")]
    fs: String,
}

/// What happens to the engine in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// It runs until the disk has room again, and mail must flow again by itself.
    Plain,
    /// It is killed while the disk is full, and again when there is room.
    Killed,
    /// It is killed while the disk is full, and stopped politely before there is room.
    Stopped,
}

/// What the rounds saw.
#[derive(Default)]
struct Figures {
    until_refused: Spread,
    delivered_while_full: Spread,
    reports_while_full: Spread,
    back: Spread,
    /// How each run of the engine ended.
    ends: Vec<&'static str>,
    wrong: Vec<String>,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> End {
    if let Err(reason) = volume::enter_own_mounts() {
        return End::Skipped(reason);
    }
    let mut ground = Ground::new(common, SPOOL);
    let image = ground.home.path().join("image");
    let mkfs = [&format!("mkfs.{}", flags.fs), "-q", "-F"];
    match Volume::make(image, DISK_BYTES, &mkfs, ground.spool()) {
        Ok(disk) => ground.put_spool_on(disk),
        Err(reason) => return End::Skipped(reason),
    }
    let mut figures = Figures::default();
    for (round, left) in LEFT_FREE.iter().cycle().take(flags.rounds).enumerate() {
        println!("round {round}: {left} bytes left free");
        let course = [Course::Plain, Course::Killed, Course::Stopped][round % 3];
        fill_once(&mut ground, *left, course, flags.kills, &mut figures);
    }
    for host in [TAKES_LATER, REFUSES_LATER] {
        ground.sink.set_behaviour(host, Behaviour::Accept).unwrap();
    }
    let acknowledged = ground.acknowledged_count;
    let (verdict, sink) = ground.judge();
    println!("\n{} rounds: {acknowledged} acknowledged", flags.rounds);
    figures.judge_repeats(|run| sink.repeats.of_run(run));
    figures.print(|run| sink.repeats.of_run(run));
    match end_of(&verdict, 0) {
        End::Held if !figures.wrong.is_empty() => End::Broken,
        end => end,
    }
}

/// Mail piles up, the disk gets full, the pile is delivered and refused, the disk gets room.
fn fill_once(ground: &mut Ground, left: u64, course: Course, kills: u32, figures: &mut Figures) {
    for host in [TAKES_LATER, REFUSES_LATER] {
        ground.sink.set_behaviour(host, Behaviour::TempfailRcpt).unwrap();
    }
    let mut running = ground.start().running;
    let mut plan = ground.plan(running.address, 3_000);
    plan.rate = Some(RATE);
    plan.reconnect = true;
    let source = Source::start(plan).unwrap();
    let_pass(PILE_UP);

    let filler = ground.spool().join("filler");
    let begin = clock::now_ns();
    fill(&filler, left);
    let before = source.progress().tempfailed;
    let refuses = || {
        // What the engine gives back in between is taken again.
        fill(&filler, 0);
        source.progress().tempfailed > before + FLOW
    };
    figures.note(wait::until(PATIENCE, refuses), "a full disk, and nobody was told");
    figures.until_refused.time(Duration::from_nanos(clock::now_ns() - begin));
    if course != Course::Plain {
        for _ in 0..kills {
            running = kill_while_full(ground, running, figures);
        }
    }
    deliver_while_full(ground, &filler, figures);
    figures.note(running.is_running(), "it ended by itself");

    if course == Course::Stopped {
        running = stop(ground, running, figures);
    }
    fs::remove_file(&filler).unwrap();
    end_round(ground, running, source, course, figures);
}

/// What waits is taken and refused by its hosts; outcomes and reports need room.
fn deliver_while_full(ground: &Ground, filler: &Path, figures: &mut Figures) {
    let before = ground.sink.progress();
    ground.sink.set_behaviour(TAKES_LATER, Behaviour::Accept).unwrap();
    ground.sink.set_behaviour(REFUSES_LATER, Behaviour::RejectRcpt).unwrap();
    let came =
        |host: usize| ground.sink.progress().hosts[host].messages - before.hosts[host].messages;
    let both = || {
        fill(filler, 0);
        came(TAKES_LATER) > FLOW && came(REPORTS) > FLOW
    };
    let flows = wait::until(PATIENCE, both);
    figures.note(flows, "deliveries or reports stopped while the disk was full");
    figures.delivered_while_full.count(came(TAKES_LATER));
    figures.reports_while_full.count(came(REPORTS));
}

/// A machine that went down with its disk full must come up with its disk full.
fn kill_while_full(ground: &Ground, running: Running, figures: &mut Figures) -> Running {
    running.kill();
    figures.ends_run(ground, "killed while full");
    match ground.try_start() {
        Ok(started) => started.running,
        Err(words) => {
            figures.note(false, &format!("it does not start while the disk is full: {words}"));
            fs::remove_file(ground.spool().join("filler")).unwrap();
            let started = ground.start();
            fill(&ground.spool().join("filler"), 0);
            started.running
        }
    }
}

/// Mail flows again by itself, then the run ends, politely or not.
fn end_round(
    ground: &mut Ground,
    running: Running,
    source: Source,
    course: Course,
    figures: &mut Figures,
) {
    // The source knows the address of the first run only.
    if course == Course::Plain {
        let (begin, before) = (clock::now_ns(), source.progress().acknowledged);
        let flows = || source.progress().acknowledged > before + FLOW;
        figures.note(wait::until(PATIENCE, flows), "no mail is taken though the disk has room");
        figures.back.time(Duration::from_nanos(clock::now_ns() - begin));
    }
    source.stop();
    let report = ground.take_over(source);
    for (text, count) in report.errors {
        let is_ours = text.starts_with('(') || text.starts_with("452 4.3.1");
        figures.note(is_ours, &format!("{count} times the client was told {text:?}"));
    }
    match course {
        Course::Plain => drop(stop(ground, running, figures)),
        Course::Killed => {
            running.kill();
            figures.ends_run(ground, "killed");
        }
        // It has ended.
        Course::Stopped => drop(running),
    }
}

/// SIGTERM, and an end in time: what could not be written must not hold it for ever.
fn stop(ground: &Ground, mut running: Running, figures: &mut Figures) -> Running {
    running.signal(libc::SIGTERM);
    let ends = wait::until(PATIENCE, || !running.is_running());
    figures.note(ends, "it does not stop");
    if ends {
        figures.ends_run(ground, "stopped");
    }
    running
}

/// Writes at the end of the file until there is no room left, down to the last byte; then gives
/// back `left` bytes.
fn fill(filler: &Path, left: u64) {
    let mut file = OpenOptions::new().create(true).append(true).open(filler).unwrap();
    for step in [1 << 16, 4096, 1] {
        let bytes = vec![0xAA; step];
        while file.write_all(&bytes).is_ok() {}
    }
    sync(&file);
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(left)).unwrap();
    sync(&file);
}

/// Blocks are given and taken for good now. A failure is what is wanted here.
fn sync(file: &File) {
    drop(file.sync_all());
}

impl Figures {
    fn note(&mut self, is_right: bool, what: &str) {
        if !is_right {
            self.wrong.push(what.to_owned());
        }
    }

    /// The engine's run is over.
    fn ends_run(&mut self, ground: &Ground, how: &'static str) {
        assert!(wait::until(PATIENCE, || ground.sink.progress().concurrent == 0));
        ground.sink.mark_run().unwrap();
        self.ends.push(how);
    }

    /// Outcomes are written while the disk is full: a kill repeats what was on the wire.
    fn judge_repeats(&mut self, repeats_of: impl Fn(u64) -> u64) {
        for (run, how) in (0..).zip(self.ends.clone()) {
            let (repeats, most) = (repeats_of(run), if how == "stopped" { 0 } else { WIRE_MAX });
            self.note(repeats <= most, &format!("run {run}, {how}: {repeats} came again"));
        }
    }

    fn print(&self, repeats_of: impl Fn(u64) -> u64) {
        println!("{}", Spread::heading());
        println!("{}", self.until_refused.row("full until 452, ms"));
        println!("{}", self.delivered_while_full.row("delivered while full"));
        println!("{}", self.reports_while_full.row("reports while full"));
        println!("{}", self.back.row("room until mail flows, ms"));
        for how in ["stopped", "killed", "killed while full"] {
            let mut repeats = Spread::default();
            let runs = (0..).zip(&self.ends).filter(|(_, end)| **end == how);
            runs.for_each(|(run, _)| repeats.count(repeats_of(run)));
            println!("{}", repeats.row(&format!("duplicates, {how}")));
        }
        for what in &self.wrong {
            println!("WRONG: {what}");
        }
    }
}
