//! What the demo shows at its end: rates, latencies, limits, and the verdict of the ledgers.

use std::io::Write as _;

use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use postrider_engine::report::counters::Counters;
use postrider_engine::runtime::Summary;
use postrider_loadgen::latency::Quantiles;
use postrider_loadgen::sink::HostReport;
use postrider_loadgen::source::Phase;
use serde_json::json;

use super::world::{BUSY, DOWN, Outcome, Plan, SITE_CONNECTIONS};

/// Domains of the table, the two difficult ones among them.
const DOMAINS_SHOWN: usize = 6;

/// The end of a demo.
pub(super) struct Report {
    outcome: Outcome,
    messages: u64,
}

impl Report {
    pub(super) fn new(plan: &Plan, outcome: Outcome) -> Self {
        Self { outcome, messages: plan.messages }
    }

    /// All messages accepted, all delivered, none damaged, no limit passed.
    pub(super) fn is_good(&self) -> bool {
        let verdict = &self.outcome.verdict;
        verdict.is_clean() && verdict.delivered == self.messages && self.is_within_limits()
    }

    fn is_within_limits(&self) -> bool {
        self.outcome.sink.hosts.iter().all(|host| host.concurrent_max <= SITE_CONNECTIONS)
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        let text = if json {
            serde_json::to_string_pretty(&self.to_json())?
        } else {
            format!(
                "{}\n\n{}\n\n{}\n\n{}",
                self.rates(),
                self.phases(),
                self.limits(),
                self.words()
            )
        };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(())
    }

    fn rates(&self) -> Table {
        let source = &self.outcome.source;
        let delivered = self.outcome.verdict.delivered;
        let mut table = new_table(&["", "messages", "per second"]);
        table.add_row([
            "accepted, durable before 250",
            &count(source.sent.acknowledged),
            &rate(source.rate),
        ]);
        table.add_row(["delivered to 100 domains", &count(delivered), "-"]);
        table
    }

    fn phases(&self) -> Table {
        let mut table = new_table(&["latency, milliseconds", "p50", "p99", "p99.9", "max"]);
        for (name, quantiles) in self.latencies() {
            let Quantiles { p50_ms, p99_ms, p999_ms, max_ms, .. } = quantiles;
            let ms = |value: f64| format!("{value:.2}");
            table.add_row([name.to_owned(), ms(p50_ms), ms(p99_ms), ms(p999_ms), ms(max_ms)]);
        }
        table
    }

    fn latencies(&self) -> Vec<(&'static str, Quantiles)> {
        let source = &self.outcome.source;
        let phase = |phase| Quantiles::of(source.phase(phase));
        vec![
            ("connect", phase(Phase::Connect)),
            ("banner", phase(Phase::Banner)),
            ("MAIL, RCPT, DATA in one flight", phase(Phase::Mail)),
            ("final dot to 250 (the commit)", phase(Phase::Dot)),
            ("sent to delivered, end to end", Quantiles::of(&self.outcome.sink.end_to_end)),
        ]
    }

    fn limits(&self) -> Table {
        let mut table =
            new_table(&["domain", "delivered", "most connections at once", "limit", "4xx"]);
        for (index, host) in self.hosts_shown() {
            let name = match index {
                BUSY => "d7.demo.test (said 421 for a while)".to_owned(),
                DOWN => "d42.demo.test (was down for a while)".to_owned(),
                other => format!("d{other}.demo.test"),
            };
            let (most, limit) = (host.concurrent_max.to_string(), SITE_CONNECTIONS.to_string());
            table.add_row([name, count(host.recipients), most, limit, count(host.replies_4xx)]);
        }
        table
    }

    fn hosts_shown(&self) -> Vec<(usize, &HostReport)> {
        let mut hosts: Vec<_> = self.outcome.sink.hosts.iter().enumerate().collect();
        hosts.sort_by_key(|(index, host)| {
            (!matches!(*index, BUSY | DOWN), std::cmp::Reverse(host.concurrent_max), *index)
        });
        hosts.truncate(DOMAINS_SHOWN);
        hosts
    }

    fn words(&self) -> String {
        let verdict = &self.outcome.verdict;
        let limit =
            if self.is_within_limits() { "no limit was passed" } else { "A LIMIT WAS PASSED" };
        format!("{verdict}\n{limit}")
    }

    fn to_json(&self) -> serde_json::Value {
        let Outcome { source, sink, verdict, engine } = &self.outcome;
        let latencies: serde_json::Map<_, _> = self
            .latencies()
            .into_iter()
            .map(|(name, quantiles)| (name.to_owned(), quantiles.to_json()))
            .collect();
        json!({
            "good": self.is_good(),
            "messages": self.messages,
            "accepted_per_second": source.rate,
            "latency": latencies,
            "connections_limit": SITE_CONNECTIONS,
            "limits_kept": self.is_within_limits(),
            "hosts": sink.hosts,
            "verdict": verdict,
            "source": source.to_json(),
            "sink": sink.to_json(),
            "engine": counters_json(engine),
        })
    }
}

/// What the engine counted, all shards together, by the names of its metrics.
fn counters_json(engine: &Summary) -> serde_json::Value {
    let total = engine.total();
    let metrics = Counters::METRICS.iter();
    metrics.map(|metric| (metric.name.to_owned(), json!((metric.read)(&total)))).collect()
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn rate(per_second: f64) -> String {
    format!("{per_second:.0}")
}
