//! What is paced together: the queues of one site, its permits in use, and its state.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::alarm::Kind;
use super::bucket::Buckets;
use super::course::Waits;
use super::due::Due;
use super::list::NONE;
use super::pacing::Pacers;
use super::path::Path;
use super::policy::Pace;
use super::retry::Fifos;
use crate::base::index::Index;
use crate::base::time::Mono;
use crate::model::connection::ShardId;
use crate::model::delivery::LeaseId;
use crate::model::outcome::Reply;
use crate::model::route::{SiteKey, Target};
use crate::shard::Fact;

/// Paths up to so many are looked through; the place of one among more is kept.
const FEW_PATHS: usize = 8;

/// One site. It lives as long as it holds something, and a little longer.
///
/// In the order in which they lie: what each message looks at first, in as few cache lines as it fits.
/// Of a thousand sites each is cold when its turn comes.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Site {
    /// Tells it from an earlier site in the same slot.
    pub(super) serial: u32,
    pub(super) ready: u32,
    pub(super) deferred: u32,
    pub(super) in_flight: u32,
    /// Permits over all paths.
    pub(super) in_use: u32,
    /// Leases that still take work, over all paths.
    pub(super) working: u32,
    /// Of what is ready and deferred: cancelled, and not swept away yet.
    pub(super) cancelled: Waits,
    /// Where its mail goes, by the freshest look-up; its name never changes.
    pub(super) target: Arc<Target>,
    /// One for each source that was ever needed here.
    pub(super) paths: Vec<Path>,
    pub(super) pace: Pace,
    /// The course of its last mail, while it has none.
    pub(super) resting: Option<u32>,
    /// Policies of its domains: number, and how many domains fall under it.
    pub(super) policies: SmallVec<[(usize, u32); 1]>,
    /// By shard; as many as were needed so far.
    lanes: SmallVec<[Lane; 1]>,
    /// One for each pool with a course here.
    pub(super) trunks: SmallVec<[u32; 2]>,
    /// What it belongs to.
    pub(super) provider: Option<Arc<str>>,
    pub(super) expiry: Buckets,
    pub(super) alarms: Alarms,
    pub(super) empty_since: Mono,
    /// Leases that wait for leave to connect again, and since when; first come, first served.
    pub(super) askers: VecDeque<(LeaseId, Mono)>,
    /// Only where it has rates.
    pub(super) pacers: Option<Box<Pacers>>,
    /// The numbers of its paths, in the order of their sources, where they are more than a few.
    pub(super) by_source: Box<[u16]>,
    /// The domain that says so, or the first that came: connections may be open after its mail is gone.
    pub(super) domain: Arc<str>,
    /// The tenant's mail here, by its branch, that was last refused by a cap of the tenant.
    pub(super) capped: Option<u32>,
    /// What it said last, of a recipient even: for explain alone.
    pub(super) last_reply: Option<Arc<Reply>>,
    /// What it said last of itself or of us. Notices of mail whose time is over before it was ever
    /// answered quote this: of what was said within a transaction, only what holds no address.
    pub(super) complaint: Option<Arc<Reply>>,
    pub(super) fifos: Fifos,
    /// Deferred before a restart.
    pub(super) restored: Due,
    /// What of it is due up to then is let go at once: an operator asked for it.
    pub(super) restored_flushed_to: Mono,
}

/// The memory of who was given work: long enough to even out, short enough to follow a change.
const RECENT_MAX: u32 = 1024;

/// What a site has to do with one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    /// Leases it executes that still take work.
    pub(super) leases: u32,
    /// Deliveries it was given lately: halved for all lanes now and then.
    pub(super) recent: u32,
    /// Deliveries it has executed with an answer for each recipient.
    pub(super) executed: u64,
}

/// When the alarms of a site ring, [`Mono::NEVER`] where none is set. FIFOs have their own.
#[derive(Debug)]
pub(super) struct Alarms {
    pub(super) restored: Mono,
    pub(super) expiry: Mono,
    pub(super) idle: Mono,
    pub(super) linger: Mono,
    /// Of the pace alarms, which are not on the wheel.
    pub(super) pace: Mono,
}

