//! Least, middle and most of a few figures, as a row of a table.

use std::time::Duration;

/// Figures of one kind, one for each round.
#[derive(Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn heading() -> String {
        format!("{:<28}{:>12}{:>12}{:>12}{:>12}", "", "min", "median", "mean", "max")
    }

    #[expect(clippy::cast_precision_loss, reason = "a table needs seven digits")]
    pub(crate) fn count(&mut self, figure: u64) {
        self.0.push(figure as f64);
    }

    pub(crate) fn time(&mut self, figure: Duration) {
        self.0.push(figure.as_secs_f64() * 1e3);
    }

    pub(crate) fn figure(&mut self, figure: f64) {
        self.0.push(figure);
    }

    #[expect(clippy::cast_precision_loss, reason = "a table needs seven digits")]
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    pub(crate) fn row(&self, name: &str) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        if sorted.is_empty() {
            return format!("{name:<28}{:>12}", "-");
        }
        let [least, middle, most] = [0, sorted.len() / 2, sorted.len().saturating_sub(1)].map(at);
        format!("{name:<28}{least:>12.1}{middle:>12.1}{:>12.1}{most:>12.1}", self.mean())
    }
}

/// A count for each second.
#[expect(clippy::cast_precision_loss, reason = "a table needs seven digits")]
pub(crate) fn per_second(count: u64, of: Duration) -> f64 {
    count as f64 / of.as_secs_f64().max(1e-9)
}
