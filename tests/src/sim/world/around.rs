//! What is around the engine: clients and hosts hear, say, come and go.

use super::World;
use super::inside::shown;
use crate::sim::agenda::Due;
use crate::sim::checkers::{Seen, Violation};
use crate::sim::client::{Doing, compose};
use crate::sim::clock::{MINUTE, MS, SECOND};
use crate::sim::host::{Ear, Noticed, Talk, Then};
use crate::sim::ledger::Taking;
use crate::sim::net::{Far, LinkId, Reached, Word};

/// How long a client waits for any word.
const PATIENCE: u64 = 20 * MINUTE;

impl World {
    /// The next piece of what the core sent reaches the far side.
    pub(super) fn down(&mut self, link: LinkId) -> Result<(), Violation> {
        let at = self.clock.at;
        let reached = self.net.down(&mut self.agenda, at, link);
        match (reached, self.net.link(link).far) {
            (Reached::Nothing, _) | (_, Far::Rogue) => Ok(()),
            (Reached::Bytes(bytes), Far::Client(client)) => {
                self.client_hears(client, link, &bytes);
                Ok(())
            }
            (Reached::Bytes(bytes), Far::Host(host)) => self.host_hears(host, link, &bytes),
            (Reached::End, Far::Client(client)) => {
                self.net.far_closes(&mut self.agenda, at, link, false);
                if self.clients[client].link == Some(link) {
                    self.client_ends(client);
                }
                Ok(())
            }
            (Reached::End, Far::Host(_)) => self.host_ends(link, false),
        }
    }

    // Clients.

