//! The figures of a run under way: a screen on a terminal, JSON lines elsewhere, or nothing.

use std::io::{Write as _, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use postrider_loadgen::latency::{Latencies, Phase, Quantiles};
use postrider_loadgen::run::Moment;

/// Phases on the screen: what people look at first.
const PHASES: [Phase; 5] =
    [Phase::Message, Phase::Dot, Phase::Queue, Phase::Delivery, Phase::EndToEnd];

pub(crate) enum Live {
    Screen(ProgressBar),
    Lines,
    Nothing,
}

impl Live {
    pub(crate) fn screen() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self::Screen(bar)
    }

    pub(crate) fn show(&self, moment: &Moment<'_>) {
        match self {
            Self::Screen(bar) => {
                bar.set_message(screen(moment));
                bar.tick();
            }
            // Whoever read the lines may have gone; the run and its report go on.
            Self::Lines => drop(writeln!(stdout(), "{}", line(moment))),
            Self::Nothing => {}
        }
    }

    pub(crate) fn finish(self) {
        if let Self::Screen(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn screen(moment: &Moment<'_>) -> String {
    let second = &moment.second;
    let wanted = match moment.wanted_per_s {
        Some(rate) => format!("{rate:.0}/s"),
        None if moment.is_settling => "nothing, waiting for what is under way".to_owned(),
        None => "saturation".to_owned(),
    };
    let mut text = format!("{:>8.0} s   wanted {wanted}\n", second.at_s);
    text += &format!("{:<12}{:>12}{:>12}{:>12}{:>12}\n", "", "begun", "250", "arrived", "errors");
    let row = |name: &str, figures: [u64; 4]| {
        let columns: String = figures.iter().map(|figure| format!("{figure:>12}")).collect();
        format!("{name:<12}{columns}\n")
    };
    text +=
        &row("this second", [second.offered, second.acknowledged, second.delivered, second.errors]);
    let sent = &moment.sent;
    let errors = sent.tempfailed
        + sent.refused
        + sent.unacknowledged
        + sent.connection_losses
        + sent.connect_failures;
    let delivered = moment.delivered.unwrap_or(0);
    text += &row("in all", [sent.offered, sent.acknowledged, delivered, errors]);
    text += &super::latency_heading();
    for (phase, values) in shown(moment.latencies) {
        text += "\n";
        text += &super::quantiles_row(phase.name(), &values);
    }
    text
}

fn line(moment: &Moment<'_>) -> serde_json::Value {
    let phases: serde_json::Map<_, _> = moment
        .latencies
        .iter()
        .map(|(phase, values)| (phase.name().to_owned(), Quantiles::of(values).to_json()))
        .collect();
    serde_json::json!({
        "at_s": moment.second.at_s,
        "wanted_per_s": moment.wanted_per_s,
        "offered": moment.second.offered,
        "acknowledged": moment.second.acknowledged,
        "delivered": moment.second.delivered,
        "errors": moment.second.errors,
        "settling": moment.is_settling,
        "sent": moment.sent,
        "phases": phases,
    })
}

fn shown(latencies: &Latencies) -> impl Iterator<Item = (Phase, Quantiles)> {
    PHASES.into_iter().filter_map(|phase| Some((phase, Quantiles::of(latencies.get(phase)?))))
}
