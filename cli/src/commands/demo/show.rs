//! The demo's live lines on a terminal; silence where nobody watches.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::world::Glance;

/// Two bars and a line about what happens.
pub(super) struct Show {
    all: MultiProgress,
    accepted: ProgressBar,
    delivered: ProgressBar,
    note: ProgressBar,
}

impl Show {
    pub(super) fn new(json: bool, messages: u64) -> Self {
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let all = MultiProgress::with_draw_target(target);
        let bar = |name: &'static str| {
            let bar = all.add(ProgressBar::new(messages).with_style(bar_style()));
            bar.set_prefix(name);
            bar
        };
        let (accepted, delivered) = (bar("accepted "), bar("delivered"));
        let note = all.add(ProgressBar::new_spinner().with_style(note_style()));
        note.enable_steady_tick(Duration::from_millis(250));
        Self { all, accepted, delivered, note }
    }

    pub(super) fn draw(&self, glance: &Glance) {
        self.accepted.set_position(glance.accepted);
        self.delivered.set_position(glance.delivered);
        let Glance { connections, throttled, note, .. } = glance;
        self.note
            .set_message(format!("{connections} connections out, {throttled} times 4xx; {note}"));
    }

    pub(super) fn finish(self) {
        self.accepted.finish();
        self.delivered.finish();
        self.note.finish_and_clear();
        drop(self.all);
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:40}] {human_pos:>9} of {human_len}  {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn note_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
