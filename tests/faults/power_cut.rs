//! The file system goes away under load with all that is not durable, and comes back.

use std::fs::{self, File};
use std::time::Duration;

use clap::{Args, ValueEnum};
use postrider_loadgen::clock;
use postrider_loadgen::source::Source;
use postrider_tests::wait;

use crate::ground::{Ground, Started, end_of, let_pass};
use crate::spread::{Spread, per_second};
use crate::volume::{self, Cut, Volume};
use crate::{Common, End};

/// From the 220 to the cut, in milliseconds.
const LOAD_MS: (u64, u64) = (50, 800);
/// How long the engine lives on without its disk: whatever it acknowledges now must be durable.
const BLIND: Duration = Duration::from_millis(100);
/// The sink has read what was on the wire and closed, at the latest.
const LINGER: Duration = Duration::from_secs(20);
/// Room for the backlog of a run, in a sparse file.
const IMAGE_BYTES: u64 = 2 << 30;
/// Bytes of a file that is synced, or not, before a cut.
const PROBE_BYTES: usize = 64 << 10;

#[derive(Args)]
pub(crate) struct Flags {
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Kind,
    #[arg(long, default_value_t = 20)]
    cuts: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Ext4,
    Xfs,
}

/// What the cuts of a run did.
#[derive(Default)]
struct Figures {
    first_220: Spread,
    acknowledged: Spread,
    deliveries_per_s: Spread,
    in_doubt: Spread,
    /// Probes without a sync that were gone, and there, after their cut.
    probes: (u64, u64),
    connections_max: u64,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> End {
    if let Err(reason) = volume::enter_own_mounts() {
        return End::Skipped(reason);
    }
    let mut ground = Ground::new(common, "segment_size = \"16MiB\"");
    let (image, place) = (ground.home.path().join("image"), ground.spool());
    let mkfs: &[&str] = match flags.fs {
        Kind::Ext4 => &["mkfs.ext4", "-q", "-F"],
        Kind::Xfs => &["mkfs.xfs", "-q", "-f"],
    };
    match Volume::make(image, IMAGE_BYTES, mkfs, place) {
        Ok(disk) => ground.put_spool_on(disk),
        Err(reason) => return End::Skipped(reason),
    }
    let mut figures = Figures::default();
    for round in 0..flags.cuts {
        let cut = if round % 4 == 3 { Cut::LogFlush } else { Cut::NoLogFlush };
        cut_once(&mut ground, cut, &mut figures);
    }
    let acknowledged = ground.acknowledged_count;
    let (verdict, sink) = ground.judge();
    println!("\n{} cuts on {:?}: {acknowledged} acknowledged", flags.cuts, flags.fs);
    figures.print((0..flags.cuts).map(|cut| sink.repeats.of_run(cut)));
    let end = end_of(&verdict, figures.connections_max);
    if figures.probes.0 == 0 && flags.cuts > 1 {
        return End::Skipped("no cut took anything away: this proves nothing".to_owned());
    }
    end
}

/// Start, load, cut, mount again.
fn cut_once(ground: &mut Ground, cut: Cut, figures: &mut Figures) {
    let Started { running, first_220 } = ground.start();
    let size = usize::try_from(1_200 + ground.chance.below(8_000)).unwrap();
    let (begin, before) = (clock::now_ns(), ground.sink.progress().messages);
    let source = Source::start(ground.plan(running.address, size)).unwrap();
    let_pass(ground.moment(LOAD_MS.0, LOAD_MS.1));
    let at_cut = ground.sink.progress().messages;
    write_probes(ground.disk());
    ground.disk().cut(cut).unwrap();
    let load = Duration::from_nanos(clock::now_ns() - begin);
    let_pass(BLIND);
    running.kill();
    let report = ground.take_over(source);
    assert!(wait::until(LINGER, || ground.sink.progress().concurrent == 0));
    let maxima = ground.sink.mark_run().unwrap();
    ground.disk().unmount().unwrap();
    ground.disk().mount().unwrap();
    read_probes(ground.disk(), &mut figures.probes);
    figures.first_220.time(first_220);
    figures.acknowledged.count(report.sent.acknowledged);
    figures.deliveries_per_s.figure(per_second(at_cut - before, load));
    figures.in_doubt.count(report.sent.unacknowledged);
    figures.connections_max = figures.connections_max.max(maxima.into_iter().max().unwrap_or(0));
}

/// A file that a cut must leave, and one that it should take.
fn write_probes(disk: &Volume) {
    let synced = disk.place().join("synced");
    fs::write(&synced, [1; PROBE_BYTES]).unwrap();
    File::open(&synced).unwrap().sync_all().unwrap();
    File::open(disk.place()).unwrap().sync_all().unwrap();
    fs::write(disk.place().join("unsynced"), [1; PROBE_BYTES]).unwrap();
}

fn read_probes(disk: &Volume, probes: &mut (u64, u64)) {
    let whole = |name: &str| {
        let bytes = fs::read(disk.place().join(name)).unwrap_or_default();
        bytes.len() == PROBE_BYTES && bytes.iter().all(|byte| *byte == 1)
    };
    assert!(whole("synced"), "the file system lost what it had synced");
    *if whole("unsynced") { &mut probes.1 } else { &mut probes.0 } += 1;
    for name in ["synced", "unsynced"] {
        // The one that was taken is not there.
        drop(fs::remove_file(disk.place().join(name)));
    }
    File::open(disk.place()).unwrap().sync_all().unwrap();
}

impl Figures {
    fn print(&self, repeats: impl Iterator<Item = u64>) {
        let mut repeated = Spread::default();
        repeats.for_each(|repeat| repeated.count(repeat));
        println!("{}", Spread::heading());
        println!("{}", self.first_220.row("start to first 220, ms"));
        println!("{}", self.acknowledged.row("acknowledged a cut"));
        println!("{}", self.in_doubt.row("in doubt at the cut"));
        println!("{}", self.deliveries_per_s.row("deliveries/s before it"));
        println!("{}", repeated.row("duplicates a cut"));
        let (gone, there) = self.probes;
        println!("unsynced probes: {gone} gone, {there} still there");
    }
}
