//! What is done to the engine: starts, kills, power cuts, stops, and the end of all faults.

use std::sync::Arc;

use postrider_engine::base::cell::{DayCount, DayKey};
use postrider_engine::base::time::Mono;
use postrider_engine::schedule::kept_day;
use postrider_engine::shard::Event;
use postrider_engine::spool::recovery::Finding;

use super::{World, wrong};
use crate::sim::agenda::{Due, Fault};
use crate::sim::checkers::{Seen, Violation};
use crate::sim::clock::{DAY, MINUTE, MS, SECOND};
use crate::sim::engine::Engine;
use crate::sim::net::Word;
use crate::sim::spooled;

/// What an orderly stop is given.
const STOP_WAIT: u64 = 30 * SECOND;

/// The longest that reading the spool takes after a start.
const READ_WAIT: u64 = 5 * SECOND;

/// Where no bit has flipped, what a crash leaves behind is torn, and nothing is damaged.
fn no_damage(findings: &[Finding]) -> Result<(), Violation> {
    // Of two headers, the one that was being written when the power went does not hold.
    let is_damage = |finding: &&Finding| {
        finding.is_damage() && !matches!(finding, Finding::HeaderDamaged { .. })
    };
    match findings.iter().find(is_damage) {
        Some(finding) => Err(wrong("no damage invented", finding.to_string())),
        None => Ok(()),
    }
}

impl World {
    /// The engine starts on what the disk holds, perhaps with another number of shards.
    pub(super) fn start(&mut self) -> Result<(), Violation> {
        assert!(self.engine.is_none(), "one engine at a time");
        let shards = self.engine_chance.between(1, u64::from(self.options.shards_max));
        let shards = u16::try_from(shards).expect("few shards");
        let recovered = spooled::recover(&self.disk.files, shards);
        let recovered = recovered.map_err(|why| wrong("starts again", why))?;
        let found = spooled::live(&self.disk.files, &recovered.deliveries, &self.clock);
        self.run += 1;
        let run = self.run;
        self.trace.say(self.clock.at, || {
            format!("run {run} starts with {shards} shards, {found:?}, {:?}", recovered.findings)
        });
        if !self.is_rotten && self.rotten.is_empty() {
            no_damage(&recovered.findings)?;
        }
        let quiet = self.quiet.time();
        let at = self.clock.at;
        self.see(&Seen::Recovered { spooled: &found, is_restart: true, run, quiet, at })?;
        let seed = self.engine_chance.number();
        let engine = Engine::start(run, recovered, &self.options, self.clock.now(), seed);
        self.engine = Some(engine);
        for shard in 0..usize::from(shards) {
            let soon = self.clock.at + self.scheduling.skewed(1, MS);
            self.turn_at(shard, soon);
            // Mail comes in while the spool is still being read.
            let read = self.clock.at + self.scheduling.skewed(1, READ_WAIT);
            self.agenda.add(read, Due::Recovered { run, shard });
        }
        Ok(())
    }

