//! What kind of world a seed makes: how many shards, which sites, which troubles and how often.

use std::net::{IpAddr, Ipv4Addr};

use super::bounds::Bounds;
use super::chance::{Chance, Stream};
use super::clock::{DAY, HOUR, MINUTE, SECOND};
use super::crowd::gather;

/// The whole of it. Every trouble is absent from many seeds, so that what it hides can be seen.
#[derive(Debug)]
pub struct Options {
    pub shards_max: u16,
    pub mails: usize,
    pub recipients_max: u64,
    pub clients: usize,
    pub segment_bytes: u32,
    pub is_strict: bool,
    pub commits_in_flight: usize,
    pub body_memory_bytes: u64,
    pub connections_in: u32,
    pub connections_out: u32,
    pub has_tls: bool,
    pub body_bytes_max: u64,
    /// How long faults go on.
    pub trouble_for: u64,
    pub expire: u64,
    pub groups: Vec<Group>,
    pub faults: Faults,
    pub later: Later,
    /// Of a thousand mails, those whose header says whose mail it is; not all clients are believed.
    pub labels: u32,
    pub bounds: Bounds,
    /// See `crowd.rs`.
    pub is_crowd: bool,
    /// Whether hosts say whom they mean when they refuse.
    pub tells_whom: bool,
    /// Of operators.
    pub orders: u64,
    /// Of operators.
    pub questions: u64,
}

/// Seeds below have no later troubles, so that they stay the worlds they were when recorded.
pub const LATER_FROM: u64 = 100_000;

/// Seeds below have no such headers, for the same reason.
pub const LABELS_FROM: u64 = 200_000;

/// Seeds below have no hosts that say whom they mean, for the same reason.
pub const TELLING_FROM: u64 = 1_000_000;

/// Seeds below have no hosts that take chunks, for the same reason.
pub const CHUNKING_FROM: u64 = 90_000_000;

fn draw_labels(seed: u64) -> u32 {
    let chance = &mut Chance::new(seed, Stream::Labels);
    if seed < LABELS_FROM || chance.one_in(3) { 0 } else { rate(chance, 1000) + 100 }
}

/// Troubles that worlds did not have at first.
#[derive(Debug, Default)]
pub struct Later {
    /// New settings while mail is under way.
    pub reloads: u64,
    /// Steps of the wall clock, either way.
    pub wall_steps: u64,
    /// Clients that read nothing and never end their connection.
    pub rogues: u64,
    /// Bits that flip inside a message on the disk.
    pub body_rots: u64,
    /// Of a thousand mailboxes, those that never have room: their mail waits until it is given up.
    pub full_mailboxes: u64,
}

impl Later {
    fn draw(seed: u64) -> Self {
        if seed < LATER_FROM {
            return Self::default();
        }
        let chance = &mut Chance::new(seed, Stream::Later);
        let mut some = |most| if chance.one_in(2) { 0 } else { chance.skewed(1, most) };
        Self {
            reloads: some(6),
            wall_steps: some(3),
            rogues: some(6),
            body_rots: some(2),
            full_mailboxes: some(500),
        }
    }

    /// Without what would take too many attempts to come to an end.
    fn within_reason(mut self, groups: &[Group], expire: u64) -> Self {
        let often = |group: &Group| group.retry.last().is_some_and(|wait| *wait < expire / 200);
        if groups.iter().any(often) {
            self.full_mailboxes = 0;
        }
        self
    }
}

/// Domains that are treated alike, and the two sets of hosts that may serve them.
#[derive(Debug)]
pub struct Group {
    pub domains: Vec<String>,
    pub connections: u32,
    pub messages_per_connection: u32,
    /// Waits between attempts, in nanoseconds, never decreasing.
    pub retry: Vec<u64>,
    /// The second set serves after a move.
    pub sites: [Vec<HostPlan>; 2],
    /// Whether the operator routes it to its first host instead of asking the resolver.
    pub is_routed: bool,
}

#[derive(Debug)]
pub struct HostPlan {
    pub name: String,
    pub ip: IpAddr,
    pub manners: Manners,
}

