//! What is ready, and in which order it goes: class, then tenants in fair shares, then their
//! campaigns, then age.
//!
//! ```text
//! site -- trunk (pool) -- two classes -- branch (tenant) -- leaf (campaign) -- list per home shard
//! ```
//! A leaf lives as long as a course needs it. Tenants and campaigns that hold nothing ready, or that
//! are blocked, stand in no line, so choosing costs the same however many there are.

use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::entry::Entries;
use super::fair::{Seat, Turns};
use super::list::{List, NONE};
use super::roster::Roster;
use crate::base::index::Index;
use crate::base::planted::{Bug, planted};
use crate::base::prefetch;
use crate::model::connection::ShardId;
use crate::model::flow::{Flow, MailClass};
use crate::model::settings::OrderSettings;

/// Entries passed over at most when a delivery goes back to the front: those that other
/// connections gave back a moment before.
const RETURN_WALK_MAX: usize = 64;
/// A delivery of a hundred recipients or of a large body is dear, but not dearer than this.
const COST_MAX: u32 = 64;
/// Bytes that cost as much as one recipient.
const BYTES_PER_COST: u32 = 16 << 10;

const CLASSES: usize = 2;
const TRANSACTIONAL: usize = 0;
const BULK: usize = 1;

/// What one site holds for one pool.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) site: u32,
    pub(super) pool: u16,
    classes: [Turns; CLASSES],
    /// What bulk mail is owed of its floor, in percent of a delivery.
    owed: u32,
    pub(super) ready: u32,
    branches: u32,
}

/// One tenant's mail of one class.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) trunk: u32,
    /// The one it was made for; its tenant's name is that of all.
    flow: Arc<Flow>,
    weight: u16,
    seat: Seat,
    campaigns: Turns,
    leaves: u32,
    pub(super) blocked: Blocked,
}

/// One campaign of one tenant. As long as a cache line, and in one.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Leaf {
    pub(super) branch: u32,
    /// The one it was made for; its campaign's name is that of all.
    flow: Arc<Flow>,
    seat: Seat,
    by_home: SmallVec<[List; 1]>,
    pub(super) ready: u32,
    courses: u32,
    pub(super) blocked: Blocked,
}

/// Whether something may be given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Blocked {
    #[default]
    No,
    /// By an operator or a rule.
    Held,
    /// By a cap it waits for.
    Capped,
}

impl Branch {
    pub(super) fn tenant(&self) -> &str {
        &self.flow.tenant
    }

    fn class(&self) -> usize {
        class_index(self.flow.class)
    }

    /// Which trunk's, of which class, of whom.
    fn name(&self) -> (u32, MailClass, &str) {
        (self.trunk, self.flow.class, self.tenant())
    }
}

impl Leaf {
    pub(super) fn campaign(&self) -> &str {
        &self.flow.campaign
    }

    fn name(&self) -> (u32, &str) {
        (self.branch, self.campaign())
    }
}

/// All trunks, branches and leaves of one owner.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) trunks: Slab<Trunk>,
    pub(super) branches: Slab<Branch>,
    pub(super) leaves: Slab<Leaf>,
    branch_numbers: Index,
    leaf_numbers: Index,
    /// Share of bulk mail while transactional mail waits, in percent.
    bulk_floor: u32,
}

/// What giving a delivery costs its flow.
pub(super) fn cost_of(recipients: u16, bytes: u32) -> u32 {
    u32::from(recipients).max(bytes.div_ceil(BYTES_PER_COST)).clamp(1, COST_MAX)
}

fn number(key: usize) -> u32 {
    let number = u32::try_from(key).unwrap_or(NONE);
    assert!(number != NONE, "flows are fewer than deliveries");
    number
}

impl Order {
    pub(super) fn new(settings: &OrderSettings) -> Self {
        Self {
            trunks: Slab::new(),
            branches: Slab::new(),
            leaves: Slab::new(),
            branch_numbers: Index::default(),
            leaf_numbers: Index::default(),
            bulk_floor: settings.bulk_floor_percent.into(),
        }
    }

    pub(super) fn handle_settings(&mut self, settings: &OrderSettings, roster: &Roster) {
        self.bulk_floor = settings.bulk_floor_percent.into();
        for (_, branch) in &mut self.branches {
            branch.weight = roster.weight_of(branch.tenant());
        }
    }

    /// Fetches what a leaf names into the cache: its branch and its lists.
    pub(super) fn prefetch_around(&self, leaf: u32) {
        let leaf = &self.leaves[leaf as usize];
        prefetch::all(&self.branches[leaf.branch as usize]);
        prefetch::row(&leaf.by_home);
    }

    pub(super) fn add_trunk(&mut self, site: u32, pool: u16) -> u32 {
        let classes = [Turns::default(), Turns::default()];
        let trunk = Trunk { site, pool, classes, owed: 0, ready: 0, branches: 0 };
        number(self.trunks.insert(trunk))
    }

