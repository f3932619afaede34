//! Whether a site takes mail at present, and how long it is left alone after trouble.
//!
//! ```text
//! Open --trouble--> Closed --its time--> Probing --success--> Open
//!                      ^--------trouble-----'
//! ```

use std::time::Duration;

use crate::base::time::Mono;
use crate::model::settings::SiteSettings;

/// First wait after a site asked to slow down; doubles with each time it asks again.
const THROTTLE_WAIT_FIRST: Duration = Duration::from_secs(1);
const THROTTLE_WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// First wait after a site could not be reached; shorter if messages themselves retry sooner.
const UNREACHABLE_WAIT_FIRST: Duration = Duration::from_secs(1);
/// A dead site is probed at least this often; more often if messages themselves retry sooner.
const UNREACHABLE_WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// When this machine lacks something, other sites may have given it back by then.
const LOCAL_WAIT: Duration = Duration::from_secs(1);
/// Doublings beyond this change nothing: the longest wait was reached before.
const DOUBLINGS_MAX: u32 = 20;
/// Up to this many doublings a wait is a matter of seconds.
const BRIEF_DOUBLINGS: u32 = 3;

/// What happened at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It asked to slow down.
    Throttled,
    /// It could not be reached, or answered nothing that counts.
    Unreachable,
    /// Not its fault: this machine could not.
    Local,
}

/// `doublings` counts the troubles since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Closed {
        until: Mono,
        cause: Trouble,
        doublings: u32,
    },
    /// Its time is over, but nothing has gone well yet: one delivery at a time.
    Probing {
        doublings: u32,
    },
}

impl Gate {
    /// Closes after trouble. `None` while already closed: what was under way when it closed says
    /// nothing new, so a burst of refusals costs one doubling.
    pub(super) fn close(self, now: Mono, cause: Trouble, settings: &SiteSettings) -> Option<Self> {
        let before = match self {
            Self::Open => 0,
            Self::Probing { doublings } => doublings,
            Self::Closed { .. } => return None,
        };
        let until = now.plus(wait(cause, before, settings));
        let blamed = u32::from(cause != Trouble::Local);
        Some(Self::Closed { until, cause, doublings: (before + blamed).min(DOUBLINGS_MAX) })
    }

    /// Whether mail that arrives now will soon be on its way, so that its body is worth keeping.
    pub(super) fn is_brief(self) -> bool {
        match self {
            Self::Open => true,
            Self::Closed { doublings, .. } | Self::Probing { doublings } => {
                doublings <= BRIEF_DOUBLINGS
            }
        }
    }

    /// The state when the time of a closed gate is over.
    pub(super) fn after_wait(self) -> Self {
        match self {
            Self::Closed { doublings: 0, .. } => Self::Open,
            Self::Closed { doublings, .. } => Self::Probing { doublings },
            other => other,
        }
    }
}

fn wait(cause: Trouble, doublings: u32, settings: &SiteSettings) -> Duration {
    let own = |edge: Option<&Duration>, ours: Duration| edge.map_or(ours, |wait| ours.min(*wait));
    let (first, max) = match cause {
        Trouble::Local => return LOCAL_WAIT,
        Trouble::Throttled => (THROTTLE_WAIT_FIRST, THROTTLE_WAIT_MAX),
        Trouble::Unreachable => (
            own(settings.retry.first(), UNREACHABLE_WAIT_FIRST),
            own(settings.retry.last(), UNREACHABLE_WAIT_MAX),
        ),
    };
    first.saturating_mul(1 << doublings.min(DOUBLINGS_MAX)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(cause: Trouble, settings: &SiteSettings, rounds: usize) -> Vec<u64> {
        let mut gate = Gate::Open;
        let mut waits = Vec::new();
        for _ in 0..rounds {
            gate = gate.close(Mono(0), cause, settings).unwrap();
            let Gate::Closed { until, .. } = gate else { panic!("{gate:?}") };
            waits.push(until.0 / 1_000_000);
            gate = gate.after_wait();
        }
        waits
    }

    #[test]
    fn waits_double_up_to_their_limit() {
        let settings = SiteSettings::default();
        let throttled = waits(Trouble::Throttled, &settings, 11);
        assert_eq!(throttled[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(throttled[10], 300_000);
        assert_eq!(waits(Trouble::Unreachable, &settings, 30)[29], 600_000);
    }

    #[test]
    fn short_retries_make_short_probes() {
        let retry = vec![Duration::from_millis(500), Duration::from_millis(700)];
        let settings = SiteSettings { retry, ..SiteSettings::default() };
        assert_eq!(waits(Trouble::Unreachable, &settings, 3), [500, 700, 700]);
    }

    #[test]
    fn what_is_not_the_sites_fault_doubles_nothing() {
        let settings = SiteSettings::default();
        assert_eq!(waits(Trouble::Local, &settings, 3), [1_000; 3]);
        let local = Gate::Open.close(Mono(0), Trouble::Local, &settings).unwrap();
        assert_eq!(local.after_wait(), Gate::Open);
        let throttled = Gate::Open.close(Mono(0), Trouble::Throttled, &settings).unwrap();
        assert_eq!(throttled.close(Mono(0), Trouble::Throttled, &settings), None);
        assert_eq!(throttled.after_wait(), Gate::Probing { doublings: 1 });
    }
}
