//! The name service: what domains answer, late, wrong for a while, or differently than before.

use std::net::IpAddr;
use std::time::Duration;

use postrider_engine::model::route::{Answer, DnsFailure, ResolvedHost};

use super::chance::Chance;
use super::clock::{MS, SECOND, US};
use super::options::{Group, HostPlan};

/// A domain that does not exist.
pub const NOWHERE: &str = "nowhere.sim";

/// The zones of the world.
#[derive(Debug)]
pub struct Names {
    /// Which of its two sites serves a group.
    pub serving: Vec<usize>,
    pub fails: u32,
    chance: Chance,
}

impl Names {
    #[must_use]
    pub fn new(groups: usize, fails: u32, chance: Chance) -> Self {
        Self { serving: vec![0; groups], fails, chance }
    }

    /// How long the answer takes.
    pub fn delay(&mut self) -> u64 {
        self.chance.skewed(50 * US, if self.fails > 0 { 10 * SECOND } else { 50 * MS })
    }

    pub fn answer(&mut self, domain: &str, groups: &[Group]) -> Answer {
        let ttl = Duration::from_nanos(self.chance.skewed(1, 7200 * SECOND));
        if self.chance.permille(self.fails) {
            let failure = DnsFailure::Temporary("SERVFAIL".into());
            return Answer { result: Err(failure), ttl: Duration::from_secs(1) };
        }
        let found = groups.iter().position(|group| group.domains.iter().any(|one| one == domain));
        let Some(group) = found else {
            return Answer { result: Err(DnsFailure::NoSuchDomain), ttl };
        };
        let site = &groups[group].sites[self.serving[group]];
        Answer { result: Ok((0u16..).zip(site).map(resolved).collect()), ttl }
    }
}

fn resolved((number, host): (u16, &HostPlan)) -> ResolvedHost {
    let addresses: Vec<IpAddr> = vec![host.ip];
    ResolvedHost { preference: 10 * (number % 2), name: host.name.as_str().into(), addresses }
}
