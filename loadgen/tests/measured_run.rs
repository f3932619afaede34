//! Runs that are recorded: what stands in their folder, and what the program says of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage should stop")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use postrider_loadgen::loopback::loopback_hosts;
use postrider_loadgen::run::manifest::{LoadKind, Manifest};
use postrider_loadgen::run::{Assignment, Findings, Moment, Threshold, conduct};
use postrider_loadgen::sink::{Behaviour, Sink, SinkHost, SinkPlan};
use postrider_loadgen::source::{Domains, Schedule, Shape, SourcePlan, Spacing};

/// A sink that is its own target.
fn assignment(change: impl FnOnce(&mut SourcePlan)) -> (Assignment, SinkHost) {
    let hosts = loopback_hosts(1).unwrap();
    let host = hosts[0].clone();
    let mut source = SourcePlan::new(host.address, Domains::one("d.test"));
    source.sessions = 4;
    change(&mut source);
    let sink = SinkPlan { run: Some(1), ..SinkPlan::new(hosts) };
    let assignment = Assignment {
        source,
        sink: Some(sink),
        folder: None,
        settle: Duration::from_secs(10),
        knee_p99: Duration::from_secs(10),
        thresholds: Vec::new(),
        command: Vec::new(),
    };
    (assignment, host)
}

fn play(assignment: Assignment, behaviour: Behaviour) -> Findings {
    let prepare = |sink: &Sink| sink.set_behaviour(0, behaviour);
    conduct(assignment, prepare, |_| {}, || false).unwrap()
}

/// Values in a log, by tag.
fn logged(folder: &Path, tag: &str) -> u64 {
    let file = fs::read(folder.join("run.hlog")).unwrap();
    let mut count = 0;
    for entry in IntervalLogIterator::new(&file) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        if interval.tag().unwrap().as_str() != tag {
            continue;
        }
        use base64::Engine as _;
        let text = interval.encoded_histogram();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let mut reader = hdrhistogram::serialization::Deserializer::new();
        let values: hdrhistogram::Histogram<u64> = reader.deserialize(&mut &bytes[..]).unwrap();
        count += values.len();
    }
    count
}

#[test]
fn a_run_leaves_every_message_in_its_manifest_and_in_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut assignment, host) = assignment(|plan| {
        plan.messages = Some(1200);
        plan.threads = 2;
        plan.schedule =
            Some(Schedule { shape: Shape::Constant { rate: 1000.0 }, spacing: Spacing::Poisson });
    });
    assignment.folder = Some(folder.path().to_owned());
    assignment.thresholds =
        ["lost=0", "e2e.max<10s", "message.p50<1us"].map(|text| text.parse().unwrap()).to_vec();
    let mut moments = 0;
    let watch = |moment: &Moment<'_>| moments += u64::from(moment.second.offered > 0);
    let findings = conduct(assignment, |_| Ok(()), watch, || false).unwrap();
    assert!(moments >= 1);

    let text = fs::read_to_string(folder.path().join("run.json")).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest, findings.manifest);
    let totals = &manifest.totals;
    assert_eq!((totals.offered, totals.acknowledged, totals.delivered), (1200, 1200, 1200));
    assert_eq!(manifest.load.kind, LoadKind::OpenLoop);
    assert_eq!(manifest.load.schedule, "poisson 1000/s");
    assert_eq!(
        manifest.target.as_deref(),
        Some(format!("220 {} ESMTP loadgen", host.name).as_str())
    );
    assert_eq!(
        manifest.ledger.as_ref().map(|ledger| (ledger.lost, ledger.duplicated)),
        Some((0, 0))
    );
    assert_eq!(manifest.seconds.iter().map(|second| second.delivered).sum::<u64>(), 1200);
    assert_eq!(manifest.honesty.source_load.len(), 2);
    assert!(manifest.honesty.pauses.count > 100);
    let held: Vec<_> = manifest.requirements.iter().map(|requirement| requirement.held).collect();
    assert_eq!(held, [true, true, false]);
    for phase in ["message", "dot", "slip", "wait", "e2e", "delivery", "queue"] {
        assert_eq!(manifest.phases[phase].count, 1200, "{phase}");
        assert_eq!(logged(folder.path(), phase), 1200, "{phase}");
    }
    assert!(!manifest.phases.contains_key("tls"));
}

#[test]
fn a_run_that_reached_nobody_measured_nothing() {
    let (assignment, _) = assignment(|plan| plan.messages = Some(10));
    let manifest = play(assignment, Behaviour::Refuse).manifest;
    assert_eq!(manifest.totals.offered, 0);
    let invalid = &manifest.honesty.invalid;
    assert!(invalid.iter().any(|reason| reason.contains("no message was offered")), "{invalid:?}");
}

#[test]
fn a_sweep_ends_at_the_knee_and_marks_it() {
    // Two sessions of four 5 ms replies a message: 100 a second at the most.
    let (mut assignment, _) = assignment(|plan| {
        plan.sessions = 2;
        let step = Duration::from_secs(1);
        let shape = Shape::Sweep { from: 30.0, to: 210.0, levels: 4, step };
        plan.schedule = Some(Schedule { shape, spacing: Spacing::Even });
    });
    assignment.knee_p99 = Duration::from_millis(300);
    let manifest = play(assignment, Behaviour::Slow(Duration::from_millis(5))).manifest;
    let rates: Vec<_> = manifest.steps.iter().map(|step| step.offered_per_s).collect();
    assert!(rates.starts_with(&[30.0, 90.0, 150.0]), "{rates:?}");
    let knee: Vec<_> = manifest.steps.iter().map(|step| step.is_knee).collect();
    assert_eq!(knee.iter().position(|is_knee| *is_knee), Some(1), "{:?}", manifest.steps);
    assert!(manifest.steps[2].achieved_per_s < 120.0, "{:?}", manifest.steps);
    assert!(manifest.totals.offered < 480, "it went on behind the knee");
}