impl Site {
    fn new(serial: u32, target: Arc<Target>, pace: Pace, provider: Option<Arc<str>>) -> Self {
        let never = Mono::NEVER;
        Self {
            serial,
            target,
            pace,
            provider,
            domain: Arc::default(),
            pacers: None,
            policies: SmallVec::new(),
            lanes: SmallVec::new(),
            paths: Vec::new(),
            by_source: Box::default(),
            resting: None,
            trunks: SmallVec::new(),
            askers: VecDeque::new(),
            capped: None,
            ready: 0,
            deferred: 0,
            in_flight: 0,
            in_use: 0,
            working: 0,
            last_reply: None,
            complaint: None,
            fifos: Fifos::default(),
            restored: Due::default(),
            restored_flushed_to: Mono::default(),
            cancelled: Waits::default(),
            expiry: Buckets::default(),
            alarms: Alarms {
                restored: never,
                expiry: never,
                idle: never,
                linger: never,
                pace: never,
            },
            empty_since: never,
        }
    }

    pub(super) fn key(&self) -> &SiteKey {
        &self.target.site
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready == 0 && self.deferred == 0 && self.in_flight == 0 && self.in_use == 0
    }

    /// What a new site would not know: a door that is closed, what a rule asked for, and what its
    /// rates have not paid for yet.
    pub(super) fn keeps_until(&self) -> Option<Mono> {
        let of_path = |path: &Path| {
            let unpaid = Some(path.pacer.rests_at());
            [path.control.next_wakeup(), path.effects.next_end(), unpaid]
        };
        let unpaid = self.pacers.as_deref().map(Pacers::rest_at);
        self.paths.iter().flat_map(of_path).flatten().chain(unpaid).max()
    }

    pub(super) fn lane(&mut self, shard: ShardId) -> &mut Lane {
        let index = usize::from(shard.0);
        if index >= self.lanes.len() {
            self.lanes.resize(index + 1, Lane::default());
        }
        &mut self.lanes[index]
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// A lane as it is, for looking only.
    pub(super) fn peek(&self, shard: ShardId) -> Lane {
        self.lanes.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// The path from a source, if it was ever needed here.
    pub(super) fn path_number(&self, source: u16) -> Option<u16> {
        let find = |at: &u16| self.paths[usize::from(*at)].source;
        if self.by_source.is_empty() {
            let at = self.paths.iter().position(|path| path.source == source)?;
            return u16::try_from(at).ok();
        }
        let place = self.by_source.binary_search_by_key(&source, find).ok()?;
        Some(self.by_source[place])
    }

    pub(super) fn add_path(&mut self, path: Path) -> u16 {
        let number = u16::try_from(self.paths.len()).expect("paths are fewer than sources");
        if self.paths.len() < FEW_PATHS {
            self.paths.reserve_exact(1);
        }
        self.paths.push(path);
        if self.paths.len() > FEW_PATHS {
            let mut numbers: Vec<u16> = (0..=number).collect();
            numbers.sort_unstable_by_key(|at| self.paths[usize::from(*at)].source);
            self.by_source = numbers.into();
        }
        number
    }

    /// What the site said, or did, before it knew of any mail.
    pub(super) fn note_complaint(&mut self, reply: Reply) {
        let reply = Arc::new(reply);
        self.last_reply = Some(Arc::clone(&reply));
        self.complaint = Some(reply);
    }

    /// What the site said of itself within a transaction: it may have named the recipient there.
    pub(super) fn note_complaint_about(&mut self, reply: Reply) {
        let reply = Arc::new(reply);
        if !reply.names_an_address() {
            self.complaint = Some(Arc::clone(&reply));
        }
        self.last_reply = Some(reply);
    }

    pub(super) fn path_of(&self, source: u16) -> Option<&Path> {
        self.path_number(source).map(|number| &self.paths[usize::from(number)])
    }

    pub(super) fn path(&mut self, number: u16) -> &mut Path {
        &mut self.paths[usize::from(number)]
    }

    /// Deliveries given to a source lately.
    pub(super) fn given_to(&self, source: u16) -> u64 {
        self.path_of(source).map_or(0, |path| u64::from(path.given))
    }

    pub(super) fn count_given_to(&mut self, path: u16, most: u32) {
        self.path(path).given += 1;
        if self.path(path).given >= most {
            self.paths.iter_mut().for_each(|path| path.given /= 2);
        }
    }

    /// Whether mail that arrives now will soon be on its way, so that its body is worth keeping.
    pub(super) fn is_brief(&self) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|path| path.control.is_brief(&self.pace.control))
    }

    /// Counts a delivery given to a lease on `shard`.
    pub(super) fn count_given(&mut self, shard: ShardId) {
        self.lane(shard).recent += 1;
        if self.recent() > RECENT_MAX {
            self.lanes.iter_mut().for_each(|lane| lane.recent /= 2);
        }
    }

