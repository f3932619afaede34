//! The end of a run, in order: intake first, then what is on the wire, then the last commit.

use std::time::Duration;

use super::{Effect, Effects, Role, Shard};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::connection::{Close, Conn};

/// How long a message that is being received may still take to its final dot.
const INTAKE_GRACE: Duration = Duration::from_secs(10);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// No new work; clients may finish until `intake_by`, everything until `by`.
    Draining {
        intake_by: Mono,
        by: Mono,
    },
    /// The clients that had not finished were cut off.
    Delivering {
        by: Mono,
    },
    /// Whatever still waited was cut off: only commits are left.
    Cut,
}

impl Phase {
    pub(super) fn is_stopping(self) -> bool {
        self != Self::Running
    }

    pub(super) fn next_wakeup(self) -> Mono {
        match self {
            Self::Draining { intake_by, by } => intake_by.min(by),
            Self::Delivering { by } => by,
            Self::Running | Self::Cut => Mono::NEVER,
        }
    }
}

impl Shard {
    /// Begins the end. A second call with an earlier `by` shortens the waits.
    pub(super) fn stop(&mut self, now: Now, by: Mono, out: &mut Effects) {
        let intake_by = now.mono.plus(INTAKE_GRACE).min(by);
        self.phase = Phase::Draining { intake_by, by };
        self.backlog.clear();
        self.scheduler.handle_stop(self.clock.now(now));
        for conn in self.intake_conns() {
            self.intake_stop(now, conn, out);
        }
    }

    /// Moves the end on, and says so when nothing is left to do.
    pub(super) fn settle_stop(&mut self, now: Now, out: &mut Effects) {
        match self.phase {
            Phase::Running => return,
            Phase::Draining { intake_by, by } if now.mono >= intake_by => {
                self.phase = Phase::Delivering { by };
                self.cut(Role::is_intake, out);
            }
            Phase::Delivering { by } if now.mono >= by => self.phase = Phase::Cut,
            _ => {}
        }
        if self.phase == Phase::Cut {
            // Again in each turn: a session that was cut off may have tried another host.
            self.cut(Role::is_egress, out);
        }
        if self.is_quiet() {
            out.push(Effect::Stopped);
        }
    }

    /// Whether nothing is under way: no client, no lease, no read, no write. New notes may still come.
    fn is_quiet(&self) -> bool {
        !self.roles.iter().any(Role::is_intake)
            && self.sending.is_empty()
            && self.reads.is_empty()
            && self.inbox.is_empty()
            && self.is_on_disk()
    }

    /// Whether all that can be written is; a spool that can write no more must not hold the end up
    /// for ever.
    fn is_on_disk(&self) -> bool {
        let settled = self.pending.is_empty() && self.spool.is_settled();
        settled
            || self.phase == Phase::Cut && self.spool.is_stuck()
            || planted(Bug::StopWithoutLastCommit)
    }

    fn intake_conns(&self) -> Vec<Conn> {
        self.conns(Role::is_intake)
    }

    fn conns(&self, wanted: impl Fn(&Role) -> bool) -> Vec<Conn> {
        let of_slot = |(slot, role): (usize, &Role)| {
            wanted(role).then(|| self.slots.current(u32::try_from(slot).unwrap_or(u32::MAX)))?
        };
        let name = |(slot, generation)| Conn { slot, generation };
        self.roles.iter().enumerate().filter_map(of_slot).map(name).collect()
    }

    /// Aborts every connection of a kind; the driver answers each with `Ended`.
    fn cut(&self, wanted: impl Fn(&Role) -> bool, out: &mut Effects) {
        for conn in self.conns(wanted) {
            out.push(Effect::Close { conn, how: Close::Abort });
        }
    }
}

impl Role {
    pub(super) fn is_intake(&self) -> bool {
        matches!(self, Self::Intake(_))
    }

    pub(super) fn is_egress(&self) -> bool {
        matches!(self, Self::Egress(_))
    }
}
