//! Who delivers what next: permits are lent, leases fed and taken back.

use std::sync::Arc;
use std::time::Duration;

use super::alarm::Kind;
use super::gate::Gate;
use super::path::Path;
use super::permit::{Listed, Mood};
use super::site::Site;
use super::{Action, Scheduler};
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::connection::ShardId;
use crate::model::note::{HostSet, Opening};

/// From this many connections on, a site is worth more than one core.
const HOT_LEASES: u32 = 4;
/// Or from this many ready deliveries on.
const HOT_READY: u32 = 8;
/// How much younger a delivery may be that is preferred because its body is near: no home waits
/// longer than this behind another.
const LOCALITY_PATIENCE: Duration = Duration::from_secs(1);

/// A shard may be given a sixteenth more than its fair share of a hot site, and a little for luck.
const UNEVEN_SHARE: u32 = 16;
const UNEVEN_MIN: u32 = 8;

/// Deliveries a site remembers of each source, to deal by weight; then all are halved.
const GIVEN_MAX: u32 = 1 << 20;

/// How a path can take one more delivery; the first is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Offer {
    Idle(u32),
    Open,
    Busy(u32),
}

impl Scheduler {
    /// Gives out work of a site until permits, leases or deliveries run out.
    pub(super) fn dispatch(&mut self, now: Now, number: u32) {
        while !self.stopping && self.sites[number].ready > 0 && self.serve_pools(now, number) {}
    }

    /// One delivery for each pool that has any; whether there was one.
    fn serve_pools(&mut self, now: Now, number: u32) -> bool {
        let mut served = false;
        for at in 0..self.sites[number].trunks.len() {
            let trunk = self.sites[number].trunks[at];
            if let Some(lease) = self.lease_for_work(now, trunk) {
                self.give(now, trunk, lease);
                served = true;
            }
        }
        served
    }

    fn lease_for_work(&mut self, now: Now, trunk: u32) -> Option<u32> {
        let leaf = self.order.next(trunk)?;
        let (home, _) = self.order.oldest(&self.entries, leaf)?;
        let number = self.order.trunks[trunk as usize].site;
        let near = self.feeding_shard(&self.sites[number], home);
        let (source, offer) = self.best_offer(trunk, near)?;
        match offer {
            Offer::Idle(lease) | Offer::Busy(lease) => Some(lease),
            Offer::Open => self.open(now, number, source),
        }
    }

    /// The source to send from: an idle connection or a new one before work ahead, then who was given
    /// least for its weight.
    fn best_offer(&self, trunk: u32, near: ShardId) -> Option<(u16, Offer)> {
        let trunk = &self.order.trunks[trunk as usize];
        let site = &self.sites[trunk.site];
        let offers = self.roster.members(trunk.pool).iter().filter_map(|member| {
            let offer = self.offer(site, member.source, near)?;
            let given = site.given_to(member.source) * 1000 / u64::from(member.weight.max(1));
            Some((matches!(offer, Offer::Busy(_)), given, offer, member.source))
        });
        offers.min().map(|(_, _, offer, source)| (source, offer))
    }

    fn offer(&self, site: &Site, source: u16, near: ShardId) -> Option<Offer> {
        let room = site.in_use < connections_max(site);
        let Some(path) = site.paths.iter().find(|path| path.source == source) else {
            return room.then_some(Offer::Open);
        };
        let probing = match path.gate {
            Gate::Closed { .. } => return None,
            Gate::Probing { .. } if path.in_flight > 0 || path.fruitless > 0 => return None,
            Gate::Probing { .. } => true,
            Gate::Open => false,
        };
        if let Some(lease) = path.pick(near, |lane| lane.idle) {
            return Some(Offer::Idle(lease));
        }
        if room && path.fruitless == 0 && (!probing || path.working == 0) {
            return Some(Offer::Open);
        }
        let busy = path.pick(near, |lane| lane.busy).filter(|_| !probing);
        busy.map(Offer::Busy)
    }

