//! In what two sides differ besides their figures: machine, kernel, settings, version.

use std::collections::BTreeSet;

use super::Side;
use crate::report::words;
use crate::run::manifest::Manifest;

/// Values of one side that are named.
const VALUES_MAX: usize = 4;
const VALUE_CHARS_MAX: usize = 80;

/// One thing that the manifests of two sides do not agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub what: &'static str,
    pub before: String,
    pub after: String,
}

type Trait = (&'static str, fn(&Manifest) -> String);

/// What makes a run what it is. The seed is not among the few that change from repeat to repeat by
/// intention unless both sides used other seeds.
const TRAITS: [Trait; 20] = [
    ("processor", |run| run.machine.processor.clone()),
    ("cores", |run| run.machine.cores.to_string()),
    ("memory", |run| words::memory(run.machine.memory_bytes)),
    ("kernel", |run| run.machine.kernel.clone()),
    ("governor", |run| run.machine.governor.clone().unwrap_or_else(|| "unknown".to_owned())),
    ("loadgen", |run| run.version.clone()),
    ("commit", |run| run.commit.clone().unwrap_or_else(|| "unknown".to_owned())),
    ("target", |run| run.target.clone().unwrap_or_else(|| "unknown".to_owned())),
    ("kind of load", |run| format!("{:?}", run.load.kind)),
    ("schedule", |run| run.load.schedule.clone()),
    ("seed", |run| run.load.seed.to_string()),
    ("sessions", |run| run.load.sessions.to_string()),
    ("threads", |run| run.load.threads.to_string()),
    ("sizes", |run| run.load.sizes.clone()),
    ("domains", |run| run.load.domains.clone()),
    ("recipients a message", |run| run.load.recipients_per_message.to_string()),
    ("pipelining", |run| run.load.pipelining.to_string()),
    ("chunking", |run| run.load.chunking.to_string()),
    ("TLS", |run| run.load.tls.to_string()),
    ("AUTH", |run| run.load.auth.to_string()),
];

/// A value in one run of a side and not in any of the other is a difference.
pub(super) fn between(before: &Side, after: &Side) -> Vec<Difference> {
    let difference = |(what, value): &Trait| {
        let (old, new) = (values(before, *value), values(after, *value));
        (old != new).then(|| Difference { what, before: listed(&old), after: listed(&new) })
    };
    TRAITS.iter().filter_map(difference).collect()
}

fn values(side: &Side, value: fn(&Manifest) -> String) -> BTreeSet<String> {
    side.repeats.iter().map(|repeat| value(&repeat.manifest)).collect()
}

fn listed(values: &BTreeSet<String>) -> String {
    let shown = values.iter().take(VALUES_MAX);
    let shown: Vec<_> = shown.map(|value| words::printable(value, VALUE_CHARS_MAX)).collect();
    let more = values.len().saturating_sub(VALUES_MAX);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::side::tests::side;

    #[test]
    fn only_what_differs_is_told() {
        let before = side("a", &[0.0, 2.0], 1.0);
        let mut after = before.clone();
        assert_eq!(between(&before, &after), []);
        after.repeats[1].manifest.machine.kernel = "6.12".to_owned();
        let told = between(&before, &after);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].what, told[0].after.as_str()), ("kernel", "6.1, 6.12"));
    }

    #[test]
    fn seeds_that_both_sides_used_are_no_difference() {
        let mut sides = [side("a", &[0.0, 2.0], 1.0), side("b", &[1.0, 3.0], 1.0)];
        for side in &mut sides {
            side.repeats[1].manifest.load.seed = 99;
        }
        assert_eq!(between(&sides[0], &sides[1]), []);
    }
}
