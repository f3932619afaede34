//! Two builds or settings, each measured several times in turn: what changed, and how sure that is.
//!
//! A verdict needs at least [`REPEATS_MIN`] valid runs a side that took turns. What then differs by the
//! bootstrap interval of the ratio of medians and by a permutation test is called better or worse; all
//! else is "no difference seen", which is no proof that there is none.

mod differences;
mod limit;
mod side;
mod statistics;

use std::fmt;

pub use differences::Difference;
pub use limit::{Limit, Outcome};
pub use side::{Repeat, Side, SideError};

use crate::run::manifest::{LoadKind, Manifest};

/// Fewer repeats tell nothing of how much a figure moves by itself: with four a side not even runs that
/// differ in every pair reach [`P_MAX`].
pub const REPEATS_MIN: usize = 5;
/// A difference that chance shows more often than this is none.
pub const P_MAX: f64 = 0.05;
/// Runs of one side that may follow each other: `A B B A` takes turns as well.
const SAME_SIDE_MAX: usize = 2;
/// Clocks of two folders agree, but a run's end is written after its last message.
const OVERLAP_S: f64 = 0.5;

/// A figure that runs are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Acknowledged messages a second.
    Rate,
    P50,
    P99,
    P999,
    /// Processor time of the source and the sink for a message: the engine's own is not in a run's folder.
    Cpu,
}

/// How a figure of one side stands to that of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Better,
    Worse,
    NoDifferenceSeen,
    /// With the reason.
    None(&'static str),
}

/// One figure before and after.
#[derive(Debug, Clone)]
pub struct Delta {
    pub figure: Figure,
    /// Medians over the repeats.
    pub before: f64,
    pub after: f64,
    /// After through before.
    pub ratio: f64,
    /// Where the ratio is, with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// How often chance alone shows as much, if it was asked.
    pub p: Option<f64>,
    pub verdict: Verdict,
}

/// Whether the runs allow a verdict at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Sound,
    TooFew {
        before: usize,
        after: usize,
    },
    NotInterleaved,
    /// Two runs were under way at once.
    Overlapping,
    /// Open loop here, saturation there.
    KindsDiffer,
}

/// Two sides and what is between them.
#[derive(Debug)]
pub struct Comparison {
    pub before: Side,
    pub after: Side,
    pub standing: Standing,
    pub differences: Vec<Difference>,
    pub deltas: Vec<Delta>,
}

impl Comparison {
    pub fn new(before: Side, after: Side) -> Self {
        let standing = standing(&before, &after);
        let differences = differences::between(&before, &after);
        let delta = |figure: Figure| delta(figure, &before, &after, standing);
        let deltas = Figure::ALL.into_iter().filter_map(delta).collect();
        Self { standing, differences, deltas, before, after }
    }

    pub fn delta(&self, figure: Figure) -> Option<&Delta> {
        self.deltas.iter().find(|delta| delta.figure == figure)
    }

    /// In a sentence, whether there can be a verdict.
    pub fn standing_text(&self) -> String {
        let runs = (self.before.repeats.len(), self.after.repeats.len());
        match self.standing {
            Standing::Sound => format!("{} and {} runs that took turns", runs.0, runs.1),
            other => format!("no verdict: {other}"),
        }
    }

    /// Whether any run was a measure of throughput only.
    pub fn is_saturation(&self) -> bool {
        self.manifests().any(|manifest| manifest.load.kind == LoadKind::Saturation)
    }

    fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        let repeats = self.before.repeats.iter().chain(&self.after.repeats);
        repeats.map(|repeat| &repeat.manifest)
    }
}

impl Figure {
    pub const ALL: [Self; 5] = [Self::Rate, Self::P50, Self::P99, Self::P999, Self::Cpu];

    /// As `--fail-if` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Cpu => "cpu",
        }
    }

    /// As a table names it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Cpu => "generator cpu a message",
        }
    }

    fn is_latency(self) -> bool {
        matches!(self, Self::P50 | Self::P99 | Self::P999)
    }

    /// What a run shows of it; latencies and processor time in milliseconds.
    pub fn of(self, manifest: &Manifest) -> Option<f64> {
        let message = manifest.phases.get("message").or_else(|| manifest.phases.get("dot"));
        let value = match self {
            Self::Rate => Some(manifest.totals.rate_per_s),
            Self::P50 => message.map(|latency| latency.p50_ms),
            Self::P99 => message.map(|latency| latency.p99_ms),
            Self::P999 => message.map(|latency| latency.p999_ms),
            Self::Cpu => generator_ms(manifest),
        };
        value.filter(|value| value.is_finite() && *value > 0.0)
    }
}

