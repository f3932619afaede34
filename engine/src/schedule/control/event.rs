//! What the controller changed and why, as values for reports and for people.

use std::fmt;

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
    /// More connections brought less mail, or fewer may bring as much.
    Throughput,
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
    /// Somebody asked for it.
    Operator,
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
    #[must_use]
    pub(in crate::schedule) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

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
        let small =
            matches!(self.cause, Cause::Ramp | Cause::Growth | Cause::Probe | Cause::Throughput);
        small && !matches!(self.what, What::Breaker { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence { in_use, throttled, tried, latency_p50, latency_min } = self.evidence;
        write!(f, "{} because of {}", self.what, self.cause)?;
        write!(f, " ({in_use} connections, {throttled} of {tried} throttled")?;
        if latency_p50 > 0 {
            write!(f, ", replies take {latency_p50} us, at best {latency_min} us")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<u32>| {
            rate.map_or_else(
                || "any".to_owned(),
                |rate| format!("{:.3}/s", f64::from(rate) / 1000.0),
            )
        };
        match self {
            Self::Window { old, new } => write!(f, "connections {old} -> {new}"),
            Self::Rate { old, new } => write!(f, "message rate {} -> {}", rate(*old), rate(*new)),
            Self::Breaker { old, new } => write!(f, "door {old:?} -> {new:?}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal(Signal::Throttle) => "a wish to slow down",
            Self::Signal(Signal::Site) => "a failure of the site",
            Self::Signal(Signal::Delivered) => "a delivery",
            Self::Signal(Signal::Local) => "a lack of this machine",
            Self::Signal(_) => "a reply",
            Self::Gradient => "slower replies",
            Self::Throughput => "a comparison of throughput",
            Self::Ramp => "slow start",
            Self::Growth => "full use",
            Self::Probe => "a probe for more",
            Self::Elapsed => "the end of a pause",
            Self::Ceiling => "a lower limit",
            Self::Forgotten => "disuse",
            Self::Operator => "an operator",
        })
    }
}
