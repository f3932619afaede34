//! So many messages a second, with a burst: beyond that 421 at MAIL. Some also end each session
//! with 421 after so many messages.

use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::{Answer, Bucket, GREETING, Greeting, REFUSAL, Receiver, Service};
use crate::neighbour::world::{Mail, START};

#[derive(Debug)]
pub(crate) struct Limiter {
    bucket: Bucket,
    service: Service,
    messages_per_session: u32,
}

impl Limiter {
    pub(crate) fn new(rate: f64, burst: f64, messages_per_session: u32, service: Service) -> Self {
        Self { bucket: Bucket::new(rate, burst, START), service, messages_per_session }
    }
}

impl Receiver for Limiter {
    fn greet(&mut self, _now: Mono) -> Greeting {
        Greeting::Welcome(GREETING)
    }

    fn take(&mut self, now: Mono, _mail: &Mail, before: u32) -> (Answer, Duration) {
        if before >= self.messages_per_session || !self.bucket.take(now) {
            return (Answer::SlowDown, REFUSAL);
        }
        (Answer::Taken, self.service.draw())
    }

    fn leave(&mut self, _now: Mono) {}

    fn allows(&self, _now: Mono) -> f64 {
        self.bucket.rate
    }
}
