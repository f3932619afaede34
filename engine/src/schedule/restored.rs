//! What an earlier run wrote down, taken up again before any mail goes out.

use super::{Action, Scheduler};
use crate::base::time::{Now, Wall, WallStep};
use crate::model::state::{StateItem, Topic};

impl Scheduler {
    /// Where the wall clock stands, for times that are written down.
    pub fn handle_wall(&mut self, step: WallStep) {
        self.wall_step = step;
    }

    /// A steady time as it is written down.
    pub(super) fn durable(&self, steady: Wall) -> Wall {
        self.wall_step.to_set(steady)
    }

    /// One item that was kept. All of them come before the first delivery.
    pub fn handle_restored(&mut self, now: Now, item: &StateItem) {
        match item.topic {
            Topic::Learned | Topic::Hold | Topic::Cancel | Topic::RuleEffect => {}
            Topic::WarmUp => {
                if self.restore_day(now, item).is_none() {
                    let forgotten = StateItem::forgotten(item.topic, item.key.clone());
                    self.actions.push_back(Action::Remember(forgotten));
                }
            }
            Topic::Other(_) => {}
        }
    }
}
