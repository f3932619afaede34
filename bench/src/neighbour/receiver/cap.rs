//! At most so many connections from one address: 421 in place of a greeting beyond that.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, GREETING, Greeting, Receiver, Service};
use crate::neighbour::world::Mail;

#[derive(Debug)]
pub(crate) struct Cap {
    max: u32,
    open: u32,
    service: Service,
}

impl Cap {
    pub(crate) fn new(max: u32, service: Service) -> Self {
        Self { max, open: 0, service }
    }
}

impl Receiver for Cap {
    fn greet(&mut self, _now: Mono) -> Greeting {
        if self.open >= self.max {
            return Greeting::TurnedAway;
        }
        self.open += 1;
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, _now: Mono, _mail: &Mail, _before: u32) -> (Answer, Duration) {
        (Answer::Taken, self.service.draw())
    }

    fn leave(&mut self, _now: Mono) {
        self.open -= 1;
    }

    fn allows(&self, _now: Mono) -> f64 {
        self.service.rate(self.max)
    }

    fn connections(&self, _now: Mono) -> Option<u32> {
        Some(self.max)
    }
}
