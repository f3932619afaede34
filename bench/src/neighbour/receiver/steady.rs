//! Slow and steady: takes everything, at its own pace, on as many connections as one likes to open.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, GREETING, Greeting, Receiver, Service};
use crate::neighbour::world::Mail;

#[derive(Debug)]
pub(crate) struct Steady {
    connections: u32,
    service: Service,
}

impl Steady {
    /// `connections` is what the sender may use at most: the provider has no limit of its own.
    pub(crate) fn new(connections: u32, service: Service) -> Self {
        Self { connections, service }
    }
}

impl Receiver for Steady {
    fn greet(&mut self, _now: Mono) -> Greeting {
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, _now: Mono, _mail: &Mail, _before: u32) -> (Answer, Duration) {
        (Answer::Taken, self.service.draw())
    }

    fn leave(&mut self, _now: Mono) {}

    fn allows(&self, _now: Mono) -> f64 {
        self.service.rate(self.connections)
    }
}
