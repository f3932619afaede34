//! Who delivers what next: permits are lent, leases fed and taken back.

use std::sync::Arc;
use std::time::Duration;

use super::alarm::Kind;
use super::caps::{Held, InHand};
use super::control::{Control, Door};
use super::feedback::At;
use super::limits::{Hindrance, connections_max, skipped};
use super::pacing::Bound;
use super::path::Path;
use super::permit::{Flight, Listed, Mood};
use super::saved::Saved;
use super::site::Site;
use super::warm_up::Counted;
use super::{Action, Scheduler};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::connection::ShardId;
use crate::model::delivery::LeaseId;
use crate::model::note::Opening;

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

/// When another shard took the last of a shared rate first: soon enough to lose none of it.
pub(super) const RATE_LOST_WAIT: Duration = Duration::from_micros(200);

/// Deliveries a site remembers of each source, to deal by weight; then all are halved.
const GIVEN_MAX: u32 = 1 << 20;

/// How a path can take one more delivery; the first is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Offer {
    Idle(u32),
    /// Another connection, from then on.
    Open(Mono),
    Busy(u32),
}

impl Scheduler {
    /// Gives out work of a site until permits, leases or deliveries run out.
    pub(super) fn dispatch(&mut self, now: Now, number: u32) {
        self.answer_askers(now, number);
        while !self.stopping
            && !self.awaits_state
            && self.sites[number].ready > 0
            && self.serve_pools(now, number)
        {}
    }

    /// One delivery for each pool that has any; whether there was one.
    fn serve_pools(&mut self, now: Now, number: u32) -> bool {
        let mut served = false;
        for at in 0..self.sites[number].trunks.len() {
            // One that held nothing but cancelled mail may have gone meanwhile.
            let Some(trunk) = self.sites[number].trunks.get(at).copied() else { break };
            served |= self.serve(now, trunk).is_some();
        }
        served
    }

    /// Gives out the next delivery of a trunk, if some path takes it now.
    fn serve(&mut self, now: Now, trunk: u32) -> Option<()> {
        let leaf = self.order.next(trunk)?;
        let (home, oldest) = self.order.oldest(&self.entries, leaf)?;
        let number = self.order.trunks[trunk as usize].site;
        if self.is_entry_cancelled(oldest) {
            return self.pass_over(now, number, leaf, oldest);
        }
        let bytes = self.entries[oldest].bytes();
        let near = self.feeding_shard(&self.sites[number], home);
        let (source, offer) = self.best_offer(now, trunk, near, bytes)?;
        if let Offer::Open(from) = offer {
            let path = self.path_from(now, number, source);
            if from > now.mono {
                self.wait_for_reply((number, path), from);
                return None;
            }
            if self.is_paced_on(now, (number, path)) {
                self.open(now, number, source, None);
                return None;
            }
        }
        // Refused by its tenant's cap, this one is out of line: the next may go.
        let Some(held) = self.admit_tenant(now, leaf, bytes) else { return Some(()) };
        let Some((lease, counted)) = self.take_offer(now, number, (source, offer), bytes) else {
            self.release(held);
            return None;
        };
        self.give(now, trunk, lease, (held, counted), bytes);
        Some(())
    }

    /// Whether mail from a source is given only to a connection that is ready for it: until then no
    /// rate is taken.
    fn is_paced_on(&self, now: Now, (number, path): At) -> bool {
        let site = &self.sites[number];
        self.is_paced(now, site, Some(&site.paths[usize::from(path)]))
    }

    /// The lease of an offer, with the rates of one message taken.
    fn take_offer(
        &mut self,
        now: Now,
        number: u32,
        (source, offer): (u16, Offer),
        bytes: u32,
    ) -> Option<(u32, Counted)> {
        let lease = match offer {
            Offer::Idle(lease) | Offer::Busy(lease) => lease,
            Offer::Open(_) => self.open(now, number, source, None)?,
        };
        let path = self.leases[lease].path;
        if let Some(counted) = self.take_message(now, number, path, bytes) {
            return Some((lease, counted));
        }
        self.relist_unused(now, lease);
        self.arm_pace(number, now.mono.plus(RATE_LOST_WAIT));
        None
    }

    /// A lease that was to be given something, and was not.
    fn relist_unused(&mut self, now: Now, lease: u32) {
        if self.leases[lease].mood == Mood::Willing {
            self.relist(now, lease);
        }
    }

