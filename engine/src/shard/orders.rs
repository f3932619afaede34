//! An operator's orders are answered when they are on disk.
//!
//! ```text
//! hold, release    every shard does it; the keeper writes it down, and answers then
//! cancel           every shard does it and tells the keeper how far its mail reached; with the word of
//!                  all, the keeper writes that down, and answers then
//! ```
//! So what was answered is in force after any crash. Where it cannot be written, the answer says so.

use std::collections::BTreeMap;

use super::asking::answered;
use super::event::AskedId;
use super::{Effects, Shard};
use crate::base::map::Map;
use crate::base::planted::{Bug, planted};
use crate::base::time::Now;
use crate::model::admin::{Answer, Reach, Steer, Steered, Verb};
use crate::model::connection::ShardId;
use crate::model::message::MessageId;
use crate::model::note::{Cancelled, Note};
use crate::model::state::{KEEPER, StateItem, Topic};
use crate::schedule::{Reached, cancel_key, hold_key};

/// Orders to cancel that wait for the word of other shards: more than there are operators. Beyond, the
/// oldest is given up: some shard has never heard of it.
const DRAFTS_MAX: usize = 64;

const NOT_YET: &str = "what the spool held at the start is still being read: ask again in a moment";
const NO_ROOM: &str = "it is in force, but there is no room on disk to write it down: after a restart \
    it would be forgotten";
const NO_WORD: &str = "it is in force, but not every shard has told how far it reaches: after a \
    restart it would be forgotten";

/// What the keeper writes down.
#[derive(Default)]
pub(super) struct Orders {
    /// Orders to cancel, by their number.
    drafts: BTreeMap<u64, Draft>,
    /// What waits for the disk, by token.
    waiting: Map<u64, (AskedId, Steered)>,
    next_token: u64,
    /// By key: the order that was written down last.
    written: Map<Box<[u8]>, u64>,
    /// By key: the order that has reached all its mail on so many shards.
    over: Map<Box<[u8]>, (u64, u16)>,
}

/// An order to cancel that not all shards have told of.
#[derive(Default)]
struct Draft {
    reach: Option<Reach>,
    told: Vec<(ShardId, MessageId)>,
    asked: Option<(AskedId, Steered)>,
}

impl Shard {
    /// Does what an operator asks, or only counts.
    pub(super) fn ordered(&mut self, now: Now, asked: AskedId, steer: &Steer, out: &mut Effects) {
        let steered = self.steered(now, steer);
        let is_kept = matches!(steer.verb, Verb::Hold | Verb::Release | Verb::Cancel);
        if steer.dry_run || !is_kept {
            return self.answer_order(asked, steered, out);
        }
        // What it has the keeper write down is on its way before the answer asks for it.
        self.dispatch(now, out);
        let is_done = steered.refused.is_none();
        match steer.verb {
            Verb::Cancel => self.cancelled(asked, steer, steered, out),
            _ if self.id == KEEPER && is_done => self.answer_when_kept(asked, steer, steered, out),
            _ => self.answer_order(asked, steered, out),
        }
    }

    fn steered(&mut self, now: Now, steer: &Steer) -> Steered {
        let is_kept = matches!(steer.verb, Verb::Hold | Verb::Release | Verb::Cancel);
        if is_kept && !self.knows_state() {
            let refused = Some(NOT_YET.to_owned());
            return Steered { known: true, dry_run: steer.dry_run, refused, ..Steered::default() };
        }
        self.scheduler.handle_steer(self.clock.now(now), steer)
    }

    fn answer_order(&self, asked: AskedId, steered: Steered, out: &mut Effects) {
        answered(asked, Answer::Steered(steered), out);
    }

    fn answer_when_kept(
        &mut self,
        asked: AskedId,
        steer: &Steer,
        steered: Steered,
        out: &mut Effects,
    ) {
        let Some(scope) = steer.reach.scope() else {
            return self.answer_order(asked, steered, out);
        };
        if planted(Bug::OrderAnsweredEarly) {
            return self.answer_order(asked, steered, out);
        }
        let token = self.orders.wait(asked, steered);
        let is_end = steer.verb == Verb::Release;
        self.spool.tell_when_kept(Topic::Hold, &hold_key(&scope), is_end, token);
    }

