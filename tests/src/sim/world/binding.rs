//! What binds the mail of a world, as the checkers are shown it: who begins what by which way, under
//! which limits and rates, and what hosts and operators said that stops it.

use std::net::IpAddr;
use std::time::Duration;

use postrider_engine::base::time::Mono;
use postrider_engine::model::connection::ShardId;
use postrider_engine::model::hold::{Hold, Scope};
use postrider_engine::model::note::Note;
use postrider_engine::shard::Event;

use super::World;
use crate::sim::agenda::Due;
use crate::sim::bounds::{Key, Of, source_name};
use crate::sim::checkers::{Begun, DayInForce, RateInForce, Seen, Violation, Way};
use crate::sim::clock::{DAY, MINUTE, MS, SECOND};
use crate::sim::host::Mark;
use crate::sim::limit::PERMIT_AGE_MAX;
use crate::sim::net::{Far, LinkId, Word};

/// How long a decision of an owner may be on its way: a note to another shard, a body that is read.
const ON_ITS_WAY_MAX: u64 = 100 * MS;

/// When all shards know of a hold, and have acted on it.
const HOLD_TAKES: u64 = 40 * MS;

/// When all shards know new settings, and have done what the old ones asked for.
pub(super) const RELOAD_TAKES: u64 = SECOND;

impl World {
    /// The way of a connection to a host.
    pub(super) fn way_of(&self, link: LinkId) -> Option<Way> {
        let Far::Host(host) = self.net.link(link).far else { return None };
        let site = self.hosts[host].site;
        let source = self.options.bounds.source_of(self.net.link(link).from);
        let hosts = &self.options.groups[site / 2].sites[site % 2];
        let starttls = hosts.iter().any(|host| host.manners.starttls);
        let is_straight = hosts.len() == 1 && !(self.options.has_tls && starttls);
        Some(Way { link: link.0, site, source, host, is_straight })
    }

    /// What counts a connection, and how many each allows.
    pub(super) fn limits_on(&self, way: &Way) -> Vec<(Key, u32)> {
        let limit = |key: Key| {
            let most = match key {
                Key::Site(site) => self.limits[site / 2].at(self.clock.at),
                _ => self.other_limit(key),
            };
            (key, most)
        };
        let bounds = &self.options.bounds;
        bounds.keys(way.source, way.site, way.host).into_iter().map(limit).collect()
    }

    fn other_limit(&self, key: Key) -> u32 {
        let at = self.clock.at;
        let is_in_force =
            |since: u64, until: u64| until >= at.saturating_sub(PERMIT_AGE_MAX) && since <= at;
        let ends = self.bounds_before.iter().map(|(since, _)| *since).skip(1);
        let ends = ends.chain([self.bounds_since]);
        let before = self.bounds_before.iter().zip(ends);
        let before = before.filter(|((since, _), until)| is_in_force(*since, *until));
        let all = before.map(|((_, bounds), _)| bounds).chain([&self.options.bounds]);
        let allow = |bounds: &crate::sim::bounds::Bounds| match key {
            Key::Host(host) => {
                let group = self.hosts[host].site / 2;
                bounds.groups.get(group).and_then(|site| site.connections_per_ip)
            }
            _ => bounds.limit(key),
        };
        all.map(|bounds| allow(bounds).unwrap_or(u32::MAX)).max().unwrap_or(u32::MAX)
    }

    /// The core hands a connection attempt, or the beginning of a message, to the driver.
    pub(super) fn begins(
        &mut self,
        link: LinkId,
        of: Of,
        sender: Option<&str>,
    ) -> Result<(), Violation> {
        if !self.options.bounds.is_on {
            return Ok(());
        }
        let Some(way) = self.way_of(link) else { return Ok(()) };
        let mail = sender.and_then(|sender| self.mail_from(sender));
        let at = self.clock.at;
        let reset = if of == Of::Messages { self.resets.remove(&link) } else { None };
        let earliest = reset.unwrap_or_else(|| self.earliest());
        if of == Of::Connections {
            self.opened.insert(link, earliest);
        }
        let given = self.opened.get(&link).copied().filter(|_| way.is_straight);
        let mut rates = self.rates_on(&way, of, mail, earliest);
        rates.retain_mut(|rate| match (rate.key, given) {
            (Key::Tenant(_), Some(given)) => {
                rate.earliest = given.min(earliest);
                true
            }
            (Key::Tenant(_), None) => false,
            _ => true,
        });
        let flow = sender.and_then(|sender| self.flow_of(sender));
        let day = self.day_in_force(&way, earliest, at);
        self.see(&Seen::Begins(&Begun { way, of, at, earliest, rates, day, flow, mail }))
    }

