//! The manifest of a run, made of its plan, its reports and its records.

use std::collections::BTreeMap;

use super::collector::Collector;
use super::honesty;
use super::machine::machine;
use super::manifest::{FORMAT, Honesty, Ledger, Load, LoadKind, Manifest, Second, Step, Totals};
use super::recorder::{Side, StepValues};
use crate::clock;
use crate::latency::{self, Latencies, Phase, Quantiles};
use crate::ledger::Verdict;
use crate::sink::SinkReport;
use crate::source::{Schedule, SourcePlan, SourceReport};

/// A level whose rate is kept by less has given way.
pub(super) const ACHIEVED_SHARE_MIN: f64 = 0.95;

/// What was asked.
pub(super) struct Asked<'a> {
    pub(super) plan: &'a SourcePlan,
    pub(super) command: Vec<String>,
    /// A level whose messages wait for longer at p99 has given way.
    pub(super) knee_p99_ms: f64,
    /// Seconds since 1970 at the start.
    pub(super) started: f64,
    pub(super) load_before: f64,
}

/// What came of it.
pub(super) struct Seen<'a> {
    pub(super) source: &'a SourceReport,
    pub(super) sink: Option<(&'a SinkReport, &'a Verdict)>,
    pub(super) delivered: u64,
    pub(super) collector: &'a Collector,
    pub(super) seconds: Vec<Second>,
    pub(super) pauses: hdrhistogram::Histogram<u64>,
    /// Start to the last reply and the last delivery.
    pub(super) elapsed_s: f64,
}

/// The manifest without the verdicts on requirements.
pub(super) fn manifest(asked: &Asked<'_>, seen: Seen<'_>) -> Manifest {
    let totals = totals(&seen);
    let schedule = asked.plan.open_loop();
    let steps = match schedule {
        Some(schedule) if seen.collector.steps.len() > 1 => {
            let mut steps = steps(&schedule, &seen.collector.steps, seen.elapsed_s);
            mark_knee(&mut steps, asked.knee_p99_ms);
            steps
        }
        _ => vec![only_step(&totals, &seen.collector.total)],
    };
    Manifest {
        format: FORMAT,
        started: asked.started,
        command: asked.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("POSTRIDER_COMMIT").map(str::to_owned),
        target: seen.source.banner.clone(),
        machine: super::manifest::Machine { load_before: asked.load_before, ..machine() },
        load: load(asked.plan, schedule),
        totals,
        ledger: seen.sink.map(|(sink, verdict)| ledger(sink, verdict)),
        steps,
        phases: phases(&seen.collector.total),
        errors: seen.source.errors.clone(),
        honesty: honesty(schedule.is_some(), &seen),
        seconds: seen.seconds,
        requirements: Vec::new(),
    }
}

fn load(plan: &SourcePlan, schedule: Option<Schedule>) -> Load {
    let recipients = plan.message_recipients();
    Load {
        kind: if schedule.is_some() { LoadKind::OpenLoop } else { LoadKind::Saturation },
        schedule: schedule.map_or_else(|| "saturation".to_owned(), |s| s.to_string()),
        seed: plan.seed,
        sessions: plan.sessions,
        threads: plan.thread_count(),
        sizes: plan.message_sizes().to_string(),
        domains: plan.domains.to_string(),
        recipients_per_message: recipients.map_or(plan.recipients_per_message, |r| r.mean()),
        pipelining: plan.pipelining,
        chunking: plan.chunking,
        tls: plan.tls,
        auth: plan.auth.is_some(),
    }
}

fn totals(seen: &Seen<'_>) -> Totals {
    let sent = &seen.source.sent;
    Totals {
        offered: sent.offered,
        acknowledged: sent.acknowledged,
        tempfailed: sent.tempfailed,
        refused: sent.refused,
        unacknowledged: sent.unacknowledged,
        delivered: seen.delivered,
        connections: sent.connections,
        connection_losses: sent.connection_losses,
        connect_failures: sent.connect_failures,
        elapsed_s: seen.elapsed_s,
        rate_per_s: per_second(sent.acknowledged, seen.elapsed_s),
    }
}

fn ledger(sink: &SinkReport, verdict: &Verdict) -> Ledger {
    Ledger {
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        corrupted: verdict.corrupted,
        invented: verdict.invented,
        smuggled: verdict.smuggled,
        caps_broken: sink.caps_broken.clone(),
    }
}

fn phases(total: &Latencies) -> BTreeMap<String, Quantiles> {
    total.iter().map(|(phase, values)| (phase.name().to_owned(), Quantiles::of(values))).collect()
}

