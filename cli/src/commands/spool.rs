//! `postrider spool check`: what lies in a spool, and what a start would make of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use postrider_engine::config::Size;
use postrider_engine::runtime::inspect::{
    Labelled, SegmentReport, SpoolReport, Then, Waiting, inspect,
};
use postrider_engine::spool::recovery::ScanState;

use crate::flags::SpoolCheckFlags;

/// Tenants, and campaigns, that are named: what fits a line or two.
const LABELS_SHOWN_MAX: usize = 10;
/// The same where programs read it.
const LABELS_JSON_MAX: usize = 1000;
/// Damage, or a file that does not belong there.
const FOUND_DAMAGE: u8 = 1;

pub(crate) fn check(flags: &SpoolCheckFlags) -> anyhow::Result<ExitCode> {
    let report = inspect(&flags.path)?;
    if flags.json {
        println!("{}", json(&report, flags.sample));
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_DAMAGE) })
}

fn text(report: &SpoolReport) -> String {
    let mut lines = vec![totals(report)];
    lines.extend(labels(&report.labelled));
    if report.segments.iter().any(|segment| segment.then != Then::Reuse) {
        lines.push(format!("\n{}\n", table(report).trim_fmt()));
    }
    lines.extend(report.refused.iter().map(|refused| {
        let (path, cause) = (refused.path.display(), &refused.cause);
        format!("{path}: {cause}; a start is refused until it is moved away")
    }));
    lines.extend(report.not_started.iter().map(ToString::to_string));
    let half_made = report.unfinished.iter().map(|path| path.display());
    lines.extend(half_made.map(|path| format!("{path}: half made; the next start removes it")));
    let unreadable = report.segments.iter().filter(|segment| segment.unreadable_blocks > 0);
    lines.extend(unreadable.map(|segment| {
        let (file, blocks) = (segment.file.0, segment.unreadable_blocks);
        format!("{file:08}.seg: the disk cannot read {blocks} blocks of 4 KiB")
    }));
    lines.extend(report.findings.iter().map(ToString::to_string));
    lines.push(if report.is_sound() { "sound" } else { "not sound: see above" }.to_owned());
    lines.join("\n") + "\n"
}

/// Whose the messages are, in two lines at most.
fn labels(labelled: &[Labelled]) -> Vec<String> {
    let mut tenants: BTreeMap<&str, usize> = BTreeMap::new();
    for one in labelled.iter().filter(|one| !one.tenant.is_empty()) {
        *tenants.entry(&one.tenant).or_default() += one.messages;
    }
    let mut tenants: Vec<_> =
        tenants.into_iter().map(|(name, messages)| (name.to_owned(), messages)).collect();
    tenants.sort_by_key(|(_, messages)| Reverse(*messages));
    let campaigns = labelled.iter().filter(|one| !one.campaign.is_empty()).map(|one| {
        let of = if one.tenant.is_empty() { String::new() } else { format!(" of {}", one.tenant) };
        (format!("{}{of}", one.campaign), one.messages)
    });
    let lines = [("tenants", tenants), ("campaigns", campaigns.collect())];
    let lines = lines.into_iter().filter(|(_, counts)| !counts.is_empty());
    lines.map(|(what, counts)| format!("{what}: {}", first_of(&counts))).collect()
}

fn first_of(counts: &[(String, usize)]) -> String {
    let shown = counts.iter().take(LABELS_SHOWN_MAX);
    let shown: Vec<_> = shown.map(|(name, messages)| format!("{name} {messages}")).collect();
    let more = match counts.len() - shown.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    shown.join(", ") + &more
}

fn totals(report: &SpoolReport) -> String {
    let all = &report.segments;
    let spares = all.iter().filter(|segment| segment.then == Then::Reuse).count();
    let bytes: u64 = all.iter().map(|segment| u64::from(segment.summary.file_bytes)).sum();
    format!(
        "{} segments in use, {spares} spare, {} in all; {} messages to {} recipients are queued, {} \
         things kept beside them",
        all.len() - spares,
        Size(bytes),
        report.messages,
        report.recipients,
        report.states
    )
}

fn table(report: &SpoolReport) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["file", "segment", "shard", "state", "messages", "live", "at a start"]);
    for segment in report.segments.iter().filter(|segment| segment.then != Then::Reuse) {
        let summary = &segment.summary;
        table.add_row([
            format!("{:08}", segment.file.0),
            format!("{:X}", summary.segment.0),
            summary.shard.0.to_string(),
            state(segment).to_owned(),
            summary.messages.to_string(),
            segment.live.to_string(),
            then(segment).to_owned(),
        ]);
    }
    table
}

fn state(segment: &SegmentReport) -> &'static str {
    match segment.summary.state {
        ScanState::Spare => "spare",
        ScanState::HalfFreed => "half freed",
        ScanState::Open => "open",
        ScanState::Sealed => "sealed",
    }
}

fn then(segment: &SegmentReport) -> &'static str {
    match segment.then {
        Then::Reuse => "reuse",
        Then::Recycle => "recycle",
        Then::Keep => "keep",
        Then::Deliver => "deliver",
    }
}

fn json(report: &SpoolReport, sample: usize) -> serde_json::Value {
    let segments: Vec<_> = report.segments.iter().map(segment_json).collect();
    let refused: Vec<_> = report
        .refused
        .iter()
        .map(|file| serde_json::json!({ "path": file.path, "cause": file.cause }))
        .collect();
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            serde_json::json!({ "damage": finding.is_damage(), "text": finding.to_string() })
        })
        .collect();
    let sample: Vec<_> = report.sample(sample).map(waiting_json).collect();
    serde_json::json!({
        "sound": report.is_sound(),
        "messages": report.messages,
        "deliveries": report.deliveries,
        "recipients": report.recipients,
        "states": report.states,
        "labelled": report.labelled.iter().take(LABELS_JSON_MAX).map(labelled_json).collect::<Vec<_>>(),
        "deferred": report.deferred(),
        "sample": sample,
        "segments": segments,
        "not_started": report.not_started,
        "refused": refused,
        "unfinished": report.unfinished,
        "findings": findings,
    })
}

fn labelled_json(labelled: &Labelled) -> serde_json::Value {
    serde_json::json!({
        "tenant": labelled.tenant,
        "campaign": labelled.campaign,
        "messages": labelled.messages,
    })
}

fn waiting_json(delivery: &Waiting) -> serde_json::Value {
    serde_json::json!({
        "message": delivery.message.to_string(),
        "first_recipient": delivery.first,
        "attempts": delivery.attempts,
        "next_try": delivery.next_try.map(|next| next.0),
    })
}

fn segment_json(segment: &SegmentReport) -> serde_json::Value {
    let summary = &segment.summary;
    serde_json::json!({
        "file": format!("{:08}.seg", segment.file.0),
        "segment": summary.segment.0,
        "generation": summary.generation,
        "shard": summary.shard.0,
        "bytes": summary.file_bytes,
        "state": state(segment),
        "messages": summary.messages,
        "outcome_entries": summary.outcomes,
        "state_entries": summary.states,
        "live": segment.live,
        "unreadable_blocks": segment.unreadable_blocks,
        "at_start": then(segment),
    })
}