    /// Deliveries given lately, all lanes together.
    pub(super) fn recent(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.recent).sum()
    }

    /// Who executed its deliveries, if more shards than one did.
    pub(super) fn lent(&self) -> Option<Fact> {
        let executed: Box<[u64]> = self.lanes.iter().map(|lane| lane.executed).collect();
        let several = executed.iter().filter(|count| **count > 0).count() > 1;
        several.then(|| Fact::SiteLent { site: self.key().name().into(), executed })
    }

    /// The moment an alarm rings; `None` for a FIFO that is gone.
    pub(super) fn armed(&mut self, kind: Kind) -> Option<&mut Mono> {
        Some(match kind {
            Kind::Retry(key) => return self.fifos.get(key).map(|fifo| &mut fifo.armed),
            Kind::Restored => &mut self.alarms.restored,
            Kind::Expiry => &mut self.alarms.expiry,
            Kind::Idle => &mut self.alarms.idle,
            Kind::Path(path) => {
                return self.paths.get_mut(usize::from(path)).map(|path| &mut path.armed);
            }
            Kind::Linger => &mut self.alarms.linger,
        })
    }

    /// One more domain under `policy`; whether that policy is new here.
    pub(super) fn join(&mut self, policy: usize) -> bool {
        match self.policies.iter_mut().find(|(number, _)| *number == policy) {
            Some((_, domains)) => {
                *domains += 1;
                false
            }
            None => {
                self.policies.push((policy, 1));
                true
            }
        }
    }

    /// Courses, a resting one included.
    pub(super) fn courses(&self) -> u32 {
        self.policies.iter().map(|(_, courses)| courses).sum()
    }

    /// One domain fewer under `policy`; whether other policies are left alone now.
    pub(super) fn leave(&mut self, policy: usize) -> bool {
        let Some(at) = self.policies.iter().position(|(number, _)| *number == policy) else {
            return false;
        };
        self.policies[at].1 -= 1;
        if self.policies[at].1 > 0 {
            return false;
        }
        self.policies.swap_remove(at);
        !self.policies.is_empty()
    }
}

/// All sites that hold something.
#[derive(Debug, Default)]
pub(super) struct Sites {
    slots: Slab<Site>,
    by_key: Index,
    next_serial: u32,
}

impl Sites {
    pub(super) fn find(&self, key: &SiteKey) -> Option<u32> {
        self.by_key.find(&key, |number| self.slots[number as usize].key())
    }

    /// The site of a target, where it was found the last time if it is still there.
    pub(super) fn find_target(&self, target: &Arc<Target>) -> Option<u32> {
        let hint = target.last_slot.get();
        let hinted = self
            .slots
            .get(hint as usize)
            .is_some_and(|site| Arc::ptr_eq(&site.target, target) || *site.key() == target.site);
        if hinted {
            return Some(hint);
        }
        let found = self.find(&target.site)?;
        target.last_slot.note(found);
        Some(found)
    }

    /// The site of this name, of whatever kind.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        let kinds = [SiteKey::NextHop, SiteKey::MxSet, SiteKey::Unroutable];
        kinds.iter().find_map(|kind| self.find(&kind(name.into())))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.slots.iter().map(|(_, site)| site)
    }

    pub(super) fn add(
        &mut self,
        target: Arc<Target>,
        pace: Pace,
        provider: Option<Arc<str>>,
    ) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        let number = self.slots.insert(Site::new(self.next_serial, target, pace, provider));
        let number = u32::try_from(number).unwrap_or(NONE);
        assert!(number != NONE, "sites are fewer than deliveries");
        self.by_key.insert(number, |number| self.slots[number as usize].key());
        self.slots[number as usize].target.last_slot.note(number);
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        let site = self.slots.remove(number as usize);
        self.by_key.remove(&site.key(), number);
    }

    /// The site in this slot, if there is one.
    pub(super) fn get(&self, number: u32) -> Option<&Site> {
        self.slots.get(number as usize)
    }

    /// The site in this slot, if it is still the one with this serial.
    pub(super) fn current(&mut self, number: u32, serial: u32) -> Option<&mut Site> {
        self.slots.get_mut(number as usize).filter(|site| site.serial == serial)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All of them, for a reload or a stop.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.slots.iter().filter_map(|(number, _)| u32::try_from(number).ok()).collect()
    }
}

impl std::ops::Index<u32> for Sites {
    type Output = Site;

    fn index(&self, number: u32) -> &Site {
        &self.slots[number as usize]
    }
}

impl std::ops::IndexMut<u32> for Sites {
    fn index_mut(&mut self, number: u32) -> &mut Site {
        &mut self.slots[number as usize]
    }
}
