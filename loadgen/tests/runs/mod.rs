//! Runs made up for tests, written as a load run writes them.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use postrider_loadgen::latency::{self, Quantiles};
use postrider_loadgen::run::manifest::{
    FORMAT, Honesty, Ledger, Load, LoadKind, Machine, Manifest, Requirement, Second, Step, Totals,
};
use postrider_loadgen::run::{INTERVALS_FILE, MANIFEST_FILE};

/// A reply that a page must show and not obey.
pub(crate) const HOSTILE: &str =
    "550 5.7.1 <script>document.title='owned'</script> & \"'\u{0}\u{1b}[31m";

/// The median of each phase, in nanoseconds.
const PHASES: [(&str, u64); 13] = [
    ("connect", 45_000),
    ("banner", 120_000),
    ("ehlo", 60_000),
    ("mail", 70_000),
    ("rcpt", 80_000),
    ("data", 50_000),
    ("dot", 900_000),
    ("message", 1_400_000),
    ("slip", 9_000),
    ("wait", 30_000),
    ("queue", 400_000),
    ("delivery", 300_000),
    ("e2e", 2_300_000),
];

/// What the tests vary.
pub(crate) struct Made {
    pub(crate) seconds: u32,
    pub(crate) per_second: u32,
    pub(crate) seed: u64,
    pub(crate) started: f64,
    /// Latencies are this many times as long.
    pub(crate) slowness: f64,
    pub(crate) kind: LoadKind,
    pub(crate) invalid: Vec<String>,
    pub(crate) sweep: bool,
    /// One phase instead of all.
    pub(crate) only: Option<&'static str>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            seconds: 20,
            per_second: 200,
            seed: 1,
            started: 1_795_390_000.0,
            slowness: 1.0,
            kind: LoadKind::OpenLoop,
            invalid: Vec::new(),
            sweep: false,
            only: None,
        }
    }
}

impl Made {
    /// Writes both files into a folder, which is made.
    pub(crate) fn write(&self, folder: &Path) -> Manifest {
        fs::create_dir_all(folder).unwrap();
        let totals = self.write_log(folder);
        let manifest = self.manifest(&totals);
        let text = serde_json::to_string_pretty(&manifest).unwrap();
        fs::write(folder.join(MANIFEST_FILE), text).unwrap();
        manifest
    }

    fn write_log(&self, folder: &Path) -> Vec<(&'static str, Histogram<u64>)> {
        let mut totals: Vec<_> =
            PHASES.map(|(name, _)| (name, latency::histogram())).into_iter().collect();
        let mut file = BufWriter::new(File::create(folder.join(INTERVALS_FILE)).unwrap());
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        let started = UNIX_EPOCH + Duration::from_secs_f64(self.started);
        builder
            .add_comment("[Histogram log format version 1.3]")
            .with_start_time(started)
            .with_base_time(started)
            .with_max_value_divisor(1e6);
        let mut writer = builder.begin_log_with(&mut file, &mut serializer).unwrap();
        let mut chance = Chance(self.seed);
        for second in 0..self.seconds {
            for ((name, median), (_, total)) in PHASES.into_iter().zip(&mut totals) {
                if self.only.is_some_and(|only| only != name) {
                    continue;
                }
                let latencies = self.second(&mut chance, name, median, second);
                total.add(&latencies).unwrap();
                let (start, length) =
                    (Duration::from_secs(u64::from(second)), Duration::from_secs(1));
                writer.write_histogram(&latencies, start, length, Tag::new(name)).unwrap();
            }
        }
        file.flush().unwrap();
        totals
    }

    /// Exponential beyond three quarters of the median, a few far out, and a stall at three fifths.
    fn second(&self, chance: &mut Chance, name: &str, median: u64, second: u32) -> Histogram<u64> {
        let is_of_connection = ["connect", "banner", "ehlo"].contains(&name);
        let is_stalled =
            second == self.seconds * 3 / 5 && ["dot", "message", "e2e"].contains(&name);
        let count = if is_of_connection { 3 } else { self.per_second };
        let mut latencies = latency::histogram();
        for number in 0..count {
            let mut factor = 0.75 - 0.36 * chance.share().ln();
            if chance.share() < 0.004 {
                factor *= 4.0 + 20.0 * chance.share();
            }
            if is_stalled && number > count / 3 {
                factor += 120.0 * f64::from(count - number) / f64::from(count);
            }
            let ns = Duration::from_nanos(median).mul_f64(factor * self.slowness).as_nanos();
            latencies.saturating_record(u64::try_from(ns).unwrap());
        }
        latencies
    }