    /// The leaf of a flow, one course more.
    pub(super) fn hold_leaf(&mut self, trunk: u32, flow: &Arc<Flow>, weight: u16) -> u32 {
        let branch = self.branch_for(trunk, flow, weight);
        let name = (branch, &*flow.campaign);
        let known = self.leaf_numbers.find(&name, |leaf| self.leaves[leaf as usize].name());
        if let Some(leaf) = known {
            self.leaves[leaf as usize].courses += 1;
            return leaf;
        }
        self.branches[branch as usize].leaves += 1;
        let leaf = number(self.leaves.insert(Leaf {
            branch,
            flow: Arc::clone(flow),
            seat: Seat::default(),
            by_home: SmallVec::new(),
            ready: 0,
            courses: 1,
            blocked: Blocked::No,
        }));
        self.leaf_numbers.insert(leaf, |leaf| self.leaves[leaf as usize].name());
        leaf
    }

    fn branch_for(&mut self, trunk: u32, flow: &Arc<Flow>, weight: u16) -> u32 {
        let name = (trunk, flow.class, &*flow.tenant);
        let known = self.branch_numbers.find(&name, |one| self.branches[one as usize].name());
        if let Some(branch) = known {
            return branch;
        }
        self.trunks[trunk as usize].branches += 1;
        let branch = number(self.branches.insert(Branch {
            trunk,
            flow: Arc::clone(flow),
            weight,
            seat: Seat::default(),
            campaigns: Turns::default(),
            leaves: 0,
            blocked: Blocked::No,
        }));
        self.branch_numbers.insert(branch, |one| self.branches[one as usize].name());
        branch
    }

    /// One course fewer; tells a trunk that nothing needs any more.
    pub(super) fn release_leaf(&mut self, leaf: u32) -> Option<u32> {
        let course = &mut self.leaves[leaf as usize];
        course.courses -= 1;
        if course.courses > 0 {
            return None;
        }
        let gone = self.leaves.remove(leaf as usize);
        self.leaf_numbers.remove(&gone.name(), leaf);
        let branch = &mut self.branches[gone.branch as usize];
        branch.leaves -= 1;
        if branch.leaves > 0 {
            return None;
        }
        let number = gone.branch;
        let gone = self.branches.remove(number as usize);
        self.branch_numbers.remove(&gone.name(), number);
        let trunk = &mut self.trunks[gone.trunk as usize];
        trunk.branches -= 1;
        (trunk.branches == 0).then_some(gone.trunk)
    }

    pub(super) fn remove_trunk(&mut self, trunk: u32) {
        self.trunks.remove(trunk as usize);
    }

    pub(super) fn trunk_of(&self, leaf: u32) -> u32 {
        self.branches[self.leaves[leaf as usize].branch as usize].trunk
    }

    /// To the end of the list of its home.
    pub(super) fn push_back(&mut self, entries: &mut Entries, leaf: u32, home: ShardId, id: u32) {
        self.list(leaf, home).push_back(&mut entries.queued(), id);
        self.one_more(leaf);
    }

    /// Back to the front of the list of its home, behind older ones that came back before it.
    pub(super) fn put_back(&mut self, entries: &mut Entries, leaf: u32, home: ShardId, id: u32) {
        let age = entries[id].age();
        let list = self.list(leaf, home);
        let (mut behind, mut next) = (NONE, list.front().unwrap_or(NONE));
        for _ in 0..RETURN_WALK_MAX {
            if next == NONE || entries[next].age() > age {
                break;
            }
            (behind, next) = (next, entries[next].queue.next);
        }
        list.insert_after(&mut entries.queued(), behind, id);
        self.one_more(leaf);
    }

    pub(super) fn remove(&mut self, entries: &mut Entries, leaf: u32, home: ShardId, id: u32) {
        self.list(leaf, home).remove(&mut entries.queued(), id);
        let leaf_left = &mut self.leaves[leaf as usize];
        leaf_left.ready -= 1;
        let trunk = self.branches[leaf_left.branch as usize].trunk;
        self.trunks[trunk as usize].ready -= 1;
        self.reseat(leaf);
    }

    fn list(&mut self, leaf: u32, home: ShardId) -> &mut List {
        let lists = &mut self.leaves[leaf as usize].by_home;
        let index = usize::from(home.0);
        if index >= lists.len() {
            lists.resize(index + 1, List::EMPTY);
        }
        &mut lists[index]
    }

    fn one_more(&mut self, leaf: u32) {
        let grown = &mut self.leaves[leaf as usize];
        grown.ready += 1;
        let trunk = self.branches[grown.branch as usize].trunk;
        self.trunks[trunk as usize].ready += 1;
        if grown.ready == 1 {
            self.reseat(leaf);
        }
    }

    pub(super) fn block_leaf(&mut self, leaf: u32, blocked: Blocked) {
        self.leaves[leaf as usize].blocked = blocked;
        self.reseat(leaf);
    }

