//! Troubles that worlds did not have at first: new settings, a stepped wall clock, clients that
//! never read and never go, and bits that flip inside a message.

use postrider_engine::shard::Event;
use postrider_engine::spool::plan::RecoveredDelivery;

use super::{World, wrong};
use crate::sim::agenda::{Due, Fault};
use crate::sim::checkers::{Seen, Violation};
use crate::sim::clock::{DAY, MS};
use crate::sim::net::{Far, Word};
use crate::sim::options::Later;
use crate::sim::spooled;

/// The longest a record header is: bits flip behind it.
const HEADER_BYTES: u64 = 64;

impl World {
    pub(super) fn plan_later(&mut self, begin: u64) {
        let Later { reloads, wall_steps, rogues, body_rots, full_mailboxes: _ } =
            self.options.later;
        let holds = self.options.bounds.holds;
        let all = [
            (reloads, Fault::Reload),
            (wall_steps, Fault::WallStep),
            (rogues, Fault::Rogue),
            (body_rots, Fault::RotBody),
        ];
        for _ in 0..holds {
            let at = begin + self.bounds_chance.skewed(MS, self.options.trouble_for);
            self.agenda.add(at, Due::Fault(Fault::Hold));
        }
        for (many, fault) in all {
            for _ in 0..many {
                let at = begin + self.later_chance.skewed(MS, self.options.trouble_for);
                self.agenda.add(at, Due::Fault(fault));
            }
        }
    }

    /// The operator changes the limits of a group; the shards hear of it one after the other.
    pub(super) fn reload(&mut self) -> Result<(), Violation> {
        self.rebind();
        self.see(&Seen::Rebound)?;
        let at = self.clock.at;
        let chance = &mut self.later_chance;
        let number = chance.index(self.options.groups.len());
        let group = &mut self.options.groups[number];
        group.connections = u32::try_from(chance.skewed(1, 6)).unwrap_or(1);
        group.messages_per_connection = *chance.pick(&[1, 2, 5, 100]);
        self.limits[number].change(at, group.connections);
        let limit = group.connections;
        self.trace.say(at, || format!("group {number} may have {limit} connections"));
        let Some(engine) = &self.engine else { return Ok(()) };
        for shard in 0..engine.cores.len() {
            let soon = at + self.later_chance.skewed(1, 20 * MS);
            self.agenda.add(soon, Due::Settings { run: engine.run, shard });
        }
        Ok(())
    }

    /// A shard is told of the settings as they are now.
    pub(super) fn settings_arrive(&mut self, run: u32, shard: usize) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.run == run) else { return };
        let settings = engine.renew(&self.options);
        self.tell(run, shard, Word::Whole(Event::Settings(settings)));
    }

    pub(super) fn step_wall(&mut self) {
        let far = self.later_chance.skewed(MS, 3 * DAY).cast_signed();
        let by = if self.later_chance.one_in(2) { far } else { -far };
        self.trace
            .say(self.clock.at, || format!("the wall clock is stepped by {} ms", by / 1_000_000));
        self.clock.step_wall(by);
    }

    /// A client that reads nothing and is never heard of again.
    pub(super) fn rogue(&mut self) {
        let at = self.clock.at;
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.stop_by.is_none()) else {
            return;
        };
        let shard = self.later_chance.index(engine.cores.len());
        if !engine.cores[shard].shard.is_ready() {
            return;
        }
        let domain = self.options.groups[0].domains[0].clone();
        let half = format!("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<r@{domain}>\r\nDATA\r\nhalf");
        let text = match self.later_chance.below(3) {
            0 => String::new(),
            1 => half,
            _ => {
                let many = self.later_chance.skewed(1, 5000);
                "EHLO c\r\n".repeat(usize::try_from(many).unwrap_or(1))
            }
        };
        let link = self.net.dial_in(Far::Rogue, shard, self.run);
        self.trace
            .say(at, || format!("{link:?} a rogue sends {} bytes to core {shard}", text.len()));
        self.tell_shard(link, Word::Accept(link));
        if !self.net.far_sends(&mut self.agenda, at, link, text.as_bytes()) {
            self.net.far_closes(&mut self.agenda, at, link, true);
        }
    }

    /// One bit flips inside a message: that message may be lost, and nothing else.
    pub(super) fn rot_body(&mut self) -> Result<(), Violation> {
        let recovered = match spooled::recover(&self.disk.files, 1) {
            Ok(recovered) => recovered,
            Err(_) if self.is_rotten => return Ok(()),
            Err(why) => return Err(wrong("starts again", why)),
        };
        if recovered.deliveries.is_empty() {
            return Ok(());
        }
        let found: &RecoveredDelivery = self.later_chance.pick(&recovered.deliveries);
        let (message, place) = (found.delivery.message, found.delivery.place);
        let Some(file) = spooled::file_of(&self.disk.files, place.segment) else { return Ok(()) };
        let at = self.later_chance.between(HEADER_BYTES, u64::from(place.bytes) - 1);
        let at = usize::try_from(u64::from(place.offset) + at).expect("a small file");
        let spooled = spooled::live(&self.disk.files, &recovered.deliveries, &self.clock);
        let hit = spooled.into_iter().find(|one| one.id == message);
        let (pending, about) = hit.map(|hit| (hit.pending, hit.reports)).unwrap_or_default();
        let pending: Vec<_> = pending.into_iter().map(|pending| pending.address).collect();
        self.disk.rot_at(file, at, self.later_chance.below(8));
        self.trace
            .say(self.clock.at, || format!("a bit of {message} flips in file {file} at {at}"));
        self.rotten.push(message);
        self.is_something_aside = true;
        self.see(&Seen::Rotten {
            messages: &[message],
            about: &about,
            pending: &pending,
            may_hit_outcome: false,
        })
    }
}
