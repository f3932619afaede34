//! A disk whose writes fail for a while: a sparse image in a tmpfs that is too small for it, or a server's
//! disk that answers EIO.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use postrider_loadgen::source::Source;
use postrider_tests::binary::Running;
use postrider_tests::wait;

use crate::ground::{Ground, end_of, let_pass};
use crate::holes::punch_zeros;
use crate::spread::Spread;
use crate::volume::{self, Volume};
use crate::{Common, End};

/// What the tmpfs holds, and what the image in it pretends to hold.
const TMPFS_BYTES: u64 = 400 << 20;
const IMAGE_BYTES: u64 = 2 << 30;
/// Messages offered in a second; one that is refused is as quick as one that is taken.
const RATE: f64 = 2_000.0;
/// From one stage of a round to the next, at the latest.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the disk goes on failing.
const FAILING: Duration = Duration::from_millis(1_500);
/// Messages acknowledged when the disk works.
const FLOW: u64 = 200;

#[derive(Args)]
pub(crate) struct Flags {
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// With a journal, which fails as well: the whole file system stops then
    #[arg(long)]
    journal: bool,
    /// On a disk of nbdkit, of which all writes fail, in place of the full tmpfs
    #[arg(long)]
    nbdkit: bool,
}

/// What makes the disk fail: a file, for as long as it is there.
enum Switch {
    /// It takes the last room below the holes of the image.
    Filler(PathBuf),
    /// Its name is enough.
    Trigger(PathBuf),
}

impl Switch {
    /// Holds back writes where that is needed; gives the bytes of holes made.
    fn prepare(&self, ground: &Ground) -> u64 {
        let Self::Filler(path) = self else { return 0 };
        ground.disk().freeze().unwrap();
        let punched = punch_all(&ground.spool(), ground.disk().image());
        fill(path);
        punched
    }

    fn on(&self, ground: &Ground) {
        match self {
            Self::Filler(_) => ground.disk().thaw().unwrap(),
            Self::Trigger(path) => drop(File::create(path).unwrap()),
        }
    }

    fn off(&self) {
        let (Self::Filler(path) | Self::Trigger(path)) = self;
        fs::remove_file(path).unwrap();
    }
}

/// What the rounds saw.
#[derive(Default)]
struct Figures {
    punched: Spread,
    acknowledged_while_failing: Spread,
    refused: Spread,
    back: Spread,
    fenced: u64,
    wrong: Vec<String>,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> End {
    if let Err(reason) = volume::enter_own_mounts() {
        return End::Skipped(reason);
    }
    let mut ground = Ground::new(common, "segment_size = \"16MiB\"");
    let backing = ground.home.path().join("backing");
    let mkfs: &[&str] = if flags.journal {
        &["mkfs.ext4", "-q", "-F"]
    } else {
        &["mkfs.ext4", "-q", "-F", "-O", "^has_journal"]
    };
    let switch = if flags.nbdkit {
        Switch::Trigger(ground.home.path().join("failing"))
    } else {
        Switch::Filler(backing.join("filler"))
    };
    let made = match &switch {
        Switch::Filler(_) => {
            Volume::make_on_tmpfs(&backing, TMPFS_BYTES, IMAGE_BYTES, mkfs, ground.spool())
        }
        Switch::Trigger(path) => {
            Volume::make_on_nbdkit(&backing, path, IMAGE_BYTES, mkfs, ground.spool())
        }
    };
    match made {
        Ok(disk) => ground.put_spool_on(disk),
        Err(reason) => return End::Skipped(reason),
    }
    let mut figures = Figures::default();
    for _ in 0..flags.rounds {
        fail_once(&mut ground, &switch, flags.journal, &mut figures);
    }
    let acknowledged = ground.acknowledged_count;
    let (verdict, _) = ground.judge();
    println!("\n{} rounds, journal {}: {acknowledged} acknowledged", flags.rounds, flags.journal);
    figures.print();
    match end_of(&verdict, 0) {
        End::Held if !figures.wrong.is_empty() => End::Broken,
        end => end,
    }
}

/// Load; the disk fails; it works again; the engine is killed.
fn fail_once(ground: &mut Ground, switch: &Switch, journal: bool, figures: &mut Figures) {
    let running = ground.start().running;
    let mut plan = ground.plan(running.address, 4_096);
    plan.rate = Some(RATE);
    plan.reconnect = true;
    let source = Source::start(plan).unwrap();
    expect_flow(&source, "at the start");
    let_pass(ground.moment(0, 300));

    figures.punched.count(switch.prepare(ground));
    let before = source.progress();
    switch.on(ground);
    let refuses = wait::until(PATIENCE, || source.progress().tempfailed > before.tempfailed);
    figures.note(refuses, "a disk that fails, and nobody was told");
    let_pass(FAILING);
    let during = source.progress();
    figures.acknowledged_while_failing.count(during.acknowledged - before.acknowledged);
    figures.refused.count(during.tempfailed - before.tempfailed);

    switch.off();
    if journal {
        // The file system has stopped: only another mount gets it back.
        return end_round(ground, running, source, figures, true);
    }
    let begin = postrider_loadgen::clock::now_ns();
    expect_flow(&source, "after the disk works again");
    figures.back.time(Duration::from_nanos(postrider_loadgen::clock::now_ns() - begin));
    end_round(ground, running, source, figures, false);
}

fn end_round(
    ground: &mut Ground,
    mut running: Running,
    source: Source,
    figures: &mut Figures,
    mount_again: bool,
) {
    figures.note(running.is_running(), "it ended by itself");
    let log = running.log();
    figures.fenced += u64::try_from(log.matches("segment fenced").count()).unwrap();
    running.kill();
    source.stop();
    let report = ground.take_over(source);
    for (text, count) in report.errors {
        let is_ours = text.starts_with('(') || text.starts_with("452 4.3.1");
        figures.note(is_ours, &format!("{count} times the client was told {text:?}"));
    }
    if mount_again {
        ground.disk().unmount().unwrap();
        ground.disk().mount().unwrap();
    }
}

fn expect_flow(source: &Source, when: &str) {
    let before = source.progress().acknowledged;
    let flows = || source.progress().acknowledged > before + FLOW;
    assert!(wait::until(PATIENCE, flows), "no mail is taken {when}: {:?}", source.progress());
}

/// Makes holes below what no segment has used yet.
fn punch_all(spool: &Path, image: &Path) -> u64 {
    let image = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let entries = fs::read_dir(spool.join("segments")).unwrap();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.iter().map(|path| punch_zeros(path, &image).unwrap()).sum()
}

/// Writes until there is no room left, down to the last byte.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    for step in [1 << 20, 4096, 1] {
        let bytes = vec![0xAA; step];
        while file.write_all(&bytes).is_ok() {}
    }
}

impl Figures {
    fn note(&mut self, is_right: bool, what: &str) {
        if !is_right {
            self.wrong.push(what.to_owned());
        }
    }

    fn print(&self) {
        println!("{}", Spread::heading());
        println!("{}", self.punched.row("bytes of holes made"));
        println!("{}", self.refused.row("refused while it failed"));
        println!("{}", self.acknowledged_while_failing.row("acknowledged meanwhile"));
        println!("{}", self.back.row("until mail flows again, ms"));
        println!("segments fenced: {}", self.fenced);
        for what in &self.wrong {
            println!("WRONG: {what}");
        }
    }
}