    /// What paces something that begins, and how much of it that takes.
    fn rates_on(&self, way: &Way, of: Of, mail: Option<usize>, earliest: u64) -> Vec<RateInForce> {
        let bounds = &self.options.bounds;
        let mail = mail.map(|mail| &self.ledger.mails[mail]);
        let tenant = mail.and_then(|mail| bounds.tenant_key(&mail.labels.flow.as_ref()?.tenant));
        let keys = bounds.keys(way.source, way.site, way.host).into_iter().chain(tenant);
        let since = if self.bounds_since == 0 { 0 } else { self.bounds_since + PERMIT_AGE_MAX };
        let bytes = mail.map(|mail| (Of::Bytes, mail.text.len() as u64));
        let measures = [(of, 1)].into_iter().chain(bytes);
        let in_force = |(key, (of, units)): (Key, (Of, u64))| {
            let rate = bounds.rate(key, of)?;
            Some(RateInForce { key, of, rate, since, units, earliest })
        };
        let each = |key: Key| measures.clone().map(move |measure| (key, measure));
        keys.flat_map(each).filter_map(in_force).collect()
    }

    fn mail_from(&self, sender: &str) -> Option<usize> {
        self.ledger.mails.iter().position(|mail| mail.sender == sender)
    }

    /// The day that a message which begins now is of.
    fn day_in_force(&self, way: &Way, earliest: u64, at: u64) -> Option<DayInForce> {
        let (key, curve) = self.options.bounds.curve_of(way.source, way.site)?;
        let started = self.engine.as_ref()?.started;
        let since = self.clock.of_mono(started.mono);
        let date_of = |at: u64| (started.wall.0 + at.saturating_sub(since)) / DAY;
        // Each run goes by the wall clock at its start: where that is set in between, a date may come
        // twice, or a day be of the date before.
        let is_set = self.run > 1 && self.options.later.wall_steps > 0;
        let (date, is_doubtful) = (date_of(at), date_of(earliest) != date_of(at) || is_set);
        let steps_max = usize::try_from(date.saturating_sub(self.first_date)).ok()?;
        Some(DayInForce { key, date, steps_max, is_doubtful, days: curve.days.clone() })
    }

    /// A host has taken a message of the present run.
    pub(super) fn taken_from(&mut self, link: LinkId) -> Result<(), Violation> {
        if !self.options.bounds.is_on || self.net.link(link).run != self.run {
            return Ok(());
        }
        let Some(way) = self.way_of(link) else { return Ok(()) };
        self.see(&Seen::TakenFrom(&way))
    }

    /// When what happens in this turn may have been decided at the earliest.
    fn earliest(&self) -> u64 {
        let on_its_way = if self.is_late_turn { ON_ITS_WAY_MAX } else { 0 };
        self.clock.at.saturating_sub(on_its_way)
    }

    /// Whose mail of this sender is. Of the null sender is mail of clients, and reports of all tenants.
    fn flow_of(&self, sender: &str) -> Option<(String, String)> {
        if sender.is_empty() {
            return None;
        }
        let mail = &self.ledger.mails[self.mail_from(sender)?];
        let flow = mail.labels.flow.as_ref()?;
        Some(((*flow.tenant).to_owned(), (*flow.campaign).to_owned()))
    }