fn generator_ms(manifest: &Manifest) -> Option<f64> {
    let honesty = &manifest.honesty;
    let load: f64 = honesty.source_load.iter().chain(&honesty.sink_load).sum();
    let messages = super::words::number(manifest.totals.acknowledged);
    (messages > 0.0).then(|| load * manifest.totals.elapsed_s * 1e3 / messages)
}

fn standing(before: &Side, after: &Side) -> Standing {
    let counts = (before.repeats.len(), after.repeats.len());
    if counts.0.min(counts.1) < REPEATS_MIN {
        return Standing::TooFew { before: counts.0, after: counts.1 };
    }
    let kinds = before.repeats.iter().chain(&after.repeats).map(|run| run.manifest.load.kind);
    let kinds: Vec<_> = kinds.collect();
    if kinds.iter().any(|kind| *kind != kinds[0]) {
        return Standing::KindsDiffer;
    }
    let turns = turns(before, after);
    let overlap = |pair: &[Turn<'_>]| pair[0].end() - pair[1].start() > OVERLAP_S;
    if turns.windows(2).any(overlap) {
        return Standing::Overlapping;
    }
    let longest = turns.chunk_by(|one, other| one.is_after == other.is_after).map(<[_]>::len).max();
    let is_even = counts.0.abs_diff(counts.1) < SAME_SIDE_MAX;
    if longest <= Some(SAME_SIDE_MAX) && is_even {
        Standing::Sound
    } else {
        Standing::NotInterleaved
    }
}

/// A run's place in time, and whether it is of the later side.
struct Turn<'a> {
    run: &'a Manifest,
    is_after: bool,
}

impl Turn<'_> {
    fn start(&self) -> f64 {
        self.run.started
    }

    fn end(&self) -> f64 {
        self.run.started + self.run.totals.elapsed_s
    }
}

/// All runs in the order of their starts.
fn turns<'a>(before: &'a Side, after: &'a Side) -> Vec<Turn<'a>> {
    let of = |side: &'a Side, is_after| {
        side.repeats.iter().map(move |repeat| Turn { run: &repeat.manifest, is_after })
    };
    let mut turns: Vec<_> = of(before, false).chain(of(after, true)).collect();
    turns.sort_by(|one, other| one.start().total_cmp(&other.start()));
    turns
}

fn delta(figure: Figure, before: &Side, after: &Side, standing: Standing) -> Option<Delta> {
    let (old, new) = (before.figures(figure), after.figures(figure));
    let (median_before, median_after) = (statistics::median(&old)?, statistics::median(&new)?);
    let ratio = median_after / median_before;
    let mut delta = Delta {
        figure,
        before: median_before,
        after: median_after,
        ratio,
        interval: None,
        p: None,
        verdict: Verdict::None(""),
    };
    delta.verdict = match reason_for_none(figure, &old, &new, before, standing) {
        Some(reason) => Verdict::None(reason),
        None => {
            let interval = statistics::ratio_interval(&old, &new);
            let p = statistics::permutation_p(&old, &new);
            (delta.interval, delta.p) = (Some(interval), Some(p));
            verdict(figure, interval, p)
        }
    };
    Some(delta)
}

fn reason_for_none(
    figure: Figure,
    old: &[f64],
    new: &[f64],
    side: &Side,
    standing: Standing,
) -> Option<&'static str> {
    let is_saturation =
        side.repeats.iter().any(|repeat| repeat.manifest.load.kind == LoadKind::Saturation);
    match standing {
        Standing::TooFew { .. } => Some("not enough runs"),
        Standing::NotInterleaved => Some("not interleaved"),
        Standing::Overlapping => Some("runs overlap"),
        Standing::KindsDiffer => Some("different kinds of load"),
        Standing::Sound if figure.is_latency() && is_saturation => Some("saturation"),
        Standing::Sound if old.len().min(new.len()) < REPEATS_MIN => Some("not in every run"),
        Standing::Sound => None,
    }
}

