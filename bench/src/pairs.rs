//! Two kinds of run in turn, and what one is of the other, pair by pair.

use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::figures::Figures;
use crate::run::{Run, Runs};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What the other is held against.
    Base,
    Other,
}

/// The other by the base.
pub(crate) struct Pairs {
    names: [&'static str; 2],
    runs: [Runs; 2],
    pub(crate) rate: Figures,
    pub(crate) cpu: Figures,
}

impl Pairs {
    /// Runs both so many times. Who is first changes from round to round: what one leaves behind
    /// would favour the same one each time.
    pub(crate) fn take(
        rounds: usize,
        names: [&'static str; 2],
        mut run: impl FnMut(Side) -> Result<Run>,
    ) -> Result<Self> {
        let (rate, cpu) = (Figures::default(), Figures::default());
        let mut pairs = Self { names, runs: Default::default(), rate, cpu };
        for round in 0..rounds {
            let (base, other) = if round % 2 == 0 {
                let base = run(Side::Base)?;
                (base, run(Side::Other)?)
            } else {
                let other = run(Side::Other)?;
                (run(Side::Base)?, other)
            };
            let [left, right] = names;
            println!("round {}: {left} {:.0}/s, {right} {:.0}/s", round + 1, base.rate, other.rate);
            pairs.add(&base, &other);
        }
        Ok(pairs)
    }

    fn add(&mut self, base: &Run, other: &Run) {
        self.runs[0].add(base);
        self.runs[1].add(other);
        self.rate.push(other.rate / base.rate);
        // Without an engine there is no CPU to compare with.
        if base.cpu_ms > 0.0 {
            self.cpu.push(other.cpu_ms / base.cpu_ms);
        }
    }

    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "min / median / max",
            "messages/s end to end",
            "engine CPU ms per message",
            "dot to 250, p99 ms",
        ]);
        for (name, runs) in self.names.iter().zip(&self.runs) {
            let figures = [runs.rates.show(0), runs.cpu_ms.show(4), runs.dot_p99_ms.show(2)];
            table.add_row([(*name).to_owned()].into_iter().chain(figures));
        }
        println!("{table}");
        let [base, other] = self.names;
        println!("{other} by {base}, pair by pair: rate {}", self.rate.show(2));
        println!("{other} by {base}, pair by pair: CPU per message {}", self.cpu.show(2));
    }
}