    /// The source to send from: an idle connection or a new one before work ahead, then who was given
    /// least for its weight. Without any, the site is woken when a rate, or the next day of a warm-up,
    /// lets one. Where what is above such a day waits for it, no other source takes more than its share.
    fn best_offer(
        &mut self,
        now: Now,
        trunk: u32,
        near: ShardId,
        bytes: u32,
    ) -> Option<(u16, Offer)> {
        let trunk = &self.order.trunks[trunk as usize];
        let (number, mut best, mut wake) = (trunk.site, None, Mono::NEVER);
        let site = &self.sites[number];
        let (mut kept_back, mut is_day_full) = (u64::MAX, false);
        for member in self.roster.members(trunk.pool) {
            match self.offer(now, site, member.source, near, bytes) {
                Ok(offer) => {
                    let given = self.share_of(site, *member);
                    let key = (matches!(offer, Offer::Busy(_)), given, offer, member.source);
                    best = Some(best.map_or(key, |best| key.min(best)));
                }
                Err(Hindrance::Rate { until, .. }) => wake = wake.min(until),
                Err(Hindrance::WarmUp { until }) => {
                    wake = wake.min(until);
                    is_day_full = true;
                    if self.keeps_its_share(member.source) {
                        kept_back = kept_back.min(self.share_of(site, *member));
                    }
                }
                Err(Hindrance::Connections { bound: Bound::ConnectionsPerIp, .. }) => {
                    let crowded = site.path_of(member.source).map(|path| path.crowded_until);
                    wake = wake.min(crowded.unwrap_or(Mono::NEVER));
                }
                Err(_) => {}
            }
        }
        let pool = trunk.pool;
        let best = best.filter(|(_, given, ..)| *given <= kept_back);
        if let Some((_, given, ..)) = best.filter(|_| is_day_full) {
            self.forgo_share(now, number, pool, given);
        }
        if best.is_none() && wake != Mono::NEVER {
            self.arm_pace(number, wake);
        }
        best.map(|(_, _, offer, source)| (source, offer))
    }

