//! Thresholds for the gate: `deferred<3%`, `outage:recovery<600`, `utilisation>=95%`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, anyhow, ensure};

use super::figures::Figures;

/// A figure of ours, in one scenario or in all that have it, and what it must keep to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Requirement {
    text: String,
    scenario: Option<String>,
    figure: String,
    relation: Relation,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    AtMost,
    Below,
    AtLeast,
    Above,
}

impl Relation {
    /// The longer ones first: `<=` begins like `<`.
    const ALL: [(&str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Below), (">", Self::Above)];
}

impl FromStr for Requirement {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let split = |(sign, relation): (&str, Relation)| {
            text.split_once(sign).map(|(name, bound)| (name.trim(), relation, bound.trim()))
        };
        let (name, relation, bound) = Relation::ALL
            .into_iter()
            .find_map(split)
            .ok_or_else(|| anyhow!("no <, <=, > or >= in it; like this: deferred<3%"))?;
        let (number, parts) = match bound.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (bound, 1.0),
        };
        let bound: f64 = number.parse().with_context(|| format!("{bound} is no number"))?;
        let (scenario, figure) = match name.split_once(':') {
            Some((scenario, figure)) => (Some(scenario.to_owned()), figure),
            None => (None, name),
        };
        let known = Figures::default().named();
        let names = known.iter().map(|(known, _)| *known).collect::<Vec<_>>();
        ensure!(names.contains(&figure), "no figure is named {figure}; there are {names:?}");
        Ok(Self {
            text: text.to_owned(),
            scenario,
            figure: figure.to_owned(),
            relation,
            bound: bound / parts,
        })
    }
}

impl Requirement {
    /// Whether the figures of a scenario keep to it; `None` where it does not apply.
    pub(crate) fn is_met(&self, scenario: &str, figures: &Figures) -> Option<bool> {
        if self.scenario.as_deref().is_some_and(|named| named != scenario) {
            return None;
        }
        let named = figures.named();
        let value = named.into_iter().find(|(name, _)| *name == self.figure)?.1?;
        Some(match self.relation {
            Relation::AtMost => value <= self.bound,
            Relation::Below => value < self.bound,
            Relation::AtLeast => value >= self.bound,
            Relation::Above => value > self.bound,
        })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(text: &str, scenario: &str) -> Option<bool> {
        let figures = Figures { deferred: 0.02, utilisation: Some(0.95), ..Figures::default() };
        text.parse::<Requirement>().unwrap().is_met(scenario, &figures)
    }

    #[test]
    fn a_requirement_holds_a_figure_against_its_bound() {
        assert_eq!(met("deferred<3%", "limiter"), Some(true));
        assert_eq!(met("deferred < 0.02", "limiter"), Some(false));
        assert_eq!(met("utilisation>=95%", "limiter"), Some(true));
        assert_eq!(met("limiter:deferred>5%", "limiter"), Some(false));
        assert_eq!(met("cap:deferred>5%", "limiter"), None);
        assert_eq!(met("jain>0.95", "limiter"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["deferred", "deferred<", "deferred<many", "speed<3"] {
            assert!(text.parse::<Requirement>().is_err(), "{text}");
        }
    }
}
