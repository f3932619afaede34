//! The tables of a run's page: figures by phase, requirements, the ledger, the machine, the settings.

use super::{LINES_MAX, lines, shown};
use crate::latency::Quantiles;
use crate::report::{Measured, words};
use crate::run::manifest::{Honesty, Ledger, LoadKind, Machine, Manifest};
use crate::run::read::PHASES;

pub(super) struct PhaseRow {
    pub(super) name: &'static str,
    pub(super) figures: [String; 6],
    pub(super) what: &'static str,
}

pub(super) struct RequirementRow {
    pub(super) text: String,
    pub(super) seen: String,
    pub(super) held: bool,
}

/// Names with their values.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) rows: Vec<(&'static str, String)>,
}

/// The figures that people ask for first.
pub(super) fn tiles(run: &Measured) -> Vec<(&'static str, String)> {
    let manifest = &run.manifest;
    let mut tiles = vec![("acknowledged", words::rate(manifest.totals.rate_per_s))];
    if let Some(message) = run.phase("message").or_else(|| run.phase("dot")).map(Quantiles::of) {
        let figures = [
            ("message p50", message.p50_ms),
            ("message p99", message.p99_ms),
            ("message p99.9", message.p999_ms),
            ("message max", message.max_ms),
        ];
        tiles.extend(figures.map(|(name, ms)| (name, words::latency(ms))));
    }
    if let Some(e2e) = run.phase("e2e").map(Quantiles::of) {
        tiles.push(("end to end p99", words::latency(e2e.p99_ms)));
    }
    if let Some(ledger) = &manifest.ledger {
        tiles.push(("lost", words::count(ledger.lost)));
    }
    tiles
}

pub(super) fn phases(run: &Measured) -> Vec<PhaseRow> {
    let row = |name: &'static str| {
        let q = Quantiles::of(run.phase(name)?);
        let latencies = [q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms].map(words::latency);
        let [p50, p90, p99, p999, max] = latencies;
        let figures = [words::count(q.count), p50, p90, p99, p999, max];
        Some(PhaseRow { name, figures, what: meaning(name) })
    };
    PHASES.into_iter().filter_map(row).collect()
}

fn meaning(phase: &str) -> &'static str {
    match phase {
        "connect" => "connect to connected",
        "banner" => "connected to 220",
        "tls" => "STARTTLS to the end of the handshake",
        "ehlo" => "EHLO to its reply",
        "auth" => "AUTH to its reply",
        "wait" => "intended start to a free session",
        "slip" => "a free session to the start: the generator's own delay",
        "mail" => "MAIL to its reply",
        "rcpt" => "RCPT to its reply",
        "data" => "DATA to 354",
        "dot" => "final dot to its reply",
        "message" => "intended start to the reply to the dot",
        "queue" => "250 at the source to MAIL at the sink",
        "delivery" => "MAIL to the final dot at the sink",
        "e2e" => "intended start to the final dot at the sink",
        _ => "",
    }
}

pub(super) fn requirements(manifest: &Manifest) -> Vec<RequirementRow> {
    let row = |asked: &crate::run::manifest::Requirement| RequirementRow {
        text: shown(&asked.text),
        seen: shown(&asked.seen),
        held: asked.held,
    };
    manifest.requirements.iter().take(LINES_MAX).map(row).collect()
}

pub(super) fn tables(manifest: &Manifest) -> Vec<Table> {
    let mut tables = vec![Table { title: "Messages", rows: totals(manifest) }];
    if let Some(of) = &manifest.ledger {
        tables.push(Table { title: "Ledger, by recipient", rows: ledger(of) });
    }
    tables.push(Table { title: "Load", rows: load(manifest) });
    tables.push(Table { title: "Machine", rows: machine(&manifest.machine) });
    tables.push(Table { title: "Was the generator the limit?", rows: honesty(&manifest.honesty) });
    tables.push(Table { title: "Programs", rows: programs(manifest) });
    tables
}

fn totals(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let totals = &manifest.totals;
    vec![
        ("offered", words::count(totals.offered)),
        ("acknowledged", words::count(totals.acknowledged)),
        ("refused for now (4xx)", words::count(totals.tempfailed)),
        ("refused for good (5xx)", words::count(totals.refused)),
        ("without an answer", words::count(totals.unacknowledged)),
        ("seen by the sink", words::count(totals.delivered)),
        ("connections", words::count(totals.connections)),
        ("connections lost", words::count(totals.connection_losses)),
        ("connects failed", words::count(totals.connect_failures)),
        ("took", words::span(totals.elapsed_s)),
    ]
}

fn ledger(ledger: &Ledger) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("lost", words::count(ledger.lost)),
        ("duplicated", words::count(ledger.duplicated)),
        ("corrupted", words::count(ledger.corrupted)),
        ("invented", words::count(ledger.invented)),
        ("smuggled", words::count(ledger.smuggled)),
    ];
    let broken = lines(&ledger.caps_broken);
    let caps = if broken.is_empty() { "none".to_owned() } else { broken.join("; ") };
    rows.push(("caps passed", caps));
    rows
}

fn load(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let load = &manifest.load;
    let kind = match load.kind {
        LoadKind::OpenLoop => "open loop",
        LoadKind::Saturation => "saturation (closed loop)",
    };
    let switches = [
        ("pipelining", load.pipelining),
        ("chunking", load.chunking),
        ("TLS", load.tls),
        ("AUTH", load.auth),
    ];
    let on: Vec<_> = switches.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    vec![
        ("kind", kind.to_owned()),
        ("schedule", shown(&load.schedule)),
        ("seed", load.seed.to_string()),
        ("sessions", words::count(u64::try_from(load.sessions).unwrap_or(u64::MAX))),
        ("threads", load.threads.to_string()),
        ("sizes", shown(&load.sizes)),
        ("domains", shown(&load.domains)),
        ("recipients a message", load.recipients_per_message.to_string()),
        ("with", if on.is_empty() { "plain SMTP".to_owned() } else { on.join(", ") }),
    ]
}

fn machine(machine: &Machine) -> Vec<(&'static str, String)> {
    vec![
        ("processor", shown(&machine.processor)),
        ("cores", machine.cores.to_string()),
        ("memory", words::memory(machine.memory_bytes)),
        ("kernel", shown(&machine.kernel)),
        ("governor", machine.governor.as_deref().map_or_else(|| "not told".to_owned(), shown)),
        ("load before", format!("{:.2}", machine.load_before)),
    ]
}

fn honesty(honesty: &Honesty) -> Vec<(&'static str, String)> {
    let late = |quantiles: &Quantiles| {
        let [p99, max] = [quantiles.p99_ms, quantiles.max_ms].map(words::latency);
        format!("p99 {p99}, max {max}")
    };
    vec![
        ("schedule slip", late(&honesty.slip)),
        ("pauses", late(&honesty.pauses)),
        ("source threads busy", threads(&honesty.source_load)),
        ("sink threads busy", threads(&honesty.sink_load)),
    ]
}

fn threads(load: &[f64]) -> String {
    let shares: Vec<_> = load.iter().take(LINES_MAX).map(|part| words::share(*part)).collect();
    if shares.is_empty() { "none".to_owned() } else { shares.join(", ") }
}

fn programs(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let told = |text: &Option<String>| text.as_deref().map_or_else(|| "not told".to_owned(), shown);
    vec![
        ("loadgen", shown(&manifest.version)),
        ("commit", told(&manifest.commit)),
        ("target's banner", told(&manifest.target)),
    ]
}