#[test]
fn a_schedule_that_ends_ends_its_sessions_once() {
    let (assignment, _) = assignment(|plan| {
        let step = Duration::from_millis(200);
        let shape = Shape::Sweep { from: 20.0, to: 40.0, levels: 2, step };
        plan.schedule = Some(Schedule { shape, spacing: Spacing::Even });
        plan.messages = Some(1_000_000);
    });
    let totals = play(assignment, Behaviour::Accept).manifest.totals;
    assert_eq!((totals.offered, totals.acknowledged), (12, 12));
    assert_eq!(totals.connections, 4, "a session came back though nothing was left to send");
}

#[test]
fn a_slow_target_makes_waits_and_no_slip() {
    let (assignment, _) = assignment(|plan| {
        plan.sessions = 1;
        plan.rate = Some(100.0);
        plan.messages = Some(30);
    });
    let manifest = play(assignment, Behaviour::Slow(Duration::from_millis(10))).manifest;
    assert!(manifest.phases["wait"].max_ms > 500.0, "{:?}", manifest.phases["wait"]);
    assert!(manifest.phases["message"].max_ms > 500.0);
    assert!(manifest.phases["slip"].p99_ms < 100.0, "{:?}", manifest.phases["slip"]);
}

#[test]
fn what_never_arrives_is_lost_when_patience_ends() {
    let (mut assignment, _) = assignment(|plan| plan.messages = Some(20));
    // The target takes the mail and the sink sees none of it.
    let target = Sink::start(SinkPlan::new(loopback_hosts(1).unwrap())).unwrap();
    assignment.source.to = target.hosts()[0].address;
    assignment.settle = Duration::from_millis(600);
    assignment.thresholds = vec!["lost=0".parse::<Threshold>().unwrap()];
    let manifest = play(assignment, Behaviour::Accept).manifest;
    assert_eq!(manifest.load.kind, LoadKind::Saturation);
    assert_eq!(manifest.load.schedule, "saturation");
    assert_eq!(manifest.ledger.unwrap().lost, 20);
    assert_eq!(
        (manifest.requirements[0].seen.as_str(), manifest.requirements[0].held),
        ("20", false)
    );
    assert!(manifest.honesty.invalid.is_empty());
}

#[test]
fn the_load_of_a_thread_is_its_own() {
    let (assignment, _) = assignment(|plan| {
        plan.duration = Some(Duration::from_millis(1500));
        plan.sessions = 20;
    });
    let findings = play(assignment, Behaviour::Accept);
    let honesty = &findings.manifest.honesty;
    // The run lasts a little longer than its threads, which report in their own time.
    let told = honesty.source_load[0] * 1.5;
    let used = findings.source.cpu_seconds;
    assert!((0.8 * used..1.5 * used).contains(&told), "{told} of {used}");
    let told = honesty.sink_load[0] * findings.manifest.totals.elapsed_s;
    let used = findings.sink.as_ref().map(|(report, _)| report.cpu_seconds).unwrap();
    assert!((0.5 * used..1.5 * used).contains(&told), "{told} of {used}");
}

fn loadgen(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(arguments).stdout(Stdio::piped());
    command
}

#[test]
fn an_interrupted_run_still_writes_its_report() {
    let sink = Sink::start(SinkPlan::new(loopback_hosts(1).unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (to, out) = (sink.hosts()[0].address.to_string(), folder.path().to_str().unwrap());
    let arguments = ["source", "--to", &to, "--rate", "200/s", "--seconds", "600", "--out", out];
    let mut child = loadgen(&arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(first["offered"].as_u64().unwrap() > 50, "{first}");
    assert_eq!(first["wanted_per_s"], 200.0);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let last = lines.map(Result::unwrap).last().unwrap();
    let printed = Manifest::parse(&last).unwrap();
    let status = child.wait().unwrap();
    assert!(
        matches!(status.code(), Some(0 | 2)),
        "{status}: 2 is for a machine too slow for the test"
    );
    let kept = fs::read_to_string(folder.path().join("run.json")).unwrap();
    assert_eq!(Manifest::parse(&kept).unwrap(), printed);
    assert_eq!(printed.totals.acknowledged, printed.totals.offered);
    assert_eq!(logged(folder.path(), "message"), printed.totals.acknowledged);
    assert_eq!(printed.command[1..], arguments);
}

#[test]
fn a_requirement_that_does_not_hold_is_exit_code_1() {
    let sink = Sink::start(SinkPlan::new(loopback_hosts(1).unwrap())).unwrap();
    let to = sink.hosts()[0].address.to_string();
    let run = |demand: &str| {
        let output =
            loadgen(&["source", "--to", &to, "--messages", "50", "--require", demand]).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run("rate>=1/s");
    assert!(code == Some(0) && text.contains("held   rate>=1/s"), "{text}");
    assert!(text.contains("saturation"), "{text}");
    let (code, text) = run("acknowledged=51");
    assert!(code == Some(1) && text.contains("BROKEN acknowledged=51 (50)"), "{text}");
}
