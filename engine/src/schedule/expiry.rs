//! Giving up: every waiting delivery is in a bucket of its site that ends when its time is over.

use std::time::Duration;

use super::Scheduler;
use super::alarm::Kind;
use super::bucket::bucket_end;
use super::permit::Flight;
use super::settle::whole;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Now, Wall};
use crate::model::delivery::Delivery;
use crate::model::note::Words;
use crate::model::outcome::{Enhanced, Outcome, Reply};

/// Width of buckets that end within an hour, and later: the failure comes up to this much
/// late, and a site whose mail trickled in has so few of them.
const FINE: Duration = Duration::from_secs(1);
const COARSE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Deliveries failed in one alarm; the rest follow a tick later.
const EXPIRIES_PER_ALARM: usize = 256;

/// The bucket of a delivery that expires at `at`.
pub(super) fn expiry_bucket(now: Now, at: Wall) -> u32 {
    let width = match at.since(now.wall) {
        left if left <= HOUR => FINE,
        _ => COARSE,
    };
    bucket_end(now.mono_at(at), width)
}

impl Scheduler {
    /// When a delivery's own time is over: its domain's setting counts, not its site's,
    /// and what its sender asked for, if that is less.
    pub(super) fn expires_at(&self, delivery: &Delivery, course: u32) -> Wall {
        let course = &self.courses[course];
        let policy = &self.policies[course.policy];
        let never = Duration::from_secs(100 * 365 * 24 * 3600);
        let expire = if planted(Bug::NeverExpires) { never } else { policy.settings.expire };
        delivery.accepted.plus(course.flow.expire.map_or(expire, |own| own.min(expire)))
    }

    pub(super) fn arm_expiry(&mut self, number: u32) {
        if let Some(next) = self.sites[number].expiry.next() {
            self.arm(number, Kind::Expiry, next);
        }
    }

    pub(super) fn expire_due(&mut self, now: Now, number: u32) {
        for _ in 0..EXPIRIES_PER_ALARM {
            let Some(id) = self.sites[number].expiry.front_due(now.mono) else { break };
            let flight = self.remove(id);
            self.fail_expired(now, flight);
        }
        self.arm_expiry(number);
    }

    /// Fails a delivery whose time is over: with the last reply to it, which its home looks up, or
    /// if it never was answered with the last complaint of its site.
    pub(super) fn fail_expired(&mut self, now: Now, flight: Flight) {
        if self.courses[flight.course].is_cancelled {
            return self.drop_cancelled(now, flight);
        }
        let Flight { delivery, course, .. } = flight;
        let site = &self.sites[self.courses[course].site];
        let reply = expired(site.complaint.as_deref());
        let outcome = whole(&delivery, delivery.attempts, Outcome::Failed { reply });
        self.settle_in(Words::OnRecord, delivery, vec![outcome], None);
        self.let_go(now, course);
    }
}

/// The reply of our own for a delivery whose time is over.
#[must_use]
pub fn expired(last: Option<&Reply>) -> Reply {
    let text = match last {
        Some(last) => format!("delivery time expired; last reply: {last}"),
        None => "delivery time expired".to_owned(),
    };
    Reply::local(550, Enhanced(5, 4, 7), &text)
}