    fn manifest(&self, totals: &[(&'static str, Histogram<u64>)]) -> Manifest {
        let messages = u64::from(self.seconds) * u64::from(self.per_second);
        let quantiles = |name: &str| {
            let found = totals.iter().find(|(phase, _)| *phase == name).unwrap();
            Quantiles::of(&found.1)
        };
        let p999 = quantiles("message").p999_ms;
        Manifest {
            format: FORMAT,
            started: self.started,
            command: ["loadgen", "run", "--rate", "poisson 200/s", "--seed", "1"]
                .map(str::to_owned)
                .to_vec(),
            version: "0.1.0".to_owned(),
            commit: Some("39b3433".to_owned()),
            target: Some("220 mx.example.test ESMTP".to_owned()),
            machine: machine(),
            load: self.load(),
            totals: Totals {
                offered: messages + 12,
                acknowledged: messages,
                tempfailed: 9,
                refused: 3,
                delivered: messages,
                connections: 60,
                elapsed_s: f64::from(self.seconds),
                rate_per_s: f64::from(self.per_second) * (1.0 + Chance(self.seed).share() / 100.0),
                ..Totals::default()
            },
            ledger: Some(Ledger { duplicated: 2, ..Ledger::default() }),
            seconds: (0..self.seconds).map(|second| self.count(second)).collect(),
            steps: self.steps(quantiles("message")),
            phases: totals.iter().map(|(name, _)| ((*name).to_owned(), quantiles(name))).collect(),
            errors: vec![("451 4.3.0 try again later".to_owned(), 9), (HOSTILE.to_owned(), 3)],
            honesty: Honesty {
                slip: quantiles("slip"),
                pauses: quantiles("slip"),
                source_load: vec![0.22, 0.19],
                sink_load: vec![0.11],
                invalid: self.invalid.clone(),
            },
            requirements: vec![
                Requirement {
                    text: "p99.9<100ms".to_owned(),
                    seen: format!("{p999:.1} ms"),
                    held: p999 < 100.0,
                },
                Requirement { text: "lost=0".to_owned(), seen: "0".to_owned(), held: true },
            ],
        }
    }

    fn load(&self) -> Load {
        Load {
            kind: self.kind,
            schedule: if self.sweep { "sweep 2000/s to 14000/s" } else { "poisson 200/s" }
                .to_owned(),
            seed: self.seed,
            sessions: 20,
            threads: 2,
            sizes: "lognormal(8192, 1.2)".to_owned(),
            domains: "zipf of 100".to_owned(),
            recipients_per_message: 1,
            pipelining: false,
            chunking: false,
            tls: false,
            auth: false,
        }
    }

    fn count(&self, second: u32) -> Second {
        let mut chance = Chance(self.seed + u64::from(second));
        let count = u64::from(self.per_second);
        let is_stalled = second == self.seconds * 3 / 5;
        let acknowledged = if is_stalled { count / 3 } else { count + chance.next() % 20 };
        Second {
            at_s: f64::from(second) + 1.0,
            offered: count + chance.next() % 12,
            acknowledged,
            delivered: acknowledged.saturating_sub(chance.next() % 9),
            errors: u64::from(is_stalled) * 12,
        }
    }

    fn steps(&self, message: Quantiles) -> Vec<Step> {
        let count = if self.sweep { 8u32 } else { 1 };
        let each = f64::from(self.seconds) / f64::from(count);
        let step = |number: u32| {
            let at = f64::from(number);
            // Beyond the sixth level more is offered and no more comes back.
            let late = 1.0 + 0.12 * at + if number > 5 { 18.0 * (at - 5.0) } else { 0.0 };
            Step {
                from_s: at * each,
                to_s: (at + 1.0) * each,
                offered_per_s: 2000.0 * (at + 1.0),
                achieved_per_s: (2000.0 * (at + 1.0)).min(12_600.0) - 11.0 * at,
                message: Quantiles {
                    p50_ms: message.p50_ms * late,
                    p99_ms: message.p99_ms * late,
                    p999_ms: message.p999_ms * late,
                    ..message
                },
                is_knee: count > 1 && number == 5,
            }
        };
        (0..count).map(step).collect()
    }
}

fn machine() -> Machine {
    Machine {
        processor: "Example EX-7 at 2.4 GHz".to_owned(),
        cores: 2,
        memory_bytes: 24 << 30,
        kernel: "Linux 6.1.0".to_owned(),
        governor: Some("performance".to_owned()),
        load_before: 0.04,
    }
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above nought, at most one.
    fn share(&mut self) -> f64 {
        let part = u32::try_from(self.next() >> 33).unwrap();
        (f64::from(part) + 1.0) / f64::from(1u32 << 31)
    }
}