    /// Commands on their way to a host: messages that begin there, some with a reset before them.
    pub(super) fn sees_commands(&mut self, link: LinkId, text: &[u8]) -> Result<(), Violation> {
        const MAIL: &[u8] = b"MAIL FROM:<";
        if !self.options.bounds.is_on {
            return Ok(());
        }
        for line in text.split(|byte| *byte == b'\n') {
            if line == b"RSET\r" {
                self.resets.insert(link, self.earliest());
            }
            let Some(rest) = line.strip_prefix(MAIL) else { continue };
            let end = rest.iter().position(|byte| *byte == b'>').unwrap_or(rest.len());
            let sender = String::from_utf8_lossy(&rest[..end]).into_owned();
            self.begins(link, Of::Messages, Some(sender.as_str()).filter(|name| !name.is_empty()))?;
        }
        Ok(())
    }

    /// The core has read what a host said to a whole message.
    pub(super) fn sees_reply(&mut self, link: LinkId, mark: &Mark) -> Result<(), Violation> {
        let at = self.clock.at;
        let is_settled = self.bounds_since == 0 || at > self.bounds_since + RELOAD_TAKES;
        if mark.reply.is_empty() || !is_settled {
            return Ok(());
        }
        let Some(way) = self.way_of(link) else { return Ok(()) };
        let flow = self.flow_of(&mark.sender);
        let rules = self.options.bounds.rules.clone();
        self.see(&Seen::Answered { way: &way, reply: mark.reply, flow, rules: &rules, at })
    }

    /// What binds changes; shards hear of it with the settings.
    pub(super) fn rebind(&mut self) {
        if !self.options.bounds.is_on {
            return;
        }
        let before = self.options.bounds.clone();
        self.bounds_before.push((self.bounds_since, before));
        self.bounds_since = self.clock.at;
        self.options.bounds.change(&mut self.bounds_chance);
        self.trace.say(self.clock.at, || format!("{:?}", self.options.bounds));
    }

    /// An operator stops some mail for a while.
    pub(super) fn hold(&mut self) -> Result<(), Violation> {
        let at = self.clock.at;
        let chance = &mut self.bounds_chance;
        let tenant: Box<str> = (*chance.pick(&["", "acme", "small", "a b"])).into();
        let source = chance.index(self.options.bounds.sources.len() + 1);
        let scope = match chance.below(3) {
            0 => Scope::Tenant(tenant),
            1 => Scope::Campaign { tenant, campaign: (*chance.pick(&["", "spring"])).into() },
            _ => Scope::Source(source_name(source)),
        };
        let lasts = chance.skewed(SECOND, 10 * MINUTE);
        let Some(engine) = &self.engine else { return Ok(()) };
        let (run, shards) = (engine.run, engine.cores.len());
        self.trace.say(at, || format!("an operator holds {scope:?} for {lasts} ns"));
        let until = Some(Mono(self.clock.now().mono.0 + lasts));
        self.holds.push((scope.clone(), Hold { by: "operator".into(), until }));
        for shard in 0..shards {
            let soon = at + self.bounds_chance.skewed(1, HOLD_TAKES / 2);
            self.agenda.add(soon, Due::Hold { run, shard, hold: self.holds.len() - 1 });
        }
        let lasts = Duration::from_nanos(lasts - HOLD_TAKES);
        self.see(&Seen::Held { scope: &scope, source, lasts, at: at + HOLD_TAKES })
    }

    pub(super) fn hold_arrives(&mut self, run: u32, shard: usize, hold: usize) {
        let from = ShardId(u16::try_from(shard).unwrap_or(0));
        let note = Note::Hold(Box::new(self.holds[hold].clone()));
        self.tell(run, shard, Word::Whole(Event::Noted { from, note }));
    }

    /// The caps that shards share, between two turns.
    pub(super) fn look_at_cells(&mut self, is_at_rest: bool) -> Result<(), Violation> {
        if !self.options.bounds.is_on {
            return Ok(());
        }
        let Some(engine) = &self.engine else { return Ok(()) };
        let cells = engine.cells.all();
        self.checkers.see(&self.ledger, &Seen::Cells { cells: &cells, is_at_rest })
    }

    /// The local address that a connection goes out from.
    pub(super) fn bind_source(&mut self, link: LinkId, from: Option<IpAddr>) {
        self.net.set_from(link, from);
    }
}