/// What a host can do, and how often in a thousand it does what it should not.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    pub pipelining: bool,
    pub chunking: bool,
    pub eight_bit: bool,
    pub starttls: bool,
    pub only_helo: bool,
    pub greylists: bool,
    pub refuses: u32,
    pub ignores: u32,
    pub turns_away: u32,
    pub defers: u32,
    pub fails: u32,
    pub says_421: u32,
    pub hangs_up: u32,
    pub falls_silent: u32,
    /// Takes the message, and loses the reply.
    pub loses_reply: u32,
    pub is_slow: u32,
    pub breaks_tls: u32,
    /// See [`Later::full_mailboxes`].
    pub full_mailboxes: u64,
    /// How much longer it takes to answer a whole message.
    pub takes_for: u64,
}

/// Troubles of the machine and the network.
#[derive(Debug, Default)]
pub struct Faults {
    pub kills: u64,
    pub power_cuts: u64,
    pub stops: u64,
    pub moves: u64,
    pub rots: u64,
    pub full_spells: u64,
    /// Files the disk has room for; none: no bound.
    pub files_max: Option<usize>,
    pub write_fails: u32,
    pub write_is_slow: u32,
    pub read_fails: u32,
    pub names_fail: u32,
    pub client_cuts: u32,
    pub client_stalls: u32,
    pub client_errs: u32,
    pub resets: u32,
}

/// How large a world to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Short,
    Long,
}

impl Options {
    #[must_use]
    pub fn draw(seed: u64, size: Size) -> Self {
        let chance = &mut Chance::new(seed, Stream::Options);
        let scale = if size == Size::Long { 10 } else { 1 };
        let has_chunks = chance.one_in(12);
        let segment_bytes = if has_chunks { 1 << 21 } else { 1 << chance.between(17, 19) };
        let mut options = Self {
            shards_max: u16::try_from(chance.between(1, 3)).unwrap_or(1),
            mails: chance.length(4, 40) * scale,
            recipients_max: 8,
            clients: chance.length(1, 6),
            segment_bytes,
            is_strict: chance.one_in(4),
            commits_in_flight: if chance.one_in(4) { 1 } else { 4 },
            body_memory_bytes: *chance.pick(&[1, 20_000, 64 << 20, 64 << 20]),
            connections_in: u32::try_from(chance.between(3, 20)).unwrap_or(3),
            connections_out: u32::try_from(chance.between(2, 20)).unwrap_or(2),
            has_tls: chance.one_in(4),
            body_bytes_max: if has_chunks { 700_000 } else { 16_000 },
            trouble_for: chance.skewed(SECOND, 2 * HOUR) * scale as u64,
            expire: *chance.pick(&[20 * MINUTE, 5 * HOUR, 2 * DAY]),
            groups: (0..chance.length(1, 4)).map(|number| Group::draw(chance, number)).collect(),
            faults: Faults::draw(chance, segment_bytes),
            later: Later::draw(seed),
            labels: draw_labels(seed),
            bounds: Bounds::default(),
            is_crowd: false,
            tells_whom: seed >= TELLING_FROM,
            orders: super::orders::draw(seed),
            questions: super::asking::draw(seed),
        };
        options.bounds = Bounds::draw(seed, options.groups.len(), options.trouble_for);
        options.later =
            std::mem::take(&mut options.later).within_reason(&options.groups, options.expire);
        options.set_uneven_hosts(seed);
        options.set_chunking(seed);
        gather(&mut options, seed);
        options
    }

    fn set_chunking(&mut self, seed: u64) {
        let chance = &mut Chance::new(seed, Stream::Chunking);
        if seed < CHUNKING_FROM {
            return;
        }
        let sites = self.groups.iter_mut().flat_map(|group| &mut group.sites);
        for host in sites.flatten() {
            host.manners.chunking = chance.one_in(2);
        }
    }

