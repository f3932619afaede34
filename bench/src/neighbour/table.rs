//! The figures as a table for people.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::figures::Figures;

const COLUMNS: [&str; 11] = [
    "",
    "delivered",
    "given up",
    "deferred",
    "utilisation",
    "closed door",
    "connections",
    "recovery, worst / herd / knocks",
    "queue p50 / p99",
    "Jain 1 s",
    "transactional p99",
];

pub(crate) fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a Figures)>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(COLUMNS);
    for (name, figures) in rows {
        table.add_row(cells(name, figures));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(name: &str, figures: &Figures) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        name.to_owned(),
        figures.delivered.to_string(),
        figures.given_up.to_string(),
        percent(figures.deferred),
        or_dash(figures.utilisation.map(percent)),
        figures.closed_door.to_string(),
        figures.open_most.to_string(),
        or_dash(figures.recovery.map(|one| {
            let time = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), brief);
            let (mean, worst) = (time(one.mean), time(one.worst));
            format!("{mean}, {worst} / {} per s / {:.0}", one.herd, one.knocks)
        })),
        format!("{} / {}", brief(figures.in_queue_p50), brief(figures.in_queue_p99)),
        or_dash(figures.jain.map(|index| format!("{index:.3}"))),
        or_dash(figures.transactional.map(|times| format!("{times:.1} services"))),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Two digits that matter.
fn brief(wait: Duration) -> String {
    let seconds = wait.as_secs_f64();
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ if seconds < 600.0 => format!("{seconds:.0} s"),
        _ if seconds < 36_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}
