//! How many messages a site takes on one connection, where only its goodbyes tell.
//!
//! Many hosts end a session after so many messages with the same 421 that means "slow down". One
//! that comes at the same count on connection after connection, and beyond which none ever gets, is
//! not about the rate: connections are closed by then, and nothing is refused.

use std::time::Duration;

use crate::base::time::Mono;

/// Connections in a row, each opened after the one before was ended.
const SIGHTINGS: u8 = 3;
/// What a site allows may change; then one connection finds out.
const BELIEVED: Duration = Duration::from_secs(3600);

/// What one path knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SessionLimit {
    /// Messages that were answered on a connection before it was ended; 0: not seen.
    count: u32,
    sightings: u8,
    last: Mono,
}

impl SessionLimit {
    /// Messages a connection may be given, if that is known.
    pub(super) fn get(&self, now: Mono) -> Option<u32> {
        let known = self.sightings >= SIGHTINGS && now.since(self.last) < BELIEVED;
        known.then_some(self.count)
    }

    /// A connection has had so many messages answered.
    pub(super) fn handle_answer(&mut self, answered: u32) {
        if answered > self.count && self.count > 0 {
            *self = Self::default();
        }
    }

    /// A connection opened then was asked to slow down after so many answers; whether that was its
    /// limit, and says nothing else. A burst of refusals is seen once: connections that were opened
    /// together often have had equally many.
    pub(super) fn handle_goodbye(&mut self, now: Mono, opened: Mono, answered: u32) -> bool {
        if answered == 0 {
            return false;
        }
        if answered != self.count {
            if answered > self.count || self.get(now).is_none() {
                *self = Self { count: answered, sightings: 1, last: now };
            }
            return false;
        }
        if opened >= self.last || self.sightings >= SIGHTINGS {
            self.sightings = (self.sightings + 1).min(SIGHTINGS);
            self.last = now;
        }
        self.sightings >= SIGHTINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(count: u64) -> Mono {
        Mono(count * 1_000_000_000)
    }

    /// Three connections, one after the other, each ended after a hundred messages.
    fn learned() -> SessionLimit {
        let mut limit = SessionLimit::default();
        let said = [10, 20, 30].map(|now| limit.handle_goodbye(second(now), second(now - 5), 100));
        assert_eq!(said, [false, false, true]);
        limit
    }

    #[test]
    fn three_goodbyes_at_one_count_are_a_limit() {
        let mut limit = learned();
        assert_eq!(limit.get(second(31)), Some(100));
        assert!(limit.handle_goodbye(second(32), second(1), 100), "of those opened before as well");
        assert!(!limit.handle_goodbye(second(33), second(32), 7), "that one means what it says");
        assert_eq!(limit.get(second(34)), Some(100));
    }

    #[test]
    fn connections_refused_together_are_seen_once() {
        let mut limit = SessionLimit::default();
        for _ in 0..20 {
            assert!(!limit.handle_goodbye(second(10), second(5), 4));
        }
        assert_eq!(limit.get(second(10)), None);
    }

    #[test]
    fn a_door_that_is_shut_is_no_limit() {
        let mut limit = SessionLimit::default();
        assert!((1..9).all(|now| !limit.handle_goodbye(second(now), second(now - 1), 0)));
        assert_eq!(limit.get(second(9)), None);
    }

    #[test]
    fn one_message_more_disproves_it() {
        let mut limit = learned();
        limit.handle_answer(100);
        assert_eq!(limit.get(second(31)), Some(100));
        limit.handle_answer(101);
        assert_eq!(limit.get(second(31)), None);
    }

    #[test]
    fn after_an_hour_it_is_tried_anew_and_one_goodbye_confirms_it() {
        let mut limit = learned();
        let later = second(30 + 3600);
        assert_eq!(limit.get(later), None);
        assert!(limit.handle_goodbye(later, second(3600), 100));
        assert_eq!(limit.get(later), Some(100));
    }
}