    /// In some worlds: a site whose first host offers much and gives up after that, and whose second
    /// knows HELO alone. What the one offered must not count for the other.
    fn set_uneven_hosts(&mut self, seed: u64) {
        let chance = &mut Chance::new(seed, Stream::Uneven);
        if seed < TELLING_FROM || !chance.one_in(12) {
            return;
        }
        self.has_tls = true;
        for (site, hosts) in self.groups[0].sites.iter_mut().enumerate() {
            hosts.truncate(1);
            hosts.push(HostPlan::draw(chance, 0, site, 1));
            let first = &mut hosts[0].manners;
            (first.starttls, first.pipelining, first.only_helo) = (true, true, false);
            first.says_421 = 800;
            (hosts[1].manners.only_helo, hosts[1].manners.pipelining) = (true, false);
        }
    }
}

impl Group {
    fn draw(chance: &mut Chance, number: usize) -> Self {
        let mut wait = chance.skewed(SECOND, 10 * MINUTE);
        let mut retry = vec![wait];
        for _ in 0..chance.below(4) {
            wait += chance.skewed(1, HOUR);
            retry.push(wait);
        }
        Self {
            domains: (0..chance.length(1, 3)).map(|n| format!("d{n}.g{number}.sim")).collect(),
            connections: u32::try_from(chance.skewed(1, 6)).unwrap_or(1),
            messages_per_connection: *chance.pick(&[1, 2, 5, 100]),
            retry,
            sites: [0, 1].map(|site| {
                (0..chance.length(1, 2))
                    .map(|host| HostPlan::draw(chance, number, site, host))
                    .collect()
            }),
            is_routed: chance.one_in(6),
        }
    }
}

impl HostPlan {
    fn draw(chance: &mut Chance, group: usize, site: usize, host: usize) -> Self {
        let part = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        Self {
            name: format!("mx{host}.s{site}.g{group}.sim"),
            ip: Ipv4Addr::new(10, 1 + part(group), part(site), 1 + part(host)).into(),
            manners: Manners::draw(chance),
        }
    }
}

/// A rate in a thousand; zero in most seeds.
fn rate(chance: &mut Chance, most: u64) -> u32 {
    if chance.below(10) < 6 { 0 } else { u32::try_from(chance.skewed(1, most)).unwrap_or(0) }
}

impl Manners {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            pipelining: !chance.one_in(4),
            chunking: false,
            eight_bit: !chance.one_in(6),
            starttls: chance.one_in(2),
            only_helo: chance.one_in(16),
            greylists: chance.one_in(8),
            refuses: rate(chance, 900),
            ignores: rate(chance, 500),
            turns_away: rate(chance, 500),
            defers: rate(chance, 500),
            fails: rate(chance, 300),
            says_421: rate(chance, 300),
            hangs_up: rate(chance, 300),
            falls_silent: rate(chance, 100),
            loses_reply: rate(chance, 300),
            is_slow: rate(chance, 300),
            breaks_tls: rate(chance, 900),
            full_mailboxes: 0,
            takes_for: 0,
        }
    }

    /// The same host on a good day.
    #[must_use]
    pub fn calm(&self) -> Self {
        Self {
            pipelining: self.pipelining,
            chunking: self.chunking,
            eight_bit: self.eight_bit,
            starttls: self.starttls,
            only_helo: self.only_helo,
            full_mailboxes: self.full_mailboxes,
            takes_for: self.takes_for,
            ..Self::default()
        }
    }
}

impl Faults {
    fn draw(chance: &mut Chance, segment_bytes: u32) -> Self {
        let mut some = |most| if chance.one_in(2) { 0 } else { chance.skewed(0, most) };
        let (kills, power_cuts, stops) = (some(4), some(4), some(2));
        let (moves, full_spells) = (some(2), some(2));
        let few = if segment_bytes > 1 << 20 { 3 } else { 4 };
        Self {
            kills,
            power_cuts,
            stops,
            moves,
            rots: if chance.one_in(12) { 1 } else { 0 },
            full_spells,
            files_max: chance.one_in(5).then(|| chance.length(few, 12)),
            write_fails: rate(chance, 100),
            write_is_slow: rate(chance, 200),
            read_fails: if chance.one_in(12) { rate(chance, 200) } else { 0 },
            names_fail: rate(chance, 500),
            client_cuts: rate(chance, 500),
            client_stalls: rate(chance, 200),
            client_errs: rate(chance, 200),
            resets: rate(chance, 50),
        }
    }
}