fn honesty(is_open_loop: bool, seen: &Seen<'_>) -> Honesty {
    let (source, sink) = (seen.collector.loads(Side::Source), seen.collector.loads(Side::Sink));
    let slip = seen.collector.total.get(Phase::Slip);
    let mut honesty = honesty::judge(is_open_loop, slip, &seen.pauses, [&source, &sink]);
    if seen.source.sent.offered == 0 {
        honesty.invalid.push("no message was offered: nothing was measured".to_owned());
    }
    if let Some((sink, _)) = seen.sink {
        honesty.invalid.extend(sink.failures.iter().cloned());
    }
    honesty
}

fn only_step(totals: &Totals, total: &Latencies) -> Step {
    Step {
        from_s: 0.0,
        to_s: totals.elapsed_s,
        offered_per_s: per_second(totals.offered, totals.elapsed_s),
        achieved_per_s: totals.rate_per_s,
        message: quantiles(total.get(Phase::Message)),
        is_knee: false,
    }
}

/// The steps that began before the run ended.
fn steps(schedule: &Schedule, values: &[StepValues], elapsed_s: f64) -> Vec<Step> {
    let begun = values
        .iter()
        .enumerate()
        .map_while(|(index, values)| step(schedule, index, values, elapsed_s));
    begun.collect()
}

/// One step, up to the end of the run if that came first.
pub(super) fn step(
    schedule: &Schedule,
    index: usize,
    values: &StepValues,
    elapsed_s: f64,
) -> Option<Step> {
    let width_ns = schedule.steps().width_ns;
    let edge = |index: usize| clock::seconds(width_ns.saturating_mul(index as u64));
    let (from_s, to_s) = (edge(index), edge(index + 1).min(elapsed_s));
    (to_s > from_s).then(|| Step {
        from_s,
        to_s,
        offered_per_s: schedule.rate_at(f64::midpoint(from_s, edge(index + 1))),
        achieved_per_s: per_second(values.acknowledged, to_s - from_s),
        message: quantiles(values.message.as_deref()),
        is_knee: false,
    })
}

/// Says whether rate or latency of a level gave way.
pub(super) fn has_given_way(step: &Step, p99_max_ms: f64) -> bool {
    step.achieved_per_s < ACHIEVED_SHARE_MIN * step.offered_per_s
        || step.message.p99_ms > p99_max_ms
}

/// Marks the last step before the first that gave way, if there are both.
fn mark_knee(steps: &mut [Step], p99_max_ms: f64) {
    let first = steps.iter().position(|step| has_given_way(step, p99_max_ms));
    if let Some(before) = first.and_then(|first| first.checked_sub(1)) {
        steps[before].is_knee = true;
    }
}

fn quantiles(values: Option<&hdrhistogram::Histogram<u64>>) -> Quantiles {
    values.map_or_else(|| Quantiles::of(&latency::histogram()), Quantiles::of)
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs seven digits")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest with nothing in it.
    pub(crate) fn manifest() -> Manifest {
        let plan =
            SourcePlan::new("127.0.0.1:25".parse().unwrap(), crate::source::Domains::one("d.test"));
        let nothing = quantiles(None);
        Manifest {
            format: FORMAT,
            started: 0.0,
            command: Vec::new(),
            version: String::new(),
            commit: None,
            target: None,
            machine: machine(),
            load: load(&plan, None),
            totals: Totals::default(),
            ledger: None,
            seconds: Vec::new(),
            steps: Vec::new(),
            phases: BTreeMap::new(),
            errors: Vec::new(),
            honesty: Honesty {
                slip: nothing,
                pauses: nothing,
                source_load: Vec::new(),
                sink_load: Vec::new(),
                invalid: Vec::new(),
            },
            requirements: Vec::new(),
        }
    }

    #[test]
    fn the_knee_is_the_last_level_before_rate_or_latency_gives_way() {
        let level = |offered_per_s: f64, achieved_per_s, p99_ms| Step {
            from_s: 0.0,
            to_s: 1.0,
            offered_per_s,
            achieved_per_s,
            message: Quantiles { p99_ms, ..quantiles(None) },
            is_knee: false,
        };
        let knee = |steps: &[Step]| {
            let mut steps = steps.to_vec();
            mark_knee(&mut steps, 100.0);
            steps.iter().position(|step| step.is_knee)
        };
        let (good, slow, short) =
            (level(10.0, 9.9, 5.0), level(20.0, 20.0, 101.0), level(30.0, 28.0, 5.0));
        assert_eq!(knee(&[good, good, slow]), Some(1));
        assert_eq!(knee(&[good, short, good]), Some(0));
        assert_eq!(knee(&[slow, good]), None, "it gave way from the first");
        assert_eq!(knee(&[good, good]), None, "it never gave way");
    }
}