    /// Tells the keeper how far the order reaches here.
    fn cancelled(&mut self, asked: AskedId, steer: &Steer, steered: Steered, out: &mut Effects) {
        // Where it was refused it reaches nothing.
        let newest = if steered.refused.is_none() { self.newest } else { MessageId(0) };
        let (order, reach) = (steer.order, steer.reach.clone());
        if self.id == KEEPER {
            self.orders.draft(order).asked = Some((asked, steered));
        } else {
            self.answer_order(asked, steered, out);
        }
        self.tell(KEEPER, Note::Cancelled(Box::new(Cancelled { order, reach, newest })), out);
        self.give_up_drafts(out);
    }

    /// The keeper hears how far an order reaches on one shard.
    pub(super) fn cancel_told(
        &mut self,
        now: Now,
        from: ShardId,
        told: Cancelled,
        out: &mut Effects,
    ) {
        let Cancelled { order, reach, newest } = told;
        let draft = self.orders.draft(order);
        draft.reach = Some(reach);
        draft.told.push((from, newest));
        if draft.asked.is_some() && draft.told.len() >= usize::from(self.shards) {
            self.write_cancel(now, order);
        }
        self.give_up_drafts(out);
    }

    fn write_cancel(&mut self, now: Now, order: u64) {
        let Some(draft) = self.orders.drafts.remove(&order) else { return };
        let (Some(reach), Some((asked, steered))) = (draft.reach, draft.asked) else { return };
        let mut newest = vec![0; usize::from(self.shards)];
        for (shard, id) in draft.told {
            if let Some(of_shard) = newest.get_mut(usize::from(shard.0)) {
                *of_shard = id.0;
            }
        }
        let key = cancel_key(reach.scope().as_ref());
        let value = Reached { first: self.first_sequence, newest: newest.into() }.encode();
        self.orders.written.insert(key.clone(), order);
        self.spool.remember(now, StateItem::new(Topic::Cancel, key.clone(), value));
        let token = self.orders.wait(asked, steered);
        self.spool.tell_when_kept(Topic::Cancel, &key, false, token);
    }

    fn give_up_drafts(&mut self, out: &mut Effects) {
        while self.orders.drafts.len() > DRAFTS_MAX {
            let Some((_, draft)) = self.orders.drafts.pop_first() else { return };
            if let Some((asked, mut steered)) = draft.asked {
                steered.not_kept = Some(NO_WORD.to_owned());
                self.answer_order(asked, steered, out);
            }
        }
    }

    /// An order has reached all its mail on one shard; when it has on all, it is forgotten.
    pub(super) fn cancel_over(&mut self, now: Now, key: Box<[u8]>, order: u64) {
        let latest = self.orders.written.get(&key).copied().unwrap_or(0);
        if latest != order {
            return;
        }
        let over = self.orders.over.entry(key.clone()).or_insert((order, 0));
        let shards = if over.0 == order { over.1 + 1 } else { 1 };
        *over = (order, shards);
        if shards >= self.shards {
            self.orders.over.remove(&key);
            self.orders.written.remove(&key);
            self.spool.remember(now, StateItem::forgotten(Topic::Cancel, key));
        }
    }

    /// An order is on disk, or cannot be written.
    pub(super) fn order_kept(&mut self, token: u64, is_kept: bool, out: &mut Effects) {
        let Some((asked, mut steered)) = self.orders.waiting.remove(&token) else { return };
        steered.not_kept = (!is_kept).then(|| NO_ROOM.to_owned());
        self.answer_order(asked, steered, out);
    }
}

impl Orders {
    fn wait(&mut self, asked: AskedId, steered: Steered) -> u64 {
        self.next_token += 1;
        self.waiting.insert(self.next_token, (asked, steered));
        self.next_token
    }

    fn draft(&mut self, order: u64) -> &mut Draft {
        self.drafts.entry(order).or_default()
    }
}
