//! Each connection beyond a few makes all of them slower: more load brings fewer messages.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, GREETING, Greeting, Receiver, Service};
use crate::neighbour::world::Mail;

#[derive(Debug)]
pub(crate) struct Tarpit {
    /// Connections that it serves without effort.
    knee: u32,
    open: u32,
    service: Service,
}

impl Tarpit {
    pub(crate) fn new(knee: u32, service: Service) -> Self {
        Self { knee, open: 0, service }
    }

    /// Beyond the knee time grows with the square, so throughput falls with each connection.
    fn slowness(&self) -> f64 {
        (f64::from(self.open) / f64::from(self.knee)).max(1.0).powi(2)
    }
}

impl Receiver for Tarpit {
    fn greet(&mut self, _now: Mono) -> Greeting {
        self.open += 1;
        Greeting::Welcome(GREETING.mul_f64(self.slowness()))
    }

    fn take(&mut self, _now: Mono, _mail: &Mail, _before: u32) -> (Answer, Duration) {
        (Answer::Taken, self.service.draw().mul_f64(self.slowness()))
    }

    fn leave(&mut self, _now: Mono) {
        self.open -= 1;
    }

    fn allows(&self, _now: Mono) -> f64 {
        self.service.rate(self.knee)
    }
}
