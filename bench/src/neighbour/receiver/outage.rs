//! Times at which a provider is away: once, or again and again.

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
    /// By so much each is longer than the one before, [`TURN`] times; then it begins anew.
    pub(crate) longer: Duration,
    pub(crate) period: Option<Duration>,
    pub(crate) away: Away,
}

/// Lengths that outages have.
const TURN: u32 = 9;

impl Outages {
    pub(crate) fn holds(&self, now: Mono) -> bool {
        let Some(since_first) = now.since(START).checked_sub(self.first) else { return false };
        let Some(period) = self.period else { return since_first < self.length };
        let number = since_first.as_nanos() / period.as_nanos();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        since_first - period * number < self.length_of(number)
    }

    /// Beginning and end of each, seen from the start; without end where there is a period.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let from = |number: u32| self.first + self.period.unwrap_or_default() * number;
        let all = if self.period.is_some() { u32::MAX } else { 1 };
        (0..all).map(move |number| (from(number), from(number) + self.length_of(number)))
    }

    fn length_of(&self, number: u32) -> Duration {
        self.length + self.longer * (number % TURN)
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
