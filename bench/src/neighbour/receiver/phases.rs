//! One provider whose rules change: free, throttled, gone, back. The subject of the pictures.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, Bucket, GREETING, Greeting, REFUSAL, Receiver, Service};
use crate::neighbour::world::{Mail, START};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// At most so many connections, 421 beyond.
    Connections(u32),
    /// At most so many messages a second, 421 at MAIL beyond.
    Rate(f64),
    /// Connects are refused, sessions break.
    Away,
}

/// From this long after the start on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Phase {
    pub(crate) from: Duration,
    pub(crate) rule: Rule,
    pub(crate) label: &'static str,
}

#[derive(Debug)]
pub(crate) struct Phases {
    phases: &'static [Phase],
    bucket: Bucket,
    open: u32,
    service: Service,
}

/// What a limiter lets through at once.
const BURST: f64 = 10.0;

impl Phases {
    pub(crate) fn new(phases: &'static [Phase], service: Service) -> Self {
        Self { phases, bucket: Bucket::new(0.0, BURST, START), open: 0, service }
    }

    fn rule(&self, now: Mono) -> Rule {
        let since = now.since(START);
        let past = self.phases.iter().rev().find(|phase| phase.from <= since);
        past.map_or(Rule::Away, |phase| phase.rule)
    }
}

impl Receiver for Phases {
    fn greet(&mut self, now: Mono) -> Greeting {
        match self.rule(now) {
            Rule::Away => return Greeting::Refused,
            Rule::Connections(max) if self.open >= max => return Greeting::TurnedAway,
            Rule::Connections(_) | Rule::Rate(_) => {}
        }
        self.open += 1;
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, now: Mono, _mail: &Mail, _before: u32) -> (Answer, Duration) {
        match self.rule(now) {
            Rule::Away => return (Answer::Lost, Duration::ZERO),
            Rule::Connections(_) => {}
            Rule::Rate(rate) => {
                self.bucket.set_rate(now, rate);
                if !self.bucket.take(now) {
                    return (Answer::SlowDown, REFUSAL);
                }
            }
        }
        (Answer::Taken, self.service.draw())
    }

    fn leave(&mut self, _now: Mono) {
        self.open -= 1;
    }

    fn allows(&self, now: Mono) -> f64 {
        match self.rule(now) {
            Rule::Away => 0.0,
            Rule::Rate(rate) => rate,
            Rule::Connections(max) => self.service.rate(max),
        }
    }

    fn connections(&self, now: Mono) -> Option<u32> {
        match self.rule(now) {
            Rule::Connections(max) => Some(max),
            Rule::Rate(_) | Rule::Away => None,
        }
    }
}