    fn offer(
        &self,
        now: Now,
        site: &Site,
        source: u16,
        near: ShardId,
        bytes: u32,
    ) -> Result<Offer, Hindrance> {
        let path = site.path_of(source);
        self.may_send(now, site, (source, path), bytes)?;
        let Some(path) = path else {
            return self.may_open(now, site, None).map(|()| Offer::Open(now.mono));
        };
        let probing = matches!(path.control.door(), Door::Probing { .. });
        if let Some(lease) = path.pick(near, |lane| lane.idle) {
            return Ok(Offer::Idle(lease));
        }
        let is_paced = self.is_paced(now, site, Some(path));
        let hindrance = match self.may_open(now, site, Some(path)) {
            Ok(()) => return Ok(Offer::Open(self.opens_from(now, site, path))),
            Err(hindrance) => hindrance,
        };
        let busy = path.pick(near, |lane| lane.busy).filter(|_| !probing && !is_paced);
        busy.map(Offer::Busy).ok_or(hindrance)
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

    /// Takes a permit and lends it. `in_hand`: a permit of a shared cap that was waited for.
    pub(super) fn open(
        &mut self,
        now: Now,
        number: u32,
        source: u16,
        in_hand: Option<InHand>,
    ) -> Option<u32> {
        let path = self.path_from(now, number, source);
        let held = self.acquire((number, path), in_hand)?;
        if !self.take_connection(now, number, path) {
            // A permit that is dropped is never free again.
            if !planted(Bug::SharedPermitLeaked) {
                self.release(held);
            }
            self.arm_pace(number, now.mono.plus(RATE_LOST_WAIT));
            return None;
        }
        let is_paced = {
            let site = &self.sites[number];
            self.is_paced(now, site, site.path_of(source))
        };
        let shard = if is_paced { self.shard } else { self.executing_shard(&self.sites[number]) };
        let share = self.sites[number].pace.settings.messages_per_connection;
        let Some(lease) = self.leases.open((number, path), shard, share, now.mono) else {
            self.release(held);
            return None;
        };
        self.leases[lease].held = held;
        self.count_opened(number, path, shard);
        if is_paced {
            self.leases[lease].mood = Mood::Awaited;
            self.sites[number].path(path).opening += 1;
        }
        let opening = self.opening(now, lease);
        self.actions.push_back(Action::Open { to: shard, opening });
        Some(lease)
    }

    fn count_opened(&mut self, number: u32, path: u16, shard: ShardId) {
        let site = &mut self.sites[number];
        site.in_use += 1;
        site.working += 1;
        site.lane(shard).leases += 1;
        site.path(path).in_use += 1;
        site.path(path).working += 1;
        assert!(site.in_use <= connections_max(site), "a limit is never exceeded");
    }

    fn opening(&self, now: Now, lease: u32) -> Opening {
        let lease = &self.leases[lease];
        let site = &self.sites[lease.site];
        let path = &site.paths[usize::from(lease.path)];
        Opening {
            lease: lease.id,
            target: Arc::clone(&site.target),
            settings: Arc::clone(&site.pace.settings),
            source: self.roster.source_at(path.source).egress.clone(),
            skip: skipped(now, site, path),
            is_paced: self.paces_connections(site, path),
        }
    }

    /// The path of a site from a source, new if need be.
    pub(super) fn path_from(&mut self, now: Now, number: u32, source: u16) -> u16 {
        if let Some(path) = self.sites[number].path_number(source) {
            return path;
        }
        let site = &self.sites[number];
        let ceiling = site.pace.settings.connections;
        let learned = self.remembered.take(&(site.key().clone(), source));
        let control = match &learned {
            Some(learned) => Control::resume(now, learned, ceiling, &site.pace.control),
            None => Control::new(now.mono, ceiling, &site.pace.control),
        };
        let mut path = Path::new(source, control);
        path.saved = Saved::of(learned);
        let name = Arc::clone(&self.roster.source_at(source).name);
        path.cells = self.cells_for(now, site.provider.as_deref(), &name);
        path.day = self.day_for(now, number, source);
        self.sites[number].add_path(path)
    }

    /// The connection of a lease can take mail now.
    pub fn handle_ready(&mut self, now: Now, lease: LeaseId) {
        let Some(slot) = self.leases.find(lease) else { return };
        let lease = &mut self.leases[slot];
        if lease.mood != Mood::Awaited || planted(Bug::PacedNeverReady) {
            return;
        }
        lease.mood = Mood::Willing;
        let (number, path) = (lease.site, lease.path);
        self.sites[number].path(path).opening -= 1;
        self.relist(now, slot);
        self.dispatch(now, number);
    }

    /// A path that waited at a shared cap opens a connection with the permit it was granted, if
    /// it still has a use for it.
    pub(super) fn open_parked(&mut self, now: Now, (number, path): (u32, u16), in_hand: InHand) {
        let site = &self.sites[number];
        let at = &site.paths[usize::from(path)];
        let source = at.source;
        let wanted = site.ready > 0 && !self.stopping && self.held(site, source).is_none();
        let wanted = wanted && self.is_passable(now, at).is_ok();
        if wanted && self.may_open(now, site, Some(at)).is_ok() {
            let lease = self.open(now, number, source, Some(in_hand));
            // Nothing was picked for it yet: it is given what comes next.
            if let Some(lease) = lease.filter(|_| !planted(Bug::GrantedNeverFed)) {
                self.relist_unused(now, lease);
            }
        } else {
            self.give_up(in_hand);
        }
        self.dispatch(now, number);
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

    /// `bytes`: what rates in bytes were asked for.
    fn give(
        &mut self,
        now: Now,
        trunk: u32,
        lease: u32,
        (held, counted): (Held, Counted),
        bytes: u32,
    ) {
        let (number, shard) = (self.leases[lease].site, self.leases[lease].shard);
        let most = if self.policies.has_byte_rates() { bytes } else { u32::MAX };
        let Some((leaf, id)) = self.next_for(&self.sites[number], trunk, shard, most) else {
            // Of rates and days what was taken is lost.
            return self.release(held);
        };
        // While it stands in line: what leaves the line by being given still pays.
        self.order.charge(leaf, self.entries[id].cost());
        let flight = Flight { given: now.mono, held, counted, ..self.remove(id) };
        let delivery = flight.delivery.clone();
        let path = self.leases[lease].path;
        self.leases[lease].give(flight);
        let site = &mut self.sites[number];
        site.in_flight += 1;
        site.path(path).in_flight += 1;
        site.path(path).waits_until = None;
        site.count_given(shard);
        site.count_given_to(path, GIVEN_MAX);
        self.in_flight += 1;
        let learned = site.path(path).session.get(now.mono).unwrap_or(u32::MAX);
        let share = site.pace.settings.messages_per_connection.min(self.leases[lease].share);
        let share = share.min(learned);
        let id = self.leases[lease].id;
        self.actions.push_back(Action::Work { to: shard, lease: id, delivery });
        if self.leases[lease].given >= share {
            self.retire(lease);
        } else {
            self.relist(now, lease);
        }
    }

    /// The next delivery of a trunk for a connection on `shard`, and its leaf. One that stands further
    /// back, but near its body, has at most so many bytes: the oldest was what rates were asked for.
    fn next_for(&self, site: &Site, trunk: u32, shard: ShardId, most: u32) -> Option<(u32, u32)> {
        let leaf = self.order.next(trunk)?;
        let (_, oldest) = self.order.oldest(&self.entries, leaf)?;
        if !self.is_hot(site) {
            return Some((leaf, oldest));
        }
        let age = |id: u32| self.entries[id].accepted;
        let near = self.order.oldest_of(leaf, shard);
        let near = near.filter(|near| age(*near).since(age(oldest)) <= LOCALITY_PATIENCE);
        let near = near.filter(|near| !self.is_entry_cancelled(*near));
        let near = near.filter(|near| self.entries[*near].bytes() <= most);
        Some((leaf, near.unwrap_or(oldest)))
    }

    /// No more work for this lease.
    pub(super) fn end_willingness(&mut self, slot: u32) {
        let mood = self.leases[slot].mood;
        if !matches!(mood, Mood::Willing | Mood::Awaited) {
            return;
        }
        self.unlist(slot);
        let lease = &mut self.leases[slot];
        lease.mood = Mood::Spent;
        let site = &mut self.sites[lease.site];
        site.path(lease.path).opening -= u32::from(mood == Mood::Awaited);
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
        let path = &site.paths[usize::from(lease.path)];
        let surplus = site.working > site.pace.settings.connections
            || path.working > self.width(now, site, path);
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
