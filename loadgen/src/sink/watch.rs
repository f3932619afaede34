//! Caps that the client is expected to keep by itself: watched, never enforced.

use std::fmt::Write as _;

use super::bucket::Bucket;
use super::personality::{Caps, Rate};
use crate::clock;

/// Watches one host, group of hosts or recipient domain.
#[derive(Debug)]
pub(super) struct Watch {
    name: String,
    started_ns: u64,
    connections: Breach,
    per_connection: Breach,
    connects: Pace,
    messages: Pace,
}

/// A cap passed: told in full the first time, counted from then on.
#[derive(Debug, Default)]
struct Breach {
    first: String,
    times: u64,
    worst: u64,
}

/// What came since the bucket was last full.
#[derive(Debug, Default)]
struct Pace {
    bucket: Option<Bucket>,
    since_ns: u64,
    count: u64,
    breach: Breach,
}

impl Watch {
    pub(super) fn new(name: &str, started_ns: u64) -> Self {
        Self {
            name: name.to_owned(),
            started_ns,
            connections: Breach::default(),
            per_connection: Breach::default(),
            connects: Pace::default(),
            messages: Pace::default(),
        }
    }

    /// A connection was opened; there are `at_once` of them now.
    pub(super) fn handle_connect(&mut self, caps: &Caps, at_once: u64, now: u64) {
        let at = clock::seconds(now.saturating_sub(self.started_ns));
        if let Some(max) = caps.connections.filter(|max| at_once > *max) {
            self.connections.note(at_once, || {
                format!("{at_once} connections at once at {at:.3} s, where the cap is {max}")
            });
        }
        if let Some(rate) = &caps.connects {
            self.connects.count(rate, caps.tolerance, "connects", now, at);
        }
    }

    /// A message was begun, the `nth` of its connection.
    pub(super) fn handle_message(&mut self, caps: &Caps, nth: u64, now: u64) {
        let at = clock::seconds(now.saturating_sub(self.started_ns));
        if let Some(max) = caps.messages_per_connection.filter(|max| nth > *max) {
            self.per_connection.note(nth, || {
                format!("{nth} messages in one connection at {at:.3} s, where the cap is {max}")
            });
        }
        if let Some(rate) = &caps.messages {
            self.messages.count(rate, caps.tolerance, "messages", now, at);
        }
    }

    /// Every cap that was passed, in words; the next call tells of what came later.
    pub(super) fn take_broken(&mut self) -> Vec<String> {
        let breaches = [
            &mut self.connections,
            &mut self.per_connection,
            &mut self.connects.breach,
            &mut self.messages.breach,
        ];
        let name = &self.name;
        let broken = breaches.into_iter().filter(|breach| breach.times > 0);
        broken.map(|breach| format!("{name}: {}", std::mem::take(breach).tell())).collect()
    }
}

impl Breach {
    fn note(&mut self, seen: u64, tell: impl FnOnce() -> String) {
        if self.times == 0 {
            self.first = tell();
        }
        self.times += 1;
        self.worst = self.worst.max(seen);
    }

    fn tell(self) -> String {
        let mut text = self.first;
        if self.times > 1 {
            // Writing to a string cannot fail.
            write!(text, "; {} times, up to {}", self.times, self.worst).ok();
        }
        text
    }
}

impl Pace {
    fn count(&mut self, rate: &Rate, tolerance: f64, what: &str, now: u64, at: f64) {
        let slack = 1.0 + tolerance;
        let (per_second, burst) = (rate.per_second * slack, rate.burst * slack);
        let bucket = self.bucket.get_or_insert_with(|| Bucket::new(burst, now));
        if bucket.is_full(per_second, burst, now) {
            (self.since_ns, self.count) = (now, 0);
        }
        self.count += 1;
        let seen = self.count;
        if !bucket.take(per_second, burst, now) {
            let span = clock::seconds(now.saturating_sub(self.since_ns));
            self.breach.note(seen, || {
                let allowed = (per_second * span + burst).floor();
                format!(
                    "{seen} {what} within {span:.3} s at {at:.3} s, where {allowed} are allowed \
                     ({rate}, tolerance {tolerance})"
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND_NS;

    fn caps(text: &str) -> Caps {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn as_many_connections_as_the_cap_are_no_breach() {
        let caps = caps("connections = 5");
        let mut watch = Watch::new("mx0", SECOND_NS);
        (1..=5).for_each(|at_once| watch.handle_connect(&caps, at_once, 2 * SECOND_NS));
        assert_eq!(watch.take_broken(), [""; 0]);
        watch.handle_connect(&caps, 6, 3 * SECOND_NS);
        watch.handle_connect(&caps, 5, 3 * SECOND_NS);
        watch.handle_connect(&caps, 8, 4 * SECOND_NS);
        let told = "mx0: 6 connections at once at 2.000 s, where the cap is 5; 2 times, up to 8";
        assert_eq!(watch.take_broken(), [told]);
        assert_eq!(watch.take_broken(), [""; 0], "told once");
    }

    #[test]
    fn a_rate_is_kept_to_the_token_and_broken_by_one_more() {
        let caps = caps("messages = \"10/s burst 4\"\ntolerance = 0.0");
        let mut watch = Watch::new("d0.test", 0);
        let at = |nth: u64| SECOND_NS + nth * SECOND_NS / 10;
        (0..4).for_each(|_| watch.handle_message(&caps, 1, at(0)));
        (1..100).for_each(|nth| watch.handle_message(&caps, 1, at(nth)));
        assert_eq!(watch.take_broken(), [""; 0]);
        watch.handle_message(&caps, 1, at(99));
        let told = "d0.test: 104 messages within 9.900 s at 10.900 s, where 103 are allowed \
                    (10/s burst 4, tolerance 0)";
        assert_eq!(watch.take_broken(), [told]);
    }

    #[test]
    fn tolerance_allows_a_share_more() {
        let check = |caps: &Caps, connects: u64, is_kept: bool| {
            let mut watch = Watch::new("mx0", 0);
            (0..connects).for_each(|_| watch.handle_connect(caps, 1, SECOND_NS));
            assert_eq!(watch.take_broken().is_empty(), is_kept, "{connects}");
        };
        check(&caps("connects = \"1/s burst 10\"\ntolerance = 0.1"), 11, true);
        check(&caps("connects = \"1/s burst 10\"\ntolerance = 0.1"), 12, false);
        check(&caps("connects = \"1/s burst 10\"\ntolerance = 0.0"), 11, false);
    }

    #[test]
    fn messages_of_a_connection_are_counted_to_the_one() {
        let caps = caps("messages_per_connection = 20");
        let mut watch = Watch::new("mx0", 0);
        (1..=20).for_each(|nth| watch.handle_message(&caps, nth, 0));
        assert_eq!(watch.take_broken(), [""; 0]);
        watch.handle_message(&caps, 21, 0);
        let told = "mx0: 21 messages in one connection at 0.000 s, where the cap is 20";
        assert_eq!(watch.take_broken(), [told]);
    }
}
