//! A change that a build must not make: `--fail-if 'p99>+5%'`.

use std::str::FromStr;

use super::{Comparison, Figure, Verdict};
use crate::report::words;

/// A figure and the change from which on it fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    figure: Figure,
    direction: Direction,
    /// After through before.
    ratio: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Above,
    Below,
}

/// What a comparison says to a limit, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Held(String),
    Passed(String),
    /// There is no verdict on this figure, and so no answer.
    Unknown(String),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            let names = Figure::ALL.map(Figure::name).join(", ");
            format!("{text:?} is not a limit like 'p99>+5%' or 'rate<-3%', of one of {names}")
        })
    }
}

fn parse(text: &str) -> Option<Limit> {
    let (at, direction) = match (text.find('>'), text.find('<')) {
        (Some(at), None) => (at, Direction::Above),
        (None, Some(at)) => (at, Direction::Below),
        _ => return None,
    };
    let (name, change) = (text[..at].trim(), text[at + 1..].trim());
    let figure = Figure::ALL.into_iter().find(|figure| figure.name() == name)?;
    let percent: f64 = change.strip_suffix('%')?.trim().parse().ok()?;
    let is_change = percent.is_finite() && percent > -100.0;
    is_change.then_some(Limit { figure, direction, ratio: 1.0 + percent / 100.0 })
}

impl Limit {
    /// Holds a comparison against the limit. Where no difference was seen the change is none, whatever
    /// the medians: a gate that noise can close is soon left open.
    pub fn check(&self, comparison: &Comparison) -> Outcome {
        let name = self.figure.name();
        let Some(delta) = comparison.delta(self.figure) else {
            return Outcome::Unknown(format!("{name} is not in these runs"));
        };
        let ratio = match delta.verdict {
            Verdict::None(reason) => return Outcome::Unknown(format!("{name}: {reason}")),
            Verdict::NoDifferenceSeen => 1.0,
            Verdict::Better | Verdict::Worse => delta.ratio,
        };
        let text = format!("{name}: {}, {}", words::change(delta.ratio), delta.verdict);
        let is_beyond = match self.direction {
            Direction::Above => ratio > self.ratio,
            Direction::Below => ratio < self.ratio,
        };
        if is_beyond { Outcome::Passed(text) } else { Outcome::Held(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::side::tests::side;

    const EVEN: [f64; 6] = [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0];
    const ODD: [f64; 6] = [100.0, 300.0, 500.0, 700.0, 900.0, 1100.0];

    fn check(limit: &str, p99: (f64, f64)) -> Outcome {
        let comparison = Comparison::new(side("a", &EVEN, p99.0), side("b", &ODD, p99.1));
        limit.parse::<Limit>().unwrap().check(&comparison)
    }

    #[test]
    fn a_limit_is_a_figure_a_direction_and_a_percentage() {
        for good in ["p99>+5%", "p99.9 > 5 %", "rate<-3%", "cpu>0%", "p50>-10.5%"] {
            assert!(good.parse::<Limit>().is_ok(), "{good}");
        }
        for bad in ["", "p99", "p99>5", "p98>5%", "p99>>5%", "p99<>5%", "p99>NaN%", "rate<-100%"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_beyond_the_limit_fails() {
        assert!(matches!(check("p99>+5%", (10.0, 20.0)), Outcome::Passed(_)));
        assert!(matches!(check("p99>+150%", (10.0, 20.0)), Outcome::Held(_)));
        assert!(matches!(check("p99>+5%", (20.0, 10.0)), Outcome::Held(_)));
    }

    /// A promised gain that is not seen is a failure too.
    #[test]
    fn a_gain_that_was_asked_for_must_be_seen() {
        assert!(matches!(check("p99>-30%", (20.0, 10.0)), Outcome::Held(_)));
        assert!(matches!(check("p99>-30%", (10.0, 10.0)), Outcome::Passed(_)));
    }

    #[test]
    fn without_a_verdict_there_is_no_answer() {
        let comparison = Comparison::new(side("a", &EVEN[..2], 1.0), side("b", &ODD, 2.0));
        let limit: Limit = "p99>+5%".parse().unwrap();
        assert!(matches!(limit.check(&comparison), Outcome::Unknown(_)));
    }
}
