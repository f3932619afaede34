//! A limiter that takes offence: who goes on knocking while refused is allowed less, and earns it back slowly.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, Bucket, GREETING, Greeting, REFUSAL, Receiver, Service};
use crate::neighbour::world::{Mail, START};

/// Behaviour is judged once a minute.
const JUDGED_EVERY: Duration = Duration::from_secs(60);
/// More refusals than this share of the tries is abuse.
const TOLERATED: f64 = 0.05;
/// But so few are forgiven in any minute.
const TOLERATED_COUNT: u32 = 10;
/// What abuse costs, and what each clean minute gives back.
const PENALTY: f64 = 0.5;
const REWARD: f64 = 1.1;
/// The worst standing.
const FLOOR: f64 = 1.0 / 16.0;

#[derive(Debug)]
pub(crate) struct Reputation {
    /// What a sender of good standing may send.
    full_rate: f64,
    standing: f64,
    bucket: Bucket,
    service: Service,
    judged: Mono,
    tries: u32,
    refusals: u32,
}

impl Reputation {
    pub(crate) fn new(full_rate: f64, burst: f64, service: Service) -> Self {
        let bucket = Bucket::new(full_rate, burst, START);
        let (tries, refusals) = (0, 0);
        Self { full_rate, standing: 1.0, bucket, service, judged: START, tries, refusals }
    }

    fn judge(&mut self, now: Mono) {
        while now.since(self.judged) >= JUDGED_EVERY {
            self.judged = self.judged.plus(JUDGED_EVERY);
            let tolerated = f64::from(self.tries) * TOLERATED;
            let is_abuse = self.refusals > TOLERATED_COUNT && f64::from(self.refusals) > tolerated;
            let factor = if is_abuse { PENALTY } else { REWARD };
            self.standing = (self.standing * factor).clamp(FLOOR, 1.0);
            self.bucket.set_rate(now, self.full_rate * self.standing);
            (self.tries, self.refusals) = (0, 0);
        }
    }
}

impl Receiver for Reputation {
    fn greet(&mut self, _now: Mono) -> Greeting {
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, now: Mono, _mail: &Mail, _before: u32) -> (Answer, Duration) {
        self.judge(now);
        self.tries += 1;
        if self.bucket.take(now) {
            return (Answer::Taken, self.service.draw());
        }
        self.refusals += 1;
        (Answer::SlowDown, REFUSAL)
    }

    fn leave(&mut self, _now: Mono) {}

    fn allows(&self, _now: Mono) -> f64 {
        self.full_rate
    }
}