    /// Where the next delivery of a site should go out: near its body, unless that shard was given
    /// clearly more than its share of a hot site lately. Clients are not dealt evenly to shards, and
    /// one core must not become what a large provider's mail waits for.
    fn feeding_shard(&self, site: &Site, near: ShardId) -> ShardId {
        let fair = site.recent() / u32::from(self.shards);
        if !self.is_hot(site) || site.peek(near).recent <= fair + fair / UNEVEN_SHARE + UNEVEN_MIN {
            return near;
        }
        let shards = (0..self.shards).map(ShardId);
        shards.min_by_key(|shard| site.peek(*shard).recent).unwrap_or(near)
    }

    /// Takes a permit and lends it.
    fn open(&mut self, now: Now, number: u32, source: u16) -> Option<u32> {
        let shard = self.executing_shard(&self.sites[number]);
        let path = self.sites[number].path_from(source);
        let share = self.sites[number].pace.settings.messages_per_connection;
        let lease = self.leases.open((number, path), shard, share, now.mono)?;
        let site = &mut self.sites[number];
        site.in_use += 1;
        site.working += 1;
        site.lane(shard).leases += 1;
        site.path(path).in_use += 1;
        site.path(path).working += 1;
        assert!(site.in_use <= connections_max(site), "a limit is never exceeded");
        let opening = Opening {
            lease: self.leases[lease].id,
            target: Arc::clone(&site.target),
            settings: Arc::clone(&site.pace.settings),
            source: None,
            skip: HostSet::EMPTY,
        };
        self.actions.push_back(Action::Open { to: shard, opening });
        Some(lease)
    }

    /// A small site is delivered here; a hot one where it has fewest connections, then where least
    /// of its mail went lately.
    fn executing_shard(&self, site: &Site) -> ShardId {
        let hot_with_it = site.in_use + 1 >= HOT_LEASES;
        if self.shards == 1 || !(hot_with_it || self.is_hot(site)) {
            return self.shard;
        }
        let load = |shard: &ShardId| {
            let lane = site.peek(*shard);
            (lane.leases, lane.recent)
        };
        (0..self.shards).map(ShardId).min_by_key(load).unwrap_or(self.shard)
    }

    fn is_hot(&self, site: &Site) -> bool {
        self.shards > 1 && (site.in_use >= HOT_LEASES || site.ready > HOT_READY)
    }

    fn give(&mut self, now: Now, trunk: u32, lease: u32) {
        let (number, shard) = (self.leases[lease].site, self.leases[lease].shard);
        let Some((leaf, id)) = self.next_for(&self.sites[number], trunk, shard) else { return };
        // While it stands in line: what leaves the line by being given still pays.
        self.order.charge(leaf, self.entries[id].cost());
        let flight = self.remove(now, id);
        let delivery = flight.delivery.clone();
        let path = self.leases[lease].path;
        self.leases[lease].give(flight);
        let site = &mut self.sites[number];
        site.in_flight += 1;
        site.path(path).in_flight += 1;
        site.count_given(shard);
        site.count_given_to(path, GIVEN_MAX);
        self.in_flight += 1;
        let share = site.pace.settings.messages_per_connection.min(self.leases[lease].share);
        let id = self.leases[lease].id;
        self.actions.push_back(Action::Work { to: shard, lease: id, delivery });
        if self.leases[lease].given >= share {
            self.retire(lease);
        } else {
            self.relist(now, lease);
        }
    }

    /// The next delivery of a trunk for a connection on `shard`, and its leaf.
    fn next_for(&self, site: &Site, trunk: u32, shard: ShardId) -> Option<(u32, u32)> {
        let leaf = self.order.next(trunk)?;
        let (_, oldest) = self.order.oldest(&self.entries, leaf)?;
        if !self.is_hot(site) {
            return Some((leaf, oldest));
        }
        let age = |id: u32| self.entries[id].accepted;
        let near = self.order.oldest_of(leaf, shard);
        let near = near.filter(|near| age(*near).since(age(oldest)) <= LOCALITY_PATIENCE);
        Some((leaf, near.unwrap_or(oldest)))
    }

    /// No more work for this lease.
    pub(super) fn end_willingness(&mut self, slot: u32) {
        if self.leases[slot].mood != Mood::Willing {
            return;
        }
        self.unlist(slot);
        let lease = &mut self.leases[slot];
        lease.mood = Mood::Spent;
        let site = &mut self.sites[lease.site];
        site.working -= 1;
        site.path(lease.path).working -= 1;
        site.lane(lease.shard).leases -= 1;
    }