    pub(super) fn block_branch(&mut self, branch: u32, blocked: Blocked) {
        self.branches[branch as usize].blocked = blocked;
        self.reseat_branch(branch);
    }

    /// Whether a branch is there, and waits for a cap.
    pub(super) fn is_capped(&self, branch: u32) -> bool {
        let branch = self.branches.get(branch as usize);
        branch.is_some_and(|branch| branch.blocked == Blocked::Capped)
    }

    pub(super) fn block_tenant(&mut self, tenant: &str, blocked: Blocked) {
        let of_tenant = self.branches.iter().filter(|(_, branch)| branch.tenant() == tenant);
        let numbers: Vec<u32> = of_tenant.map(|(key, _)| number(key)).collect();
        for branch in numbers {
            self.block_branch(branch, blocked);
        }
    }

    pub(super) fn block_campaign(&mut self, tenant: &str, campaign: &str, blocked: Blocked) {
        let of_it = self.leaves.iter().filter(|(_, leaf)| {
            leaf.campaign() == campaign && self.branches[leaf.branch as usize].tenant() == tenant
        });
        let numbers: Vec<u32> = of_it.map(|(key, _)| number(key)).collect();
        for leaf in numbers {
            self.block_leaf(leaf, blocked);
        }
    }

    /// Puts a leaf where it belongs: in line if it has something to give.
    fn reseat(&mut self, number: u32) {
        let leaf = &mut self.leaves[number as usize];
        let turns = &mut self.branches[leaf.branch as usize].campaigns;
        if leaf.ready > 0 && leaf.blocked == Blocked::No {
            turns.join(number, &mut leaf.seat);
        } else {
            turns.leave(number, &mut leaf.seat);
        }
        let branch = leaf.branch;
        self.reseat_branch(branch);
    }

    fn reseat_branch(&mut self, number: u32) {
        let branch = &mut self.branches[number as usize];
        let turns = &mut self.trunks[branch.trunk as usize].classes[branch.class()];
        if !branch.campaigns.is_empty() && branch.blocked == Blocked::No {
            turns.join(number, &mut branch.seat);
        } else {
            turns.leave(number, &mut branch.seat);
        }
    }

    /// Whether a trunk has something that may be given out.
    pub(super) fn has_next(&self, trunk: u32) -> bool {
        self.trunks[trunk as usize].classes.iter().any(|class| !class.is_empty())
    }

    /// The leaf whose turn it is.
    pub(super) fn next(&self, trunk: u32) -> Option<u32> {
        let branch = self.next_branch(trunk)?;
        self.branches[branch as usize].campaigns.first()
    }

    fn next_branch(&self, trunk: u32) -> Option<u32> {
        let Trunk { classes, owed, .. } = &self.trunks[trunk as usize];
        let bulk = classes[BULK].first();
        if bulk.is_some() && planted(Bug::BulkFirst) {
            return bulk;
        }
        // Bulk mail is owed its floor for each transactional one that went before it.
        match classes[TRANSACTIONAL].first() {
            Some(_) if bulk.is_some() && *owed >= 100 - self.bulk_floor => bulk,
            Some(branch) => Some(branch),
            None => bulk,
        }
    }

    /// A delivery of this leaf was given out.
    pub(super) fn charge(&mut self, number: u32, cost: u32) {
        let leaf = &mut self.leaves[number as usize];
        let branch_number = leaf.branch;
        let branch = &mut self.branches[branch_number as usize];
        branch.campaigns.charge(number, &mut leaf.seat, cost, 1);
        let trunk = &mut self.trunks[branch.trunk as usize];
        let class = branch.class();
        if !planted(Bug::TenantsNotInTurn) {
            trunk.classes[class].charge(branch_number, &mut branch.seat, cost, branch.weight);
        }
        if class == TRANSACTIONAL && !trunk.classes[BULK].is_empty() {
            trunk.owed = (trunk.owed + self.bulk_floor).min(100);
        } else if class == BULK {
            trunk.owed = trunk.owed.saturating_sub(100 - self.bulk_floor);
        }
    }

    /// The home of the oldest of a leaf, and that oldest.
    pub(super) fn oldest(&self, entries: &Entries, leaf: u32) -> Option<(ShardId, u32)> {
        let lists = (0..).map(ShardId).zip(&self.leaves[leaf as usize].by_home);
        let heads = lists.filter_map(|(home, list)| Some((home, list.front()?)));
        heads.min_by_key(|(_, head)| entries[*head].age())
    }

    /// The oldest of a leaf among those of one home.
    pub(super) fn oldest_of(&self, leaf: u32, home: ShardId) -> Option<u32> {
        self.leaves[leaf as usize].by_home.get(usize::from(home.0))?.front()
    }
}

fn class_index(class: MailClass) -> usize {
    match class {
        MailClass::Transactional => TRANSACTIONAL,
        MailClass::Bulk => BULK,
    }
}
