//! What each count may be: `bench/budgets.toml`, read, judged, and written anew.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.toml");
const HEAD: &str = "\
# What a relayed message may cost, in counts: they do not depend on how fast the machine is. A run of
# `postrider-bench counts` over budget fails; `--update` measures anew and writes this file.
# budget = measured x (1 + slack), but never more than `must`, which a person sets.
";

/// By scenario and figure.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Budgets(BTreeMap<String, BTreeMap<String, Budget>>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// What the figure is, and why it may be that much.
    reason: String,
    measured: f64,
    /// A share of what was measured.
    slack: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    must: Option<f64>,
    budget: f64,
}

/// One count, held against its budget.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) scenario: &'static str,
    pub(super) figure: &'static str,
    pub(super) value: f64,
    /// `None`: the file has none.
    pub(super) budget: Option<f64>,
}

impl Judged {
    pub(super) fn is_within(&self) -> bool {
        self.budget.is_some_and(|budget| self.value <= budget)
    }
}

impl Budgets {
    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
        toml::from_str(&text).with_context(|| format!("{PATH} does not read"))
    }

    pub(super) fn write(&self) -> Result<()> {
        Ok(fs::write(PATH, format!("{HEAD}\n{}", toml::to_string(self)?))?)
    }

    pub(super) fn judge(&self, scenario: &'static str, figure: &'static str, value: f64) -> Judged {
        let budget = self.0.get(scenario).and_then(|figures| figures.get(figure));
        Judged { scenario, figure, value, budget: budget.map(|budget| budget.budget) }
    }

    /// Takes what was measured as the new measure; no budget rises over its `must`.
    pub(super) fn update(&mut self, judged: &Judged) {
        let figures = self.0.get_mut(judged.scenario);
        if let Some(budget) = figures.and_then(|figures| figures.get_mut(judged.figure)) {
            budget.measured = rounded(judged.value);
            let wanted = rounded(judged.value * (1.0 + budget.slack));
            budget.budget = budget.must.map_or(wanted, |must| must.min(wanted));
        }
    }
}

/// Three digits: more say nothing.
fn rounded(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let scale = 10f64.powf(2.0 - value.log10().floor());
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        let text = "[relay]\n\
                    a = { reason = \"a\", measured = 1.0, slack = 0.5, must = 2.0, budget = 1.5 }\n";
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_has_no_budget_or_is_over_it_fails() {
        let judge = |figure, value| budgets().judge("relay", figure, value).is_within();
        assert!(judge("a", 1.5));
        assert!(!judge("a", 1.51) && !judge("b", 0.0) && !judge("a", f64::NAN));
    }

    #[test]
    fn no_update_lifts_a_budget_over_what_must_be() {
        let mut budgets = budgets();
        let judged = budgets.judge("relay", "a", 1.2345);
        budgets.update(&judged);
        assert_eq!(budgets.judge("relay", "a", 0.0).budget, Some(1.85));
        let judged = budgets.judge("relay", "a", 5.0);
        budgets.update(&judged);
        assert_eq!(budgets.judge("relay", "a", 0.0).budget, Some(2.0));
    }

    #[test]
    fn the_file_reads_and_every_budget_has_a_reason() {
        let Budgets(scenarios) = Budgets::read().unwrap();
        let mut all = scenarios.values().flat_map(BTreeMap::values);
        assert!(all.all(|budget| budget.reason.len() > 20 && budget.budget > 0.0));
    }
}