    /// No more work for this lease, and it is told to close once it has none left.
    fn retire(&mut self, slot: u32) {
        self.end_willingness(slot);
        let lease = &mut self.leases[slot];
        if lease.mood == Mood::Spent && lease.outstanding() == 0 {
            lease.mood = Mood::Closing;
            self.actions.push_back(Action::Close { to: lease.shard, lease: lease.id });
        }
    }

    /// After a delivery of the lease was done: shall it go on?
    pub(super) fn review(&mut self, now: Now, slot: u32) {
        let lease = &self.leases[slot];
        let site = &self.sites[lease.site];
        let surplus = site.working > site.pace.settings.connections;
        let stopped = self.stopping && lease.outstanding() == 0;
        if lease.mood != Mood::Willing || surplus || stopped || self.is_lopsided(site, lease.shard)
        {
            self.retire(slot);
        } else {
            self.relist(now, slot);
        }
    }

    /// Whether a hot site has clearly more connections on `shard` than elsewhere: one of them is
    /// recalled, so that the next opens on another shard. One at a time, so that it comes to rest.
    fn is_lopsided(&self, site: &Site, shard: ShardId) -> bool {
        if site.in_use != site.working || !self.is_hot(site) {
            return false;
        }
        let fewest = (0..self.shards).map(|shard| site.peek(ShardId(shard)).leases).min();
        site.peek(shard).leases >= fewest.unwrap_or(0) + 2
    }

    /// Puts a lease into the list that says how much it can take.
    fn relist(&mut self, now: Now, slot: u32) {
        self.unlist(slot);
        let lease = &mut self.leases[slot];
        let (number, path, shard) = (lease.site, lease.path, lease.shard);
        let (outstanding, has_room) = (lease.outstanding(), lease.has_room());
        let lane = self.sites[number].path(path).lane(shard);
        if outstanding == 0 {
            lease.listed = Listed::Idle;
            lease.idle_since = now.mono;
            lane.idle.push_back(&mut self.leases, slot);
            let wait = self.sites[number].pace.settings.idle_timeout;
            self.arm(number, Kind::Idle, now.mono.plus(wait));
        } else if has_room {
            lease.listed = Listed::Busy;
            lane.busy.push_back(&mut self.leases, slot);
        }
    }

    fn unlist(&mut self, slot: u32) {
        let lease = &mut self.leases[slot];
        let listed = std::mem::replace(&mut lease.listed, Listed::No);
        let lane = self.sites[lease.site].path(lease.path).lane(lease.shard);
        match listed {
            Listed::No => {}
            Listed::Idle => lane.idle.remove(&mut self.leases, slot),
            Listed::Busy => lane.busy.remove(&mut self.leases, slot),
        }
    }

    /// Closes what has been without work for too long, and sets the alarm for the next.
    pub(super) fn close_idle(&mut self, now: Now, number: u32) {
        let timeout = self.sites[number].pace.settings.idle_timeout;
        while let Some(slot) = self.longest_idle(number) {
            let end = self.leases[slot].idle_since.plus(timeout);
            if end > now.mono {
                return self.arm(number, Kind::Idle, end);
            }
            self.retire(slot);
        }
    }

    /// Closes idle connections: all of them when stopping, else those above a lowered limit.
    pub(super) fn trim(&mut self, number: u32) {
        while let Some(slot) = self.longest_idle(number) {
            let site = &self.sites[number];
            if !self.stopping && site.working <= site.pace.settings.connections {
                return;
            }
            self.retire(slot);
        }
    }

    fn longest_idle(&self, number: u32) -> Option<u32> {
        let lanes = self.sites[number].paths.iter().flat_map(Path::lanes);
        let fronts = lanes.filter_map(|lane| lane.idle.front());
        fronts.min_by_key(|slot| self.leases[*slot].idle_since)
    }
}

fn connections_max(site: &Site) -> u32 {
    site.pace.settings.connections + u32::from(planted(Bug::LimitOffByOne))
}