    /// A client begins a connection, or loses patience with the one it has.
    pub(super) fn client_looks(&mut self, client: usize, epoch: u32) {
        let at = self.clock.at;
        if self.clients[client].epoch != epoch {
            return;
        }
        if let Some(link) = self.clients[client].link {
            self.net.far_closes(&mut self.agenda, at, link, true);
            return self.client_ends(client);
        }
        if self.clients[client].to_send.is_empty() {
            return;
        }
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.stop_by.is_none()) else {
            let again = at + self.workload.skewed(SECOND, MINUTE);
            return self.agenda.add(again, Due::Client { client, epoch });
        };
        let shard = self.workload.index(engine.cores.len());
        if !engine.cores[shard].shard.is_ready() {
            let again = at + self.workload.skewed(10 * MS, SECOND);
            return self.agenda.add(again, Due::Client { client, epoch });
        }
        let link = self.net.dial_in(Far::Client(client), shard, self.run);
        self.trace.say(at, || format!("{link:?} client {client} connects to core {shard}"));
        let faults = self.calm_since.is_none().then_some(&self.options.faults);
        self.clients[client].begin(link, faults, &mut self.workload);
        self.wait_for_client(client);
        self.tell_shard(link, Word::Accept(link));
    }

    fn wait_for_client(&mut self, client: usize) {
        let epoch = self.clients[client].epoch;
        self.agenda.add(self.clock.at + PATIENCE, Due::Client { client, epoch });
    }

    fn client_hears(&mut self, client: usize, link: LinkId, bytes: &[u8]) {
        if self.clients[client].link != Some(link) {
            return;
        }
        let at = self.clock.at;
        let mut doing = Doing::default();
        self.clients[client].hear(bytes, &mut self.ledger, self.run, &mut doing);
        self.trace.note(at, "client", &doing.bytes);
        if !doing.bytes.is_empty() {
            self.trace.say(at, || format!("{link:?} client says {:?}", shown(&doing.bytes)));
            if !self.net.far_sends(&mut self.agenda, at, link, &doing.bytes) {
                doing.leaves = Some(true);
            }
        }
        for (mail, code) in &doing.answered {
            self.trace.say(at, || format!("{link:?} mail {mail} was answered {code}"));
            let bound = self.options.mails * 2;
            if code / 100 == 4 && self.ledger.mails.len() < bound {
                let again = compose(&mut self.ledger, &self.options, &mut self.workload);
                self.give(client, again);
            }
        }
        match doing.leaves {
            Some(is_reset) => {
                self.trace.say(at, || format!("{link:?} client leaves, reset: {is_reset}"));
                self.net.far_closes(&mut self.agenda, at, link, is_reset);
                self.client_ends(client);
            }
            None => self.wait_for_client(client),
        }
    }

    fn client_ends(&mut self, client: usize) {
        self.clients[client].ended();
        if !self.clients[client].to_send.is_empty() {
            let again = self.clock.at + self.workload.skewed(MS, MINUTE);
            let epoch = self.clients[client].epoch;
            self.agenda.add(again, Due::Client { client, epoch });
        }
    }

    // Hosts.

    /// A connection attempt of the core came to its end.
    pub(super) fn connected(&mut self, link: LinkId) -> Result<(), Violation> {
        let mut is_there = false;
        self.with_net(link, |net, _, _, words| is_there = net.connected(link, words))?;
        if !is_there {
            return Ok(());
        }
        let Far::Host(host) = self.net.link(link).far else { return Ok(()) };
        self.talks.insert(link, Talk::default());
        self.with_host(host, link, |host, talk, ear| host.greet(talk, ear))?;
        let Some(way) = self.way_of(link) else { return Ok(()) };
        let limits = self.limits_on(&way);
        self.see(&Seen::Opened { limits: &limits })
    }

    fn host_hears(&mut self, host: usize, link: LinkId, bytes: &[u8]) -> Result<(), Violation> {
        self.with_host(host, link, |host, talk, ear| host.hear(talk, bytes, ear))
    }

    fn with_host(
        &mut self,
        host: usize,
        link: LinkId,
        act: impl FnOnce(&mut crate::sim::host::Host, &mut Talk, &mut Ear<'_>),
    ) -> Result<(), Violation> {
        let is_calm = self.is_calm();
        let Some(talk) = self.talks.get_mut(&link) else { return Ok(()) };
        let mut noticed = Vec::new();
        let mut ear = Ear {
            chance: &mut self.host_chance,
            at: self.clock.at,
            is_calm,
            next_take: &mut self.next_take,
            noticed: &mut noticed,
        };
        act(&mut self.hosts[host], talk, &mut ear);
        self.say_next(link);
        for noticed in noticed {
            self.noticed(link, noticed)?;
        }
        Ok(())
    }

    fn noticed(&mut self, link: LinkId, noticed: Noticed) -> Result<(), Violation> {
        let at = self.clock.at;
        self.trace.say(at, || format!("{link:?} host: {}", brief(&noticed)));
        match noticed {
            Noticed::Tried { recipient } => {
                // What a run that is over sent is no attempt of the present one.
                if self.net.link(link).run != self.run || self.engine.is_none() {
                    return Ok(());
                }
                self.see(&Seen::Tried { address: &recipient, at })
            }
            Noticed::Took { take, sender, recipients, content } => {
                let run = self.net.link(link).run;
                self.trace.note(at, "took", &content);
                let taking = Taking { take, at, run, sender, recipients, content };
                self.taken_from(link)?;
                self.see(&Seen::Taken(&taking))
            }
            Noticed::Refused { whom, words } => {
                self.see(&Seen::Refused { whom: &whom, words: &words })
            }
            Noticed::Nonsense(what) => self.see(&Seen::Nonsense(&what)),
        }
    }

    fn say_next(&mut self, link: LinkId) {
        let Some(talk) = self.talks.get_mut(&link) else { return };
        if talk.is_saying {
            return;
        }
        if let Some(said) = talk.to_say.front() {
            talk.is_saying = true;
            self.agenda.add(self.clock.at + said.after, Due::Say(link));
        }
    }

    /// A host says the next thing.
    pub(super) fn say(&mut self, link: LinkId) -> Result<(), Violation> {
        let at = self.clock.at;
        let Some(talk) = self.talks.get_mut(&link) else { return Ok(()) };
        talk.is_saying = false;
        let Some(mut said) = talk.to_say.pop_front() else { return Ok(()) };
        if !said.bytes.is_empty() {
            talk.said();
            self.trace.say(at, || format!("{link:?} host says {:?}", shown(&said.bytes)));
            if !self.net.far_sends(&mut self.agenda, at, link, &said.bytes) {
                said.then = Then::Reset;
            }
            if let Some(mark) = said.mark {
                let offset = self.net.link(link).said;
                self.marks.entry(link).or_default().push_back((offset, mark));
            }
        }
        match said.then {
            Then::GoOn => {
                self.say_next(link);
                Ok(())
            }
            Then::Close => self.host_ends(link, false),
            Then::Reset => self.host_ends(link, true),
        }
    }

    /// A host no longer counts a connection.
    fn host_ends(&mut self, link: LinkId, is_reset: bool) -> Result<(), Violation> {
        let Some(_) = self.talks.remove(&link) else { return Ok(()) };
        self.trace.say(self.clock.at, || format!("{link:?} host closes, reset: {is_reset}"));
        self.net.far_closes(&mut self.agenda, self.clock.at, link, is_reset);
        let Some(way) = self.way_of(link) else { return Ok(()) };
        if self.net.link(link).run != self.run || self.engine.is_none() {
            return Ok(());
        }
        let limits = self.limits_on(&way);
        self.see(&Seen::Closed { limits: &limits })
    }

    /// The core was told more bytes of a link: what it knows by them.
    pub(super) fn heard(&mut self, link: LinkId) -> Result<(), Violation> {
        let (at, heard) = (self.clock.at, self.net.link(link).heard);
        while let Some(marks) = self.marks.get_mut(&link)
            && marks.front().is_some_and(|(offset, _)| *offset <= heard)
            && let Some((_, mark)) = marks.pop_front()
        {
            self.trace.say(at, || format!("{link:?} core knows {mark:?}"));
            if let Some(take) = mark.take {
                self.see(&Seen::Confirmed { take, quiet: self.quiet.time() })?;
            }
            if !self.options.bounds.hurries() {
                self.see(&Seen::Deferred { addresses: &mark.deferred, at })?;
            }
            self.sees_reply(link, &mark)?;
        }
        Ok(())
    }

    /// A TLS handshake comes to its end.
    pub(super) fn secured(&mut self, link: LinkId) {
        let Far::Host(host) = self.net.link(link).far else { return };
        let breaks = if self.is_calm() { 0 } else { self.hosts[host].manners.breaks_tls };
        let is_good = self.talks.contains_key(&link) && !self.host_chance.permille(breaks);
        let mut words = Vec::new();
        if self.net.secured(link, is_good, &mut words)
            && let Some(talk) = self.talks.get_mut(&link)
        {
            talk.secured();
        }
        for word in words {
            self.tell_shard(link, word);
        }
    }
}

fn brief(noticed: &Noticed) -> String {
    match noticed {
        Noticed::Took { take, sender, recipients, content } => {
            format!("took {take} from <{sender}> for {recipients:?}, {} bytes", content.len())
        }
        other => format!("{other:?}"),
    }
}
