//! Mail providers as they behave towards a sender, each in a file of its own.

pub(crate) mod cap;
pub(crate) mod greylist;
pub(crate) mod limiter;
pub(crate) mod outage;
pub(crate) mod phases;
pub(crate) mod reputation;
pub(crate) mod steady;
pub(crate) mod tarpit;

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::chance::Chance;
use super::world::{Mail, ROUND_TRIP};

/// One provider, seen through one of our addresses.
pub(crate) trait Receiver {
    /// A connection arrives.
    fn greet(&mut self, now: Mono) -> Greeting;

    /// A message arrives on a connection that has seen `before` others; the answer, and how long it
    /// takes the provider to give it.
    fn take(&mut self, now: Mono, mail: &Mail, before: u32) -> (Answer, Duration);

    /// A connection that was welcome has ended.
    fn leave(&mut self, now: Mono);

    /// Messages a second that it would take now from a sender who knows all its rules.
    fn allows(&self, now: Mono) -> f64;

    /// Connections that it keeps open for one address, if it counts them.
    fn connections(&self, _now: Mono) -> Option<u32> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// 220 after this long.
    Welcome(Duration),
    /// 421 at once.
    TurnedAway,
    Refused,
    /// No answer at all.
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// 250 to the final dot.
    Taken,
    /// 451 about this message; the connection stays.
    Later,
    /// 421; the provider closes.
    SlowDown,
    /// The connection breaks.
    Lost,
}

/// How long a 220 takes a provider that is not busy.
pub(crate) const GREETING: Duration = Duration::from_millis(5);
/// How long a refusal takes: no body is read, nothing is stored.
pub(crate) const REFUSAL: Duration = Duration::from_millis(2);

/// How long a provider works at a message.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    mean: Duration,
    chance: Chance,
}

impl Service {
    pub(crate) fn new(mean: Duration, seed: u64) -> Self {
        Self { mean, chance: Chance::new(seed, 2) }
    }

    pub(crate) fn draw(&mut self) -> Duration {
        self.chance.around(self.mean)
    }

    /// Messages a second through so many connections that are never idle: each costs a round trip
    /// as well.
    pub(crate) fn rate(&self, connections: u32) -> f64 {
        f64::from(connections) / (self.mean + ROUND_TRIP).as_secs_f64()
    }
}

/// Tokens that grow with time: one for each message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) rate: f64,
    burst: f64,
    tokens: f64,
    at: Mono,
}

impl Bucket {
    pub(crate) fn new(rate: f64, burst: f64, now: Mono) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    pub(crate) fn take(&mut self, now: Mono) -> bool {
        let grown = now.since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + grown).min(self.burst);
        self.at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Another rate from now on; what was saved is kept.
    pub(crate) fn set_rate(&mut self, now: Mono, rate: f64) {
        let grown = now.since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + grown).min(self.burst);
        self.at = now;
        self.rate = rate;
    }
}
