//! SIGKILL at random moments under load, again and again over one spool.

use std::time::Duration;

use clap::Args;
use postrider_loadgen::clock;
use postrider_loadgen::source::Source;
use postrider_tests::wait;

use crate::ground::{Ground, Started, end_of, let_pass};
use crate::spread::{Spread, per_second};
use crate::{Common, End};

/// From the 220 to the last stretch before the kill, in milliseconds.
const LOAD_MS: (u64, u64) = (0, 350);
/// The last of it, over which the rate of deliveries is taken.
const RATE_SPAN: Duration = Duration::from_millis(50);
/// Sizes of ordinary messages.
const SIZES: (u64, u64) = (1_200, 6_000);
/// Once in so many rounds messages are long enough to be written in chunks.
const LARGE_EVERY: u64 = 25;
const LARGE_BYTES: usize = 400_000;
/// The sink has read what was on the wire and closed, at the latest.
const LINGER: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Flags {
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// Do not end before so many messages were acknowledged
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// Messages offered in a second; without it as many as are taken, which fills the processors,
    /// so that what waits for them is counted with what waits for the disk
    #[arg(long)]
    rate: Option<f64>,
    /// 1000 kills and a million messages
    #[arg(long)]
    long: bool,
}

/// One value for each kill.
#[derive(Default)]
struct Figures {
    first_220: Spread,
    acknowledged: Spread,
    deliveries_per_s: Spread,
    /// Connections to the sink at the kill: each has one message on the wire at most.
    connections: Vec<u64>,
    rates: Vec<f64>,
    connections_max: u64,
}

pub(crate) fn run(common: &Common, flags: &Flags) -> End {
    let (kills, messages) =
        if flags.long { (1000, 1_000_000) } else { (flags.kills, flags.messages) };
    let mut ground = Ground::new(common, "segment_size = \"16MiB\"");
    let mut figures = Figures::default();
    let mut round = 0;
    while round < kills || ground.acknowledged_count < messages {
        kill_once(&mut ground, round, flags.rate, &mut figures);
        round += 1;
        if round % 50 == 0 {
            let mib = folder_bytes(&ground.spool().join("segments")) >> 20;
            println!("{round} kills, {} acknowledged, {mib} MiB", ground.acknowledged_count);
        }
    }
    let (acknowledged, in_doubt) = (ground.acknowledged_count, ground.unacknowledged);
    let (verdict, sink) = ground.judge();
    println!("\n{round} kills, outcomes {}: {acknowledged} acknowledged", common.outcomes);
    println!("{in_doubt} in doubt at a kill");
    let repeats: Vec<u64> = (0..round).map(|kill| sink.repeats.of_run(kill)).collect();
    figures.print(&repeats);
    end_of(&verdict, figures.connections_max)
}

/// Start, load, kill.
fn kill_once(ground: &mut Ground, round: u64, rate: Option<f64>, figures: &mut Figures) {
    let Started { running, first_220 } = ground.start();
    let size = match (round + 1) % LARGE_EVERY {
        0 => LARGE_BYTES,
        _ => usize::try_from(SIZES.0 + ground.chance.below(SIZES.1 - SIZES.0)).unwrap(),
    };
    let mut plan = ground.plan(running.address, size);
    plan.rate = rate;
    let source = Source::start(plan).unwrap();
    let_pass(ground.moment(LOAD_MS.0, LOAD_MS.1));
    let (begin, before) = (clock::now_ns(), ground.sink.progress().messages);
    let_pass(RATE_SPAN);
    let at_kill = ground.sink.progress();
    running.kill();
    let span = Duration::from_nanos(clock::now_ns() - begin);
    let report = ground.take_over(source);
    assert!(wait::until(LINGER, || ground.sink.progress().concurrent == 0));
    let maxima = ground.sink.mark_run().unwrap();
    let rate = per_second(at_kill.messages - before, span);
    figures.first_220.time(first_220);
    figures.acknowledged.count(report.sent.acknowledged);
    figures.deliveries_per_s.figure(rate);
    figures.connections.push(at_kill.concurrent);
    figures.rates.push(rate);
    figures.connections_max = figures.connections_max.max(maxima.into_iter().max().unwrap_or(0));
}

impl Figures {
    fn print(&self, repeats: &[u64]) {
        let (mut repeated, mut connections, mut over) = (Spread::default(), Spread::default(), 0);
        for ((repeat, on_wire), rate) in repeats.iter().zip(&self.connections).zip(&self.rates) {
            repeated.count(*repeat);
            connections.count(*on_wire);
            over += u64::from(*repeat > on_wire + five_ms_of(*rate));
        }
        println!("{}", Spread::heading());
        println!("{}", self.first_220.row("start to first 220, ms"));
        println!("{}", self.acknowledged.row("acknowledged a kill"));
        println!("{}", self.deliveries_per_s.row("deliveries/s before it"));
        println!("{}", connections.row("on the wire at most"));
        println!("{}", repeated.row("duplicates a kill"));
        let worth = repeated.mean() / self.deliveries_per_s.mean() * 1e3;
        println!("duplicates on average: {worth:.2} ms worth of delivery traffic");
        println!("kills with more duplicates than on the wire and 5 ms of traffic: {over}");
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive")]
fn five_ms_of(rate: f64) -> u64 {
    (rate * 0.005).ceil() as u64
}

/// Bytes of the files in a folder.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().metadata().map_or(0, |data| data.len())).sum()
}