    /// The process ends; what it was doing ends with it.
    pub(super) fn end(&mut self, in_order: bool, is_power_cut: bool) -> Result<(), Violation> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        for core in &engine.cores {
            self.counters.add(&core.shard.counters());
        }
        let days = self.days_of(&engine);
        drop(engine.cores);
        if engine.budget.used() > 0 {
            let what = format!("{} bytes of records outlive their shards", engine.budget.used());
            return Err(wrong("memory bounds", what));
        }
        debug_assert_eq!(Arc::strong_count(&engine.budget), 1, "nobody holds the budget");
        let at = self.clock.at;
        self.trace.say(at, || format!("run {} ends, in order: {in_order}", self.run));
        if is_power_cut {
            self.disk.cut();
            self.clock.reboot();
        } else {
            self.disk.kill();
        }
        self.net.abandon(&mut self.agenda, at, is_power_cut);
        self.marks.clear();
        let is_disk_good = self.quiet.is_ready();
        self.quiet.run_ends();
        self.void_orders()?;
        self.see(&Seen::Ended { in_order, is_disk_good })?;
        if in_order && is_disk_good {
            self.look_at_days(&days)?;
        }
        self.look_at_disk()?;
        let pause = self.fault_chance.skewed(MS, 2 * MINUTE);
        self.agenda.add(at + pause, Due::Start);
        Ok(())
    }

    /// What the present date has counted of sources in their warm-up.
    fn days_of(&self, engine: &Engine) -> Vec<(DayKey, DayCount)> {
        let since = self.clock.of_mono(engine.started.mono);
        let today = (engine.started.wall.0 + self.clock.at.saturating_sub(since)) / DAY;
        let all = engine.cells.days().into_iter().map(|day| (day.key().clone(), day.count()));
        all.filter(|(_, count)| u64::from(count.date) == today && count.sent > 0).collect()
    }

    /// Whether the disk has them as they are.
    fn look_at_days(&mut self, days: &[(DayKey, DayCount)]) -> Result<(), Violation> {
        let Ok(found) = spooled::recover(&self.disk.files, 1) else { return Ok(()) };
        let kept: Vec<_> = found.states.iter().filter_map(kept_day).collect();
        for (key, counted) in days {
            let kept = kept.iter().find(|(other, _)| other == key).map(|(_, count)| count.sent);
            self.see(&Seen::DayEnded { key, counted: counted.sent, kept })?;
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        let at = self.clock.at;
        let is_lasting = !matches!(fault, Fault::Full(false));
        if self.is_calm() && is_lasting {
            return Ok(());
        }
        self.trace.say(at, || format!("{fault:?}"));
        match fault {
            Fault::Kill => self.end(false, false)?,
            Fault::PowerCut => self.end(false, true)?,
            Fault::Stop => self.stop(),
            Fault::Move { group } => {
                let serving = &mut self.names.serving[group];
                *serving = 1 - *serving;
            }
            Fault::Rot => self.rot()?,
            Fault::Reload => self.reload()?,
            Fault::Hold => self.hold()?,
            Fault::Order => self.order()?,
            Fault::WallStep => self.step_wall(),
            Fault::Rogue => self.rogue(),
            Fault::RotBody => self.rot_body()?,
            Fault::Full(is_full) => self.disk.is_full = is_full,
        }
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        let by = self.clock.at + STOP_WAIT;
        let now = self.clock.now();
        let Some(engine) = &mut self.engine else { return };
        engine.stop_by = Some(by);
        let (run, shards) = (engine.run, engine.cores.len());
        for shard in 0..shards {
            let by = Mono(now.mono.0 + STOP_WAIT);
            self.tell(run, shard, Word::Whole(Event::Stop { by }));
        }
    }

    /// One bit flips. What lies there may be lost, and nothing else.
    fn rot(&mut self) -> Result<(), Violation> {
        let before = self.disk.files.clone();
        let Some((file, at)) = self.disk.rot() else { return Ok(()) };
        let hit = spooled::hit(&before, file, at, &self.clock);
        self.trace.say(self.clock.at, || format!("a bit flips in {file:?} at {at}: {hit:?}"));
        self.is_rotten = true;
        let messages: Vec<_> = hit.iter().map(|message| message.id).collect();
        let about: Vec<_> = hit.into_iter().flat_map(|message| message.reports).collect();
        self.rotten.extend(messages.iter().copied());
        self.see(&Seen::Rotten {
            messages: &messages,
            about: &about,
            pending: &[],
            may_hit_outcome: true,
        })
    }

    /// The faults end: from here on everything must come to a good end.
    pub(super) fn calm(&mut self) -> Result<(), Violation> {
        self.trace.say(self.clock.at, || "the faults end".to_owned());
        self.calm_since = Some(self.clock.at);
        self.see(&Seen::Calm { at: self.clock.at })?;
        self.disk.is_full = false;
        self.names.fails = 0;
        self.net.resets = 0;
        let is_stopping = self.engine.as_ref().is_some_and(|engine| engine.stop_by.is_some());
        // What was set aside, and what a damaged outcome brings back, is seen by the next start.
        let is_owed = self.is_something_aside || self.is_rotten;
        let is_due = is_owed || self.fault_chance.one_in(2);
        if is_due && !is_stopping {
            self.stop();
        }
        self.agenda.add(self.clock.at + self.look_every, Due::Look);
        Ok(())
    }
}
