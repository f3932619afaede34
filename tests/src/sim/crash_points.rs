//! One workload, gone through at every I/O: what happens there must never cost a message.
//!
//! Small segments are sealed, cleaned and used again within it; some mail is put off, some is
//! refused and reported, and one body is so large that it is stored in pieces.

use std::net::{IpAddr, Ipv4Addr};

use super::bounds::Bounds;
use super::clock::{HOUR, MINUTE, SECOND};
use super::ledger::Ledger;
use super::options::{Faults, Group, HostPlan, Later, Manners, Options};
use super::run::{Outcome, Telling, run_world, trace};
use super::trap::Trap;
use super::world::World;

/// What is left to chance in the workload is decided by this.
const SEED: u64 = 1;
const MAILS: usize = 200;
/// The mail with the large body, and its size: more than one chunk of 256 KiB.
const LARGE: usize = 60;
const LARGE_BYTES: usize = 300_000;

/// Thousands of runs differ by one I/O each: the crash itself, and each start, is what to look at.
const STEPS_PER_LOOK: u64 = 4096;

/// Runs the workload, with something happening at one I/O of it, or nothing.
#[must_use]
pub fn run(trap: Option<Trap>, telling: Telling) -> Outcome {
    let mut world = World::with(SEED, options(), trap, trace(telling));
    world.with_ledger(enlarge);
    world.look_every_steps(STEPS_PER_LOOK);
    run_world(world)
}

fn enlarge(ledger: &mut Ledger) {
    let text = &mut ledger.mails[LARGE].text;
    while text.len() < LARGE_BYTES {
        text.extend(b"All work and no play makes a dull boy.\r\n");
    }
}

fn options() -> Options {
    Options {
        shards_max: 2,
        mails: MAILS,
        recipients_max: 2,
        clients: 4,
        segment_bytes: 1 << 19,
        is_strict: false,
        commits_in_flight: 4,
        body_memory_bytes: 20_000,
        connections_in: 10,
        connections_out: 10,
        has_tls: false,
        body_bytes_max: 6_000,
        trouble_for: 30 * SECOND,
        expire: HOUR,
        groups: (0..3).map(group).collect(),
        faults: Faults::default(),
        later: Later::default(),
        labels: 0,
        bounds: Bounds::default(),
        is_crowd: false,
        tells_whom: false,
        orders: 0,
        questions: 0,
    }
}

fn group(number: u8) -> Group {
    let host = |site| HostPlan {
        name: format!("mx.s{site}.g{number}.sim"),
        ip: IpAddr::from(Ipv4Addr::new(10, 1 + number, site, 1)),
        manners: Manners {
            pipelining: true,
            eight_bit: true,
            greylists: number == 2,
            defers: 200,
            fails: 50,
            ..Manners::default()
        },
    };
    Group {
        domains: vec![format!("d0.g{number}.sim")],
        connections: 3,
        messages_per_connection: 20,
        retry: vec![5 * SECOND, MINUTE, 5 * MINUTE],
        sites: [vec![host(0)], vec![host(1)]],
        is_routed: number == 1,
    }
}
