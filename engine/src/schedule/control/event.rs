//! What the controller changed and why, as values for reports and for people.

use super::Signal;
use super::breaker::Door;

/// One decision of the controller of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) struct Change {
    pub(in crate::schedule) what: What,
    pub(in crate::schedule) cause: Cause,
    pub(in crate::schedule) evidence: Evidence,
}

/// What was changed, from what to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) enum What {
    /// Connections.
    Window {
        old: u32,
        new: u32,
    },
    /// Messages per 1000 seconds; `None`: unlimited.
    Rate {
        old: Option<u32>,
        new: Option<u32>,
    },
    Breaker {
        old: Door,
        new: Door,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::schedule) enum Cause {
    /// The site said so.
    Signal(Signal),
    /// It answers more slowly than it can.
    Gradient,
    /// Slow start, at first or after an outage.
    Ramp,
    /// All of it was in use and went well.
    Growth,
    /// More than was ever granted is tried.
    Probe,
    /// A pause is over.
    Elapsed,
    /// The operator's limit is lower than what was learned.
    Ceiling,
    /// Unneeded for so long that it may no longer hold.
    Forgotten,
}

/// The figures a decision was taken on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::schedule) struct Evidence {
    /// Permits in use.
    pub(in crate::schedule) in_use: u32,
    /// Refusals among `tried` messages and connections lately.
    pub(in crate::schedule) throttled: u32,
    pub(in crate::schedule) tried: u32,
    /// Microseconds of the phase that is slowed down most; zero where none was measured.
    pub(in crate::schedule) latency_p50: u32,
    pub(in crate::schedule) latency_min: u32,
}

/// What one handler changed: at most one of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::schedule) struct Changes([Option<Change>; 3]);

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        let free = self.0.iter_mut().find(|slot| slot.is_none());
        *free.expect("a handler changes each kind once") = Some(change);
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Change>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl Change {
    /// Whether it is one of many small steps of a path that does well: worth a point in a picture,
    /// not a line in a log.
    #[must_use]
    pub(in crate::schedule) fn is_routine(&self) -> bool {
        let growing = matches!(self.cause, Cause::Ramp | Cause::Growth | Cause::Probe);
        growing && !matches!(self.what, What::Breaker { .. })
    }
}