fn verdict(figure: Figure, interval: (f64, f64), p: f64) -> Verdict {
    let (rose, fell) = (interval.0 > 1.0, interval.1 < 1.0);
    if p > P_MAX || !(rose || fell) {
        return Verdict::NoDifferenceSeen;
    }
    if rose == (figure == Figure::Rate) { Verdict::Better } else { Verdict::Worse }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Better => f.write_str("better"),
            Self::Worse => f.write_str("worse"),
            Self::NoDifferenceSeen => f.write_str("no difference seen"),
            Self::None(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("the runs took turns"),
            Self::TooFew { before, after } => write!(
                f,
                "not enough runs: {before} before and {after} after are valid, {REPEATS_MIN} each are needed"
            ),
            Self::NotInterleaved => f.write_str(
                "not interleaved: by their start times the runs did not take turns (A B A B …), \
                 so the hour may be what differs",
            ),
            Self::Overlapping => {
                f.write_str("runs overlap: two were under way at once and disturbed each other")
            }
            Self::KindsDiffer => f.write_str("open loop on one side and saturation on the other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::side::tests::side;

    /// Sides whose runs start at these times, with p99 around a middle.
    fn compare(starts: (&[f64], &[f64]), p99: (f64, f64)) -> Comparison {
        Comparison::new(side("a", starts.0, p99.0), side("b", starts.1, p99.1))
    }

    const EVEN: [f64; 6] = [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0];
    const ODD: [f64; 6] = [100.0, 300.0, 500.0, 700.0, 900.0, 1100.0];

    #[test]
    fn runs_that_took_turns_are_judged() {
        let comparison = compare((&EVEN, &ODD), (10.0, 20.0));
        assert_eq!(comparison.standing, Standing::Sound);
        let p99 = comparison.delta(Figure::P99).unwrap();
        assert_eq!(p99.verdict, Verdict::Worse);
        assert!((p99.ratio - 2.0).abs() < 0.2 && p99.interval.unwrap().0 > 1.5, "{p99:?}");
        assert_eq!(comparison.delta(Figure::Rate).unwrap().verdict, Verdict::NoDifferenceSeen);
        let better = compare((&EVEN, &ODD), (20.0, 10.0));
        assert_eq!(better.delta(Figure::P99).unwrap().verdict, Verdict::Better);
        let same = compare((&EVEN, &ODD), (10.0, 10.05));
        assert_eq!(same.delta(Figure::P99).unwrap().verdict, Verdict::NoDifferenceSeen);
    }

    #[test]
    fn runs_in_pairs_of_changing_order_took_turns_too() {
        let comparison = compare(
            (&[0.0, 300.0, 400.0, 700.0, 800.0], &[100.0, 200.0, 500.0, 600.0, 900.0]),
            (10.0, 20.0),
        );
        assert_eq!(comparison.standing, Standing::Sound);
    }

    #[test]
    fn what_does_not_allow_a_verdict_is_named() {
        let standing = |starts: (&[f64], &[f64])| compare(starts, (10.0, 20.0)).standing;
        assert_eq!(standing((&EVEN[..4], &ODD)), Standing::TooFew { before: 4, after: 6 });
        let later = EVEN.map(|start| start + 5000.0);
        assert_eq!(standing((&EVEN, &later)), Standing::NotInterleaved);
        let at_once = EVEN.map(|start| start + 10.0);
        assert_eq!(standing((&EVEN, &at_once)), Standing::Overlapping);
        let unsound = compare((&EVEN, &later), (10.0, 20.0));
        assert!(unsound.deltas.iter().all(|delta| delta.interval.is_none()));
        assert!(unsound.standing_text().contains("not interleaved"));
    }

    #[test]
    fn saturation_gives_no_verdict_on_latency() {
        let mut sides = (side("a", &EVEN, 10.0), side("b", &ODD, 20.0));
        for repeat in &mut sides.1.repeats {
            repeat.manifest.load.kind = LoadKind::Saturation;
        }
        let mixed = Comparison::new(sides.0.clone(), sides.1.clone());
        assert_eq!(mixed.standing, Standing::KindsDiffer);
        for repeat in &mut sides.0.repeats {
            repeat.manifest.load.kind = LoadKind::Saturation;
        }
        let both = Comparison::new(sides.0, sides.1);
        assert_eq!(both.delta(Figure::P99).unwrap().verdict, Verdict::None("saturation"));
        assert_eq!(both.delta(Figure::Rate).unwrap().verdict, Verdict::NoDifferenceSeen);
    }
}
