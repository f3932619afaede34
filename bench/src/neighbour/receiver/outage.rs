//! Times at which a provider is away: once for an hour, or again and again.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, Greeting, Receiver};
use crate::neighbour::world::{Mail, START};

/// How a provider that is away looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    Refuses,
    /// Packets vanish.
    Silent,
}

/// From `first` on away for `length`; then again after each `period`, if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outages {
    pub(crate) first: Duration,
    pub(crate) length: Duration,
    pub(crate) period: Option<Duration>,
    pub(crate) away: Away,
}

impl Outages {
    pub(crate) fn holds(&self, now: Mono) -> bool {
        let since_start = now.since(START);
        let Some(since_first) = since_start.checked_sub(self.first) else { return false };
        let into = match self.period {
            None => since_first,
            Some(period) => {
                Duration::from_secs_f64(since_first.as_secs_f64() % period.as_secs_f64())
            }
        };
        into < self.length
    }
}

/// A provider with times at which it is away.
pub(crate) struct Interrupted<R> {
    provider: R,
    outages: Outages,
}

impl<R: Receiver> Interrupted<R> {
    pub(crate) fn new(provider: R, outages: Outages) -> Self {
        Self { provider, outages }
    }
}

impl<R: Receiver> Receiver for Interrupted<R> {
    fn greet(&mut self, now: Mono) -> Greeting {
        match self.outages.away {
            _ if !self.outages.holds(now) => self.provider.greet(now),
            Away::Refuses => Greeting::Refused,
            Away::Silent => Greeting::Silence,
        }
    }

    fn take(&mut self, now: Mono, mail: &Mail, before: u32) -> (Answer, Duration) {
        if self.outages.holds(now) {
            return (Answer::Lost, Duration::ZERO);
        }
        self.provider.take(now, mail, before)
    }

    fn leave(&mut self, now: Mono) {
        self.provider.leave(now);
    }

    fn allows(&self, now: Mono) -> f64 {
        if self.outages.holds(now) { 0.0 } else { self.provider.allows(now) }
    }

    fn connections(&self, now: Mono) -> Option<u32> {
        self.provider.connections(now)
    }
}
