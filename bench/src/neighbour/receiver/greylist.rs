//! The first try of a message gets 451; it is taken from the same address five minutes later.

use std::time::Duration;

use postrider_engine::base::map::Map;
use postrider_engine::base::time::Mono;

use super::{Answer, GREETING, Greeting, REFUSAL, Receiver, Service};
use crate::neighbour::world::Mail;

const DELAY: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Greylist {
    first_seen: Map<u32, Mono>,
    connections: u32,
    service: Service,
}

impl Greylist {
    /// `connections` is what the sender may use at most: the provider has no limit of its own.
    pub(crate) fn new(connections: u32, service: Service) -> Self {
        Self { first_seen: Map::default(), connections, service }
    }
}

impl Receiver for Greylist {
    fn greet(&mut self, _now: Mono) -> Greeting {
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, now: Mono, mail: &Mail, _before: u32) -> (Answer, Duration) {
        let first = *self.first_seen.entry(mail.number).or_insert(now);
        if now.since(first) < DELAY {
            return (Answer::Later, REFUSAL);
        }
        self.first_seen.remove(&mail.number);
        (Answer::Taken, self.service.draw())
    }

    fn leave(&mut self, _now: Mono) {}

    fn allows(&self, _now: Mono) -> f64 {
        self.service.rate(self.connections)
    }
}
