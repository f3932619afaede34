//! What a sink shall stand for.

use std::net::SocketAddr;

use serde::Deserialize;

use super::World;

/// One mail server of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkHost {
    /// Its label in reports, and the name in its banner.
    pub name: String,
    pub address: SocketAddr,
}

/// What the hosts offer in their EHLO reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    pub pipelining: bool,
    pub eight_bit_mime: bool,
    pub chunking: bool,
    /// The largest text taken, in bytes; zero offers no SIZE.
    pub size_max: u64,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { pipelining: true, eight_bit_mime: true, chunking: true, size_max: 64 << 20 }
    }
}

#[derive(Debug, Clone)]
pub struct SinkPlan {
    pub hosts: Vec<SinkHost>,
    /// Each host belongs to one of these threads.
    pub threads: usize,
    /// For hosts whose personality says nothing of it.
    pub capabilities: Capabilities,
    /// How the hosts behave at first.
    pub world: World,
    /// The run whose tokens count; `None` takes the run of the first token seen by each thread.
    pub run: Option<u64>,
}

impl SinkPlan {
    /// One thread, every capability, hosts that take everything, any run.
    pub fn new(hosts: Vec<SinkHost>) -> Self {
        let (capabilities, world) = (Capabilities::default(), World::default());
        Self { hosts, threads: 1, capabilities, world, run: None }
    }
}
